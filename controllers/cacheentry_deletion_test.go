// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

func TestDeletingAnEntryDeletesItsKeyAndNoOther(t *testing.T) {
	w := newWorld(t)
	w.ready()
	for _, key := range []string{"a*", "ab", "a"} {
		w.set(mainPrefix+key, "v")
	}
	e := w.entry("e", keyed("a*"))
	w.create(e)
	w.becomes(e, isWarm)
	w.delete(e)
	w.vanishes(e)
	w.Expect(w.keys("*")).To(ConsistOf(mainPrefix+"ab", mainPrefix+"a"))
	w.Expect(w.events(e)).NotTo(ContainElement(ContainSubstring("Released")))
}

// Under Enforce the key is the entry's, whatever somebody else has put there.
func TestAKeyThatSomebodyChangedIsDeletedToo(t *testing.T) {
	w := newWorld(t)
	w.ready(unwatched)
	e := w.entry("e")
	w.create(e)
	w.becomes(e, isWarm)
	w.set(mainPrefix+"e", "drift")
	w.delete(e)
	w.vanishes(e)
	w.lacks(mainPrefix + "e")
}

func TestAKeyThatIsAlreadyGoneIsNoError(t *testing.T) {
	w := newWorld(t)
	w.ready(unwatched)
	e := w.entry("e")
	w.create(e)
	w.becomes(e, isWarm)
	w.Expect(w.redis.Del(t.Context(), mainPrefix+"e").Err()).To(Succeed())
	w.delete(e)
	w.vanishes(e)
}

func TestARetainedKeyStaysAsItIs(t *testing.T) {
	w := newWorld(t)
	w.ready()
	forever, living := w.entry("forever", retained), w.entry("living", retained, living(time.Hour))
	for _, e := range []*v1alpha1.CacheEntry{forever, living} {
		w.create(e)
		w.becomes(e, isWarm)
		w.delete(e)
		w.vanishes(e)
	}
	w.holds(mainPrefix+"forever", "value of forever")
	w.Expect(w.redis.PTTL(t.Context(), mainPrefix+"living").Val()).To(BeNumerically("~", time.Hour, time.Minute))
	w.set(mainPrefix+"forever", "mine now")
	w.stores(mainPrefix+"forever", "mine now", sweeps/2) // nobody keeps it any more
}

func TestASuspendedEntryLeavesItsKeyAndSaysSo(t *testing.T) {
	w := newWorld(t)
	w.ready()
	e := w.entry("e")
	w.create(e)
	w.becomes(e, isWarm)
	update(w, e, suspendEntry)
	w.becomes(e, isSuspended)
	w.delete(e)
	w.vanishes(e)
	w.holds(mainPrefix+"e", "value of e")
	w.tells(e, `Warning Released: Key "glimr:cache:main:e" stays in Redis, since the entry is suspended`)
}

func TestAnEntryWhosePoolIsGoneIsReleased(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	e := w.entry("e")
	w.create(e)
	w.becomes(e, isWarm)
	w.delete(p)
	w.becomes(p, waits("InUse"))
	update(w, p, func(p *v1alpha1.CachePool) { p.Finalizers = nil }) // somebody forces it
	w.becomes(e, waits("PoolNotFound"))
	w.delete(e)
	w.vanishes(e)
	w.holds(mainPrefix+"e", "value of e")
	w.tells(e, `Warning Released: Key "e" stays in Redis, since CachePool "main" is gone, or does not serve this namespace any more`)
}

func TestAnEntryThatWroteNothingGoesAtOnce(t *testing.T) {
	w := newWorld(t)
	for _, e := range []*v1alpha1.CacheEntry{w.entry("no-pool", in("missing")), w.entry("suspended", suspendEntry)} {
		w.create(e)
		w.Eventually(func() string { w.reload(e); return summary(e) }).ShouldNot(Equal("stale"))
		w.Expect(e.Finalizers).To(BeEmpty())
		w.delete(e)
		w.vanishes(e)
		w.Expect(w.events(e)).NotTo(ContainElement(ContainSubstring("Released")))
	}
}

func TestAKeyOfAnotherTypeIsNeverDeleted(t *testing.T) {
	w := newWorld(t)
	w.ready(unwatched)
	e := w.entry("e")
	w.create(e)
	w.becomes(e, isWarm)
	w.Expect(w.redis.Del(t.Context(), mainPrefix+"e").Err()).To(Succeed())
	w.Expect(w.redis.LPush(t.Context(), mainPrefix+"e", "x").Err()).To(Succeed())
	w.delete(e)
	w.vanishes(e)
	w.Expect(w.redis.LRange(t.Context(), mainPrefix+"e", 0, -1).Val()).To(Equal([]string{"x"}))
}

func TestADeletionWaitsForThePool(t *testing.T) {
	w := newWorld(t)
	m := redistest.Miniredis(t)
	p := w.ready(func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{m.Addr()} })
	e := w.entry("e")
	w.create(e)
	w.becomes(e, isWarm)
	m.Close()
	w.delete(e)
	w.becomes(e, waits("PoolNotReady"))
	w.says(e, `The key cannot be deleted yet, since CachePool "main" does not serve`)
	w.becomes(p, waits("ConnectionFailed"))
	w.Consistently(func() bool { return isThere(t, e) }, 7*time.Second, time.Second).Should(BeTrue())

	w.Expect(m.Restart()).To(Succeed())
	w.Expect(m.Exists(mainPrefix + "e")).To(BeTrue())
	w.vanishes(e)
	w.Expect(m.Exists(mainPrefix + "e")).To(BeFalse())
}

// A server that refuses writes takes deletions, which may be its cure.
func TestDeletionsRunWhileTheServerIsOutOfMemory(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready()
	entries := []*v1alpha1.CacheEntry{w.came(isWarm, "enforced"), w.came(isWrittenOnce, "compared", writingOnChange), w.came(isApplied, "counted", counting(5, "r"), deleting)}
	w.Expect(w.redis.ConfigSet(t.Context(), "maxmemory", "1").Err()).To(Succeed())
	w.look(p)
	w.becomes(p, waits("OutOfMemory"))
	fresh := w.entry("fresh")
	w.create(fresh)
	w.becomes(fresh, waits("PoolNotReady"))
	for _, e := range entries {
		w.delete(e)
		w.vanishes(e)
	}
	w.Expect(w.keys("*")).To(BeEmpty(), "nor markers of counters")
	w.Expect(w.redis.ConfigSet(t.Context(), "maxmemory", "0").Err()).To(Succeed())
	w.look(p)
	w.becomes(fresh, isWarm)
}

func TestAKeyThatMayNotBeDeletedHoldsItsEntryUntilItMay(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(unwatched)
	e := w.entry("e")
	w.create(e)
	w.becomes(e, isWarm)
	w.Expect(w.redis.Do(t.Context(), "acl", "setuser", "default", "-unlink").Err()).To(Succeed())
	w.delete(e)
	w.Eventually(func() string { w.reload(e); return summary(e) }).Should(HavePrefix("Ready=False/"))
	w.Expect(isThere(t, e)).To(BeTrue())
	w.Expect(w.redis.Do(t.Context(), "acl", "setuser", "default", "+unlink").Err()).To(Succeed())
	w.vanishes(e)
	w.lacks(mainPrefix + "e")
}

func TestManyEntriesAreDeletedInBatches(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(unwatched)
	w.many(100)
	w.Expect(k8s.DeleteAllOf(t.Context(), &v1alpha1.CacheEntry{}, client.InNamespace(w.namespace))).To(Succeed())
	w.Eventually(func() int {
		var list v1alpha1.CacheEntryList
		w.Expect(k8s.List(t.Context(), &list, client.InNamespace(w.namespace))).To(Succeed())
		return len(list.Items)
	}).Should(BeZero())
	w.Expect(w.keys("*")).To(BeEmpty())
}
