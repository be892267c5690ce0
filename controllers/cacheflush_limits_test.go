// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/status"
)

const (
	benchQueued  = "Ready=Unknown/Queued Reconciling=True/Queued"
	benchTooLong = "Failed=True/DeadlineExceeded Ready=False/DeadlineExceeded Stalled=True/DeadlineExceeded"
	benchTooMany = "Failed=True/BackoffLimitExceeded Ready=False/BackoffLimitExceeded Stalled=True/BackoffLimitExceeded"
)

func TestTheLowerLimitCounts(t *testing.T) {
	for name, c := range map[string]struct {
		flush *int64
		pool  *v1alpha1.FlushLimits
		want  cache.ScanOptions
	}{
		"none":                    {},
		"the flush's":             {new(int64(5)), nil, cache.ScanOptions{MaxKeysPerSecond: 5}},
		"the pool's":              {nil, &v1alpha1.FlushLimits{MaxKeysPerSecond: new(int64(5))}, cache.ScanOptions{MaxKeysPerSecond: 5}},
		"the flush's is lower":    {new(int64(4)), &v1alpha1.FlushLimits{MaxKeysPerSecond: new(int64(5))}, cache.ScanOptions{MaxKeysPerSecond: 4}},
		"the pool's is lower":     {new(int64(6)), &v1alpha1.FlushLimits{MaxKeysPerSecond: new(int64(5))}, cache.ScanOptions{MaxKeysPerSecond: 5}},
		"the pool has others":     {new(int64(6)), &v1alpha1.FlushLimits{ProtectedPrefixes: []string{"a"}}, cache.ScanOptions{MaxKeysPerSecond: 6}},
		"the pool has its budget": {nil, &v1alpha1.FlushLimits{LatencyBudget: &metav1.Duration{Duration: time.Second}}, cache.ScanOptions{LatencyBudget: time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			f := benchFlush("flush", func(f *v1alpha1.CacheFlush) { f.Spec.MaxKeysPerSecond = c.flush })
			pool := &livePool{CachePool: &v1alpha1.CachePool{Spec: v1alpha1.CachePoolSpec{FlushLimits: c.pool}}}
			if diff := cmp.Diff(c.want, limits(f, pool)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestASliceIsLongEnoughToDeleteSomething(t *testing.T) {
	scan := func(*v1alpha1.CacheFlush) {}
	start, later := cache.Checkpoint{}, cache.Checkpoint{Nodes: []cache.NodeCheckpoint{{ServerID: "run id", Cursor: 1}}}
	keys := func(f *v1alpha1.CacheFlush) { f.Spec.All, f.Spec.Keys = nil, []string{"a"} }
	for name, c := range map[string]struct {
		flush func(*v1alpha1.CacheFlush)
		from  cache.Checkpoint
		limit int64
		want  time.Duration
	}{
		"the first":                 {scan, start, 0, 100 * time.Millisecond},
		"the first, 1 a second":     {scan, start, 1, 2 * time.Second},
		"the first, 10 a second":    {scan, start, 10, 200 * time.Millisecond},
		"the first, 1000 a second":  {scan, start, 1000, 100 * time.Millisecond},
		"the first, with any limit": {scan, start, math.MaxInt64, 100 * time.Millisecond},
		"a later one":               {scan, later, 0, time.Second},
		"a later one, 1 a second":   {scan, later, 1, 2 * time.Second},
		"a later one, 3 a second":   {scan, later, 3, time.Second},
		"named keys":                {keys, start, 0, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			if got := length(benchFlush("flush", c.flush), cache.ScanOptions{MaxKeysPerSecond: c.limit}, c.from); got != c.want {
				t.Errorf("it lasts %s, want %s", got, c.want)
			}
		})
	}
}

func TestBackoffLimitsOfNoneAndOne(t *testing.T) {
	for limit := range int32(2) {
		b := newBench(t, benchFlush("flush", func(f *v1alpha1.CacheFlush) { f.Spec.BackoffLimit = &limit }))
		b.redis.Server().SetPreHook(refuse("SCAN", "ERR something"))
		for range limit {
			b.clock.Step(b.once("flush").RequeueAfter)
			if f := b.flush("flush"); finished(f) {
				t.Fatalf("limit %d: the flush is %s after %d failures", limit, seen(f), f.Status.Failures)
			}
		}
		b.once("flush")
		if f := b.flush("flush"); seen(f) != benchTooMany || f.Status.Failures != limit+1 {
			t.Errorf("limit %d: the flush is %s after %d failures", limit, seen(f), f.Status.Failures)
		}
	}
}

// benchRun makes a flush one with a runID.
func benchRun(id string) func(*v1alpha1.CacheFlush) {
	return func(f *v1alpha1.CacheFlush) { f.Spec.RunID = id }
}

func benchDeadline(seconds int64) func(*v1alpha1.CacheFlush) {
	return func(f *v1alpha1.CacheFlush) { f.Spec.ActiveDeadlineSeconds = &seconds }
}

func TestARunIsRecordedThenStartedThenDeletes(t *testing.T) {
	for name, before := range map[string]func(*v1alpha1.CacheFlush){
		"new":     func(*v1alpha1.CacheFlush) {},
		"running": running1,
		"complete": func(f *v1alpha1.CacheFlush) {
			running1(f)
			status.Set(f, complete(f), time.Now())
		},
		"failed": func(f *v1alpha1.CacheFlush) {
			running1(f)
			status.Set(f, fail(v1alpha1.ReasonPermissionDenied, "No"), time.Now())
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, benchFlush("flush", before, benchRun("v1"), benchDeadline(10)))
			if after := b.once("flush").RequeueAfter; after != time.Millisecond || b.noted() != "write" {
				t.Errorf("the next look is in %s", after)
			}
			f := b.flush("flush")
			if seen(f) != benchQueued || f.Status.RunID != "v1" || f.Status.StartTime != nil || f.Status.Progress != nil {
				t.Errorf("the flush is %s: %+v", seen(f), f.Status)
			}
			b.once("flush")
			if got, want := b.noted(), "read write scan unlink write"; got != want {
				t.Errorf("the run did %q, want %q", got, want)
			}
			if f := b.flush("flush"); seen(f) != benchDone || !f.Status.StartTime.Time.Equal(b.clock.Now()) || f.Status.Progress.Deleted != 2 {
				t.Errorf("the flush is %s: %+v", seen(f), f.Status)
			}
			b.set("later")
			b.cacheFlushReconciler.turns, b.cacheFlushReconciler.runs = turns{}, runs{} // a new operator
			b.once("flush")
			if b.keys() != 1 || b.noted() != "" {
				t.Error("it ran twice")
			}
		})
	}
}

func TestARunIsRecordedInOneWriteOrNotAtAll(t *testing.T) {
	b := newBench(t, benchFlush("flush", running1, benchRun("v1")))
	b.beforeWrite = func() {
		b.beforeWrite = nil
		b.change(benchRun("v2"))
	}
	b.once("flush")
	if f := b.flush("flush"); f.Status.RunID != "" || f.Status.StartTime == nil {
		t.Errorf("a run that nobody wants any more is recorded: %+v", f.Status)
	}
	b.once("flush")
	if f := b.flush("flush"); f.Status.RunID != "v2" || f.Status.StartTime != nil {
		t.Errorf("the new run is not recorded: %+v", f.Status)
	}
}

// The end of a run must not be taken for that of the one that was asked for meanwhile.
func TestARunThatIsReplacedInItsLastSliceIsNotSaidToBeComplete(t *testing.T) {
	b := newBench(t, benchFlush("flush", running1, benchRun("v1"), func(f *v1alpha1.CacheFlush) { f.Status.RunID = "v1" }))
	b.redis.Server().SetPreHook(onceOn("SCAN", func() { b.change(benchRun("v2")) }))
	b.once("flush")
	if f := b.flush("flush"); finished(f) {
		t.Errorf("the flush is %s, of generation %d of %d", seen(f), f.Status.ObservedGeneration, f.Generation)
	}
	b.set("later")
	b.once("flush")
	b.once("flush")
	if f := b.flush("flush"); seen(f) != benchDone || f.Status.RunID != "v2" || f.Status.Progress.Deleted != 1 || b.keys() != 0 {
		t.Errorf("the flush is %s: %+v", seen(f), f.Status)
	}
}

// A cache that lags knows neither the target nor the pool of the run.
func TestACacheThatLagsARunBehindDeletesNothing(t *testing.T) {
	b := newBench(t, benchFlush("flush", running1, benchRun("v1"), func(f *v1alpha1.CacheFlush) { f.Status.RunID = "v1" }))
	b.stale = b.flush("flush")
	b.change(func(f *v1alpha1.CacheFlush) { f.Spec.RunID, f.Spec.PoolRef.Name = "v2", "elsewhere" })
	b.once("flush")
	f := b.flush("flush")
	f.Status = v1alpha1.CacheFlushStatus{RunID: "v2"}
	if err := b.api.Status().Update(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	b.once("flush")
	if b.keys() != 2 {
		t.Errorf("%d keys are left of 2: %s", b.keys(), b.noted())
	}
}

func TestADeadlinePassesWhateverTheFlushWaitsFor(t *testing.T) {
	for name, c := range map[string]struct {
		hinder func(*bench)
		first  string
		after  time.Duration
	}{
		"its pool": {func(b *bench) {
			if err := b.api.Delete(b.t.Context(), &v1alpha1.CachePool{ObjectMeta: metav1.ObjectMeta{Namespace: benchPool.Namespace, Name: benchPool.Name}}); err != nil {
				b.t.Fatal(err)
			}
		}, "Ready=False/PoolNotFound Reconciling=True/PoolNotFound", 5 * time.Second},
		"its next attempt": {
			func(b *bench) { b.redis.Server().SetPreHook(refuse("SCAN", "ERR something")) },
			"Ready=False/FlushFailed Reconciling=True/ProgressingWithRetry", 5 * time.Second,
		},
		"its turn": {func(b *bench) {
			if err := b.api.Create(b.t.Context(), benchFlush("a", running1)); err != nil {
				b.t.Fatal(err)
			}
		}, benchQueued, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			// It started a second before now.
			b := newBench(t, benchFlush("flush", running1, benchDeadline(6), func(f *v1alpha1.CacheFlush) {
				status.Set(f, status.Waiting(v1alpha1.ReasonFlushFailed, "No"), time.Now())
			}))
			c.hinder(b)
			if after := b.once("flush").RequeueAfter; after != c.after || seen(b.flush("flush")) != c.first {
				t.Fatalf("the flush is %s, and the next look in %s", seen(b.flush("flush")), after)
			}
			b.clock.Step(c.after - time.Millisecond)
			b.once("flush")
			if finished(b.flush("flush")) {
				t.Fatal("it failed too early")
			}
			b.clock.Step(time.Millisecond)
			b.once("flush")
			f := b.flush("flush")
			if seen(f) != benchTooLong || f.Status.CompletionTime == nil || f.Status.Progress == nil {
				t.Errorf("the flush is %s: %+v", seen(f), f.Status)
			}
		})
	}
}

func TestADeadlineThatPassesInASliceEndsIt(t *testing.T) {
	b := newBench(t, benchFlush("flush", benchDeadline(6), func(f *v1alpha1.CacheFlush) { f.Spec.MaxKeysPerSecond = new(int64(1)) }))
	b.redis.Server().SetPreHook(onceOn("SCAN", func() { b.clock.Step(6 * time.Second) }))
	b.once("flush")
	if f := b.flush("flush"); seen(f) != benchTooLong || f.Status.CompletionTime == nil || b.keys() != 2 {
		t.Errorf("the flush is %s, and %d keys are left", seen(f), b.keys())
	}
}

func TestAFlushThatIsDoneWhenItsDeadlinePassesIsComplete(t *testing.T) {
	b := newBench(t, benchFlush("flush", benchDeadline(6)))
	b.redis.Server().SetPreHook(onceOn("UNLINK", func() { b.clock.Step(time.Minute) }))
	b.once("flush")
	if f := b.flush("flush"); seen(f) != benchDone {
		t.Errorf("the flush is %s", seen(f))
	}
}

func TestTheLongestDeadlineNeverPasses(t *testing.T) {
	for _, seconds := range []int64{math.MaxInt64, math.MaxInt64 / int64(time.Second), math.MaxInt64/int64(time.Second) + 1} {
		b := newBench(t, benchFlush("flush", running1, benchDeadline(seconds)))
		b.once("flush")
		if f := b.flush("flush"); seen(f) != benchDone {
			t.Errorf("%d seconds: the flush is %s", seconds, seen(f))
		}
	}
}

func TestADeadlineCountsNeitherInTheQueueNorInASuspension(t *testing.T) {
	t.Run("queue", func(t *testing.T) {
		b := newBench(t, benchFlush("a", running1), benchFlush("flush", benchDeadline(6)))
		for range 3 {
			b.once("flush")
			b.clock.Step(time.Hour)
		}
		if f := b.flush("flush"); seen(f) != benchQueued || f.Status.StartTime != nil {
			t.Errorf("the flush is %s: %+v", seen(f), f.Status)
		}
		b.once("a")
		b.once("flush")
		if f := b.flush("flush"); seen(f) != benchDone {
			t.Errorf("the flush is %s", seen(f))
		}
	})
	pool := func(b *bench, suspend bool) {
		p := &v1alpha1.CachePool{}
		if err := b.api.Get(b.t.Context(), benchPool, p); err != nil {
			b.t.Fatal(err)
		}
		p.Spec.Suspend = suspend
		if err := b.api.Update(b.t.Context(), p); err != nil {
			b.t.Fatal(err)
		}
	}
	flush := func(b *bench, suspend bool) {
		b.change(func(f *v1alpha1.CacheFlush) { f.Spec.Suspend = suspend })
	}
	for name, suspend := range map[string]func(*bench, bool){"suspended": flush, "suspended with its pool": pool} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, benchFlush("flush", running1, benchDeadline(6)))
			suspend(b, true)
			for range 3 {
				if after := b.once("flush").RequeueAfter; after != 0 {
					t.Errorf("the next look is in %s", after)
				}
				b.clock.Step(time.Hour)
			}
			if f := b.flush("flush"); f.Status.StartTime != nil || f.Status.Progress.Deleted != 5 {
				t.Errorf("the flush is %s: %+v", seen(f), f.Status)
			}
			suspend(b, false)
			b.once("flush")
			if f := b.flush("flush"); seen(f) != benchDone || !f.Status.StartTime.Time.Equal(b.clock.Now()) || f.Status.Progress.Deleted != 7 {
				t.Errorf("the flush is %s: %+v", seen(f), f.Status)
			}
		})
	}
}

// A finalizer of others may keep it.
func TestAFlushThatIsBeingDeletedIsNotLookedAtForItsDeadline(t *testing.T) {
	b := newBench(t, benchFlush("flush", running1, benchDeadline(1), func(f *v1alpha1.CacheFlush) { f.Finalizers = []string{"example.com/held"} }))
	if err := b.api.Delete(t.Context(), b.flush("flush")); err != nil {
		t.Fatal(err)
	}
	if after := b.once("flush").RequeueAfter; after != 0 || b.keys() != 2 {
		t.Errorf("the next look is in %s, and %d keys are left of 2", after, b.keys())
	}
}
