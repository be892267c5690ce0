// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"fmt"
	"math"
	"strconv"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

const (
	isApplied = "Ready=True/Applied"
	// markersOfCounters is where the operator notes which run a counter has seen.
	markersOfCounters = "cachewright:counter:*"
)

// counting makes an entry a counter.
func counting(increment int64, runID string) func(*v1alpha1.CacheEntry) {
	return func(e *v1alpha1.CacheEntry) {
		e.Spec.Value, e.Spec.Counter = nil, &v1alpha1.CounterSpec{Increment: increment, RunID: runID}
	}
}

// lastRun is what a counter's status tells of it.
func lastRun(e *v1alpha1.CacheEntry) string {
	if e.Status.Counter == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s: %d", e.Status.Counter.RunID, e.Status.Counter.Value)
}

// counts waits until a counter has been incremented for a run.
func (w *world) counts(e *v1alpha1.CacheEntry, want string) {
	w.t.Helper()
	reads(w, e, func(g Gomega, e *v1alpha1.CacheEntry) {
		g.Expect(summary(e)).To(Equal(isApplied))
		g.Expect(lastRun(e)).To(Equal(want))
	})
}

// setStatus of an entry behind the operator's back.
func (w *world) setStatus(e *v1alpha1.CacheEntry, change func(*v1alpha1.CacheEntry)) {
	w.t.Helper()
	w.Eventually(func() error {
		w.reload(e)
		change(e)
		return k8s.Status().Update(w.t.Context(), e)
	}).Should(Succeed())
}

func forgetCount(e *v1alpha1.CacheEntry) { e.Status.Counter = nil }

func TestACounterIsIncrementedOnceForEachNewRunID(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready()
	w.set(mainPrefix+"c", "42")
	e := w.entry("c", counting(5, "release-42"))
	w.create(e)
	w.counts(e, "release-42: 47")
	w.says(e, `The counter was incremented for run "release-42"`)
	w.holds(mainPrefix+"c", "47")
	w.Expect(e.Status.LastWriteTime).NotTo(BeNil())
	w.Expect(e.Status.Key).To(Equal(mainPrefix + "c"))
	w.Expect(e.Status.Pool).To(Equal(w.namespace + "/main"))
	w.Expect(e.Status.WrittenDigest).To(BeEmpty())

	w.look(p)
	w.look(e)
	w.stays(e, isApplied, sweeps)
	w.holds(mainPrefix+"c", "47")
	w.Expect(w.calls("incrby")).To(Equal(1))

	update(w, e, counting(5, "release-43"))
	w.counts(e, "release-43: 52")
	w.Expect(w.calls("incrby")).To(Equal(2))
	w.holds(mainPrefix+"c", "52")
}

// New means different from the last one in the status, not never seen before.
func TestAnOlderRunIDThatReturnsCountsAgain(t *testing.T) {
	w := newWorld(t)
	w.ready()
	e := w.entry("c", counting(1, "a"))
	w.create(e)
	for i, run := range []string{"a", "b", "a", "c", "b", "a"} {
		update(w, e, counting(1, run))
		w.counts(e, fmt.Sprintf("%s: %d", run, i+1))
	}
	w.holds(mainPrefix+"c", "6")
}

func TestNothingButANewRunIDMakesACounterCount(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	e := w.entry("c", counting(5, "r"))
	w.create(e)
	w.counts(e, "r: 5")
	then := e.Status.LastWriteTime
	for _, change := range []func(*v1alpha1.CacheEntry){
		counting(7, "r"), counting(-7, "r"), living(time.Hour), living(time.Minute),
		func(e *v1alpha1.CacheEntry) { e.Spec.TTL, e.Spec.Forever = nil, new(true) },
		deleting, retained, suspendEntry, resumeEntry,
		func(e *v1alpha1.CacheEntry) { e.Labels = map[string]string{"touched": "yes"} },
	} {
		update(w, e, change)
		if e.Spec.Suspend {
			w.becomes(e, isSuspended)
			continue
		}
		w.counts(e, "r: 5")
	}
	w.look(e)
	w.stays(e, isApplied, time.Second)
	w.Expect(w.redis.Get(t.Context(), mainPrefix+"c").Val()).To(Equal("5"))
	w.Expect(w.redis.PTTL(t.Context(), mainPrefix+"c").Val()).To(BeEquivalentTo(-1))
	w.Expect(w.calls("incrby")).To(Equal(1))
	w.Expect(e.Status.LastWriteTime).To(Equal(then))

	update(w, e, counting(-7, "s"))
	w.counts(e, "s: -2")
}

func TestACounterIsExactToTheLastOf64Bits(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	for name, test := range map[string]struct {
		from      string
		increment int64
		want      int64
	}{
		"beyond-2-to-53":     {"9007199254740993", 2, 9007199254740995},
		"below-minus-2-53":   {"-9007199254740993", -2, -9007199254740995},
		"the-most":           {"9223372036854775806", 1, math.MaxInt64},
		"the-least":          {"-9223372036854775807", -1, math.MinInt64},
		"the-most-at-once":   {"", math.MaxInt64, math.MaxInt64},
		"the-least-at-once":  {"", math.MinInt64, math.MinInt64},
		"a-large-increment":  {"1", 9007199254740993, 9007199254740994},
		"negative":           {"10", -25, -15},
		"back-to-zero":       {"5", -5, 0},
		"from-most-to-least": {"9223372036854775807", math.MinInt64, -1},
	} {
		if test.from != "" {
			w.set(mainPrefix+name, test.from)
		}
		e := w.entry(name, counting(test.increment, "r"))
		w.create(e)
		w.counts(e, fmt.Sprintf("r: %d", test.want))
		w.holds(mainPrefix+name, strconv.FormatInt(test.want, 10))
	}
}

// Whatever becomes of the key, a counter stays Applied, and is not looked at any more.
func TestACounterIsNeverRepaired(t *testing.T) {
	w, s := newRealWorld(t)
	p := w.ready()
	for name, harm := range map[string]func(key string) error{
		"deleted":      func(k string) error { return w.redis.Del(t.Context(), k).Err() },
		"overwritten":  func(k string) error { return w.redis.Set(t.Context(), k, "text", 0).Err() },
		"counted-on":   func(k string) error { return w.redis.IncrBy(t.Context(), k, 100).Err() },
		"another-type": func(k string) error { w.redis.Del(t.Context(), k); return w.redis.LPush(t.Context(), k, "x").Err() },
		"living":       func(k string) error { return w.redis.Expire(t.Context(), k, time.Hour).Err() },
	} {
		e := w.entry(name, counting(5, "r"))
		w.create(e)
		w.counts(e, "r: 5")
		w.Expect(harm(e.Status.Key)).To(Succeed())
	}
	harmed := w.entry("deleted")
	w.look(p)
	w.look(harmed)
	w.stays(harmed, isApplied, sweeps)
	w.lacks(mainPrefix + "deleted")
	w.holds(mainPrefix+"overwritten", "text")
	w.holds(mainPrefix+"counted-on", "105")
	w.Expect(w.redis.PTTL(t.Context(), mainPrefix+"living").Val()).To(BeNumerically(">", 0))
	w.Expect(w.calls("incrby")).To(Equal(6), "ours, and the one of the other client")
	update(w, harmed, counting(3, "s"))
	w.counts(harmed, "s: 3")

	// A server that has lost everything has lost the marker too: the status knows.
	s.Restart()
	w.look(p)
	w.becomes(p, connected)
	update(w, harmed, suspendEntry)
	w.becomes(harmed, isSuspended)
	update(w, harmed, resumeEntry)
	w.counts(harmed, "s: 3")
	w.stays(harmed, isApplied, sweeps/2)
	w.Expect(w.keys("*")).To(BeEmpty())
}

func TestTheTTLOfACounterIsSetOnlyWhenTheIncrementCreatesTheKey(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	life := func(e *v1alpha1.CacheEntry) time.Duration { return w.redis.PTTL(t.Context(), mainPrefix+e.Name).Val() }
	fresh, forever := w.entry("fresh", counting(1, "a"), living(time.Hour)), w.entry("forever", counting(1, "a"))
	w.set(mainPrefix+"there", "1")
	there := w.entry("there", counting(1, "a"), living(time.Hour))
	w.Expect(w.redis.Set(t.Context(), mainPrefix+"living", "1", time.Hour).Err()).To(Succeed())
	alive := w.entry("living", counting(1, "a"))
	for _, e := range []*v1alpha1.CacheEntry{fresh, forever, there, alive} {
		w.create(e)
		w.becomes(e, isApplied)
	}
	w.Expect(life(fresh)).To(BeNumerically("~", time.Hour, time.Minute))
	w.Expect(life(forever)).To(BeEquivalentTo(-1))
	w.Expect(life(there)).To(BeEquivalentTo(-1), "the key was there")
	w.Expect(life(alive)).To(BeNumerically("~", time.Hour, time.Minute), "the key was there")

	w.Expect(w.redis.Expire(t.Context(), mainPrefix+"fresh", 10*time.Minute).Err()).To(Succeed())
	update(w, fresh, counting(1, "b"))
	w.counts(fresh, "b: 2")
	w.Expect(life(fresh)).To(BeNumerically("~", 10*time.Minute, time.Minute), "never later")

	w.Expect(w.redis.Del(t.Context(), mainPrefix+"fresh").Err()).To(Succeed())
	update(w, fresh, counting(1, "c"))
	w.counts(fresh, "c: 1")
	w.Expect(life(fresh)).To(BeNumerically("~", time.Hour, time.Minute), "created again")
}

// A counter that runs out is not counted again: the run is done.
func TestACounterThatRunsOutIsGone(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	e := w.entry("c", counting(5, "r"), living(2*time.Second))
	w.create(e)
	w.counts(e, "r: 5")
	w.lacks(mainPrefix + "c")
	w.stays(e, isApplied, sweeps/2)
	w.lacks(mainPrefix + "c")
	w.Expect(w.keys(markersOfCounters)).To(HaveLen(1))
}

func TestTheMarkerLivesAsLongAsItsEntry(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*v1alpha1.CacheEntry)
		stays  bool
	}{
		"default": {func(*v1alpha1.CacheEntry) {}, true},
		"Retain":  {retained, true},
		"Delete":  {deleting, false},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			p := w.ready()
			e := w.entry("c", counting(5, "r"), living(time.Hour), test.change)
			w.create(e)
			w.counts(e, "r: 5")
			w.Expect(e.Finalizers).To(ConsistOf(keysFinalizer))
			w.Expect(e.Annotations).To(HaveKeyWithValue(writtenAnnotation, recordAt(p, "c")))
			markers := w.keys(markersOfCounters)
			w.Expect(markers).To(ConsistOf(HaveSuffix(string(e.UID))))
			w.Expect(w.redis.PTTL(t.Context(), markers[0]).Val()).To(BeEquivalentTo(-1))

			w.delete(e)
			w.vanishes(e)
			w.Expect(w.keys(markersOfCounters)).To(BeEmpty())
			w.Expect(w.has(mainPrefix + "c")).To(Equal(test.stays))
			w.Expect(w.events(e)).To(BeEmpty())

			// Created anew, it is another counter, whose run is new.
			again := w.entry("c", counting(5, "r"), test.change)
			w.create(again)
			if test.stays {
				w.counts(again, "r: 10")
			} else {
				w.counts(again, "r: 5")
			}
		})
	}
}

// Under Delete the key goes whatever others have made of it, but not if it holds no number nor text at all.
func TestDeletingACounterDeletesItsKeyWhateverItHolds(t *testing.T) {
	w := newWorld(t)
	w.ready()
	for name, value := range map[string]string{"counted-on": "1000", "text": "text"} {
		e := w.entry(name, counting(5, "r"), deleting)
		w.create(e)
		w.becomes(e, isApplied)
		w.set(mainPrefix+name, value)
		w.delete(e)
		w.vanishes(e)
	}
	list := w.entry("list", counting(5, "r"), deleting)
	w.create(list)
	w.becomes(list, isApplied)
	w.redis.Del(t.Context(), mainPrefix+"list")
	w.Expect(w.redis.LPush(t.Context(), mainPrefix+"list", "x").Err()).To(Succeed())
	w.delete(list)
	w.vanishes(list)
	w.Expect(w.keys("*")).To(ConsistOf(mainPrefix + "list"))
}

func TestACounterOnAKeyThatCannotBeIncrementedStallsUntilItIsMended(t *testing.T) {
	t.Parallel()
	const overflow = "9223372036854775807"
	for name, test := range map[string]struct {
		there        string
		list         bool
		reason, says string
	}{
		"text":           {there: "hunter2", reason: "NotAnInteger", says: "The key does not hold an integer"},
		"fraction":       {there: "1.5", reason: "NotAnInteger", says: "The key does not hold an integer"},
		"white-space":    {there: " 1", reason: "NotAnInteger", says: "The key does not hold an integer"},
		"over-64-bits":   {there: overflow + "0", reason: "NotAnInteger", says: "The key does not hold an integer"},
		"overflow":       {there: overflow, reason: "Overflow", says: "The sum does not fit into 64 bits"},
		"another-type":   {list: true, reason: "WrongType", says: "The key holds another type than a string"},
		"look-requested": {there: "text", reason: "NotAnInteger", says: "The key does not hold an integer"},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			if name == "look-requested" {
				w.ready(unwatched)
			} else {
				w.ready()
			}
			if test.list {
				w.Expect(w.redis.LPush(t.Context(), mainPrefix+"c", "x").Err()).To(Succeed())
			} else {
				w.set(mainPrefix+"c", test.there)
			}
			e := w.entry("c", counting(5, "r"))
			w.create(e)
			w.becomes(e, stalls(test.reason))
			w.says(e, test.says)
			w.Expect(e.Status.Counter).To(BeNil())
			w.rests(e, time.Second)
			w.discreet(e, "hunter2")
			w.Expect(w.keys(markersOfCounters)).To(BeEmpty(), "all or nothing")
			if !test.list {
				w.holds(mainPrefix+"c", test.there)
			}

			w.redis.Del(t.Context(), mainPrefix+"c")
			w.set(mainPrefix+"c", "10")
			if name == "look-requested" {
				w.stays(e, stalls(test.reason), time.Second)
				w.look(e)
			}
			w.counts(e, "r: 15")
			w.holds(mainPrefix+"c", "15")
		})
	}
}

// A run that cannot be done is replaced by one that can.
func TestANewRunIDReplacesOneThatCouldNotBeApplied(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(unwatched)
	w.set(mainPrefix+"c", strconv.Itoa(math.MaxInt64))
	e := w.entry("c", counting(1, "up"))
	w.create(e)
	w.becomes(e, stalls("Overflow"))
	update(w, e, counting(-1, "up")) // another increment mends it too: this run has not been counted yet
	w.counts(e, fmt.Sprintf("up: %d", math.MaxInt64-1))
	update(w, e, counting(10, "far-up"))
	w.becomes(e, stalls("Overflow"))
	w.Expect(lastRun(e)).To(Equal(fmt.Sprintf("up: %d", math.MaxInt64-1)), "the last one that was done")
	update(w, e, counting(-5, "down"))
	w.counts(e, fmt.Sprintf("down: %d", math.MaxInt64-6))
}

func TestAFlushOverEverythingKeepsCounters(t *testing.T) {
	w := newWorld(t)
	w.ready()
	e := w.entry("c", counting(5, "r"))
	w.create(e)
	w.counts(e, "r: 5")
	for name, target := range map[string]func(*v1alpha1.CacheFlush){
		"all": all, "prefix": prefixed("c"), "match": matching("*"), "keys": named("c", "other"),
	} {
		w.set(mainPrefix+"other", "v")
		w.run(name, target)
		w.Expect(w.redis.Get(t.Context(), mainPrefix+"c").Val()).To(Equal("5"), name)
		w.Expect(w.keys(markersOfCounters)).To(HaveLen(1), name)
	}
	update(w, e, counting(5, "s"))
	w.counts(e, "s: 10")
}

func TestASuspendedCounterIsNotApplied(t *testing.T) {
	w := newWorld(t)
	w.ready()
	e := w.entry("c", counting(5, "a"), suspendEntry)
	w.create(e)
	w.becomes(e, isSuspended)
	w.Expect(e.Finalizers).To(BeEmpty())
	w.Expect(w.keys("*")).To(BeEmpty())
	update(w, e, counting(5, "b"))
	w.becomes(e, isSuspended)
	w.look(e)
	w.stays(e, isSuspended, time.Second)
	w.Expect(w.keys("*")).To(BeEmpty())
	update(w, e, resumeEntry)
	w.counts(e, "b: 5")

	update(w, e, suspendEntry)
	w.becomes(e, isSuspended)
	w.Expect(lastRun(e)).To(Equal("b: 5"))
	update(w, e, counting(5, "c"))
	w.becomes(e, isSuspended)
	w.Expect(lastRun(e)).To(Equal("b: 5"))
	w.holds(mainPrefix+"c", "5")
	update(w, e, resumeEntry)
	w.counts(e, "c: 10")
}

func TestACounterOfASuspendedPoolIsNotApplied(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	e := w.entry("c", counting(5, "a"))
	w.create(e)
	w.counts(e, "a: 5")
	update(w, p, suspendPool)
	w.becomes(e, isApplied+" "+poolSuspended)
	update(w, e, counting(5, "b"))
	w.becomes(e, "Ready=Unknown/Suspended "+poolSuspended)
	w.stores(mainPrefix+"c", "5", time.Second)
	update(w, p, resumePool)
	w.counts(e, "b: 10")
}

func TestDeletingASuspendedCounterLeavesEverythingAndSaysSo(t *testing.T) {
	w := newWorld(t)
	w.ready()
	e := w.entry("c", counting(5, "r"), deleting)
	w.create(e)
	w.counts(e, "r: 5")
	update(w, e, suspendEntry)
	w.becomes(e, isSuspended)
	w.delete(e)
	w.vanishes(e)
	w.holds(mainPrefix+"c", "5")
	w.Expect(w.keys(markersOfCounters)).To(HaveLen(1))
	w.tells(e, `Warning Released: Key "glimr:cache:main:c" stays in Redis, since the entry is suspended`)
}

func TestOfACounterAndAnotherEntryForOneKeyTheOlderHoldsIt(t *testing.T) {
	t.Parallel()
	value := func(*v1alpha1.CacheEntry) {}
	for name, test := range map[string]struct {
		older, younger func(*v1alpha1.CacheEntry)
		first, passed  string
		is, becomes    string
	}{
		"a counter and a value": {counting(5, "r"), value, "5", "value of b", isApplied, isWarm},
		"a value and a counter": {valued("10"), counting(5, "r"), "10", "15", isWarm, isApplied},
		"two counters":          {counting(5, "r"), counting(7, "r"), "5", "12", isApplied, isApplied},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			w.ready()
			older, younger := w.entry("a", keyed("k"), deleting, test.older), w.entry("b", keyed("k"), test.younger)
			w.create(older)
			w.becomes(older, test.is)
			w.create(younger)
			w.becomes(younger, stalls("KeyConflict"))
			w.says(younger, `CacheEntry "a" is older and declares the same key`)
			w.Expect(younger.Finalizers).To(BeEmpty())
			w.stores(mainPrefix+"k", test.first, time.Second)
			w.Expect(summary(older)).To(Equal(test.is))

			gone := w.deletions()
			w.delete(older)
			w.vanishes(older)
			w.becomes(younger, test.becomes)
			w.holds(mainPrefix+"k", test.passed)
			w.Expect(gone()).NotTo(ContainElement(mainPrefix+"k"), "the key passes on without ever being deleted")
			if test.becomes == isApplied {
				w.Expect(w.keys(markersOfCounters)).To(ConsistOf(HaveSuffix(string(younger.UID))))
			} else {
				w.Expect(w.keys(markersOfCounters)).To(BeEmpty())
			}
		})
	}
}

// The write of the status was lost, and the operator knows nothing any more: the marker answers with the value of then.
func TestARunWhoseStatusWasLostIsNotCountedAgain(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(unwatched)
	e := w.entry("c", counting(5, "r"))
	w.create(e)
	w.counts(e, "r: 5")
	w.Expect(w.redis.IncrBy(t.Context(), mainPrefix+"c", 100).Err()).To(Succeed())
	update(w, e, suspendEntry)
	w.becomes(e, isSuspended)
	w.setStatus(e, forgetCount)
	update(w, e, resumeEntry)
	w.counts(e, "r: 5")
	w.holds(mainPrefix+"c", "105")

	update(w, e, counting(5, "s"))
	w.counts(e, "s: 110")
}

// As above, while the operator still remembers what it has done.
func TestALostStatusOfACounterIsWrittenAgain(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(unwatched)
	e := w.entry("c", counting(5, "r"))
	w.create(e)
	w.counts(e, "r: 5")
	for _, change := range []func(*v1alpha1.CacheEntry){
		func(*v1alpha1.CacheEntry) {}, counting(6, "r"), living(time.Hour), suspendEntry, resumeEntry, living(time.Minute),
	} {
		update(w, e, change)
		if e.Spec.Suspend {
			w.becomes(e, isSuspended)
			continue
		}
		w.counts(e, "r: 5")
		w.setStatus(e, forgetCount)
		w.counts(e, "r: 5")
	}
	w.holds(mainPrefix+"c", "5")
	w.Expect(w.calls("incrby")).To(Equal(1))
}

// Redis may lose the marker: what the status tells is not counted again.
func TestARunWhoseMarkerWasLostIsNotCountedAgain(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	e := w.entry("c", counting(5, "r"))
	w.create(e)
	w.counts(e, "r: 5")
	w.Expect(w.redis.Del(t.Context(), w.keys(markersOfCounters)...).Err()).To(Succeed())
	w.look(e)
	update(w, e, suspendEntry)
	w.becomes(e, isSuspended)
	update(w, e, resumeEntry)
	w.counts(e, "r: 5")
	w.stays(e, isApplied, sweeps/2)
	w.holds(mainPrefix+"c", "5")
	w.Expect(w.calls("incrby")).To(Equal(1))
	w.Expect(w.keys(markersOfCounters)).To(BeEmpty())

	update(w, e, counting(5, "s"))
	w.counts(e, "s: 10")
	w.Expect(w.keys(markersOfCounters)).To(HaveLen(1))
}

func TestAUserWithoutEVALStallsCountersOnly(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready()
	acl := func(rule string) {
		w.Expect(w.redis.Do(t.Context(), "acl", "setuser", "default", rule).Err()).To(Succeed())
	}
	for command, says := range map[string]string{"eval": "EVAL", "incrby": "INCRBY"} {
		acl("-" + command)
		e, warm := w.entry(command, counting(5, "r")), w.entry("warm-"+command)
		w.create(e)
		w.create(warm)
		w.becomes(e, stalls("PermissionDenied"))
		w.Expect(message(e)).To(And(HavePrefix("The Redis user may not run "), ContainSubstring(says)))
		w.becomes(warm, isWarm)
		w.stays(p, connected, sweeps/2)
		w.Expect(w.has(mainPrefix + command)).To(BeFalse())
		acl("+" + command)
		w.counts(e, "r: 5")
	}
}

// Without SET nothing can be kept: it is the pool that says so, and entries wait for it.
func TestAUserWithoutSETStallsThePool(t *testing.T) {
	w, _ := newRealWorld(t)
	w.Expect(w.redis.Do(t.Context(), "acl", "setuser", "default", "-set").Err()).To(Succeed())
	p := w.pool()
	w.create(p)
	w.becomes(p, stalls("PermissionDenied"))
	w.says(p, "The Redis user may not run SET; it needs the ACL rule +set")
	counter, value := w.entry("counter", counting(5, "r")), w.entry("value")
	w.create(counter)
	w.create(value)
	w.becomes(counter, waits("PoolNotReady"))
	w.becomes(value, waits("PoolNotReady"))
	w.Expect(w.redis.Do(t.Context(), "acl", "setuser", "default", "+set").Err()).To(Succeed())
	w.becomes(p, connected)
	w.counts(counter, "r: 5")
	w.becomes(value, isWarm)
}

func TestARunThatComesWhileThePoolIsDownIsAppliedOnce(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	p := w.ready(unwatched)
	e := w.entry("c", counting(5, "0"))
	w.create(e)
	w.counts(e, "0: 5")
	for i := range 3 {
		proxy.Cut()
		w.look(p)
		w.becomes(p, waits("ConnectionFailed"))
		run := strconv.Itoa(i + 1)
		update(w, e, counting(5, run))
		w.becomes(e, waits("PoolNotReady"))
		proxy.Mend()
		w.counts(e, fmt.Sprintf("%s: %d", run, 5*(i+2)))
	}
	w.stores(mainPrefix+"c", "20", time.Second)
	w.Expect(w.calls("incrby")).To(Equal(4))
}

// The command reaches the server, and the answer never comes.
func TestARunWhoseReplyIsLostIsAppliedOnce(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	p := w.ready(unwatched, func(p *v1alpha1.CachePool) { p.Spec.Timeout = &metav1.Duration{Duration: time.Second} })
	w.watched(p)
	e := w.entry("c", counting(5, "0"))
	w.create(e)
	w.counts(e, "0: 5")
	idle := w.entry("idle")
	w.create(idle)
	w.becomes(idle, isWarm)
	for i := range 3 {
		run, sum := strconv.Itoa(i+1), strconv.Itoa(5*(i+2))
		w.set(mainPrefix+"idle", "drift")
		w.holds(mainPrefix+"idle", "value of idle") // so there is a connection that need not be made first
		last := 0
		w.Eventually(func() bool {
			before := last
			last = w.calls("getrange")
			return last == before
		}).WithPolling(time.Second).Should(BeTrue(), "nothing else is under way")
		proxy.Slow(time.Hour)
		update(w, e, counting(5, run))
		w.holds(mainPrefix+"c", sum)
		if i != 1 { // or else it is the timeout that ends the wait
			proxy.Cut()
		}
		w.Eventually(func() string { w.reload(p); return summary(p) }).Should(Equal(waits("ConnectionFailed")))
		w.Expect(lastRun(e)).NotTo(HavePrefix(run))
		proxy.Cut()
		proxy.Slow(0)
		proxy.Mend()
		w.counts(e, run+": "+sum)
		w.holds(mainPrefix+"c", sum)
	}
	w.Expect(w.calls("incrby")).To(Equal(4))
}

// Many at once, over a connection that keeps breaking at any moment.
func TestCountersAreExactOverABadNetwork(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	w.ready()
	const counters, runs = 10, 5
	var all []*v1alpha1.CacheEntry
	for i := range counters {
		e := w.entry(fmt.Sprintf("c%d", i), counting(1, "0"))
		w.create(e)
		all = append(all, e)
	}
	for run := range runs {
		for i, e := range all {
			update(w, e, counting(1, strconv.Itoa(run)))
			if i == run {
				proxy.Cut()
				proxy.Mend()
			}
		}
		for _, e := range all {
			w.counts(e, fmt.Sprintf("%d: %d", run, run+1))
		}
	}
	for _, e := range all {
		w.holds(e.Status.Key, strconv.Itoa(runs))
	}
	w.Expect(w.calls("incrby")).To(Equal(counters * runs))
}

// A key may be cut into a hash tag or hold braces: the marker does not collide with another counter's.
func TestCountersOfAnyKeysHaveMarkersOfTheirOwn(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	for i, key := range []string{"c", "{c}", "a{c}b", "}", "{}", "{", "c}", "ключ \n*?[a]"} {
		e := w.entry(fmt.Sprintf("c%d", i), keyed(key), counting(int64(i+1), "r"), deleting)
		w.create(e)
		w.counts(e, fmt.Sprintf("r: %d", i+1))
		w.holds(mainPrefix+key, strconv.Itoa(i+1))
	}
	w.Expect(w.keys(markersOfCounters)).To(HaveLen(8))
	w.Expect(k8s.DeleteAllOf(t.Context(), &v1alpha1.CacheEntry{}, client.InNamespace(w.namespace))).To(Succeed())
	w.Eventually(func() []string { return w.keys("*") }).Should(BeEmpty())
}

// What a pool writes once is not written again to another server, until something new is declared.
func TestWhatIsWrittenOnceIsMissingOnAnotherServer(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready(seldom)
	c := w.configMap(map[string]string{"k": "once"})
	enforced, counter := w.entry("enforced"), w.entry("counter", counting(5, "a"))
	once, sourced := w.entry("once", writingOnChange, valued("once")), w.entry("sourced", writingOnChange, fromConfigMap("source", "k"))
	present := w.entry("present", ensuringPresent)
	for e, is := range map[*v1alpha1.CacheEntry]string{
		enforced: isWarm, present: isWarm, counter: isApplied, once: "Ready=True/Written", sourced: "Ready=True/Written",
	} {
		w.create(e)
		w.becomes(e, is)
	}
	server := redistest.Start(t)
	update(w, p, func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{server.Addr} })
	there := *w
	there.redis = server.Client(t)
	for _, e := range []*v1alpha1.CacheEntry{counter, once, sourced} {
		w.becomes(e, "Ready=False/Missing")
		w.says(e, `CachePool "main" has moved to another server, to which this was not written`)
	}
	there.holds(mainPrefix+"enforced", "value of enforced")
	there.holds(mainPrefix+"present", "value of present")
	w.becomes(enforced, isWarm)
	w.becomes(present, isWarm)
	w.holds(mainPrefix+"counter", "5")
	w.holds(mainPrefix+"once", "once")

	// Nothing but another value or run changes that.
	for _, e := range []*v1alpha1.CacheEntry{counter, once, sourced} {
		w.look(e)
		update(w, e, living(time.Hour))
		w.becomes(e, "Ready=False/Missing")
		w.rests(e, time.Second)
		update(w, e, func(e *v1alpha1.CacheEntry) { e.Spec.Suspend = true })
		w.becomes(e, "Ready=Unknown/Suspended Suspended=True/Suspended")
		update(w, e, func(e *v1alpha1.CacheEntry) { e.Spec.Suspend = false })
		w.becomes(e, "Ready=False/Missing")
	}
	w.Expect(there.keys("*")).To(ConsistOf(mainPrefix+"enforced", mainPrefix+"present"))
	update(w, counter, counting(5, "b"))
	w.counts(counter, "b: 5")
	update(w, once, valued("twice"))
	w.becomes(once, "Ready=True/Written")
	there.holds(mainPrefix+"counter", "5")
	there.holds(mainPrefix+"once", "twice")
	w.Expect(summary(sourced)).To(Equal("Ready=False/Missing"))
	update(w, c, func(c *corev1.ConfigMap) { c.Data["k"] = "twice" })
	w.becomes(sourced, "Ready=True/Written")
	there.holds(mainPrefix+"sourced", "twice")
}
