// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/claims"
	"github.com/cachewright/cachewright/internal/keeper"
	"github.com/cachewright/cachewright/internal/plan"
	"github.com/cachewright/cachewright/internal/status"
)

// benchClaim of the key a in the pool of a bench.
func benchClaim(change ...func(*claims.Claim)) claims.Claim {
	c := claims.Claim{Place: claims.Place{Pool: benchPool, Key: "a"}, Entry: types.NamespacedName{Namespace: benchPool.Namespace, Name: "e"}, UID: "uid of e", Generation: 1}
	for _, change := range change {
		change(&c)
	}
	return c
}

// benchRewrite is a flush that rewrites declared keys.
func benchRewrite(f *v1alpha1.CacheFlush) { f.Spec.DeclaredEntries = v1alpha1.DeclaredRewrite }

// keeping the key a, as its entry does once it was looked at.
func (b *bench) keeping(c claims.Claim) {
	b.t.Helper()
	live, ok := b.registry.Get(benchPool)
	if !ok {
		b.t.Fatal("the pool does not live")
	}
	d := keeper.Declaration{Key: c.Key, Value: "v", Digest: "v", Policy: plan.Enforce, Generation: c.Generation}
	if outcome, done := b.registry.Keep(b.t.Context(), benchPool, c.Entry, d, nil); !done || outcome.Err != nil {
		b.t.Fatalf("%v, %v; the gate is %d", outcome, done, live.Gate)
	}
}

func (b *bench) sieved(change ...func(*v1alpha1.CacheFlush)) *sieve {
	b.t.Helper()
	pool := &livePool{CachePool: &v1alpha1.CachePool{ObjectMeta: metav1.ObjectMeta{Namespace: benchPool.Namespace, Name: benchPool.Name}}, name: benchPool}
	return b.sieve(b.t.Context(), benchFlush("flush", change...), pool, []neighbor{{pool: pool.CachePool, name: benchPool, prefix: pool.EffectiveKeyPrefix()}})
}

const fullA, fullB = "glimr:cache:main:a", "glimr:cache:main:b"

// A page may wait for its turn after it was found, and entries come and change meanwhile.
func TestWhatIsDeclaredWhileItWaitsStays(t *testing.T) {
	b := newBench(t)
	s := b.sieved()
	if s.keeps(fullA) || s.keeps(fullB) {
		t.Fatal("nobody declares a key")
	}
	if diff := cmp.Diff([]string{fullA, fullB}, s.release([]string{fullA, fullB})); diff != "" {
		t.Fatal(diff)
	}
	b.claims.Set(benchClaim())
	if diff := cmp.Diff([]string{fullB}, s.release([]string{fullA, fullB})); diff != "" {
		t.Errorf("released (-want +got):\n%s", diff)
	}
}

// What was declared too late to stay is written at once, as if it had been lost.
func TestWhatIsDeclaredWhileItGoesComesBack(t *testing.T) {
	b := newBench(t)
	s := b.sieved()
	s.keeps(fullA)
	s.release([]string{fullA})
	b.claims.Set(benchClaim())
	b.keeping(benchClaim())
	b.redis.Del(fullA)
	s.deleted([]string{fullA})
	s.finish()
	b.eventually(func() bool { return b.redis.Exists(fullA) }, "the key is back")
}

func TestAnEntryThatCannotWriteAnyMoreKeepsItsKeyFromARewrite(t *testing.T) {
	for name, change := range map[string]func(*bench){
		"suspended": func(b *bench) { b.registry.Drop(benchClaim().Entry) },
		"changed":   func(b *bench) { b.claims.Set(benchClaim(func(c *claims.Claim) { c.Generation++ })) },
		"observed": func(b *bench) {
			b.claims.Set(benchClaim(func(c *claims.Claim) { c.Entry.Name, c.UID, c.Observes = "observer", "another", true }))
		},
		"gone": func(b *bench) { b.registry.Close(benchPool) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.claims.Set(benchClaim())
			b.keeping(benchClaim())
			s := b.sieved(benchRewrite)
			if s.keeps(fullA) {
				t.Fatal("it could be written again")
			}
			change(b)
			if diff := cmp.Diff([]string{fullB}, s.release([]string{fullA, fullB})); diff != "" {
				t.Errorf("released (-want +got):\n%s", diff)
			}
		})
	}
}

// An operator that has just started does not know yet which entries can write.
func TestARewriteWaitsUntilEveryEntryWasLookedAt(t *testing.T) {
	for name, proceed := range map[string]func(*bench){
		"looked at":     func(b *bench) { b.claims.Decide(benchClaim().Entry, benchClaim().UID) },
		"waited enough": func(b *bench) { b.clock.Step(startupPatience) },
		"gone":          func(b *bench) { b.claims.Delete(benchClaim().Entry, "") },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, benchFlush("flush", benchRewrite))
			b.claims.Set(benchClaim())
			b.once("flush")
			b.once("flush")
			if f := b.flush("flush"); finished(f) || b.keys() != 2 {
				t.Fatalf("it did not wait: %s, %d keys", seen(f), b.keys())
			}
			proceed(b)
			b.once("flush")
			if f := b.flush("flush"); seen(f) != benchDone {
				t.Errorf("the flush is %s", seen(f))
			}
		})
	}
	t.Run("not when it preserves", func(t *testing.T) {
		b := newBench(t, benchFlush("flush"))
		b.claims.Set(benchClaim())
		b.once("flush")
		if f := b.flush("flush"); seen(f) != benchDone || f.Status.Progress.Preserved != 1 {
			t.Errorf("the flush is %s: %+v", seen(f), f.Status.Progress)
		}
	})
}

// A pool at another address may turn out to be on the same server: what it declares must not go.
func TestAFlushWaitsUntilEveryPoolOfItsServerIsKnown(t *testing.T) {
	another := &v1alpha1.CachePool{
		ObjectMeta: metav1.ObjectMeta{Namespace: benchPool.Namespace, Name: "alias", UID: "alias"},
		Spec:       v1alpha1.CachePoolSpec{Addresses: []string{"elsewhere:6379"}},
		Status:     v1alpha1.CachePoolStatus{Server: &v1alpha1.ServerStatus{}},
	}
	for name, c := range map[string]struct {
		change func(*v1alpha1.CachePool)
		waits  bool
	}{
		"not tried yet":    {func(*v1alpha1.CachePool) {}, true},
		"suspended":        {func(p *v1alpha1.CachePool) { p.Spec.Suspend = true }, false},
		"another database": {func(p *v1alpha1.CachePool) { p.Spec.Database = new(int32(1)) }, false},
		"never connected":  {func(p *v1alpha1.CachePool) { p.Status.Server = nil }, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := another.DeepCopy()
			c.change(p)
			b := newBench(t, benchFlush("flush"), p)
			b.once("flush")
			if got := finished(b.flush("flush")); got == c.waits {
				t.Errorf("finished: %v", got)
			}
			b.registry.Attempted(types.NamespacedName{Namespace: benchPool.Namespace, Name: "alias"})
			b.once("flush")
			if f := b.flush("flush"); seen(f) != benchDone {
				t.Errorf("the flush is %s", seen(f))
			}
		})
	}
}

// Of a scan that began anew, only what was deleted before still counts: the rest is counted again.
func TestACountThatBeginsAnewDoesNotAddUp(t *testing.T) {
	before := func(f *v1alpha1.CacheFlush) {
		f.Status.Progress = &v1alpha1.FlushProgress{Percent: 50, Matched: 10, Deleted: 6, Preserved: 4}
		f.Status.Sample = []string{"old"}
	}
	result := cache.ScanResult{Matched: 3, Deleted: 1, Preserved: 2, Restarted: true}
	f := benchFlush("flush", before)
	account(f, result)
	if diff := cmp.Diff(v1alpha1.FlushProgress{Matched: 13, Deleted: 7, Preserved: 2}, *f.Status.Progress); diff != "" {
		t.Errorf("deleting (-want +got):\n%s", diff)
	}
	f = benchFlush("flush", before, func(f *v1alpha1.CacheFlush) { f.Spec.Mode = v1alpha1.FlushDryRun })
	result.Deleted, result.Sample = 0, []string{"new"}
	account(f, result)
	if diff := cmp.Diff(v1alpha1.FlushProgress{Matched: 3, Deleted: 6, Preserved: 2}, *f.Status.Progress); diff != "" {
		t.Errorf("counting (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"new"}, f.Status.Sample); diff != "" {
		t.Errorf("sample (-want +got):\n%s", diff)
	}
}

// Once the keys are counted, the status says that deletion may have begun: a count after a crash would find other keys.
func TestKeysAreNotCountedAgainByTheNextOperator(t *testing.T) {
	b := newBench(t, benchFlush("flush", func(f *v1alpha1.CacheFlush) { f.Spec.MaxKeys = new(int64(2)) }))
	b.once("flush")
	f := b.flush("flush")
	if len(f.Status.Checkpoints) != 1 || f.Status.Checkpoints[0].Cursor != "0" || f.Status.Checkpoints[0].Done || b.keys() != 2 {
		t.Fatalf("%+v, %d keys", f.Status, b.keys())
	}
	b.cacheFlushReconciler.turns, b.cacheFlushReconciler.runs = turns{}, runs{} // a new operator
	b.set("c")
	b.once("flush")
	if f := b.flush("flush"); seen(f) != benchDone || f.Status.Progress.Deleted != 3 {
		t.Errorf("the flush is %s: %+v", seen(f), f.Status.Progress)
	}
}

// What an operator remembers of runs goes with them, and pools are told of each once.
func TestAFinishedRunIsForgottenAndTold(t *testing.T) {
	b := newBench(t, benchFlush("flush"), benchFlush("dry", func(f *v1alpha1.CacheFlush) { f.Spec.Mode = v1alpha1.FlushDryRun }))
	for range 3 {
		b.once("flush")
		b.once("dry")
	}
	if n := len(b.runs.byName); n != 0 {
		t.Errorf("%d runs are remembered", n)
	}
	want := []v1alpha1.RecentFlush{{Name: "flush", Namespace: benchPool.Namespace, Target: "all", Result: "Complete", Deleted: 2, CompletionTime: metav1.NewTime(b.clock.Now())}}
	if diff := cmp.Diff(want, b.ended); diff != "" {
		t.Errorf("pools were told (-want +got):\n%s", diff)
	}
}

// One flush for each release, with a name of its own, must not cost memory for ever.
func TestAFlushThatIsNoMoreIsForgotten(t *testing.T) {
	b := newBench(t, benchFlush("flush"))
	for range 3 {
		b.once("flush")
	}
	if err := b.api.Delete(t.Context(), b.flush("flush")); err != nil {
		t.Fatal(err)
	}
	b.once("flush")
	if n := len(b.unseen.written); n != 0 {
		t.Errorf("%d writes are remembered", n)
	}
}

// The last ten are listed in one order, whichever they come in, each once.
func TestTheLatestRunsAreInOneOrder(t *testing.T) {
	var runs, reversed []v1alpha1.RecentFlush
	for i := range 24 {
		runs = append(runs, v1alpha1.RecentFlush{Name: fmt.Sprintf("f%02d", i/2), RunID: strconv.Itoa(i % 2), CompletionTime: metav1.NewTime(time.Date(2026, 11, 22, 10, 0, i/12, 0, time.UTC))})
	}
	for i := range runs {
		reversed = append(reversed, runs[len(runs)-1-i])
	}
	first := latest(append(append([]v1alpha1.RecentFlush(nil), runs...), runs...))
	if len(first) != maxRecent || first[0].Name != "f06" || first[0].RunID != "0" {
		t.Errorf("%+v", first)
	}
	if diff := cmp.Diff(first, latest(reversed)); diff != "" {
		t.Errorf("another order (-first +second):\n%s", diff)
	}
}

// A new generation of a flush that backs off is seen.
func TestANewGenerationOfAFlushThatBacksOffIsObserved(t *testing.T) {
	b := newBench(t, benchFlush("flush", func(f *v1alpha1.CacheFlush) {
		status.Set(f, status.Waiting(v1alpha1.ReasonFlushFailed, "It failed"), time.Date(2026, 11, 22, 9, 59, 59, 0, time.UTC))
	}))
	b.runs.of(b.flush("flush")).hold(b.flush("flush"), b.clock.Now().Add(time.Minute))
	b.change(func(f *v1alpha1.CacheFlush) { f.Spec.MaxKeysPerSecond = new(int64(1)) })
	b.once("flush")
	if f := b.flush("flush"); f.Status.ObservedGeneration != f.Generation || b.keys() != 2 {
		t.Errorf("generation %d of %d is observed, %d keys are left", f.Status.ObservedGeneration, f.Generation, b.keys())
	}
}
