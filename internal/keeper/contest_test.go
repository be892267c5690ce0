// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package keeper_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2/server"
	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"
	"k8s.io/apimachinery/pkg/types"
	testingclock "k8s.io/utils/clock/testing"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/keeper"
	"github.com/cachewright/cachewright/internal/metrics"
	"github.com/cachewright/cachewright/internal/plan"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// declaring a key without a lifetime whose value is v, as its entry does for the first time.
func declaring(key string, policy plan.Policy) keeper.Declaration {
	return keeper.Declaration{Key: key, Value: "v", Digest: "v", Policy: policy, History: plan.History{Recorded: true}}
}

// told waits until an entry is told of a state, which it then knows.
func (b *bench) tells(d keeper.Declaration, want plan.State) {
	b.t.Helper()
	b.Eventually(func() []string { return b.told() }).Should(ContainElement(d.Key), "its owner is told")
	outcome, done := b.Keep(b.t.Context(), id(d.Key), d, nil)
	b.Expect(done).To(BeTrue())
	b.Expect(outcome.Err).NotTo(HaveOccurred())
	b.Expect(outcome.State).To(Equal(want))
}

// measured has the metrics of a test begin at nothing, however often it runs.
func measured(t *testing.T) {
	t.Helper()
	t.Cleanup(func() { metrics.Delete(types.NamespacedName{Name: t.Name()}) })
}

// metric of the pool of a test, with a cause or without; 0 when there is none.
func metric(t *testing.T, name, cause string) float64 {
	t.Helper()
	families, err := ctrlmetrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "cachewright_"+name {
			continue
		}
		for _, m := range family.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["pool"] == t.Name() && labels["cause"] == cause {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// The first change of a key is undone at once, further ones ever more seldom, at most one in 30 s.
func TestRepairsOfAContestedKeyBackOff(t *testing.T) {
	b := newBench(t)
	d := declaring("a", plan.Enforce)
	b.Keep(t.Context(), id("a"), d, nil)
	other := declaring("other", plan.Enforce)
	b.Keep(t.Context(), id("other"), other, nil)

	b.redis.Del(prefix + "a")
	b.Verify()
	b.holds("a")
	b.Expect(b.told()).To(BeEmpty(), "once is no contest")
	written := b.count("set")
	for i, seconds := range []int{1, 2, 4, 8, 16, 30, 30, 30} {
		pause := time.Duration(seconds) * time.Second
		b.redis.Del(prefix + "a")
		b.Verify()
		if i == 0 {
			b.tells(d, plan.Contested)
		}
		b.looked(2)
		b.pass(pause - 20*time.Millisecond)
		b.Consistently(func() int { return b.count("set") }, "50ms").Should(Equal(written), "not before %s", pause)
		b.pass(20 * time.Millisecond)
		b.holds("a")
		written++
		b.looked(2)
		b.Expect(b.count("set")).To(Equal(written))
	}
	b.Expect(b.told()).To(BeEmpty(), "nothing but that it is contested")

	// Other keys do not suffer.
	b.redis.Del(prefix + "other")
	b.Verify()
	b.holds("other")
}

// Ready says so until the key has been left alone for a minute. Then the next change is the first again.
func TestAContestEndsAfterAQuietMinute(t *testing.T) {
	measured(t)
	b := newBench(t)
	d := declaring("a", plan.Enforce)
	b.Keep(t.Context(), id("a"), d, nil)
	for round := range 2 {
		b.redis.Del(prefix + "a")
		b.Verify()
		b.holds("a")
		b.looked(1)
		b.Expect(b.told()).To(BeEmpty(), "round %d", round)
		b.redis.Del(prefix + "a")
		b.Verify()
		b.tells(d, plan.Contested)
		b.Expect(metric(t, "contested_keys", "")).To(Equal(1.0))
		b.pass(time.Second)
		b.holds("a")
		for range 5 {
			b.looked(1)
			b.pass(10 * time.Second)
		}
		b.looked(1)
		b.Expect(b.told()).To(BeEmpty(), "not yet")
		b.Expect(metric(t, "contested_keys", "")).To(Equal(1.0))
		b.pass(10 * time.Second) // no sweep is needed to notice
		b.tells(d, plan.Warm)
		b.Expect(metric(t, "contested_keys", "")).To(BeZero())
	}
}

// What its owner says is no repair: a new value, or a request to look, is done at once and does not count.
func TestDeclarationsDoNotContest(t *testing.T) {
	b := newBench(t)
	for i := range 10 {
		d := declaring("a", plan.Enforce)
		d.Value, d.Digest, d.Requested = strconv.Itoa(i/2), strconv.Itoa(i/2), strconv.Itoa(i)
		b.redis.Del(prefix + "a")
		outcome, done := b.Keep(t.Context(), id("a"), d, nil)
		b.Expect(done).To(BeTrue())
		b.Expect(outcome.State).To(Equal(plan.Warm))
		b.Expect(b.redis.Get(prefix + "a")).To(Equal(d.Value))
	}
	b.Expect(b.told()).To(BeEmpty())
}

// A contested key whose owner says something new is written at once.
func TestADeclarationEndsTheWaitOfAContestedKey(t *testing.T) {
	b := newBench(t)
	d := declaring("a", plan.Enforce)
	b.Keep(t.Context(), id("a"), d, nil)
	for range 2 {
		b.redis.Del(prefix + "a")
		b.looked(1)
	}
	b.tells(d, plan.Contested)
	b.Expect(b.redis.Exists(prefix + "a")).To(BeFalse())
	d.Requested = "now"
	b.Keep(t.Context(), id("a"), d, nil)
	b.Expect(b.redis.Get(prefix + "a")).To(Equal("v"))
}

// Neither what a server loses at once nor what runs out is anybody's doing.
func TestLossesAndExpiryDoNotContest(t *testing.T) {
	measured(t)
	b := newBench(t)
	enforced, ensured := declaring("enforced", plan.Enforce), declaring("ensured", plan.EnsurePresent)
	ensured.TTL = 10 * time.Second
	for _, d := range []keeper.Declaration{enforced, ensured} {
		b.Keep(t.Context(), id(d.Key), d, nil)
	}
	for range 5 {
		b.redis.FlushAll()
		b.Rewarm()
		b.holds("enforced")
		b.holds("ensured")
		b.pass(10*time.Second + 20*time.Millisecond)
		b.holds("ensured")
	}
	b.looked(2)
	b.Expect(b.told()).To(BeEmpty())
	b.Expect(metric(t, "contested_keys", "")).To(BeZero())
	b.Expect(metric(t, "repairs_total", "lost")).To(Equal(10.0))
	b.Expect(metric(t, "repairs_total", "expired")).To(Equal(5.0))
}

// A look may find out before the server's word of it comes, on another connection: in a benchmark it did of 22 keys.
func TestALossThatALookFindsFirstDoesNotContest(t *testing.T) {
	measured(t)
	b := newBench(t)
	d := declaring("a", plan.Enforce)
	b.Keep(t.Context(), id("a"), d, nil)
	b.redis.Del(prefix + "a")
	b.Verify()
	b.holds("a")
	b.looked(1)
	b.pass(30 * time.Second)

	b.redis.FlushAll()
	b.Verify()
	b.tells(d, plan.Contested)
	b.holds("a")
	b.Rewarm() // the word has come
	b.tells(d, plan.Warm)
	b.Expect(metric(t, "contested_keys", "")).To(BeZero())

	// Somebody's change is none the less remembered.
	b.redis.Del(prefix + "a")
	b.Verify()
	b.tells(d, plan.Contested)
}

// A key that is looked at in its last millisecond, of which nothing is left in the server's words, runs out all the same.
func TestAKeyThatIsSeenInItsLastMillisecondRunsOut(t *testing.T) {
	measured(t)
	b := newBench(t)
	d := declaring("a", plan.EnsurePresent)
	d.TTL = 10 * time.Second
	b.Keep(t.Context(), id("a"), d, nil)
	for range 4 {
		b.redis.Server().SetPreHook(func(c *server.Peer, command string, args ...string) bool {
			if command == "PTTL" && b.redis.Exists(prefix+"a") {
				b.hook(c, command, args...)
				c.WriteInt(0)
				return true
			}
			return b.hook(c, command, args...)
		})
		b.looked(1)
		writes := b.count("set")
		b.redis.FastForward(10 * time.Second)
		b.pass(20 * time.Millisecond)
		b.Eventually(func() int { return b.count("set") }).Should(Equal(writes + 1))
		b.redis.Server().SetPreHook(b.hook)
		b.looked(1)
	}
	b.looked(1)
	b.Expect(b.told()).To(BeEmpty())
	b.Expect(metric(t, "repairs_total", "expired")).To(Equal(4.0))
}

func TestContestedKeysAreNotCountedWhenTheirEntriesGo(t *testing.T) {
	measured(t)
	b := newBench(t)
	for _, name := range []string{"dropped", "forgotten"} {
		b.keep(name, "v", 0)
	}
	for range 2 {
		b.redis.FlushAll()
		b.looked(2)
	}
	b.Eventually(func() float64 { return metric(t, "contested_keys", "") }).Should(Equal(2.0))
	b.Expect(metric(t, "declared_keys", "")).To(Equal(2.0))
	b.Drop(id("dropped"))
	b.Expect(metric(t, "contested_keys", "")).To(Equal(1.0))
	_, done := b.Forget(t.Context(), id("forgotten"), keeper.Forgetting{Key: "forgotten"})
	b.Expect(done).To(BeTrue())
	b.Expect(metric(t, "contested_keys", "")).To(BeZero())
	b.Expect(metric(t, "declared_keys", "")).To(BeZero())
}

func TestRepairsAndRenewalsAreCounted(t *testing.T) {
	measured(t)
	b := newBench(t)
	b.keep("forever", "v", 0)
	b.keep("living", "v", time.Hour)
	b.settled("settled", "v", 0)
	b.Expect(metric(t, "repairs_total", "missing")).To(BeZero(), "a first write is no repair")
	b.pass(time.Second)
	b.holds("settled")
	b.Expect(metric(t, "repairs_total", "missing")).To(Equal(1.0), "the status said that it was there")

	b.Expect(b.redis.Set(prefix+"forever", "w")).To(Succeed())
	b.redis.SetTTL(prefix+"living", 2*time.Hour)
	b.redis.Del(prefix + "settled")
	b.Verify()
	b.Eventually(func() float64 { return metric(t, "repairs_total", "missing") }).Should(Equal(2.0))
	b.Expect(metric(t, "repairs_total", "changed")).To(Equal(1.0))
	b.Expect(metric(t, "repairs_total", "lifetime")).To(Equal(1.0))
	b.Expect(metric(t, "renewals_total", "")).To(BeZero())

	b.pass(50 * time.Minute)
	b.Eventually(func() float64 { return metric(t, "renewals_total", "") }).Should(Equal(1.0))
	b.keep("forever", "new", 0)
	b.Expect(metric(t, "repairs_total", "changed")).To(Equal(1.0), "a new value is no repair")
	b.Expect(metric(t, "declared_keys", "")).To(Equal(3.0))
}

// Verified is when the last look at all keys began that is over.
func TestVerifiedIsWhenALookAtAllKeysBegan(t *testing.T) {
	measured(t)
	b := newBench(t)
	verified := func() time.Time { return time.Unix(int64(metric(t, "last_verified_timestamp_seconds", "")), 0) }
	b.Expect(verified()).To(BeTemporally("==", b.clock.Now()), "there is nothing to verify")
	b.keep("a", "v", 0)
	b.keep("b", "v", 0)
	b.Keep(t.Context(), id("once"), declaring("once", plan.WriteOnChange), nil)
	first := verified()
	b.clock.Step(time.Minute)
	b.refusing("getrange", "LOADING Redis is loading the dataset in memory")
	b.Verify()
	b.Eventually(b.failed).Should(Equal(1))
	b.Expect(verified()).To(BeTemporally("==", first), "it failed")
	b.refusing("getrange", "")
	began := b.clock.Now()
	b.Use(b.pool, keeper.Open, false)
	b.pass(time.Second)
	b.Eventually(verified).Should(BeTemporally("==", began))

	// A key that is given up need not be looked at.
	b.Use(b.pool, keeper.Closed, false)
	b.clock.Step(time.Minute)
	began = b.clock.Now()
	b.Verify()
	b.Drop(id("a"))
	b.Expect(verified()).To(BeTemporally("<", began))
	b.Drop(id("b"))
	b.Expect(verified()).To(BeTemporally("==", began))
}

// What is only observed is told every ten seconds at most: the first change at once, and then what is the case.
func TestAnObservedKeyIsToldOfEveryTenSeconds(t *testing.T) {
	measured(t)
	b := newBench(t)
	d := declaring("a", plan.Observe)
	outcome, _ := b.Keep(t.Context(), id("a"), d, nil)
	b.Expect(outcome.State).To(Equal(plan.Missing))
	b.Expect(b.redis.Set(prefix+"a", "v")).To(Succeed())
	b.Verify()
	b.tells(d, plan.Matches)

	for _, value := range []string{"w", "v", "w"} {
		b.Expect(b.redis.Set(prefix+"a", value)).To(Succeed())
		b.looked(1)
		b.pass(3 * time.Second)
	}
	b.looked(1)
	b.Expect(b.told()).To(BeEmpty(), "nine seconds")
	b.pass(2 * time.Second)
	b.tells(d, plan.Differs)

	b.redis.Del(prefix + "a")
	b.looked(1)
	b.Expect(b.redis.Set(prefix+"a", "w")).To(Succeed())
	b.pass(11 * time.Second)
	b.looked(1)
	b.Expect(b.told()).To(BeEmpty(), "it is again as it was told")
	b.Expect(b.count("set")).To(BeZero(), "it is never written")
	b.Expect(metric(t, "repairs_total", "changed")).To(BeZero())
}

// What was written once is not looked at any more.
func TestWhatIsWrittenOnceIsNotLookedAt(t *testing.T) {
	b := newBench(t)
	looks := func() int { return b.looksAt("once") }
	d := declaring("once", plan.WriteOnChange)
	d.TTL = time.Minute
	outcome, done := b.Keep(t.Context(), id("once"), d, nil)
	b.Expect(done).To(BeTrue())
	b.Expect(outcome).To(Equal(keeper.Outcome{State: plan.Written, Written: b.clock.Now()}))
	b.keep("other", "v", 0)
	n := looks()
	b.redis.Del(prefix + "once")
	b.Verify()
	b.Rewarm()
	b.looked(1)
	b.pass(2 * time.Hour)
	b.looked(1)
	b.Expect(looks()).To(Equal(n))
	b.Expect(b.redis.Exists(prefix + "once")).To(BeFalse())

	// The same value, said again or by an operator that has just started, is not written again.
	d.TTL = time.Hour
	outcome, done = b.Keep(t.Context(), id("once"), d, nil)
	b.Expect(done).To(BeTrue())
	b.Expect(outcome.State).To(Equal(plan.Written))
	b.Drop(id("once"))
	d.History.Written = true
	outcome, done = b.Keep(t.Context(), id("once"), d, &keeper.Outcome{State: plan.Written})
	b.Expect(done).To(BeTrue())
	b.Expect(outcome.State).To(Equal(plan.Written))
	b.looked(1)
	b.Expect(looks()).To(Equal(n))
}

// looksAt a key, counted.
func (b *bench) looksAt(key string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, line := range b.sent {
		if line == "getrange "+prefix+key {
			n++
		}
	}
	return n
}

// The status of an entry may be late: a value that comes back was replaced by another meanwhile.
func TestAValueThatComesBackIsWrittenOnceMore(t *testing.T) {
	b := newBench(t)
	first := declaring("a", plan.WriteOnChange)
	second := first
	second.Value, second.Digest = "w", "w"
	b.Keep(t.Context(), id("a"), first, nil)
	b.Keep(t.Context(), id("a"), second, nil)
	b.Expect(b.redis.Get(prefix + "a")).To(Equal("w"))
	first.History.Written = true // which the status says
	outcome, done := b.Keep(t.Context(), id("a"), first, nil)
	b.Expect(done).To(BeTrue())
	b.Expect(outcome.State).To(Equal(plan.Written))
	b.Expect(b.redis.Get(prefix + "a")).To(Equal("v"))
}

// What an entry has written under another policy need not be written once more: the status says that it was.
func TestAPolicyThatChangesKnowsWhatWasWritten(t *testing.T) {
	b := newBench(t)
	d := declaring("a", plan.EnsurePresent)
	b.Keep(t.Context(), id("a"), d, nil)
	b.Expect(b.redis.Set(prefix+"a", "foreign")).To(Succeed())
	b.looked(1)
	d.Policy, d.History.Written = plan.WriteOnChange, true
	outcome, done := b.Keep(t.Context(), id("a"), d, nil)
	b.Expect(done).To(BeTrue())
	b.Expect(outcome.State).To(Equal(plan.Written))
	b.Expect(b.redis.Get(prefix + "a")).To(Equal("foreign"))
}

// An entry may be reconciled again before it is looked at for the first time: what its status says still holds.
func TestASettledKeyStaysSettledUntilItIsLookedAt(t *testing.T) {
	b := newBench(t)
	b.settled("a", "v", 0)
	b.running() // or else nobody's patience ends
	b.settled("a", "v", 0)
	b.holds("a")
	b.Expect(b.told()).To(BeEmpty())
}

// Where the pool leads to another server, what was written once was not written there. The rest is.
func TestWhatWasWrittenOnceIsMissingOnAnotherServer(t *testing.T) {
	b := newBench(t)
	once, counter := declaring("once", plan.WriteOnChange), counting("counter", "run-1")
	b.keep("enforced", "v", 0)
	b.Keep(t.Context(), id("once"), once, nil)
	b.Keep(t.Context(), id("counter"), counter, nil)
	there := redistest.Miniredis(t)
	next := cache.Open(cache.Options{Addresses: []string{there.Addr()}, Prefix: prefix, Timeout: 10 * time.Second})
	defer func() { _ = next.Stop() }()
	b.Use(next, keeper.Open, true)
	b.Eventually(func() int {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.news)
	}).Should(Equal(2))
	b.Expect(b.told()).To(ConsistOf("once", "counter"))
	for _, d := range []keeper.Declaration{once, counter} {
		outcome, done := b.Keep(t.Context(), id(d.Key), d, nil)
		b.Expect(done).To(BeTrue())
		b.Expect(outcome.State).To(Equal(plan.Missing))
	}
	b.pass(time.Second)
	b.Eventually(there.Keys).Should(Equal([]string{prefix + "enforced"}))

	once.Value, once.Digest = "w", "w"
	counter = counting("counter", "run-2")
	for _, d := range []keeper.Declaration{once, counter} {
		outcome, done := b.Keep(t.Context(), id(d.Key), d, nil)
		b.Expect(done).To(BeTrue())
		b.Expect(outcome.Err).NotTo(HaveOccurred())
	}
	b.Expect(there.Get(prefix + "once")).To(Equal("w"))
	b.Expect(there.Get(prefix + "counter")).To(Equal("5"))
	b.Use(next, keeper.Closed, false)
	b.Use(next, keeper.Open, false) // an outage is no move
	b.looked(0)
	b.Expect(b.told()).To(BeEmpty())
}

// counting declares a counter, to be incremented by 5.
func counting(key, run string) keeper.Declaration {
	return keeper.Declaration{Key: key, Digest: "run:" + run, Counter: &keeper.Counter{ID: key, By: 5, RunID: run, Generation: 1}}
}

func TestACounterIsIncrementedOnceForEachRun(t *testing.T) {
	b := newBench(t)
	b.keep("other", "v", 0)
	for i, run := range []string{"run-1", "run-2", "run-3"} {
		for range 3 {
			outcome, done := b.Keep(t.Context(), id("n"), counting("n", run), nil)
			b.Expect(done).To(BeTrue())
			b.Expect(outcome.State).To(Equal(plan.Applied))
			b.Expect(outcome.Sum).To(BeEquivalentTo(5 * (i + 1)))
		}
		b.Verify()
		b.Rewarm()
		b.looked(1)
		b.Expect(b.redis.Get(prefix + "n")).To(Equal(strconv.Itoa(5 * (i + 1))))
	}
	b.redis.Del(prefix + "n")
	b.looked(1)
	b.Expect(b.redis.Exists(prefix+"n")).To(BeFalse(), "a counter is never repaired")
	b.Expect(b.looksAt("n")).To(BeZero())
	b.Expect(b.told()).To(BeEmpty())
}

// A counter that met an outage is incremented when the server is back, once.
func TestACounterWaitsForItsPool(t *testing.T) {
	b := newBench(t)
	b.running() // so that nobody waits for ever
	b.Keep(t.Context(), id("n"), counting("n", "run-1"), nil)
	b.redis.Close()
	_, done := b.Keep(t.Context(), id("n"), counting("n", "run-2"), nil)
	b.Expect(done).To(BeFalse())
	b.Eventually(b.failed).Should(Equal(1))
	b.Expect(b.redis.Restart()).To(Succeed())
	for range 3 {
		b.Use(b.pool, keeper.Closed, false)
		b.Use(b.pool, keeper.Open, false)
		b.Eventually(func() string { n, _ := b.redis.Get(prefix + "n"); return n }).Should(Equal("10"))
	}
	b.tells(counting("n", "run-2"), plan.Applied)
	b.Expect(b.redis.Get(prefix + "n")).To(Equal("10"))
}

// Only what an entry is known to have written is deleted.
func TestADeletionMayDependOnTheValue(t *testing.T) {
	b := newBench(t)
	for name, test := range map[string]struct {
		there, digest string
		stays         bool
	}{
		"the last value":           {"v", keeper.Digest("v"), false},
		"another value":            {"w", keeper.Digest("v"), true},
		"a longer value":           {"vv", keeper.Digest("v"), true},
		"a value that is not ours": {"v", "", true},
		"a large value":            {strings.Repeat("x", 1<<20), keeper.Digest(strings.Repeat("x", 1<<20)), false},
		"one byte too many":        {strings.Repeat("x", 1<<20+1), keeper.Digest(strings.Repeat("x", 1<<20)), true},
	} {
		b.Expect(b.redis.Set(prefix+name, test.there)).To(Succeed())
		f := keeper.Forgetting{Key: name, OnlyDigests: []string{}}
		if test.digest != "" {
			f.OnlyDigests = []string{keeper.Digest("former"), test.digest}
		}
		outcome, done := b.Forget(t.Context(), id(name), f)
		b.Expect(done).To(BeTrue(), name)
		b.Expect(errors.Is(outcome.Err, cache.ErrChanged)).To(Equal(test.stays), name)
		b.Expect(b.redis.Exists(prefix+name)).To(Equal(test.stays), name)
	}
	for _, f := range []keeper.Forgetting{
		{Key: "was never there", OnlyDigests: []string{keeper.Digest("v")}},
		{Key: "another value", OnlyDigests: []string{keeper.Digest("w")}}, // it failed, and is asked for again
	} {
		outcome, done := b.Forget(t.Context(), id(f.Key), f)
		b.Expect(done).To(BeTrue())
		b.Expect(outcome.Err).NotTo(HaveOccurred())
		b.Expect(b.redis.Exists(prefix + f.Key)).To(BeFalse())
	}
}

// What is new comes before what is only looked at again, however much of that has fallen due.
func TestNewDeclarationsComeBeforeSweeps(t *testing.T) {
	b := newBench(t)
	b.keep("first", "v", 0)
	b.Use(b.pool, keeper.Closed, false)
	for i := range 3000 {
		b.settled(fmt.Sprintf("k%d", i), "w", 0)
	}
	b.clock.Step(time.Hour)
	b.Verify()
	b.keep("new", "v", 0)
	b.mu.Lock()
	b.sent = nil
	b.mu.Unlock()
	b.Use(b.pool, keeper.Open, false)
	b.holds("new")
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Expect(b.sent[0]).To(Equal("getrange " + prefix + "new"))
}

// tracked is a keeper at work on a real server, which tells it of changes, with a clock that only the test moves.
type tracked struct {
	*WithT
	*keeper.Keeper

	t      *testing.T
	clock  *testingclock.FakeClock
	server *redistest.Server
	redis  *redis.Client

	mu      sync.Mutex
	news    []string
	detects []keeper.Detection
}

// newTracked reaches the server by an address.
func newTracked(t *testing.T, server *redistest.Server, addr string) *tracked {
	t.Helper()
	k := &tracked{
		WithT: NewWithT(t), t: t, clock: testingclock.NewFakeClock(time.Now()),
		server: server, redis: server.Client(t),
	}
	k.SetDefaultEventuallyTimeout(20 * time.Second)
	pool := cache.Open(cache.Options{Addresses: []string{addr}, Prefix: prefix, Timeout: 10 * time.Second})
	k.Keeper = keeper.New(k.clock, metrics.Of(types.NamespacedName{Name: t.Name()}), keeper.Owner{
		Changed:     func(id types.NamespacedName) { k.mu.Lock(); defer k.mu.Unlock(); k.news = append(k.news, id.Name) },
		Detects:     func(how keeper.Detection) { k.mu.Lock(); defer k.mu.Unlock(); k.detects = append(k.detects, how) },
		Unavailable: func(error) { k.Use(pool, keeper.Closed, false); k.Use(pool, keeper.Open, false) },
	})
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { k.Run(ctx) })
	t.Cleanup(func() { stop(); work.Wait(); _ = pool.Stop() })
	k.Use(pool, keeper.Open, false)
	k.becomes(keeper.Detection(cache.Tracking))
	return k
}

// becomes waits until changes are noticed in a way.
func (k *tracked) becomes(want keeper.Detection) {
	k.t.Helper()
	k.Eventually(func() keeper.Detection {
		k.mu.Lock()
		defer k.mu.Unlock()
		if len(k.detects) == 0 {
			return ""
		}
		return k.detects[len(k.detects)-1]
	}).Should(Equal(want))
}

// polls says whether changes are found out by sweeps only.
func (k *tracked) polls() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Contains(k.detects, keeper.Polling)
}

// looks that the server has answered.
func (k *tracked) looks() int {
	k.t.Helper()
	text, err := k.redis.Info(k.t.Context(), "commandstats").Result()
	k.Expect(err).NotTo(HaveOccurred())
	n := 0
	if _, rest, ok := strings.Cut(text, "cmdstat_getrange:calls="); ok {
		_, err := fmt.Sscanf(rest, "%d", &n)
		k.Expect(err).NotTo(HaveOccurred())
	}
	return n
}

func (k *tracked) set(keys []string, value string) {
	k.t.Helper()
	var pairs []any
	for _, key := range keys {
		pairs = append(pairs, prefix+key, value)
	}
	k.Expect(k.redis.MSet(k.t.Context(), pairs...).Err()).To(Succeed())
}

// keepAll declares keys and waits until they hold v.
func (k *tracked) keepAll(policy plan.Policy, keys ...string) {
	k.t.Helper()
	for _, key := range keys {
		k.Eventually(func() bool { _, done := k.Keep(k.t.Context(), id(key), declaring(key, policy), nil); return done }).Should(BeTrue())
	}
}

// An application that writes the same key all the time does not keep the keeper busy.
func TestABurstOfChangesIsLookedAtSeldom(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	k := newTracked(t, server, server.Addr)
	k.keepAll(plan.EnsurePresent, "a")
	k.rests()
	before := k.looks()
	k.Consistently(func() int {
		k.set([]string{"a"}, time.Now().String())
		return k.looks() - before
	}, "2s", "2ms").Should(BeNumerically("<=", 12), "the first ones at once, and no more as long as the clock stands still")
	k.Expect(k.looks()-before).To(BeNumerically(">=", 4), "some were looked at, and told again")

	// The rest in ever longer pauses, up to a second.
	before = k.looks()
	for range 20 {
		k.clock.Step(100 * time.Millisecond)
		k.Consistently(func() int { k.set([]string{"a"}, time.Now().String()); return 0 }, "20ms", "2ms").Should(BeZero())
	}
	k.Expect(k.looks()-before).To(BeNumerically("<=", 10), "in two seconds")

	// After a second without a change there is no pause before the next.
	k.clock.Step(2 * time.Second)
	k.rests()
	k.clock.Step(2 * time.Second)
	before = k.looks()
	k.set([]string{"a"}, "last")
	k.Eventually(k.looks).Should(BeNumerically(">", before))
}

// rests waits until the keeper has nothing more to look at.
func (k *tracked) rests() {
	k.t.Helper()
	last := -1
	k.Eventually(func() bool { now := k.looks(); same := now == last; last = now; return same }, "20s", "200ms").Should(BeTrue())
}

// A server that tells of nothing but changes that are none is not listened to for a while.
func TestANoisyServerIsNotListenedTo(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	k := newTracked(t, server, server.Addr)
	var keys []string
	for i := range 500 {
		keys = append(keys, fmt.Sprintf("k%d", i))
	}
	k.keepAll(plan.Enforce, keys...)
	k.rests()
	rounds := 0
	for ; rounds < 40 && !k.polls(); rounds++ {
		before := k.looks()
		k.clock.Step(2 * time.Second) // each is a burst of its own
		k.set(keys, "v")
		k.Eventually(func() bool { return k.looks() >= before+len(keys) || k.polls() }).Should(BeTrue())
		k.rests()
	}
	k.becomes(keeper.Polling)
	k.Expect(rounds).To(BeNumerically(">", 10), "some are nothing unusual")
	before := k.looks()
	k.set(keys, "v")
	k.Consistently(k.looks, "300ms").Should(Equal(before))
	k.Verify()
	k.Eventually(k.looks).Should(Equal(before+500), "sweeps go on")

	k.clock.Step(70 * time.Minute)
	k.becomes(keeper.Detection(cache.Tracking))
	k.mu.Lock()
	defer k.mu.Unlock()
	k.Expect(k.detects).To(Equal([]keeper.Detection{"Tracking", keeper.Polling, "Tracking"}))
	k.Expect(k.news).To(BeEmpty())
}

// Where a lot is really changed, the server goes on being listened to.
func TestChangesThatAreOnesAreNoNoise(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	k := newTracked(t, server, server.Addr)
	var keys []string
	for i := range 500 {
		keys = append(keys, fmt.Sprintf("k%d", i))
	}
	k.keepAll(plan.Enforce, keys...)
	k.rests()
	for range 10 {
		k.Expect(k.redis.FlushAll(t.Context()).Err()).To(Succeed())
		k.Eventually(func() int64 { return k.redis.DBSize(t.Context()).Val() }).Should(BeEquivalentTo(500))
		k.rests()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.Expect(k.detects).To(Equal([]keeper.Detection{"Tracking"}))
	k.Expect(k.news).To(BeEmpty())
}

// Nor is it noise when an application changes what the keeper leaves alone.
func TestChangesThatAreLeftAloneAreNoNoise(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	k := newTracked(t, server, server.Addr)
	var keys []string
	for i := range 100 {
		keys = append(keys, fmt.Sprintf("k%d", i))
	}
	k.keepAll(plan.EnsurePresent, keys...)
	k.rests()
	for i := range 40 { // 4000 in 44 seconds
		before := k.looks()
		k.clock.Step(1100 * time.Millisecond)
		k.set(keys, fmt.Sprintf("value %d", i))
		k.Eventually(k.looks).Should(BeNumerically(">=", before+len(keys)))
	}
	k.Expect(k.polls()).To(BeFalse())
}

// Whoever empties a database again and again, ours or another, does not keep the keeper busy.
func TestFlushesOfAnotherDatabaseAreLookedAtSeldom(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	k := newTracked(t, server, server.Addr)
	k.keepAll(plan.Enforce, "a")
	k.rests()
	before := k.looks()
	for range 100 {
		k.Expect(k.redis.Do(t.Context(), "eval", "redis.call('select', 5) return redis.call('flushdb')", 0).Err()).To(Succeed())
	}
	k.rests()
	k.Expect(k.looks()-before).To(And(BeNumerically(">=", 1), BeNumerically("<=", 12)), "the first ones at once, and no more as long as the clock stands still")
	k.Expect(k.redis.FlushAll(t.Context()).Err()).To(Succeed())
	k.clock.Step(2 * time.Second)
	k.Eventually(func() int64 { return k.redis.DBSize(t.Context()).Val() }).Should(BeEquivalentTo(1))
}

// A declaration that may have changed while the pool was away is not carried out until it is declared anew.
func TestAnOutdatedDeclarationIsLeftAlone(t *testing.T) {
	b := newBench(t)
	old, same, sourced := declaring("old", plan.EnsurePresent), declaring("same", plan.Enforce), declaring("sourced", plan.Enforce)
	old.Generation, same.Generation, sourced.Generation, sourced.Sourced = 1, 1, 1, true
	for _, d := range []keeper.Declaration{old, same, sourced} {
		_, done := b.Keep(t.Context(), id(d.Key), d, nil)
		b.Expect(done).To(BeTrue())
	}
	b.Use(b.pool, keeper.Closed, false)
	b.redis.FlushAll()
	b.Doubt(id("old"), 2)
	b.Doubt(id("same"), 1)
	b.Doubt(id("sourced"), 1)
	b.Doubt(id("unknown"), 1)
	b.Use(b.pool, keeper.Open, false)
	b.Rewarm()
	b.holds("same")
	b.Verify()
	b.looked(1)
	b.Expect(b.redis.Exists(prefix + "old")).To(BeFalse())
	b.Expect(b.redis.Exists(prefix + "sourced")).To(BeFalse())

	old.Generation, old.Value, old.Digest = 2, "new", "new"
	b.Keep(t.Context(), id("old"), old, nil)
	b.Expect(b.redis.Get(prefix + "old")).To(Equal("new"))
	b.Keep(t.Context(), id("sourced"), sourced, nil)
	b.holds("sourced")
}

// A change that the server tells of while the key's round is still under way is looked at after it.
func TestAChangeDuringARoundIsNotLost(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.NewProxy(t, server.Addr, 0)
	k := newTracked(t, server, proxy.Addr)
	var keys []string
	for i := range 900 { // a round of two round trips
		keys = append(keys, fmt.Sprintf("k%d", i))
	}
	k.keepAll(plan.Enforce, keys...)
	k.rests()
	for range 3 {
		proxy.Slow(300 * time.Millisecond)
		before := k.looks()
		k.Verify()
		k.Eventually(k.looks, "20s", "1ms").Should(BeNumerically(">", before), "the first of them are read")
		k.set(keys[:1], "foreign")
		k.set(keys[899:], "foreign")
		proxy.Slow(0)
		k.Eventually(func() []string {
			var wrong []string
			for _, key := range keys {
				if k.redis.Get(t.Context(), prefix+key).Val() != "v" {
					wrong = append(wrong, key)
				}
			}
			return wrong
		}).Should(BeEmpty())
		k.rests()
		k.clock.Step(2 * time.Minute) // or else they would be contested
		k.rests()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.Expect(slices.Compact(k.news)).To(BeEmpty())
}
