// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// crashes are entries whose keys change while the operator that writes them is killed over and over.
type crashes struct {
	*WithT

	t      *testing.T
	random *rand.Rand
	redis  *redis.Client
	space  string
	// entries as they were last changed.
	entries []*v1alpha1.CacheEntry
	// kills, and how many keys had been written then without their status saying so.
	kills, untold int
}

// fullName of an entry's key.
func fullName(e *v1alpha1.CacheEntry) string {
	return "glimr:cache:" + e.Spec.PoolRef.Name + ":" + e.Spec.Key
}

// keys that Redis holds, sorted.
func (c *crashes) keys() []string {
	keys, err := c.redis.Keys(c.t.Context(), "glimr:cache:*").Result()
	if err != nil {
		c.t.Error(err)
	}
	slices.Sort(keys)
	return keys
}

// declared keys, sorted.
func (c *crashes) declared() []string {
	names := make([]string, len(c.entries))
	for i, e := range c.entries {
		names[i] = fullName(e)
	}
	slices.Sort(names)
	return names
}

// written says how many declared keys are there.
func (c *crashes) written() int {
	n, err := c.redis.Exists(c.t.Context(), c.declared()...).Result()
	if err != nil {
		c.t.Error(err)
	}
	return int(n)
}

// operator is one, for the namespace of the entries.
func (c *crashes) operator() *manager { return run(c.t, kubeconfig, "--namespaces="+c.space) }

// kill an operator at a random time: when it has written some of the declared keys, as soon as that is seen, or at any.
func (c *crashes) kill(m *manager) {
	c.t.Helper()
	if c.random.IntN(4) > 0 {
		c.Eventually(c.written).WithPolling(500 * time.Microsecond).Should(BeNumerically(">", c.random.IntN(len(c.entries))))
	} else {
		pause(c.t, time.Duration(c.random.Int64N(int64(1500*time.Millisecond))))
	}
	m.kill()
	c.kills++
	there := c.keys()
	for _, e := range entriesIn(c.t, c, c.space) {
		if _, written := slices.BinarySearch(there, fullName(&e)); written && e.Status.Key != fullName(&e) {
			c.untold++
		}
	}
}

// create entries of every policy that writes, with different lifetimes and pools.
func (c *crashes) create(round, n int) {
	c.entries = make([]*v1alpha1.CacheEntry, n)
	for i := range c.entries {
		e := entryIn(c.space, fmt.Sprintf("round-%d-entry-%d", round, i))
		e.Spec.Policy = []v1alpha1.EntryPolicy{"", v1alpha1.PolicyEnsurePresent, v1alpha1.PolicyWriteOnChange}[i%3]
		if i%2 == 0 {
			e.Spec.Forever, e.Spec.TTL = nil, &metav1.Duration{Duration: time.Hour}
		}
		c.entries[i] = e
	}
	all(n, func(i int) {
		if err := k8s.Create(c.t.Context(), c.entries[i]); err != nil {
			c.t.Error(err)
		}
	})
}

// change the key of each entry, and of some the value, the pool, or both too.
func (c *crashes) change() {
	values := make([]bool, len(c.entries))
	pools := make([]bool, len(c.entries))
	for i := range c.entries {
		values[i], pools[i] = c.random.IntN(2) == 0, c.random.IntN(3) == 0
	}
	all(len(c.entries), func(i int) {
		e := &v1alpha1.CacheEntry{}
		if err := k8s.Get(c.t.Context(), client.ObjectKeyFromObject(c.entries[i]), e); err != nil {
			c.t.Error(err)
		}
		before := e.DeepCopy()
		e.Spec.Key += "-changed"
		if values[i] {
			e.Spec.Value = new(*e.Spec.Value + ", changed")
		}
		if pools[i] {
			e.Spec.PoolRef.Name = map[string]string{"main": "other", "other": "main"}[e.Spec.PoolRef.Name]
		}
		if err := k8s.Patch(c.t.Context(), e, client.MergeFrom(before)); err != nil {
			c.t.Error(err)
		}
		c.entries[i] = e
	})
}

// settled waits until all statuses are as they should be, and no other key is there than declared ones.
func (c *crashes) settled() {
	c.t.Helper()
	c.Eventually(func(g Gomega) {
		for _, e := range entriesIn(c.t, g, c.space) {
			g.Expect(isReady(&e)).To(BeTrue(), "%s: %v", e.Name, e.Status.Conditions)
			g.Expect(e.Status.Key).To(Equal(fullName(&e)))
		}
		g.Expect(c.keys()).To(Equal(c.declared()))
	}).Should(Succeed())
	for _, e := range c.entries {
		c.Expect(c.redis.Get(c.t.Context(), fullName(e)).Val()).To(Equal(*e.Spec.Value))
	}
}

// remove the entries, and with them their keys.
func (c *crashes) remove() {
	c.t.Helper()
	all(len(c.entries), func(i int) {
		if err := k8s.Delete(c.t.Context(), c.entries[i]); err != nil {
			c.t.Error(err)
		}
	})
	c.Eventually(func(g Gomega) { g.Expect(entriesIn(c.t, g, c.space)).To(BeEmpty()) }).Should(Succeed())
	c.Expect(c.keys()).To(BeEmpty())
}

func TestACrashBeforeTheStatusIsWrittenLeavesNoKeyBehindWhenTheKeyIsChangedMeanwhile(t *testing.T) {
	t.Parallel()
	const rounds, changes, n = 8, 3, 20
	server := redistest.Start(t)
	c := &crashes{WithT: expectations(t), t: t, random: chance(t), redis: server.Client(t), space: namespace(t, "crash")}
	for _, name := range []string{"main", "other"} {
		pool := poolIn(c.space, server.Addr)
		pool.Name = name
		c.Expect(k8s.Create(t.Context(), pool)).To(Succeed())
	}
	m := c.operator()
	for round := range rounds {
		c.create(round, n)
		for range changes {
			c.kill(m)
			c.change()
			m = c.operator()
		}
		c.settled()
		c.remove()
	}
	t.Logf("%d kills, when %d keys had been written of which no status told", c.kills, c.untold)
	c.Expect(c.untold).To(BeNumerically(">", 0), "no kill came at the moment that matters")
}

func TestACrashBeforeTheStatusIsWrittenLeavesNoKeyBehindWhenTheEntryIsDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	const rounds, n = 4, 20
	server := redistest.Start(t)
	c := &crashes{WithT: expectations(t), t: t, random: chance(t), redis: server.Client(t), space: namespace(t, "crash")}
	c.Expect(k8s.Create(t.Context(), poolIn(c.space, server.Addr))).To(Succeed())
	for round := range rounds {
		m := c.operator()
		c.create(round, n)
		c.kill(m)
		all(n, func(i int) {
			if err := k8s.Delete(t.Context(), c.entries[i]); err != nil {
				t.Error(err)
			}
		})
		m = c.operator()
		c.Eventually(func(g Gomega) { g.Expect(entriesIn(t, g, c.space)).To(BeEmpty()) }).Should(Succeed())
		c.Expect(c.keys()).To(BeEmpty())
		m.kill()
	}
	t.Logf("%d kills, when %d keys had been written of which no status told", c.kills, c.untold)
}
