// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gleak"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// again waits until a watch can be begun, and checks that it tells of keys on all nodes.
func again(t *testing.T, p *cache.Pool, addr string) {
	t.Helper()
	names, c := spread(30), client(t, addr)
	var w *watcher
	NewWithT(t).Eventually(func() bool {
		w = listen(t, p)
		select {
		case <-w.began:
			return true
		case err := <-w.ended:
			return err == nil // it never is
		}
	}).WithTimeout(30 * time.Second).WithPolling(200 * time.Millisecond).Should(BeTrue())
	w.observe(t, names...)
	for _, name := range names {
		NewWithT(t).Eventually(func() error { return c.Set(t.Context(), prefix+name, "v", 0).Err() }).WithTimeout(timeout).Should(Succeed())
	}
	w.hears(t, names...)
}

// The server of a key is another from now on, and the former one says nothing.
func TestAWatchEndsWhenKeysHaveGoneToAnotherServer(t *testing.T) {
	t.Parallel()
	moved := func(c *redistest.Cluster) { c.Move(0, c.Masters[0], c.Masters[1]) }
	for name, change := range map[string]func(*redistest.Cluster){
		"a slot moved":          moved,
		"a master was lost":     func(c *redistest.Cluster) { c.Lose(0) },
		"a master was replaced": func(c *redistest.Cluster) { c.FailOver(0) },
		"a master joined":       func(c *redistest.Cluster) { c.Move(0, c.Masters[0], c.Join()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := redistest.StartCluster(t, 3, name != "a slot moved" && name != "a master joined")
			p := open(t, c.Address(), within(time.Second))
			w := watch(t, p, cache.Tracking)
			change(c)
			broken(t, w.end(t, silence))
			again(t, p, c.Address())
		})
	}
	for name, change := range map[string]func(*redistest.Sentinels){"the server was lost": (*redistest.Sentinels).Lose, "the server was replaced": (*redistest.Sentinels).FailOver} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redistest.StartSentinels(t, "down-after-milliseconds 500")
			p := open(t, s.Address(), within(time.Second))
			w := watch(t, p, cache.Tracking)
			change(s)
			broken(t, w.end(t, silence))
			again(t, p, s.Address())
		})
	}
}

// A slot may stand half-way for long. Its keys are read where they are, and the watch goes on.
func TestObserveWhileASlotIsOnItsWay(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3, false)
	p, names := open(t, c.Address()), []string{"{slot}1", "{slot}2", "{slot}3", "{slot}missing", "elsewhere"}
	slot := c.SlotOf("{slot}")
	from, to := c.Masters[0], c.Masters[1]
	for _, s := range c.Masters[1:] {
		if owns(t, s, "{slot}") {
			from, to = s, c.Masters[0]
		}
	}
	for _, name := range names[:3] {
		ok(t, p.PutForever(t.Context(), name, name))
	}
	w := watch(t, p, cache.Tracking)
	m := c.Migrate(slot, from, to)
	m.Carry(2)
	var looks []cache.Look
	for _, name := range names {
		looks = append(looks, cache.Look{Key: name, Size: 20})
	}
	for range 3 {
		for i, o := range p.Observe(t.Context(), looks) {
			if o.Err != nil || o.Exists != (i < 3) || i < 3 && o.Value != names[i] {
				t.Errorf("%s: %+v", names[i], o)
			}
		}
	}
	select {
	case err := <-w.ended:
		t.Errorf("the watch has ended: %v", err)
	default:
	}
	for _, sum := range p.IncrementAll(t.Context(), []cache.Increment{{Key: "{slot}counter", ID: uid, By: 1, RunID: "run"}}) {
		if sum.Err != nil && (cache.ServerWide(sum.Err) || sum.Err.Error() != "The key's slot is on its way to another node of the cluster") {
			t.Errorf("%+v", sum)
		}
	}
	m.Finish()
	broken(t, w.end(t, silence))
	wantSum(t, 1, p.IncrementAll(t.Context(), []cache.Increment{{Key: "{slot}counter", ID: uid, By: 1, RunID: "run"}})[0])
	again(t, p, c.Address())
}

func TestNothingIsLeftOfAPoolThatIsStopped(t *testing.T) {
	for _, name := range []string{"cluster", "sentinel"} {
		t.Run(name, func(t *testing.T) {
			addr, _ := redistest.Servers[name](t)
			server := client(t, addr)
			NewWithT(t).Eventually(clients).WithArguments(t, server).Should(BeNumerically("<=", 1))
			before, running, wire := clients(t, server), gleak.Goroutines(), newWire()
			p := open(t, addr, over(wire))
			w := watch(t, p, cache.Tracking)
			w.observe(t, spread(30)...)
			if _, err := p.Flush(t.Context()); err != nil {
				t.Error(err)
			}
			ok(t, p.Stop())
			_ = w.end(t, atOnce)
			if n := wire.open(); n != 0 {
				t.Errorf("%d connections are open", n)
			}
			NewWithT(t).Eventually(clients).WithArguments(t, server).WithTimeout(timeout).Should(Equal(before))
			NewWithT(t).Eventually(gleak.Goroutines).WithTimeout(timeout).ShouldNot(gleak.HaveLeaked(running))
		})
	}
}
