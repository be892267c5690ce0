// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"context"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// peaks of the operator's memory, in MiB.
type peaks struct{ before, after float64 }

// startFlusher starts an operator, and waits until it serves the pool.
func (w *flushBench) startFlusher() {
	w.Helper()
	w.startOperator()
	w.run(v1alpha1.CacheFlushSpec{Keys: []string{"nothing"}})
}

// byObject is what users do: they create a CacheFlush, and watch it until it is complete.
func (w *flushBench) byObject() (time.Duration, int64) {
	w.Helper()
	before := w.memory("VmHWM")
	took, deleted := w.run(v1alpha1.CacheFlushSpec{All: new(true)})
	w.memories = append(w.memories, peaks{before: before, after: w.memory("VmHWM")})
	return took, deleted
}

// run a flush, from its creation until the watch shows its end.
func (w *flushBench) run(spec v1alpha1.CacheFlushSpec) (took time.Duration, deleted int64) {
	w.Helper()
	spec.PoolRef.Name = "main"
	flush := &v1alpha1.CacheFlush{ObjectMeta: metav1.ObjectMeta{GenerateName: "flush-", Namespace: w.namespace}, Spec: spec}
	events, err := w.client.Watch(w.Context(), &v1alpha1.CacheFlushList{}, client.InNamespace(w.namespace))
	w.must(err)
	defer events.Stop()
	began := time.Now()
	w.must(w.client.Create(w.Context(), flush))
	ctx, cancel := context.WithTimeout(w.Context(), 20*patience)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			w.Fatal("the flush does not end")
		case event := <-events.ResultChan():
			seen, ok := event.Object.(*v1alpha1.CacheFlush)
			if !ok {
				w.Fatalf("the watch has ended: %v", event.Object)
			}
			if seen.UID != flush.UID {
				continue
			}
			if apimeta.IsStatusConditionTrue(seen.Status.Conditions, v1alpha1.ConditionFailed) {
				w.Fatalf("the flush has failed: %v", seen.Status.Conditions)
			}
			if apimeta.IsStatusConditionTrue(seen.Status.Conditions, v1alpha1.ConditionComplete) {
				return time.Since(began), seen.Status.Progress.Deleted
			}
		}
	}
}

// flatness compares the operator's memory under many keys with that under a tenth of them: it should depend on neither.
func (w *flushBench) flatness() {
	w.Helper()
	row := func(memories []peaks) (before, after float64) {
		befores, afters := make([]float64, len(memories)), make([]float64, len(memories))
		for i, m := range memories {
			befores[i], afters[i] = m.before, m.after
		}
		return median(befores), median(afters)
	}
	say("\nmost memory that the operator had, in MiB\n")
	before, most := row(w.memories)
	say("%9d keys: %.1f before, %.1f after\n", w.keys, before, most)

	w.memories = nil
	w.fill(w.keys / 10)
	way := &way{name: object, flush: w.byObject, before: w.startFlusher, after: w.stopOperator}
	for range *repeats {
		w.measure(way)
	}
	before, least := row(w.memories)
	say("%9d keys: %.1f before, %.1f after\n\n", w.keys, before, least)
	w.report("rss-peak-MiB", most)
	w.report("rss-peak/tenth", most/least)
}
