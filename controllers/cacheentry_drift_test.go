// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// What others do to a key is undone by the next sweep, and nothing is written to the API server for it.
func TestASweepMendsWhatOthersDid(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	ctx := t.Context()
	for name, test := range map[string]struct {
		change func(*v1alpha1.CacheEntry)
		drift  func(key string) error
		ttl    time.Duration
	}{
		"missing":             {valued("v"), func(k string) error { return w.redis.Del(ctx, k).Err() }, -1},
		"missing-living":      {living(time.Hour), func(k string) error { return w.redis.Del(ctx, k).Err() }, time.Hour},
		"changed":             {valued("v"), func(k string) error { return w.redis.Set(ctx, k, "w", 0).Err() }, -1},
		"same-length":         {living(time.Hour), func(k string) error { return w.redis.SetRange(ctx, k, 0, "V").Err() }, time.Hour},
		"appended":            {valued(""), func(k string) error { return w.redis.Append(ctx, k, "x").Err() }, -1},
		"life-too-long":       {living(time.Hour), func(k string) error { return w.redis.Expire(ctx, k, 2*time.Hour).Err() }, time.Hour},
		"life-missing":        {living(time.Hour), func(k string) error { return w.redis.Persist(ctx, k).Err() }, time.Hour},
		"life-unwanted":       {valued("v"), func(k string) error { return w.redis.Expire(ctx, k, time.Hour).Err() }, -1},
		"life-nearly-over":    {living(time.Hour), func(k string) error { return w.redis.Expire(ctx, k, time.Minute).Err() }, time.Hour},
		"renamed":             {valued("v"), func(k string) error { return w.redis.Rename(ctx, k, "elsewhere").Err() }, -1},
		"value-and-life-gone": {living(time.Hour), func(k string) error { return w.redis.Set(ctx, k, "w", 0).Err() }, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := w.sub(t)
			e := w.entry(name, test.change)
			w.create(e)
			w.becomes(e, isWarm)
			was, value := e.DeepCopy(), w.redis.Get(t.Context(), e.Status.Key).Val()
			w.Expect(test.drift(e.Status.Key)).To(Succeed())
			w.Eventually(func(g Gomega) {
				g.Expect(w.redis.Get(t.Context(), e.Status.Key).Val()).To(Equal(value))
				g.Expect(w.redis.PTTL(t.Context(), e.Status.Key).Val()).To(BeNumerically("~", test.ttl, time.Minute))
			}, patience).Should(Succeed())
			w.reload(e)
			w.Expect(cmp.Diff(was, e)).To(BeEmpty(), "a repair writes nothing to the API server")
		})
	}
}

// In the steady state nothing is written to the API server nor to Redis, however many sweeps pass.
func TestASteadyEntryCostsNothing(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready()
	w.configMap(map[string]string{"k": "v"})
	forever, living, sourced := w.entry("forever"), w.entry("living", living(time.Hour)), w.entry("sourced", fromConfigMap("source", "k"))
	for _, e := range []*v1alpha1.CacheEntry{forever, living, sourced} {
		w.create(e)
		w.becomes(e, isWarm)
	}
	var lives []time.Duration
	w.reload(p)
	pool, gets := p.ResourceVersion, w.calls("pttl")
	seen := w.follow()
	w.Eventually(seen).Should(HaveLen(3))
	w.Consistently(func(g Gomega) {
		lives = append(lives, w.redis.PTTL(t.Context(), living.Status.Key).Val())
		g.Expect(seen()).To(HaveLen(3), "as they were")
	}, sweeps, time.Second).Should(Succeed())
	for i := range lives[1:] {
		w.Expect(lives[i+1]).To(BeNumerically("<", lives[i]), "a live TTL is not reset without need")
	}
	w.Expect(w.calls("pttl")).To(BeNumerically(">=", gets+2*3), "the sweeps did look")
	w.reload(p)
	w.Expect(p.ResourceVersion).To(Equal(pool))
}

// No reader misses a key that is renewed in time.
func TestAKeyIsRenewedBeforeItRunsOut(t *testing.T) {
	t.Parallel()
	for _, isReal := range []bool{true, false} {
		t.Run(fmt.Sprintf("real server %v", isReal), func(t *testing.T) {
			var w *world
			t.Parallel()
			if isReal {
				w = worldAt(t, redistest.Start(t).Addr)
			} else {
				m := redistest.Miniredis(t)
				m.ClockTTL(true)
				w = worldAt(t, m.Addr())
			}
			w.ready(unwatched)
			e := w.entry("short", living(2*time.Second))
			w.create(e)
			w.becomes(e, isWarm)
			version := e.ResourceVersion
			w.Consistently(func(g Gomega) {
				g.Expect(w.redis.Get(t.Context(), mainPrefix+"short").Result()).To(Equal("value of short"))
				g.Expect(w.redis.PTTL(t.Context(), mainPrefix+"short").Val()).To(And(BeNumerically(">", 0), BeNumerically("<=", 2*time.Second)))
			}, 10*time.Second, time.Millisecond).Should(Succeed())
			w.reload(e)
			w.Expect(e.ResourceVersion).To(Equal(version), "a renewal writes nothing to the API server")
			if isReal {
				w.Expect(w.calls("set")).To(BeNumerically("<=", 15), "it is renewed in the last third of its life, not all the time")
			}
		})
	}
}

func TestEverythingIsBackAfterFLUSHALL(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	w.many(100)
	seen := w.follow()
	w.Eventually(seen).Should(HaveLen(100))
	w.Expect(w.redis.FlushAll(t.Context()).Err()).To(Succeed())
	w.Eventually(func() int { return w.count(mainPrefix) }).Should(Equal(100))
	w.Expect(seen()).To(HaveLen(100), "as they were")
}

// many warm entries, e0, e1, …
func (w *world) many(n int) {
	w.t.Helper()
	var all []*v1alpha1.CacheEntry
	for i := range n {
		e := w.entry(fmt.Sprintf("e%d", i))
		w.create(e)
		all = append(all, e)
	}
	for _, e := range all {
		w.becomes(e, isWarm)
	}
}

func TestEverythingIsBackAfterARestartOfTheServer(t *testing.T) {
	w, s := newRealWorld(t)
	w.ready()
	w.many(100)
	seen := w.follow()
	w.Eventually(seen).Should(HaveLen(100))
	s.Restart()
	w.Eventually(func() int { return w.count(mainPrefix) }).Should(Equal(100))
	w.Consistently(seen, 2*time.Second).Should(HaveLen(100), "as they were")
}

// The pool is found broken by a renewal, long before its next sweep, and all keys are looked at when it is back.
func TestKeysAreBackAfterAnOutageThatARenewalFoundOut(t *testing.T) {
	w, s := newRealWorld(t)
	p := w.ready(unwatched)
	forever, short := w.entry("forever"), w.entry("short", living(2*time.Second))
	w.create(forever)
	w.create(short)
	w.becomes(forever, isWarm)
	w.becomes(short, isWarm)
	s.Stop()
	w.becomes(p, waits("ConnectionFailed"))
	w.stays(forever, isWarm, probes/2)
	s.Restart()
	w.becomes(p, connected)
	w.holds(mainPrefix+"forever", "value of forever")
	w.holds(mainPrefix+"short", "value of short")
	w.stays(short, isWarm, time.Second)
}

// A deadline timer finds out what has happened meanwhile.
func TestARenewalDoesNotDependOnTheSweep(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(unwatched)
	e := w.entry("short", living(time.Second))
	w.create(e)
	w.becomes(e, isWarm)
	w.Expect(w.redis.Del(t.Context(), e.Status.Key).Err()).To(Succeed())
	w.holds(e.Status.Key, "value of short") // at the deadline that was known
}
