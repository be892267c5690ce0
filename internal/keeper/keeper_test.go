// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package keeper_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"
	testingclock "k8s.io/utils/clock/testing"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/keeper"
	"github.com/cachewright/cachewright/internal/metrics"
	"github.com/cachewright/cachewright/internal/plan"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

const prefix = "p:"

// bench is a keeper at work on a miniredis, with a clock that only the test moves.
type bench struct {
	*WithT
	*keeper.Keeper

	t     *testing.T
	clock *testingclock.FakeClock
	redis *miniredis.Miniredis
	pool  *cache.Pool
	net   *network

	mu       sync.Mutex
	news     []string
	failures int
	sent     []string
	refuse   map[string]string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	t.Parallel()
	b := &bench{
		WithT: NewWithT(t), t: t, clock: testingclock.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)),
		redis: redistest.Miniredis(t), net: &network{}, refuse: map[string]string{},
	}
	b.SetDefaultEventuallyTimeout(20 * time.Second)
	b.redis.Server().SetPreHook(b.hook)
	b.pool = cache.Open(cache.Options{Addresses: []string{b.redis.Addr()}, Prefix: prefix, Timeout: 10 * time.Second, Dial: b.net.dial})
	b.Keeper = keeper.New(b.clock, metrics.Of(types.NamespacedName{Name: t.Name()}), keeper.Owner{Changed: b.changed, Detects: func(keeper.Detection) {}, Unavailable: b.unavailable})
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { b.Run(ctx) })
	t.Cleanup(func() { stop(); work.Wait(); _ = b.pool.Stop() })
	b.Use(b.pool, keeper.Open, false)
	return b
}

func (b *bench) changed(id types.NamespacedName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.news = append(b.news, id.Name)
}

func (b *bench) unavailable(error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures++
}

// hook notes each command, and refuses those that the test wants refused.
func (b *bench) hook(c *server.Peer, command string, args ...string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(args) > 0 && strings.HasPrefix(args[0], prefix) {
		b.sent = append(b.sent, strings.ToLower(command)+" "+args[0])
	}
	if text := b.refuse[strings.ToLower(command)]; text != "" {
		c.WriteError(text)
		return true
	}
	return false
}

// refusing makes the server refuse a command; an empty text mends it.
func (b *bench) refusing(command, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse[command] = text
}

// told gives the names of the entries that there were news of, and forgets them.
func (b *bench) told() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	told := b.news
	b.news = nil
	return told
}

func (b *bench) failed() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failures
}

// count the commands that were sent with a key.
func (b *bench) count(command string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, line := range b.sent {
		if strings.HasPrefix(line, command+" ") {
			n++
		}
	}
	return n
}

// keep a key whose name is its entry's.
func (b *bench) keep(name, value string, ttl time.Duration) (keeper.Outcome, bool) {
	b.t.Helper()
	return b.Keep(b.t.Context(), id(name), keeper.Declaration{Key: name, Value: value, Digest: value, TTL: ttl, Policy: plan.Enforce}, nil)
}

func (b *bench) settled(name, value string, ttl time.Duration) {
	b.t.Helper()
	outcome, done := b.Keep(b.t.Context(), id(name), keeper.Declaration{Key: name, Value: value, Digest: value, TTL: ttl, Policy: plan.Enforce}, &keeper.Outcome{State: plan.Warm})
	b.Expect(done).To(BeTrue())
	b.Expect(outcome).To(Equal(keeper.Outcome{State: plan.Warm}))
}

// pass time, for the keeper and for the keys, once the keeper waits for it.
func (b *bench) pass(d time.Duration) {
	b.t.Helper()
	b.Eventually(b.clock.HasWaiters).Should(BeTrue(), "the keeper waits")
	b.redis.FastForward(d)
	b.clock.Step(d)
}

// running lets the clock go by itself.
func (b *bench) running() {
	tick := time.NewTicker(10 * time.Millisecond)
	b.t.Cleanup(tick.Stop)
	go func() {
		for {
			select {
			case <-tick.C:
				b.clock.Step(10 * time.Millisecond)
			case <-b.t.Context().Done():
				return
			}
		}
	}()
}

// holds waits until a key has its value, v.
func (b *bench) holds(key string) {
	b.t.Helper()
	b.Eventually(func() string { v, _ := b.redis.Get(prefix + key); return v }).Should(Equal("v"))
}

// looked makes the keeper look at all keys, and waits until it has.
func (b *bench) looked(keys int) {
	b.t.Helper()
	before := b.count("pttl")
	b.Verify()
	b.Eventually(func() int { return b.count("pttl") }).Should(BeNumerically(">=", before+keys))
}

func id(name string) types.NamespacedName { return types.NamespacedName{Namespace: "ns", Name: name} }

// network counts round trips: a write after a read begins one.
type network struct {
	// poison is text that no write gets through with.
	poison atomic.Value

	mu      sync.Mutex
	trips   int
	writing bool
}

func (n *network) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	return &counted{Conn: conn, network: n}, err
}

func (n *network) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.trips
}

type counted struct {
	net.Conn

	network *network
}

func (c *counted) Write(p []byte) (int, error) {
	if poison, ok := c.network.poison.Load().(string); ok && strings.Contains(string(p), poison) {
		_ = c.Close()
		return 0, io.ErrClosedPipe
	}
	c.network.mu.Lock()
	if !c.network.writing {
		c.network.trips++
	}
	c.network.writing = true
	c.network.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *counted) Read(p []byte) (int, error) {
	c.network.mu.Lock()
	c.network.writing = false
	c.network.mu.Unlock()
	return c.Conn.Read(p)
}

func TestADeclaredKeyIsWrittenAtOnceAndOnce(t *testing.T) {
	b := newBench(t)
	outcome, done := b.keep("a", "v", time.Hour)
	b.Expect(done).To(BeTrue())
	b.Expect(outcome).To(Equal(keeper.Outcome{State: plan.Warm, Written: b.clock.Now()}))
	b.Expect(b.redis.Get(prefix + "a")).To(Equal("v"))
	b.Expect(b.redis.TTL(prefix + "a")).To(Equal(time.Hour))

	again, done := b.keep("a", "v", time.Hour)
	b.Expect(done).To(BeTrue())
	b.Expect(again).To(Equal(outcome))
	b.Expect(b.count("getrange")).To(Equal(1), "the same declaration is not looked at again")
	b.Expect(b.told()).To(BeEmpty())
}

func TestAKeyThatIsRightIsNotWritten(t *testing.T) {
	b := newBench(t)
	b.Expect(b.redis.Set(prefix+"a", "v")).To(Succeed())
	outcome, done := b.keep("a", "v", 0)
	b.Expect(done).To(BeTrue())
	b.Expect(outcome).To(Equal(keeper.Outcome{State: plan.Warm}))
	b.Expect(b.count("set")).To(BeZero())
}

// Written is of the declared value: neither repairs, renewals nor another lifetime count.
func TestWrittenIsOfTheValue(t *testing.T) {
	b := newBench(t)
	b.keep("a", "v", 0)
	first := b.clock.Now()
	b.clock.Step(time.Minute)
	b.redis.Del(prefix + "a")
	b.Verify()
	b.holds("a")
	outcome, _ := b.keep("a", "v", time.Hour)
	b.Expect(outcome.Written).To(Equal(first))
	outcome, _ = b.keep("a", "w", time.Hour)
	b.Expect(outcome.Written).To(Equal(b.clock.Now()))

	b.settled("settled", "v", 0)
	b.clock.Step(time.Second)
	b.holds("settled")
	outcome, _ = b.keep("settled", "v", 0)
	b.Expect(outcome.Written).To(BeZero(), "it was written before the operator started")
}

func TestThousandsOfKeysCostFewRoundTrips(t *testing.T) {
	b := newBench(t)
	const keys = 5000
	for i := range keys {
		b.settled(fmt.Sprintf("k%d", i), "v", time.Hour)
	}
	before := b.net.count()
	b.pass(time.Second)
	b.Eventually(func() int { return len(b.redis.Keys()) }).Should(Equal(keys))
	b.Expect(b.net.count()-before).To(BeNumerically("<=", 25), "looks and writes")

	b.Eventually(b.clock.HasWaiters).Should(BeTrue())
	before = b.net.count()
	b.looked(keys)
	b.Expect(b.net.count()-before).To(BeNumerically("<=", 12), "a sweep")

	b.Use(b.pool, keeper.Closed, false)
	for i := range keys {
		_, done := b.Forget(t.Context(), id(fmt.Sprintf("k%d", i)), keeper.Forgetting{Key: fmt.Sprintf("k%d", i)})
		b.Expect(done).To(BeFalse())
	}
	before = b.net.count()
	b.Use(b.pool, keeper.Open, false)
	b.Eventually(func() int { return len(b.redis.Keys()) }).Should(BeZero())
	b.Expect(b.net.count()-before).To(BeNumerically("<=", 25), "deletions")
	b.Expect(b.failed()).To(BeZero())
}

// What the status of an entry already tells is looked at in a while, mended, and never told.
func TestASettledKeyIsSilent(t *testing.T) {
	b := newBench(t)
	b.settled("a", "v", 0)
	b.Expect(b.count("getrange")).To(BeZero(), "there is no hurry")
	b.pass(time.Second)
	b.holds("a")
	b.redis.Del(prefix + "a")
	b.Verify()
	b.holds("a")
	b.Expect(b.told()).To(BeEmpty())
}

func TestNewsAreToldOnce(t *testing.T) {
	b := newBench(t)
	b.keep("a", "v", 0)
	b.keep("b", "v", 0)
	b.redis.Del(prefix + "a")
	_, err := b.redis.Push(prefix+"a", "x")
	b.Expect(err).NotTo(HaveOccurred())
	b.Verify()
	b.Eventually(b.told).Should(Equal([]string{"a"}))
	outcome, done := b.keep("a", "v", 0)
	b.Expect(done).To(BeTrue())
	b.Expect(outcome.State).To(Equal(plan.WrongType))
	b.looked(2)
	b.looked(2)
	b.Expect(b.told()).To(BeEmpty(), "it is the same as before")

	b.redis.Del(prefix + "a")
	b.Verify()
	b.Eventually(b.told).Should(Equal([]string{"a"}))
	b.holds("a")
}

func TestAKeyIsRenewedInTime(t *testing.T) {
	b := newBench(t)
	const ttl = 30 * time.Second
	for i := range 20 {
		b.keep(fmt.Sprintf("k%d", i), "v", ttl)
	}
	for range 300 {
		b.pass(time.Second)
		b.Eventually(func(g Gomega) {
			for i := range 20 {
				g.Expect(b.redis.TTL(prefix + fmt.Sprintf("k%d", i))).To(BeNumerically(">=", ttl/4-time.Second))
			}
		}, "10s", "1ms").Should(Succeed())
	}
	b.Expect(b.count("set")).To(BeNumerically("<=", 20*(300/20+1)), "not before the last third")
	b.Expect(b.told()).To(BeEmpty())
}

func TestADroppedKeyIsLeftAlone(t *testing.T) {
	b := newBench(t)
	b.keep("a", "v", time.Minute)
	b.keep("other", "v", 0)
	b.Drop(id("a"))
	b.Drop(id("unknown"))
	b.Expect(b.redis.Get(prefix + "a")).To(Equal("v"))
	b.redis.FastForward(2 * time.Minute)
	b.clock.Step(2 * time.Minute)
	b.looked(1)
	b.Expect(b.redis.Exists(prefix + "a")).To(BeFalse())
}

func TestAForgottenKeyIsDeletedAndNotKept(t *testing.T) {
	b := newBench(t)
	b.keep("a", "v", 0)
	b.keep("other", "v", 0)
	b.Expect(b.redis.Set(prefix+"former", "v")).To(Succeed())
	for _, key := range []string{"former", "a", "was never there"} {
		outcome, done := b.Forget(t.Context(), id("a"), keeper.Forgetting{Key: key})
		b.Expect(done).To(BeTrue())
		b.Expect(outcome.Err).NotTo(HaveOccurred())
		b.Expect(b.redis.Exists(prefix + key)).To(BeFalse())
	}
	b.looked(1)
	b.Expect(b.redis.Keys()).To(ConsistOf(prefix + "other"))
}

func TestForgettingAnotherKeyKeepsTheDeclaredOne(t *testing.T) {
	b := newBench(t)
	b.keep("a", "v", 0)
	_, done := b.Forget(t.Context(), id("a"), keeper.Forgetting{Key: "former"})
	b.Expect(done).To(BeTrue())
	b.redis.Del(prefix + "a")
	b.Verify()
	b.holds("a")
}

func TestAKeyOfAnotherTypeIsNotForgotten(t *testing.T) {
	b := newBench(t)
	_, err := b.redis.Push(prefix+"a", "x")
	b.Expect(err).NotTo(HaveOccurred())
	outcome, done := b.Forget(t.Context(), id("a"), keeper.Forgetting{Key: "a"})
	b.Expect(done).To(BeTrue())
	b.Expect(outcome.Err).NotTo(HaveOccurred())
	b.Expect(b.redis.Exists(prefix + "a")).To(BeTrue())
}

func TestARefusedDeletionIsTriedAgainWhenAsked(t *testing.T) {
	b := newBench(t)
	b.keep("a", "v", 0)
	b.refusing("unlink", "NOPERM this user has no permissions to run the 'unlink' command")
	outcome, done := b.Forget(t.Context(), id("a"), keeper.Forgetting{Key: "a"})
	b.Expect(done).To(BeTrue())
	b.Expect(cache.Is(outcome.Err, cache.ReasonPermissionDenied)).To(BeTrue())
	b.refusing("unlink", "")
	outcome, done = b.Forget(t.Context(), id("a"), keeper.Forgetting{Key: "a"})
	b.Expect(done).To(BeTrue())
	b.Expect(outcome.Err).NotTo(HaveOccurred())
	b.Expect(b.redis.Exists(prefix + "a")).To(BeFalse())
}

func TestAnAbandonedDeletionDoesNotHappen(t *testing.T) {
	b := newBench(t)
	b.Expect(b.redis.Set(prefix+"a", "v")).To(Succeed())
	b.Use(b.pool, keeper.Closed, false)
	_, done := b.Forget(t.Context(), id("a"), keeper.Forgetting{Key: "a"})
	b.Expect(done).To(BeFalse())
	b.Abandon(id("a"), "a")
	b.Use(b.pool, keeper.Open, false)
	b.keep("other", "v", 0)
	b.Expect(b.redis.Exists(prefix + "a")).To(BeTrue())
}

func TestAClosedGateLetsNothingThrough(t *testing.T) {
	b := newBench(t)
	b.keep("kept", "v", time.Minute)
	b.Use(b.pool, keeper.Closed, false)
	_, done := b.keep("a", "v", 0)
	b.Expect(done).To(BeFalse(), "and nobody waits for it")
	sent := b.count("getrange")
	b.Verify()
	b.clock.Step(time.Hour)
	b.Consistently(func() int { return b.count("getrange") }, "200ms").Should(Equal(sent))

	b.Use(b.pool, keeper.Open, false)
	b.holds("a")
	b.Eventually(b.told).Should(Equal([]string{"a"}))
	outcome, done := b.keep("a", "v", 0)
	b.Expect(done).To(BeTrue())
	b.Expect(outcome.Err).NotTo(HaveOccurred())
}

func TestAGateForDeletionsOnly(t *testing.T) {
	b := newBench(t)
	b.keep("kept", "v", 0)
	b.Use(b.pool, keeper.DeletionsOnly, false)
	_, done := b.keep("a", "v", 0)
	b.Expect(done).To(BeFalse())
	_, done = b.Forget(t.Context(), id("kept"), keeper.Forgetting{Key: "kept"})
	b.Expect(done).To(BeTrue())
	b.Expect(b.redis.Keys()).To(BeEmpty())
}

func TestAFailureOfTheServerStopsTheKeeperUntilItIsBack(t *testing.T) {
	b := newBench(t)
	for i := range 10 {
		b.keep(fmt.Sprintf("k%d", i), "v", 0)
	}
	b.redis.Close()
	b.Verify()
	b.Eventually(b.failed).Should(Equal(1), "told once, not once a key")
	_, done := b.keep("new", "v", 0)
	b.Expect(done).To(BeFalse())
	_, done = b.Forget(t.Context(), id("k0"), keeper.Forgetting{Key: "k0"})
	b.Expect(done).To(BeFalse())
	b.clock.Step(time.Hour)
	b.Consistently(b.failed, "200ms").Should(Equal(1), "it does not try by itself")

	b.redis.FlushAll()
	b.Expect(b.redis.Restart()).To(Succeed())
	b.redis.Server().SetPreHook(b.hook)
	b.Use(b.pool, keeper.Open, false)
	b.Eventually(func() int { return len(b.redis.Keys()) }).Should(Equal(10), "k1 to k9 and new")
	b.Eventually(b.told).Should(ConsistOf("k0", "new"), "what their owners wait for, and nothing else")
}

func TestAFullServerStillTakesDeletions(t *testing.T) {
	b := newBench(t)
	b.keep("a", "v", 0)
	b.refusing("set", "OOM command not allowed when used memory > 'maxmemory'.")
	b.redis.Del(prefix + "a")
	b.Expect(b.redis.Set(prefix+"b", "v")).To(Succeed())
	b.Verify()
	b.Eventually(b.failed).Should(Equal(1))
	b.Use(b.pool, keeper.DeletionsOnly, false)
	_, done := b.Forget(t.Context(), id("b"), keeper.Forgetting{Key: "b"})
	b.Expect(done).To(BeTrue())
	b.Expect(b.redis.Exists(prefix + "b")).To(BeFalse())
}

func TestAKeyThatAnotherEntryDeclaresIsNotForgotten(t *testing.T) {
	b := newBench(t)
	b.keep("a", "v", 0)
	b.Keep(t.Context(), id("other"), keeper.Declaration{Key: "a", Value: "v", Digest: "v", Policy: plan.Enforce}, nil)
	_, done := b.Forget(t.Context(), id("a"), keeper.Forgetting{Key: "a"})
	b.Expect(done).To(BeTrue())
	b.looked(1)
	b.Expect(b.count("unlink")).To(BeZero())

	_, done = b.Forget(t.Context(), id("other"), keeper.Forgetting{Key: "a"})
	b.Expect(done).To(BeTrue())
	b.Expect(b.redis.Exists(prefix + "a")).To(BeFalse())
}

func TestADeclarationCancelsADeletionThatHasNotHappened(t *testing.T) {
	b := newBench(t)
	b.keep("a", "v", 0)
	b.Use(b.pool, keeper.Closed, false)
	_, done := b.Forget(t.Context(), id("a"), keeper.Forgetting{Key: "a"})
	b.Expect(done).To(BeFalse())
	b.keep("a", "v", 0)
	b.Use(b.pool, keeper.Open, false)
	b.looked(1)
	b.Expect(b.count("unlink")).To(BeZero())
	b.Expect(b.redis.Exists(prefix + "a")).To(BeTrue())
}

func TestADeletionThatWasDoneLongAgoIsNoDeletionNow(t *testing.T) {
	b := newBench(t)
	b.running()
	b.keep("a", "v", 0)
	b.redis.Server().SetPreHook(nil)
	b.Use(b.pool, keeper.Closed, false)
	_, done := b.Forget(t.Context(), id("a"), keeper.Forgetting{Key: "a"})
	b.Expect(done).To(BeFalse())
	b.Use(b.pool, keeper.Open, false)
	b.Eventually(func() bool { return b.redis.Exists(prefix + "a") }).Should(BeFalse())

	// Its owner, who never asked again, comes back to the key and leaves it once more.
	b.keep("a", "v", 0)
	b.Expect(b.redis.Exists(prefix + "a")).To(BeTrue())
	b.Eventually(func() bool { _, done := b.Forget(t.Context(), id("a"), keeper.Forgetting{Key: "a"}); return done }).Should(BeTrue())
	b.Expect(b.redis.Exists(prefix + "a")).To(BeFalse())
}

func TestAServerThatIsDownIsNoKeysFault(t *testing.T) {
	b := newBench(t)
	b.running()
	for i := range 50 {
		b.keep(fmt.Sprintf("k%d", i), "v", 0)
	}
	b.told()
	b.redis.Close()
	for outage := range 5 {
		b.Use(b.pool, keeper.Open, false)
		b.Verify()
		b.Eventually(b.failed).Should(Equal(outage + 1))
	}
	b.Expect(b.told()).To(BeEmpty())
}

// Something between us and Redis, a proxy for example, may break the connection at one value. The others must not
// suffer, nor may the pool open and fail for ever.
func TestAKeyThatBreaksTheConnectionIsFoundOut(t *testing.T) {
	b := newBench(t)
	b.running()
	b.net.poison.Store("poison")
	b.keep("bad", "poison", 0)
	for i := range 20 {
		b.keep(fmt.Sprintf("k%d", i), "v", 0)
	}
	b.Eventually(func() bool {
		b.Use(b.pool, keeper.Open, false)
		outcome, done := b.keep("bad", "poison", 0)
		return done && outcome.Err != nil
	}).Should(BeTrue())
	b.Use(b.pool, keeper.Open, false)
	for i := range 20 {
		b.holds(fmt.Sprintf("k%d", i))
	}
	failures := b.failed()
	b.Consistently(b.failed, "200ms").Should(Equal(failures), "and the pool stays open")
}

// A write that Redis refuses for a reason of its own is tried again, ever more seldom; other keys do not suffer.
func TestARefusedWriteBacksOff(t *testing.T) {
	b := newBench(t)
	b.keep("good", "v", 0)
	b.refusing("set", "ERR nope")
	outcome, done := b.keep("a", "v", 0)
	b.Expect(done).To(BeTrue())
	b.Expect(cache.Is(outcome.Err, cache.ReasonCommandFailed)).To(BeTrue())
	tries := b.count("set")
	for _, wait := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second} {
		b.pass(wait - time.Millisecond*20)
		b.Consistently(func() int { return b.count("set") }, "50ms").Should(Equal(tries), "not before %s", wait)
		b.pass(time.Millisecond * 20)
		tries++
		b.Eventually(func() int { return b.count("set") }).Should(Equal(tries), "after %s", wait)
	}
	b.Expect(b.told()).To(BeEmpty())
	b.Expect(b.failed()).To(BeZero())
	b.refusing("set", "")
	b.pass(30 * time.Second)
	b.holds("a")
	b.Eventually(b.told).Should(Equal([]string{"a"}))
}

func TestAnotherConnectionTakesOver(t *testing.T) {
	b := newBench(t)
	b.keep("a", "v", 0)
	there := redistest.Miniredis(t)
	next := cache.Open(cache.Options{Addresses: []string{there.Addr()}, Prefix: prefix, Timeout: 10 * time.Second})
	defer func() { _ = next.Stop() }()
	b.Use(next, keeper.Open, false)
	b.Verify()
	b.Eventually(func() string { v, _ := there.Get(prefix + "a"); return v }).Should(Equal("v"))
	b.Expect(b.told()).To(BeEmpty())
}

// A declaration that changes while the server is slow: the last one counts.
func TestTheLastDeclarationCounts(t *testing.T) {
	b := newBench(t)
	var work sync.WaitGroup
	for i := range 100 {
		work.Go(func() { b.keep("a", fmt.Sprintf("v%d", i), 0) })
	}
	finished := make(chan struct{})
	go func() { work.Wait(); close(finished) }()
	b.Eventually(func() <-chan struct{} { b.clock.Step(time.Second); return finished }).Should(BeClosed())
	b.keep("a", "last", 0)
	b.Expect(b.redis.Get(prefix + "a")).To(Equal("last"))
	b.looked(1)
	b.Expect(b.redis.Get(prefix + "a")).To(Equal("last"))
}
