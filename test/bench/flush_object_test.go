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
	w.flushWith(v1alpha1.CacheFlushSpec{Keys: []string{"nothing"}})
}

// byObject is what users do: they create a CacheFlush, and watch it until it is complete.
func (w *flushBench) byObject() (time.Duration, int64) {
	w.Helper()
	before := w.operator.memory("VmHWM")
	took, deleted := w.flushWith(v1alpha1.CacheFlushSpec{All: new(true)})
	w.memories = append(w.memories, peaks{before: before, after: w.operator.memory("VmHWM")})
	return took, deleted
}

// flushWith a CacheFlush, from its creation until the watch shows its end.
func (w *flushBench) flushWith(spec v1alpha1.CacheFlushSpec) (took time.Duration, deleted int64) {
	w.Helper()
	spec.PoolRef.Name = poolName
	flush := &v1alpha1.CacheFlush{ObjectMeta: metav1.ObjectMeta{GenerateName: "flush-", Namespace: namespace}, Spec: spec}
	events, err := w.client.Watch(w.Context(), &v1alpha1.CacheFlushList{}, client.InNamespace(namespace))
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
