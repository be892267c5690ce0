// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// counters are entries whose runs are asked for one after the other, each once the status shows the last.
type counters struct {
	*WithT

	t     *testing.T
	redis *redis.Client
	space string
	// increments of the counters, and how many runs each of them gets.
	increments []int64
	runs       int
	// asked is how many runs were asked for so far, and allowed how many may be.
	asked, allowed atomic.Int64
}

func newCounters(t *testing.T, r *redis.Client, space string, n, runs int) *counters {
	t.Helper()
	c := &counters{WithT: expectations(t), t: t, redis: r, space: space, runs: runs}
	for i := range n {
		increment := int64(i + 1)
		switch i % 5 {
		case 3:
			increment = -increment
		case 4:
			increment += 1 << 53 // where floating point goes wrong
		}
		c.increments = append(c.increments, increment)
	}
	all(n, func(i int) {
		e := entryIn(space, c.name(i))
		e.Spec.Value = nil
		e.Spec.Counter = &v1alpha1.CounterSpec{Increment: c.increments[i], RunID: c.run(1)}
		if err := k8s.Create(t.Context(), e); err != nil {
			t.Error(err)
		}
	})
	c.asked.Store(int64(n))
	c.allowed.Store(int64(n))
	return c
}

func (c *counters) name(i int) string { return fmt.Sprintf("counter-%d", i) }

func (c *counters) run(n int) string { return fmt.Sprintf("run-%d", n) }

func (c *counters) total() int64 { return int64(len(c.increments) * c.runs) }

// counter is one of them as spec and status have it: how many runs were asked for, and how many are shown.
type counter struct {
	entry        v1alpha1.CacheEntry
	index        int
	asked, shown int
}

// look at all of them. A status that shows another value than the runs come to is an error.
func (c *counters) look(ctx context.Context) []counter {
	var list v1alpha1.CacheEntryList
	if err := k8s.List(ctx, &list, client.InNamespace(c.space)); err != nil {
		if ctx.Err() == nil {
			c.t.Error(err)
		}
		return nil
	}
	found := make([]counter, 0, len(c.increments))
	for _, e := range list.Items {
		n := counter{entry: e}
		if _, err := fmt.Sscanf(e.Name, "counter-%d", &n.index); err != nil {
			continue // another entry
		}
		_, _ = fmt.Sscanf(e.Spec.Counter.RunID, "run-%d", &n.asked)
		if s := e.Status.Counter; s != nil {
			_, _ = fmt.Sscanf(s.RunID, "run-%d", &n.shown)
			if want := int64(n.shown) * c.increments[n.index]; s.Value != want {
				c.t.Errorf("the status of %s shows %d after %s, want %d", e.Name, s.Value, s.RunID, want)
			}
		}
		found = append(found, n)
	}
	return found
}

// ask for the next run of each counter whose status shows the last, as far as that is allowed.
func (c *counters) ask(ctx context.Context) {
	for _, n := range c.look(ctx) {
		if n.shown != n.asked || n.asked == c.runs || c.asked.Load() == c.allowed.Load() {
			continue
		}
		before := n.entry.DeepCopy()
		n.entry.Spec.Counter.RunID = c.run(n.asked + 1)
		if err := k8s.Patch(ctx, &n.entry, client.MergeFrom(before)); err == nil {
			c.asked.Add(1)
		} else if ctx.Err() == nil {
			c.t.Error(err)
		}
	}
}

// keepAsking until the returned function is called.
func (c *counters) keepAsking() (stop func()) {
	ctx, cancel := context.WithCancel(c.t.Context())
	var work sync.WaitGroup
	work.Go(func() {
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
				c.ask(ctx)
			}
		}
	})
	return func() { cancel(); work.Wait() }
}

// allow more runs to be asked for.
func (c *counters) allow(more int) { c.allowed.Store(min(c.total(), c.allowed.Load()+int64(more))) }

// shown waits until the status of each counter shows what was asked for, and that is all that is allowed.
func (c *counters) shown() {
	c.t.Helper()
	c.Eventually(func(g Gomega) {
		total := 0
		for _, n := range c.look(c.t.Context()) {
			g.Expect(n.shown).To(Equal(n.asked), "%s: %v", n.entry.Name, n.entry.Status.Conditions)
			total += n.shown
		}
		g.Expect(total).To(BeEquivalentTo(c.allowed.Load()))
	}).Should(Succeed())
}

// counted are the runs of each counter that Redis has counted. Half a run, or a part of one, is an error.
func (c *counters) counted() []int {
	names := make([]string, len(c.increments))
	for i := range names {
		names[i] = "glimr:cache:main:" + c.name(i)
	}
	values, err := c.redis.MGet(c.t.Context(), names...).Result()
	if err != nil {
		c.t.Error(err)
		return make([]int, len(names))
	}
	runs := make([]int, len(names))
	for i, v := range values {
		text, there := v.(string)
		if !there {
			continue
		}
		var value int64
		if _, err := fmt.Sscanf(text, "%d", &value); err != nil || value%c.increments[i] != 0 {
			c.t.Errorf("%s holds %q, which is no multiple of %d", names[i], text, c.increments[i])
			continue
		}
		runs[i] = int(value / c.increments[i])
	}
	return runs
}

func (c *counters) countedTotal() int {
	total := 0
	for _, n := range c.counted() {
		total += n
	}
	return total
}

// unshown says how many runs Redis has counted that no status shows, while nobody works. More than one of a counter
// would have been counted twice.
func (c *counters) unshown() int {
	c.t.Helper()
	counted, total := c.counted(), 0
	for _, n := range c.look(c.t.Context()) {
		ahead := counted[n.index] - n.shown
		if ahead < 0 || ahead > n.asked-n.shown {
			c.t.Errorf("%s: %d runs asked for, %d shown, %d counted", n.entry.Name, n.asked, n.shown, counted[n.index])
		}
		total += ahead
	}
	return total
}

// exact checks that every run that was asked for was counted once and is shown.
func (c *counters) exact() {
	c.t.Helper()
	c.shown()
	c.Expect(c.unshown()).To(BeZero())
	markers, err := c.redis.Keys(c.t.Context(), "cachewright:counter:*").Result()
	c.Expect(err).NotTo(HaveOccurred())
	c.Expect(markers).To(HaveLen(len(c.increments)))
}

func TestCountersAreExactThoughTheOperatorIsKilledAHundredTimes(t *testing.T) {
	t.Parallel()
	const n, runs, kills = 50, 20, 100
	random := chance(t)
	server := redistest.Start(t)
	space := namespace(t, "counter")
	if err := k8s.Create(t.Context(), poolIn(space, server.Addr)); err != nil {
		t.Fatal(err)
	}
	c := newCounters(t, server.Client(t), space, n, runs)
	stop := c.keepAsking()
	defer stop()

	unshown, idle := 0, 0
	for kill := range kills {
		c.allowed.Store(n + (c.total()-n)*int64(kill+1)/kills)
		m := run(t, kubeconfig, "--namespaces="+space)
		before := c.countedTotal()
		if random.IntN(3) > 0 { // in the middle of the work; otherwise at any time, also before it begins
			c.Eventually(c.countedTotal).WithPolling(time.Millisecond).Should(BeNumerically(">", before))
			pause(t, time.Duration(random.Int64N(int64(20*time.Millisecond))))
		} else {
			pause(t, time.Duration(random.Int64N(int64(1500*time.Millisecond))))
		}
		m.kill()
		if c.countedTotal() == before {
			idle++
		}
		if ahead := c.unshown(); ahead > 0 {
			unshown++
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	t.Logf("%d kills, %d of them between an increment and its status, %d before the first increment", kills, unshown, idle)
	c.Expect(unshown).To(BeNumerically(">", 0), "no kill came at the moment that matters")
	run(t, kubeconfig, "--namespaces="+space)
	c.exact()
	for i, counted := range c.counted() {
		c.Expect(counted).To(Equal(runs), c.name(i))
	}
}
