// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"errors"
	"flag"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

var entries = flag.Int("entries", 10_000, "how many entries the operator keeps")

// workers create entries at the same time, and as many patch them: the operator has 16 for entries.
const workers = 16

// BenchmarkWarmup creates entries, and waits until all are Ready; and does the same writes without an operator.
func BenchmarkWarmup(b *testing.B) {
	r := newReport(b, "warmup")
	for _, n := range []int{*entries / 10, *entries} {
		var floors, ours, ended []float64
		var last [2]*sightings
		for range *repeats {
			for i, measure := range []func(b *bench, n int) *sightings{warmFloor, warmUp} {
				if !b.Run(fmt.Sprintf("%s-%d", [...]string{"floor", "operator"}[i], n), func(b *testing.B) { last[i] = measure(newBench(b), n) }) {
					b.FailNow()
				}
			}
			floors, ours = append(floors, last[0].seconds(n-1)), append(ours, last[1].seconds(n-1))
			ended = append(ended, last[1].writes)
		}
		r.add(fmt.Sprintf("floor-%d", n), count(n)+" entries, from the first creation until all are Ready: operator / floor", "", new(1.3), ratios(ours, floors)...)
		r.add(fmt.Sprintf("operator-%d-s", n), count(n)+" entries: operator", "s", nil, ours...)
		r.add(fmt.Sprintf("floor-%d-s", n), count(n)+" entries: floor", "s", nil, floors...)
		r.add(fmt.Sprintf("writes-%d", n), count(n)+" entries: writes to the API server for each", "", nil, ended...)
		if n == *entries {
			r.plot(plotData{
				Name: "warmup", Title: fmt.Sprintf("%s entries are Ready after %.3g s; the writes alone take %.3g s", count(n), last[1].seconds(n-1), last[0].seconds(n-1)),
				X: axis{Label: "seconds since the first creation"}, Y: axis{Label: "entries that are Ready"},
				Series: []line{{Name: "cachewright", Points: last[1].curve()}, {Name: "floor: the same writes, no operator", Dashed: true, Points: last[0].curve()}},
			})
		}
	}
	r.end()
}

// warmUp is from the first creation until a watch has shown all entries Ready.
func warmUp(b *bench, n int) *sightings {
	b.Helper()
	b.createPool(b.server.Addr)
	b.startOperator()
	b.awaitPool()
	seen, writes := b.watchReady(n), b.writes()
	profiled := b.operator.profile(fmt.Sprintf("warmup-%d", n), max(3, n/500))
	b.must(parallel(n, func(i int) error { return b.client.Create(b.Context(), b.entry(i)) }))
	seen.await()
	seen.writes = float64(b.writes()-writes) / float64(n)
	profiled()
	b.operator.heap(fmt.Sprintf("warm-%d", n))
	b.stopOperator()
	return seen
}

// warmFloor does what no operator can do without: for each entry its creation, the patch of its finalizer, since that must
// be there before the key is, and the patch of its status.
func warmFloor(b *bench, n int) *sightings {
	b.Helper()
	created, patched := make(chan *v1alpha1.CacheEntry, n), make(chan error, 1)
	seen := b.watchReady(n)
	go func() {
		patched <- parallel(n, func(int) error { return b.patch(<-created) })
	}()
	b.must(parallel(n, func(i int) error {
		e := b.entry(i)
		err := b.client.Create(b.Context(), e)
		created <- e
		return err
	}))
	b.must(<-patched)
	seen.await()
	return seen
}

// practice has the API server and its watches do once what will be measured: those that have just started are slow.
func (b *bench) practice() {
	b.Helper()
	const n = 100
	warmFloor(b, n)
	b.must(parallel(n, func(i int) error {
		e := b.entry(i)
		none := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
		return errors.Join(b.client.Patch(b.Context(), e, none), b.client.Delete(b.Context(), e))
	}))
}

// patch what the operator patches, in the same way.
func (b *bench) patch(e *v1alpha1.CacheEntry) error {
	lock := client.MergeFromWithOptimisticLock{}
	before := e.DeepCopy()
	controllerutil.AddFinalizer(e, "cachewright.dev/keys")
	metav1.SetMetaDataAnnotation(&e.ObjectMeta, "cachewright.dev/written", fmt.Sprintf(`[{"pool":{"namespace":%q,"name":%q,"uid":%q},"key":%q}]`, namespace, poolName, e.UID, e.Spec.Key))
	if err := b.client.Patch(b.Context(), e, client.MergeFromWithOptions(before, lock)); err != nil {
		return err
	}
	before = e.DeepCopy()
	now := metav1.Now()
	e.Status = v1alpha1.CacheEntryStatus{
		ObservedGeneration: e.Generation, Pool: namespace + "/" + poolName, Key: prefix + e.Spec.Key, LastWriteTime: &now,
		WrittenDigest: "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		Conditions: []metav1.Condition{{
			Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonWarm, Message: "The key has its value",
			ObservedGeneration: e.Generation, LastTransitionTime: now,
		}},
	}
	return b.client.Status().Patch(b.Context(), e, client.MergeFromWithOptions(before, lock))
}

// awaitPool until it is Ready.
func (b *bench) awaitPool() {
	b.Helper()
	pool := &v1alpha1.CachePool{}
	for deadline := time.Now().Add(patience); !isReady(pool.Status.Conditions); pause(b.Context(), 10*time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatalf("the pool is not ready: %v", pool.Status.Conditions)
		}
		b.must(b.client.Get(b.Context(), client.ObjectKey{Namespace: namespace, Name: poolName}, pool))
	}
}
