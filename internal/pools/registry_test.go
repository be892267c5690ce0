// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package pools_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/keeper"
	"github.com/cachewright/cachewright/internal/plan"
	"github.com/cachewright/cachewright/internal/pools"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// bench is a registry, and what it told.
type bench struct {
	*WithT
	*pools.Registry

	t    *testing.T
	stop func()

	mu   sync.Mutex
	told []string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	t.Parallel()
	b := &bench{WithT: NewWithT(t), t: t}
	b.SetDefaultEventuallyTimeout(20 * time.Second)
	tell := func(what string) func(context.Context, types.NamespacedName) {
		return func(_ context.Context, name types.NamespacedName) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.told = append(b.told, what+" "+name.Name)
		}
	}
	b.Registry = pools.NewRegistry(clock.RealClock{}, pools.Listeners{Entry: tell("entry"), Pool: tell("pool"), Opened: tell("opened")})
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { _ = b.Start(ctx) })
	b.stop = func() { stop(); work.Wait() }
	t.Cleanup(b.stop)
	return b
}

// heard gives what was told, and forgets it.
func (b *bench) heard() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	told := b.told
	b.told = nil
	return told
}

func name(text string) types.NamespacedName { return types.NamespacedName{Namespace: "ns", Name: text} }

func identity(generation int64) pools.Identity {
	return pools.Identity{Name: name("main"), UID: "1", Generation: generation}
}

func at(m *miniredis.Miniredis) cache.Options {
	return cache.Options{Addresses: []string{m.Addr()}, Prefix: "p:", Timeout: 5 * time.Second}
}

// try to connect a pool.
func (b *bench) try(id pools.Identity, o cache.Options) error {
	b.t.Helper()
	_, err := b.Connect(b.t.Context(), id, o)
	return err
}

// connect pool main, which must work.
func (b *bench) connect(generation int64, o cache.Options) pools.Pool {
	b.t.Helper()
	before, _ := b.Get(name("main"))
	b.Expect(b.try(identity(generation), o)).To(Succeed())
	if before.Detects == "" {
		b.detected()
	}
	live, ok := b.Get(name("main"))
	b.Expect(ok).To(BeTrue())
	return live
}

// detected waits until it is told how changes are noticed, which comes a moment later, and forgets that.
func (b *bench) detected() {
	b.t.Helper()
	b.Eventually(func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		i := slices.Index(b.told, "pool main")
		if i >= 0 {
			b.told = slices.Delete(b.told, i, i+1)
		}
		return i >= 0
	}).Should(BeTrue())
}

func declaring(key string) keeper.Declaration {
	return keeper.Declaration{Key: key, Value: "v", Digest: "v", Policy: plan.Enforce}
}

func (b *bench) keep(entry string) (keeper.Outcome, bool) {
	b.t.Helper()
	return b.Keep(b.t.Context(), name("main"), name(entry), declaring(entry), nil)
}

func TestAPoolIsConnectedOnceAndCheckedThen(t *testing.T) {
	b, m := newBench(t), redistest.Miniredis(t)
	_, ok := b.Get(name("main"))
	b.Expect(ok).To(BeFalse())
	first := b.connect(1, at(m))
	b.Expect(first.Gate).To(Equal(keeper.Open))
	b.Expect(first.Serves(identity(1))).To(BeTrue())
	b.Expect(first.Serves(identity(2))).To(BeFalse())
	b.Expect(b.heard()).To(Equal([]string{"opened main"}))

	again := b.connect(2, at(m))
	b.Expect(again.Cache).To(BeIdenticalTo(first.Cache), "the options are the same")
	b.Expect(again.Serves(identity(2))).To(BeTrue())
	b.Expect(b.heard()).To(BeEmpty())
}

func TestANewConnectionTakesOverWhenItWorks(t *testing.T) {
	b, here, there := newBench(t), redistest.Miniredis(t), redistest.Miniredis(t)
	first := b.connect(1, at(here))
	b.keep("a")
	second := b.connect(2, at(there))
	b.Expect(second.Cache).NotTo(BeIdenticalTo(first.Cache))
	b.Eventually(here.CurrentConnectionCount).Should(BeZero(), "the old one is closed")
	b.Expect(second.Keeper).To(BeIdenticalTo(first.Keeper), "and what is to be kept is known still")
	second.Keeper.Rewarm()
	b.Eventually(there.Keys).Should(ConsistOf("p:a"))
}

func TestANewConnectionThatDoesNotWorkChangesNothing(t *testing.T) {
	b, here, there := newBench(t), redistest.Miniredis(t), redistest.Miniredis(t)
	there.RequireAuth("hunter2")
	first := b.connect(1, at(here))
	b.heard()
	err := b.try(identity(2), at(there))
	b.Expect(cache.Is(err, cache.ReasonAuthenticationFailed)).To(BeTrue())
	live, _ := b.Get(name("main"))
	b.Expect(live.Cache).To(BeIdenticalTo(first.Cache))
	b.Expect(live.Gate).To(Equal(keeper.Open))
	b.Expect(live.Serves(identity(1))).To(BeTrue())
	b.Eventually(there.CurrentConnectionCount).Should(BeZero(), "no connection is left of the attempt")
	_, done := b.keep("a")
	b.Expect(done).To(BeTrue())
	b.Expect(here.Exists("p:a")).To(BeTrue())
	b.Expect(b.Check(t.Context(), name("main"))).To(Succeed())
	b.Expect(b.heard()).To(BeEmpty())
}

func TestAPoolThatBreaksIsClosedUntilItIsBack(t *testing.T) {
	b, m := newBench(t), redistest.Miniredis(t)
	o := at(m)
	live := b.connect(1, o)
	b.keep("a")
	b.heard()
	m.FlushAll()
	m.Close()
	live.Keeper.Rewarm()
	b.Eventually(b.heard).Should(Equal([]string{"pool main"}))
	live, _ = b.Get(name("main"))
	b.Expect(live.Gate).To(Equal(keeper.Closed))
	b.Expect(cache.Is(b.try(identity(1), o), cache.ReasonConnectionFailed)).To(BeTrue())
	_, done := b.keep("b")
	b.Expect(done).To(BeFalse())

	b.Expect(m.Restart()).To(Succeed())
	b.connect(1, o)
	b.Eventually(m.Keys).Should(ConsistOf("p:a", "p:b"), "what the server lost is found out at once")
	b.Eventually(b.heard).Should(ContainElement("opened main"))
}

func TestAFullServerIsOpenForDeletionsOnly(t *testing.T) {
	b, m := newBench(t), redistest.Miniredis(t)
	m.SetError("OOM command not allowed when used memory > 'maxmemory'.")
	b.Expect(cache.Is(b.try(identity(1), at(m)), cache.ReasonOutOfMemory)).To(BeTrue())
	live, ok := b.Get(name("main"))
	b.Expect(ok).To(BeTrue())
	b.Expect(live.Gate).To(Equal(keeper.DeletionsOnly))
	m.SetError("")
	b.Expect(b.connect(1, at(m)).Gate).To(Equal(keeper.Open))
}

func TestOnlyTheConnectionInUseCanFail(t *testing.T) {
	b, here, there := newBench(t), redistest.Miniredis(t), redistest.Miniredis(t)
	old := b.connect(1, at(here)).Cache
	live := b.connect(2, at(there))
	b.heard()
	b.Failed(t.Context(), name("main"), old, cache.ErrNotFound)
	b.Failed(t.Context(), name("unknown"), nil, cache.ErrNotFound)
	b.Expect(b.heard()).To(BeEmpty())
	b.Failed(t.Context(), name("main"), live.Cache, cache.ErrNotFound)
	b.Expect(b.heard()).To(Equal([]string{"pool main"}))
}

func TestARemovedPoolHasNoConnections(t *testing.T) {
	b, m := newBench(t), redistest.Miniredis(t)
	b.connect(1, at(m))
	b.keep("a")
	b.Expect(m.CurrentConnectionCount()).To(BeNumerically(">", 0))
	b.Expect(b.Remove(name("main"))).To(Succeed())
	b.Expect(b.Remove(name("main"))).To(Succeed())
	b.Eventually(m.CurrentConnectionCount).Should(BeZero())
	_, ok := b.Get(name("main"))
	b.Expect(ok).To(BeFalse())
	_, done := b.keep("a")
	b.Expect(done).To(BeFalse())
	b.Drop(name("a"))
	b.Expect(b.Check(t.Context(), name("main"))).NotTo(Succeed())
	b.Expect(b.heard()).To(Equal([]string{"opened main"}), "it is gone, not broken")
}

func TestAPoolOfTheSameNameIsAnotherPool(t *testing.T) {
	b, m := newBench(t), redistest.Miniredis(t)
	first := b.connect(1, at(m))
	b.keep("a")
	b.Expect(b.try(pools.Identity{Name: name("main"), UID: "2", Generation: 1}, at(m))).To(Succeed())
	second, _ := b.Get(name("main"))
	b.Expect(second.Cache).NotTo(BeIdenticalTo(first.Cache))
	b.Expect(second.Keeper).NotTo(BeIdenticalTo(first.Keeper))
	m.FlushAll()
	second.Keeper.Rewarm()
	b.keep("b")
	b.Expect(m.Keys()).To(ConsistOf("p:b"), "the first pool's entries are not the second's")
}

func TestAnEntryIsKeptByOnePoolOnly(t *testing.T) {
	b, here, there := newBench(t), redistest.Miniredis(t), redistest.Miniredis(t)
	first := b.connect(1, at(here))
	b.Expect(b.try(pools.Identity{Name: name("other"), UID: "2"}, at(there))).To(Succeed())
	b.keep("a")
	b.keep("stays")
	_, done := b.Keep(t.Context(), name("other"), name("a"), declaring("a"), nil)
	b.Expect(done).To(BeTrue())
	here.FlushAll()
	first.Keeper.Rewarm()
	b.Eventually(here.Keys).Should(ConsistOf("p:stays"))
	b.Expect(there.Keys()).To(ConsistOf("p:a"))

	b.Drop(name("stays"))
	here.FlushAll()
	first.Keeper.Rewarm()
	b.keep("later")
	b.Expect(here.Keys()).To(ConsistOf("p:later"))
}

// The informer drops what an entry claims no more, while a look at the entry that began before is about to keep it.
func TestWhatIsKeptInTheMiddleOfADropIsDroppedByTheNext(t *testing.T) {
	t.Parallel()
	for next, drop := range map[string]func(*pools.Registry, types.NamespacedName){
		"Drop": func(r *pools.Registry, entry types.NamespacedName) { r.Drop(entry) }, "Gone": (*pools.Registry).Gone,
	} {
		t.Run(next, func(t *testing.T) {
			b, m := newBench(t), redistest.Miniredis(t)
			live := b.connect(1, at(m))
			b.Settle(name("main"), name("a")) // the first half of Keep
			b.Drop(name("a"))
			_, done := live.Keeper.Keep(t.Context(), name("a"), declaring("a"), nil) // and the second
			b.Expect(done).To(BeTrue())
			drop(b.Registry, name("a"))
			m.FlushAll()
			live.Keeper.Rewarm()
			b.keep("later")
			b.Expect(m.Keys()).To(ConsistOf("p:later"))
		})
	}
}

func TestASweepIsDueOnceAPeriod(t *testing.T) {
	b, m := newBench(t), redistest.Miniredis(t)
	b.connect(1, at(m))
	b.keep("a")
	m.FlushAll()
	b.Verify(name("main"), time.Hour)
	b.Consistently(m.Keys, "100ms").Should(BeEmpty())
	b.Verify(name("main"), time.Nanosecond)
	b.Eventually(m.Keys).Should(ConsistOf("p:a"))
	b.Verify(name("unknown"), 0)
}

func TestTheEndClosesEveryConnection(t *testing.T) {
	b, m := newBench(t), redistest.Miniredis(t)
	b.connect(1, at(m))
	b.keep("a")
	b.stop()
	b.Eventually(m.CurrentConnectionCount).Should(BeZero())
}

// A look at a pool may be under way when the operator ends.
func TestNothingIsConnectedAfterTheEnd(t *testing.T) {
	b, m := newBench(t), redistest.Miniredis(t)
	b.stop()
	b.Expect(b.try(identity(1), at(m))).To(MatchError(context.Canceled))
	b.Expect(m.TotalConnectionCount()).NotTo(BeZero())
	b.Eventually(m.CurrentConnectionCount).Should(BeZero())
	_, ok := b.Get(name("main"))
	b.Expect(ok).To(BeFalse())
	b.Expect(b.heard()).To(BeEmpty())
}

func TestAnAttemptIsRemembered(t *testing.T) {
	b := newBench(t)
	b.Expect(b.WasAttempted(name("main"))).To(BeFalse())
	b.Attempted(name("main"))
	b.Expect(b.WasAttempted(name("main"))).To(BeTrue())
	b.Expect(b.try(identity(1), cache.Options{Addresses: []string{"127.0.0.1:1"}, Prefix: "p:", Timeout: time.Second})).
		To(Satisfy(func(err error) bool { _, ok := errors.AsType[*cache.Error](err); return ok }))
}

func (b *bench) pause() time.Duration {
	pause, _ := b.Pause(name("main"))
	return pause
}

func TestAPoolThatBreaksSoonAfterItOpensIsTriedEverMoreSeldom(t *testing.T) {
	b, m := newBench(t), redistest.Miniredis(t)
	b.connect(1, at(m))
	b.Expect(b.pause()).To(BeZero())
	last, broken := time.Duration(0), &cache.Error{Class: cache.Unavailable, Reason: cache.ReasonConnectionFailed}
	for range 3 {
		for range 5 { // however many notice it
			b.Failed(t.Context(), name("main"), nil, broken)
		}
		pause, why := b.Pause(name("main"))
		b.Expect(pause).To(And(BeNumerically(">", last), BeNumerically("<", 5*time.Second)))
		b.Expect(why).To(Equal(broken))
		last = pause
		b.connect(1, at(m))
		b.Expect(b.pause()).To(BeZero(), "it serves")
	}
}

func TestAPoolOutOfMemoryStillTakesDeletions(t *testing.T) {
	b, m := newBench(t), redistest.Miniredis(t)
	b.connect(1, at(m))
	b.Failed(t.Context(), name("main"), nil, &cache.Error{Class: cache.Unavailable, Reason: cache.ReasonOutOfMemory})
	live, _ := b.Get(name("main"))
	b.Expect(live.Gate).To(Equal(keeper.DeletionsOnly))
	b.Expect(m.Set("p:a", "v")).To(Succeed())
	_, done := live.Keeper.Forget(t.Context(), name("a"), keeper.Forgetting{Key: "a"})
	b.Expect(done).To(BeTrue())
	b.Expect(m.Exists("p:a")).To(BeFalse())
}

func TestWhetherAPoolHasMoved(t *testing.T) {
	b, m := newBench(t), redistest.Start(t)
	here := cache.Options{Addresses: []string{m.Addr}, Prefix: "p:", Timeout: 5 * time.Second}
	alias, third := here, here
	alias.Addresses, third.Database = []string{"localhost" + m.Addr[len("127.0.0.1"):]}, 3
	elsewhere := cache.Options{Addresses: []string{redistest.Start(t).Addr}, Prefix: "p:", Timeout: 5 * time.Second}
	for i, step := range []struct {
		to    cache.Options
		moved bool
	}{{here, false}, {here, false}, {alias, false}, {elsewhere, true}, {here, true}, {third, true}} {
		moved, err := b.Connect(t.Context(), identity(int64(i)), step.to)
		b.Expect(err).NotTo(HaveOccurred())
		b.Expect(moved).To(Equal(step.moved), "step %d", i)
	}
}
