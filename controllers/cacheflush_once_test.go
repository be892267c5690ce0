// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/status"
)

const benchDone = "Complete=True/KeysFlushed Ready=True/KeysFlushed"

func TestEachSliceBeginsWithALiveReadAndTheFirstDeletionComesAfterTheClaim(t *testing.T) {
	b := newBench(t, benchFlush("flush"))
	b.once("flush")
	if got, want := b.noted(), "read write scan unlink write"; got != want {
		t.Errorf("a flush of one slice did %q, want %q", got, want)
	}
	if got := seen(b.flush("flush")); got != benchDone || b.keys() != 0 {
		t.Errorf("the flush is %s, and %d keys are left", got, b.keys())
	}
}

func TestASliceOfAFlushThatRunsAlreadyBeginsWithALiveRead(t *testing.T) {
	b := newBench(t, benchFlush("flush", running1))
	b.once("flush")
	if got, want := b.noted(), "read scan unlink write"; got != want {
		t.Errorf("a further slice did %q, want %q", got, want)
	}
}

// running1 makes a flush look as if its first slice had been saved.
func running1(f *v1alpha1.CacheFlush) {
	f.Status.StartTime = &metav1.Time{Time: time.Date(2026, 11, 22, 9, 59, 59, 0, time.UTC)}
	f.Status.Progress = &v1alpha1.FlushProgress{Percent: 10, Matched: 5, Deleted: 5}
	v := status.Working(v1alpha1.ReasonRunning, "Keys are being deleted")
	v.Update = func() { f.Status.Target = "all" }
	status.Set(f, v, f.Status.StartTime.Time)
}

func TestACacheThatLagsDeletesNothing(t *testing.T) {
	for name, change := range map[string]func(*bench){
		"finished meanwhile": func(b *bench) {
			f := b.flush("flush")
			status.Set(f, complete(f), b.clock.Now())
			if err := b.api.Status().Update(b.t.Context(), f); err != nil {
				b.t.Fatal(err)
			}
		},
		"failed meanwhile": func(b *bench) {
			f := b.flush("flush")
			status.Set(f, fail(v1alpha1.ReasonPermissionDenied, "No"), b.clock.Now())
			if err := b.api.Status().Update(b.t.Context(), f); err != nil {
				b.t.Fatal(err)
			}
		},
		"suspended meanwhile": func(b *bench) {
			b.change(func(f *v1alpha1.CacheFlush) { f.Spec.Suspend = true })
		},
		"being deleted meanwhile": func(b *bench) {
			b.change(func(f *v1alpha1.CacheFlush) { f.Finalizers = []string{"example.com/held"} })
			if err := b.api.Delete(b.t.Context(), b.flush("flush")); err != nil {
				b.t.Fatal(err)
			}
		},
		"deleted meanwhile": func(b *bench) {
			if err := b.api.Delete(b.t.Context(), b.flush("flush")); err != nil {
				b.t.Fatal(err)
			}
		},
		"replaced by another flush of that name": func(b *bench) {
			if err := b.api.Delete(b.t.Context(), b.flush("flush")); err != nil {
				b.t.Fatal(err)
			}
			next := benchFlush("flush", func(f *v1alpha1.CacheFlush) { f.UID, f.Spec.PoolRef.Name = "another", "elsewhere" })
			if err := b.api.Create(b.t.Context(), next); err != nil {
				b.t.Fatal(err)
			}
		},
	} {
		for state, before := range map[string]func(*v1alpha1.CacheFlush){"new": func(*v1alpha1.CacheFlush) {}, "running": running1} {
			t.Run(name+", the cache says "+state, func(t *testing.T) {
				b := newBench(t, benchFlush("flush", before))
				b.stale = b.flush("flush")
				change(b)
				for range 3 {
					b.once("flush")
				}
				if b.keys() != 2 {
					t.Errorf("%d keys are left of 2: %s", b.keys(), b.noted())
				}
			})
		}
	}
}

func TestAConflictAtTheClaimEndsTheSlice(t *testing.T) {
	b := newBench(t, benchFlush("flush"))
	b.beforeWrite = func() {
		b.beforeWrite = nil
		b.change(func(f *v1alpha1.CacheFlush) { f.Labels = map[string]string{"touched": "yes"} })
	}
	if after := b.once("flush").RequeueAfter; after <= 0 || after > time.Second {
		t.Errorf("the next look is in %s", after)
	}
	if b.keys() != 2 {
		t.Errorf("%d keys are left of 2: %s", b.keys(), b.noted())
	}
	b.once("flush")
	if got := seen(b.flush("flush")); got != benchDone || b.keys() != 0 {
		t.Errorf("the flush is then %s, and %d keys are left", got, b.keys())
	}
}

func TestWhatIsDoneInASliceCountsWhenOnlyTheSpecHasChangedMeanwhile(t *testing.T) {
	b := newBench(t, benchFlush("flush"))
	writes := 0
	b.beforeWrite = func() { writes++ }
	// Between the claim and the end.
	b.redis.Server().SetPreHook(onceOn("SCAN", func() {
		b.change(func(f *v1alpha1.CacheFlush) { f.Spec.TTLSecondsAfterFinished = new(int32(100)) })
	}))
	b.once("flush")
	f := b.flush("flush")
	if f.Status.Progress.Deleted != 2 || writes != 3 { // the claim, the end, and the end anew
		t.Errorf("deleted %d of 2 in %d writes", f.Status.Progress.Deleted, writes)
	}
	b.once("flush")
	if f := b.flush("flush"); f.Status.ObservedGeneration != f.Generation || seen(f) != benchDone {
		t.Errorf("the flush is %s at generation %d of %d", seen(f), f.Status.ObservedGeneration, f.Generation)
	}
}

func TestASliceOfAnOperatorThatHasBeenOvertakenSavesNothing(t *testing.T) {
	b := newBench(t, benchFlush("flush"))
	b.redis.Server().SetPreHook(onceOn("SCAN", func() { // the other one is done before us
		f := b.flush("flush")
		f.Status.Progress = &v1alpha1.FlushProgress{Percent: 100, Matched: 7, Deleted: 7}
		status.Set(f, complete(f), b.clock.Now())
		if err := b.api.Status().Update(b.t.Context(), f); err != nil {
			b.t.Error(err)
		}
	}))
	b.once("flush")
	if f := b.flush("flush"); f.Status.Progress.Matched != 7 || seen(f) != benchDone {
		t.Errorf("the flush is %s, with %d keys matched", seen(f), f.Status.Progress.Matched)
	}
	b.set("later")
	b.once("flush")
	if b.keys() != 1 {
		t.Error("a finished flush has deleted a key")
	}
}

func TestAFinishedFlushNeverDeletesAgain(t *testing.T) {
	for name, verdict := range map[string]func(*v1alpha1.CacheFlush) *status.Verdict{
		"complete": complete,
		"failed":   func(*v1alpha1.CacheFlush) *status.Verdict { return fail(v1alpha1.ReasonBackoffLimitExceeded, "No") },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, benchFlush("flush", func(f *v1alpha1.CacheFlush) {
				status.Set(f, verdict(f), time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC))
			}))
			b.once("flush")
			for _, change := range []func(*v1alpha1.CacheFlush){
				func(f *v1alpha1.CacheFlush) { f.Annotations = map[string]string{"cachewright.dev/requestedAt": "now"} },
				func(f *v1alpha1.CacheFlush) { f.Spec.Suspend = true },
				func(f *v1alpha1.CacheFlush) { f.Spec.Suspend = false },
				func(f *v1alpha1.CacheFlush) { f.Spec.TTLSecondsAfterFinished = new(int32(1000)) },
			} {
				b.change(change)
				b.once("flush")
			}
			// A new operator knows no more than the API server does.
			b.cacheFlushReconciler.turns, b.cacheFlushReconciler.runs = turns{}, runs{}
			b.once("flush")
			if b.keys() != 2 {
				t.Errorf("%d keys are left of 2: %s", b.keys(), b.noted())
			}
		})
	}
}

func TestTwoFlushesDoNotClaimTheSameTurnWhileTheCacheLags(t *testing.T) {
	b := newBench(t, benchFlush("a"), benchFlush("b"))
	b.stale = b.flush("a")
	b.stale.Generation = 1
	other := &v1alpha1.CacheFlush{ObjectMeta: metav1.ObjectMeta{Namespace: benchPool.Namespace, Name: "b"}, Spec: v1alpha1.CacheFlushSpec{PoolRef: v1alpha1.PoolReference{Name: benchPool.Name}}}
	if by := b.turns.take(other); by.Name != "b" {
		t.Fatalf("the turn of a new pool is %q's", by)
	}
	b.once("a")
	if b.keys() != 2 {
		t.Error("two flushes of one pool were at work")
	}
	if got, want := seen(b.flush("a")), "Ready=Unknown/Queued Reconciling=True/Queued"; got != want {
		t.Errorf("the flush is %s, want %s", got, want)
	}
	b.turns.end(types.NamespacedName{Namespace: benchPool.Namespace, Name: "b"})
	b.stale = nil
	b.once("a")
	if b.keys() != 0 {
		t.Error("the turn was not passed on")
	}
}
