// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// The contest ends after a minute in which nobody touches the key: see internal/keeper, whose tests have a clock of
// their own.

func TestASecondChangeWithinAMinuteIsAContest(t *testing.T) {
	w, _ := newRealWorld(t)
	w.detects(w.ready(seldom), v1alpha1.DetectionTracking)
	e := w.came(isWarm, "e")
	w.unset(e.Status.Key)
	w.holds(e.Status.Key, "value of e")
	w.stays(e, isWarm, time.Second) // the first repair is no contest

	w.set(e.Status.Key, "foreign")
	w.becomes(e, waits("Contested"))
	w.says(e, "Something else keeps changing or removing the key: another client, or an eviction for want of memory; it is put right ever more seldom")
	w.Expect(kstatusOf(t, e)).To(Equal("InProgress"))
	w.tells(e, "Warning Contested: "+message(e))
	w.holds(e.Status.Key, "value of e")
	w.stays(e, waits("Contested"), 2*time.Second) // that it is right for a moment does not end it
	w.rests(e, time.Second)

	// What its owner wants is done at once.
	update(w, e, valued("new"))
	w.holds(e.Status.Key, "new")
}

// Whoever keeps deleting a key finds it put right ever more seldom. The status is written once.
func TestRepairsOfAContestedKeyAreSpacedOut(t *testing.T) {
	w, _ := newRealWorld(t)
	w.detects(w.ready(seldom), v1alpha1.DetectionTracking)
	w.writings() // has the server tell of them
	repairs := w.writings()
	e := w.came(isWarm, "e")
	quiet := w.came(isWarm, "quiet")
	seen := w.follow()
	w.Consistently(func() int {
		w.unset(e.Status.Key)
		return len(repairs())
	}, 10*time.Second, 20*time.Millisecond).Should(BeNumerically("<=", 2+1+4), "written at first, once at once, and after 1, 2, 4 seconds")
	w.Expect(len(repairs())).To(BeNumerically(">=", 4))
	w.reload(e)
	w.Expect(summary(e)).To(Equal(waits("Contested")))
	changed := 0
	for _, s := range seen() {
		if s.Name == e.Name {
			changed++
		}
	}
	w.Expect(changed).To(BeNumerically("<=", 2), "as it was, and contested")

	// Other keys do not suffer.
	w.unset(quiet.Status.Key)
	w.holds(quiet.Status.Key, "value of quiet")
	w.stays(quiet, isWarm, time.Second)
}

// What we do ourselves, and what takes all keys alike, is no second writer.
func TestNoSecondWriter(t *testing.T) {
	t.Parallel()
	for name, happen := range map[string]func(w *world, s *redistest.Server, p *v1alpha1.CachePool, e *v1alpha1.CacheEntry){
		"FLUSHALL": func(w *world, _ *redistest.Server, _ *v1alpha1.CachePool, _ *v1alpha1.CacheEntry) {
			w.Expect(w.redis.FlushAll(w.t.Context()).Err()).To(Succeed())
		},
		"a restart": func(w *world, s *redistest.Server, p *v1alpha1.CachePool, _ *v1alpha1.CacheEntry) {
			s.Restart()
			w.look(p)
		},
		"our own flush": func(w *world, _ *redistest.Server, _ *v1alpha1.CachePool, _ *v1alpha1.CacheEntry) {
			f := w.flush("", all)
			f.Name, f.GenerateName = "", "flush-"
			w.create(f)
			w.becomes(f, flushed)
		},
		"a new value": func(w *world, _ *redistest.Server, _ *v1alpha1.CachePool, e *v1alpha1.CacheEntry) {
			update(w, e, valued(e.ResourceVersion))
			w.becomes(e, isWarm)
		},
		"a request to look": func(w *world, _ *redistest.Server, _ *v1alpha1.CachePool, e *v1alpha1.CacheEntry) { w.look(e) },
		"expiry, renewals": func(w *world, _ *redistest.Server, _ *v1alpha1.CachePool, _ *v1alpha1.CacheEntry) {
			first := w.redis.Incr(w.t.Context(), "waits").Val()
			w.Eventually(func() int64 { return w.redis.Incr(w.t.Context(), "waits").Val() }, patience, time.Second).Should(BeNumerically(">", first+3))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, s := newRealWorld(t)
			p := w.ready(seldom)
			w.detects(p, v1alpha1.DetectionTracking)
			forever, living1, ensured := w.came(isWarm, "forever"), w.came(isWarm, "living", living(2*time.Second)), w.came(isWarm, "ensured", ensuring, living(2*time.Second))
			all := []*v1alpha1.CacheEntry{forever, living1, ensured}
			seen := w.follow()
			for range 4 {
				happen(w, s, p, forever)
				w.Eventually(func() int { return w.count(mainPrefix) }).Should(Equal(3))
				w.becomes(p, connected)
				w.detects(p, v1alpha1.DetectionTracking)
			}
			for _, e := range all {
				w.becomes(e, isWarm)
			}
			w.Consistently(func() string {
				for _, e := range seen() {
					if strings.Contains(summary(e), "Contested") {
						return e.Name
					}
				}
				return ""
			}, time.Second).Should(BeEmpty(), "contested")
		})
	}
}

// memory that a real server uses.
func (w *world) memory() int {
	w.t.Helper()
	n, err := strconv.Atoi(w.redis.InfoMap(w.t.Context(), "memory").Item("Memory", "used_memory"))
	w.Expect(err).NotTo(HaveOccurred())
	return n
}

// contested entries of the test's namespace.
func (w *world) contested(entries []*v1alpha1.CacheEntry) int {
	w.t.Helper()
	n := 0
	for _, e := range entries {
		w.reload(e)
		if strings.Contains(summary(e), "Contested") {
			n++
		}
	}
	return n
}

// A Redis that is too small for what is declared throws one key out for each that is written. That must not go round
// and round.
func TestAServerTooSmallForWhatIsDeclaredIsNotChased(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready(seldom)
	w.detects(p, v1alpha1.DetectionTracking)
	const keys = 60
	var entries []*v1alpha1.CacheEntry
	for i := range keys {
		e := w.entry(fmt.Sprintf("e%d", i), valued(strings.Repeat(string(rune('a'+i%26)), 20_000)))
		w.create(e)
		entries = append(entries, e)
	}
	for _, e := range entries {
		w.becomes(e, isWarm)
	}
	w.Expect(w.redis.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err()).To(Succeed())
	w.Expect(w.redis.ConfigSet(t.Context(), "maxmemory", strconv.Itoa(w.memory()-keys/3*20_000)).Err()).To(Succeed())
	w.Eventually(func() int { return w.contested(entries) }).Should(BeNumerically(">=", 10))
	w.Eventually(func() int {
		before := w.calls("set")
		w.Consistently(func() int { return 0 }, time.Second).Should(BeZero()) // a second goes by
		return w.calls("set") - before
	}).Should(BeNumerically("<=", keys/2), "it becomes less")

	writes, reads := w.calls("set"), w.calls("getrange")
	w.Consistently(func(g Gomega) {
		g.Expect(w.calls("set") - writes).To(BeNumerically("<=", 3*keys))
		g.Expect(w.calls("getrange")-reads).To(BeNumerically("<=", 30*keys), "a few for each write, not thousands")
	}, 6*time.Second, time.Second).Should(Succeed(), "no hot loop")
	w.becomes(p, connected)

	// With enough memory all of them are there again.
	w.Expect(w.redis.ConfigSet(t.Context(), "maxmemory", "0").Err()).To(Succeed())
	w.Eventually(func() int { return w.count(mainPrefix) }, 2*patience).Should(Equal(keys))
}
