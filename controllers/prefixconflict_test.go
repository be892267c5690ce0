// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

var inConflict = stalls("PrefixConflict")

// alias is another name of the same address.
func (w *world) alias(p *v1alpha1.CachePool) {
	p.Spec.Addresses = []string{"localhost" + w.addr[len("127.0.0.1"):]}
}

// younger creates a pool of another namespace, which is younger than what there is.
func (w *world) younger(change ...func(*v1alpha1.CachePool)) (*tenant, *v1alpha1.CachePool) {
	w.t.Helper()
	w.later()
	there := w.tenant()
	p := there.pool(change...)
	there.create(p)
	return there, p
}

func TestOfTwoPoolsWithOverlappingPrefixesTheYoungerDoesNothing(t *testing.T) {
	t.Parallel()
	for name, prefixes := range map[string]struct{ older, younger string }{
		"same":   {"app:", "app:"},
		"wider":  {"app:shop:", "app"},
		"nested": {"app:", "app:shop:"},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			older := w.ready(under(prefixes.older))
			there, younger := w.younger(under(prefixes.younger))
			there.becomes(younger, inConflict)
			there.says(younger, "An older CachePool of another namespace has an overlapping key prefix on the same server and database, and does not admit this namespace")
			there.discreet(younger, w.namespace, `"main"`, w.addr)
			w.stays(older, connected, time.Second)

			w.set(prefixes.younger+"k", "v")
			e, f := there.world.entry("e"), there.world.flush("f", all)
			there.create(e)
			there.create(f)
			there.becomes(e, waits("PoolNotReady"))
			there.becomes(f, poolIsDown)
			w.Expect(e.Finalizers).To(BeEmpty())
			w.Expect(w.keys("app*")).To(Equal([]string{prefixes.younger + "k"}))

			// It clears when the older one goes.
			w.delete(older)
			w.vanishes(older)
			there.becomes(younger, connected)
			there.becomes(e, isWarm)
			there.becomes(f, flushed)
			w.Expect(w.keys("app*")).To(Equal([]string{prefixes.younger + "e"}))
		})
	}
}

func TestPoolsThatDoNotShareKeysAreNotInConflict(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(under("app:"))
	there, p := w.younger(under("apt:"))
	there.becomes(p, connected)
	_, elsewhere := w.younger(under("app:"), func(p *v1alpha1.CachePool) { p.Spec.Database = new(int32(1)) })
	there.becomes(elsewhere, connected)
	_, elsewhere = w.younger(under("app:"), func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{redistest.Miniredis(t).Addr()} })
	there.becomes(elsewhere, connected)
	same := w.pool(under("app:"), func(p *v1alpha1.CachePool) { p.Name = "same-namespace" })
	w.create(same)
	w.becomes(same, connected)
}

func TestAnOlderPoolMayAdmitAYoungerOne(t *testing.T) {
	w, _ := newRealWorld(t)
	older := w.ready(choosy("blue"))
	there, younger := w.younger()
	there.becomes(younger, inConflict)
	there.label("blue")
	there.becomes(younger, connected)
	e := there.world.entry("a")
	there.create(e)
	there.becomes(e, isWarm)

	// What it writes is then seen by both.
	held := w.entry("b", keyed("a"))
	w.later()
	w.create(held)
	w.becomes(held, stalls("KeyConflict"))
	w.Expect(w.run("f", all).Status.Progress.Preserved).To(BeEquivalentTo(1))

	update(w, older, shut)
	there.becomes(younger, inConflict)
	w.becomes(held, isWarm)
	w.stores(mainPrefix+"a", "value of b", time.Second)
	update(w, older, open)
	there.becomes(younger, connected)
	w.becomes(held, stalls("KeyConflict"))
	there.becomes(e, isWarm)
	w.holds(mainPrefix+"a", "value of a")
}

// Whoever came to the server first, the older pool has the keys.
func TestAnOlderPoolThatMovesToAServerTakesTheKeys(t *testing.T) {
	w, _ := newRealWorld(t)
	older := w.ready(func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{redistest.Miniredis(t).Addr()} })
	there, younger := w.younger(w.alias)
	there.becomes(younger, connected)
	e := there.world.entry("a")
	there.create(e)
	there.becomes(e, isWarm)

	update(w, older, func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{w.addr} })
	there.becomes(younger, inConflict)
	w.becomes(older, connected)
	w.set(mainPrefix+"a", "drift")
	w.stores(mainPrefix+"a", "drift", time.Second)

	update(w, older, func(p *v1alpha1.CachePool) { p.Spec.Database = new(int32(1)) })
	there.becomes(younger, connected)
	w.holds(mainPrefix+"a", "value of a")
}

// A pool that moves to where an older one is leaves what it had, too: its spec says where it belongs.
func TestAYoungerPoolThatMovesToTheOlderOnesServerDoesNothing(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	there, younger := w.younger(func(p *v1alpha1.CachePool) { p.Spec.Database = new(int32(1)) })
	there.becomes(younger, connected)
	e := there.world.entry("a")
	there.create(e)
	there.becomes(e, isWarm)
	update(there.world, younger, func(p *v1alpha1.CachePool) { p.Spec.Database = nil })
	there.becomes(younger, inConflict)
	fresh := there.world.entry("b")
	there.create(fresh)
	there.becomes(fresh, waits("PoolNotReady"))
	w.Expect(w.keys("*")).To(BeEmpty())
	update(there.world, younger, func(p *v1alpha1.CachePool) { p.Spec.Database = new(int32(1)) })
	there.becomes(fresh, isWarm)
}

// The server says who it is, whatever it is called, after a restart too.
func TestAServerWithTwoAddressesIsOneServer(t *testing.T) {
	w, server := newRealWorld(t)
	w.ready()
	there, younger := w.younger(w.alias)
	there.becomes(younger, inConflict)
	e := there.world.entry("a")
	there.create(e)
	there.becomes(e, waits("PoolNotReady"))

	server.Restart()
	for range 5 {
		there.look(younger)
		w.Consistently(func() []string { return w.keys("*") }, "300ms").Should(BeEmpty())
	}
	there.becomes(younger, inConflict)
}

func TestAnEntryOfAPoolInConflictIsReleased(t *testing.T) {
	w, _ := newRealWorld(t)
	older := w.ready(open)
	there, younger := w.younger()
	there.becomes(younger, connected)
	e := there.world.entry("a")
	there.create(e)
	there.becomes(e, isWarm)
	update(w, older, shut)
	there.becomes(younger, inConflict)
	there.delete(younger)
	there.delete(e)
	there.vanishes(e)
	there.vanishes(younger)
	there.tells(e, `Warning Released: Key "`+mainPrefix+`a" stays in Redis, since CachePool "main" cannot serve`)
	w.holds(mainPrefix+"a", "value of a")
}

func TestASuspendedOlderPoolHasItsKeysStill(t *testing.T) {
	w, _ := newRealWorld(t)
	older := w.ready()
	update(w, older, suspendPool)
	w.Eventually(func() string { w.reload(older); return summary(older) }).Should(ContainSubstring("Suspended=True"))
	there, younger := w.younger(w.alias, func(p *v1alpha1.CachePool) { p.Spec.ResyncPeriod = &metav1.Duration{Duration: time.Hour} })
	there.becomes(younger, inConflict)
}
