// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// keyed gives an entry a key.
func keyed(key string) func(*v1alpha1.CacheEntry) {
	return func(e *v1alpha1.CacheEntry) { e.Spec.Key = key }
}

// in puts an entry into a pool.
func in(pool string) func(*v1alpha1.CacheEntry) {
	return func(e *v1alpha1.CacheEntry) { e.Spec.PoolRef.Name = pool }
}

func suspendEntry(e *v1alpha1.CacheEntry) { e.Spec.Suspend = true }

func resumeEntry(e *v1alpha1.CacheEntry) { e.Spec.Suspend = false }

// rivals creates two entries for key k, the older of which holds it. Times of creation count in seconds, and within
// one the names decide.
func (w *world) rivals(change ...func(*v1alpha1.CacheEntry)) (older, younger *v1alpha1.CacheEntry) {
	w.t.Helper()
	older = w.entry("a", keyed("k"), valued("older"))
	younger = w.entry("b", append(change, keyed("k"), valued("younger"))...)
	w.create(older)
	w.becomes(older, isWarm)
	w.create(younger)
	return older, younger
}

func TestOfTwoEntriesForOneKeyTheOlderHoldsIt(t *testing.T) {
	w := newWorld(t)
	w.ready()
	older, younger := w.rivals()
	w.becomes(younger, stalls("KeyConflict"))
	w.says(younger, `CacheEntry "a" is older and declares the same key`)
	w.Expect(younger.Finalizers).To(BeEmpty())
	w.stores(mainPrefix+"k", "older", sweeps/2)
	w.Expect(summary(older)).To(Equal(isWarm))
	w.rests(younger, time.Second)
}

// Within a second, the name decides, whoever came first: the key passes on.
func TestTheNameDecidesWithinASecond(t *testing.T) {
	w := newWorld(t)
	w.ready()
	b := w.entry("b", keyed("k"), valued("b"))
	a := w.entry("a", keyed("k"), valued("a"))
	w.create(b)
	w.create(a)
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		a, b = b, a
	}
	w.becomes(b, stalls("KeyConflict"))
	w.becomes(a, isWarm)
	w.holds(mainPrefix+"k", a.Name)
	w.stores(mainPrefix+"k", a.Name, time.Second)
}

// When the holder goes the key passes on, and at no time is it missing.
func TestTheKeyPassesOnWithoutEverBeingDeleted(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(w *world, older *v1alpha1.CacheEntry){
		"deleted": func(w *world, older *v1alpha1.CacheEntry) { w.delete(older); w.vanishes(older) },
		"another key": func(w *world, older *v1alpha1.CacheEntry) {
			update(w, older, keyed("elsewhere"))
			w.holds(mainPrefix+"elsewhere", "older")
		},
		"another pool": func(w *world, older *v1alpha1.CacheEntry) {
			w.create(w.pool(func(p *v1alpha1.CachePool) { p.Name = "other" }))
			update(w, older, in("other"))
			w.holds("glimr:cache:other:k", "older")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			w.ready()
			older, younger := w.rivals()
			w.becomes(younger, stalls("KeyConflict"))
			gone := w.deletions()
			leave(w, older)
			w.becomes(younger, isWarm)
			w.Expect(w.redis.Get(t.Context(), mainPrefix+"k").Val()).To(Equal("younger"))
			w.Expect(gone()).To(BeEmpty())
		})
	}
}

func TestTheYoungerGoesWithoutTakingTheKey(t *testing.T) {
	w := newWorld(t)
	w.ready()
	_, younger := w.rivals()
	w.becomes(younger, stalls("KeyConflict"))
	w.delete(younger)
	w.vanishes(younger)
	w.stores(mainPrefix+"k", "older", time.Second)
}

// Two pools with one prefix on one server: another name for the same keys.
func TestTwoPoolsMayNameTheSameKey(t *testing.T) {
	w := newWorld(t)
	shared := under("shared:")
	w.ready(shared)
	w.create(w.pool(shared, func(p *v1alpha1.CachePool) { p.Name = "other" }))
	older, younger := w.rivals(in("other"))
	w.becomes(younger, stalls("KeyConflict"))
	w.says(younger, `CacheEntry "a" is older and declares the same key`)
	w.delete(older)
	w.becomes(younger, isWarm)
	w.holds("shared:k", "younger")
}

// One prefix may begin with another.
func TestAKeyMayBeCutInTwoWays(t *testing.T) {
	w := newWorld(t)
	w.ready(under("app:"))
	w.create(w.pool(under("app:users:"), func(p *v1alpha1.CachePool) { p.Name = "users" }))
	older := w.entry("a", keyed("users:1"))
	younger := w.entry("b", keyed("1"), in("users"))
	w.create(older)
	w.becomes(older, isWarm)
	w.create(younger)
	w.becomes(younger, stalls("KeyConflict"))
	w.delete(older)
	w.becomes(younger, isWarm)
	w.holds("app:users:1", "value of b")
}

func TestAHolderInAnotherNamespaceIsNotNamed(t *testing.T) {
	w := newWorld(t)
	w.ready(under("shared:"), open)
	older := w.entry("a", keyed("k"))
	w.create(older)
	w.becomes(older, isWarm)

	// Within the same second, names would decide which is older, and those of namespaces are random here.
	w.Eventually(time.Now).Should(BeTemporally(">", older.CreationTimestamp.Add(time.Second)))
	there := *w
	there.namespace = space(t)
	there.ready(under("shared:"))
	younger := there.entry("b", keyed("k"))
	there.create(younger)
	there.becomes(younger, stalls("KeyConflict"))
	there.says(younger, "An older CacheEntry of another namespace declares the same key")
	there.discreet(younger, w.namespace, `"a"`)
	w.delete(older)
	there.becomes(younger, isWarm)
	there.holds("shared:k", "value of b")
}

// The same name on another server or in another database is another key.
func TestOnlyKeysOfOneDatabaseCollide(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(under("shared:"))
	w.create(w.pool(under("shared:"), func(p *v1alpha1.CachePool) { p.Name, p.Spec.Database = "other", new(int32(1)) }))
	older, younger := w.rivals(in("other"))
	w.becomes(younger, isWarm)
	w.stays(older, isWarm, time.Second)
}

// Two names of one server, as a DNS name and an address: the server says who it is, after a restart too.
func TestAServerMayHaveTwoAddresses(t *testing.T) {
	w, s := newRealWorld(t)
	main := w.ready(under("shared:"))
	alias := w.pool(under("shared:"), func(p *v1alpha1.CachePool) {
		p.Name, p.Spec.Addresses = "other", []string{"localhost" + w.addr[len("127.0.0.1"):]}
	})
	w.create(alias)
	w.becomes(alias, connected)
	older, younger := w.rivals(in("other"))
	w.becomes(younger, stalls("KeyConflict"))

	s.Restart()
	w.look(alias)
	w.Eventually(func() int64 { return w.connections() }).Should(BeNumerically(">", 1), "the alias is connected again")
	w.look(younger)
	w.holds("shared:k", "older")
	w.look(main)
	w.becomes(younger, stalls("KeyConflict"))
	w.stays(younger, stalls("KeyConflict"), sweeps)
	w.stores("shared:k", "older", time.Second)
	// Until the pools knew that they still share a server, each may have undone what the other wrote.
	w.Eventually(func() string { w.reload(older); return summary(older) }, 2*time.Minute).Should(Equal(isWarm))
}

func TestASuspendedEntryHoldsItsKey(t *testing.T) {
	w := newWorld(t)
	w.ready()
	older, younger := w.rivals()
	update(w, older, suspendEntry)
	w.becomes(older, isSuspended)
	w.stays(younger, stalls("KeyConflict"), time.Second)
	w.stores(mainPrefix+"k", "older", time.Second)
	w.delete(older)
	w.becomes(younger, isWarm)
}

func TestAnEntryWithoutASourceHoldsItsKey(t *testing.T) {
	w := newWorld(t)
	w.ready()
	older := w.entry("a", keyed("k"), fromConfigMap("missing", "k"))
	younger := w.entry("b", keyed("k"))
	w.create(older)
	w.becomes(older, waits("SourceNotFound"))
	w.create(younger)
	w.becomes(younger, stalls("KeyConflict"))
	w.lacks(mainPrefix + "k")
}

func TestAYoungerEntryThatMovesToAHeldKeyLoses(t *testing.T) {
	w := newWorld(t)
	w.ready()
	older, younger := w.entry("a", keyed("k")), w.entry("b", keyed("own"))
	w.create(older)
	w.becomes(older, isWarm)
	w.create(younger)
	w.becomes(younger, isWarm)
	update(w, younger, keyed("k"))
	w.becomes(younger, stalls("KeyConflict"))
	w.holds(mainPrefix+"k", "value of a")
	w.stores(mainPrefix+"own", "value of b", time.Second) // the new key is not written yet
	w.delete(younger)
	w.vanishes(younger)
	w.lacks(mainPrefix + "own")
	w.holds(mainPrefix+"k", "value of a")
}

func TestAnOlderEntryThatMovesToAHeldKeyTakesIt(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	older, younger := w.entry("a", keyed("own")), w.entry("b", keyed("k"))
	w.create(older)
	w.becomes(older, isWarm)
	w.create(younger)
	w.becomes(younger, isWarm)
	update(w, older, keyed("k"))
	w.becomes(older, isWarm)
	w.becomes(younger, stalls("KeyConflict"))
	w.lacks(mainPrefix + "own")
	w.stores(mainPrefix+"k", "value of a", sweeps/2)
	update(w, older, keyed("own"))
	w.becomes(younger, isWarm)
	w.becomes(older, isWarm)
	w.holds(mainPrefix+"k", "value of b")
	w.holds(mainPrefix+"own", "value of a")
}

// Three, of which the middle one goes: the holder stays the holder, and the last one learns its name.
func TestTheMessageFollowsTheHolder(t *testing.T) {
	w := newWorld(t)
	w.ready()
	a, b := w.rivals()
	c := w.entry("c", keyed("k"))
	w.create(c)
	w.becomes(c, stalls("KeyConflict"))
	w.delete(a)
	w.becomes(b, isWarm)
	w.says(c, `CacheEntry "b" is older and declares the same key`)
	w.delete(b)
	w.becomes(c, isWarm)
}

// An entry that was deleted and comes back is young.
func TestARecreatedEntryIsYoung(t *testing.T) {
	w := newWorld(t)
	w.ready()
	older, younger := w.rivals()
	w.Eventually(func() bool { return time.Since(younger.CreationTimestamp.Time) > time.Second }).Should(BeTrue())
	w.delete(older)
	w.vanishes(older)
	again := w.entry("a", keyed("k"))
	w.create(again)
	w.becomes(younger, isWarm)
	w.becomes(again, stalls("KeyConflict"))
}
