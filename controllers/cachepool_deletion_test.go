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

func TestAPoolWithoutEntriesGoesAtOnceAndClosesItsConnections(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready()
	w.delete(p)
	w.vanishes(p)
	w.Eventually(func() int64 { return w.connections() }).Should(BeEquivalentTo(1), "the test's own")
}

// connections that the server has.
func (w *world) connections() int64 {
	w.t.Helper()
	var n int64
	list, err := w.redis.Do(w.t.Context(), "client", "list").Text()
	w.Expect(err).NotTo(HaveOccurred())
	for _, c := range list {
		if c == '\n' {
			n++
		}
	}
	return n
}

func TestAPoolIsInUseUntilItsEntriesAreGone(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	first, second := w.entry("first"), w.entry("second")
	w.create(first)
	w.create(second)
	w.becomes(first, isWarm)
	w.becomes(second, isWarm)

	w.delete(p)
	w.becomes(p, waits("InUse"))
	w.says(p, "CacheEntries or running CacheFlushes of this namespace still use the pool")
	w.delete(first)
	w.vanishes(first)
	w.lacks(mainPrefix + "first")
	w.Expect(isThere(t, p)).To(BeTrue())

	w.delete(second)
	w.vanishes(p)
	w.lacks(mainPrefix + "second")
}

// It serves as before, so that what is changed meanwhile is written.
func TestAPoolThatIsInUseServes(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	e := w.entry("kept")
	w.create(e)
	w.becomes(e, isWarm)
	w.delete(p)
	w.becomes(p, waits("InUse"))

	update(w, e, func(e *v1alpha1.CacheEntry) { e.Spec.Value = new("new") })
	w.becomes(e, isWarm)
	w.holds(mainPrefix+"kept", "new")
	w.set(mainPrefix+"kept", "drift")
	w.holds(mainPrefix+"kept", "new")
}

func TestAnEntryThatMovesAwayFreesItsPool(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	w.create(w.pool(func(p *v1alpha1.CachePool) { p.Name = "other" }))
	e := w.entry("moving")
	w.create(e)
	w.becomes(e, isWarm)
	w.delete(p)
	w.becomes(p, waits("InUse"))
	update(w, e, func(e *v1alpha1.CacheEntry) { e.Spec.PoolRef.Name = "other" })
	w.vanishes(p)
	w.becomes(e, isWarm)
	w.holds("glimr:cache:other:moving", "value of moving")
}

// What an entry has left in the pool is declared by another, through another pool of the server, which cannot write yet.
func TestAPoolThatIsDeletedDoesNotWaitForAnHeir(t *testing.T) {
	w := newWorld(t)
	p := w.ready(under("app:"))
	for _, name := range []string{"alias", "elsewhere"} {
		w.create(w.pool(under(map[string]string{"alias": "app:", "elsewhere": "elsewhere:"}[name]), func(p *v1alpha1.CachePool) { p.Name = name }))
	}
	e, heir := w.entry("a", keyed("k")), w.entry("b", keyed("k"), in("alias"), fromConfigMap("source", "k"))
	w.create(e)
	w.becomes(e, isWarm)
	w.create(heir)
	w.becomes(heir, stalls("KeyConflict"))
	update(w, e, in("elsewhere"))
	w.becomes(heir, waits("SourceNotFound"))
	w.delete(p)
	w.vanishes(p)
	w.Expect(w.events(e)).NotTo(ContainElement(ContainSubstring("Released")))
	w.configMap(map[string]string{"k": "value of b"})
	w.becomes(heir, isWarm)
	w.holds("app:k", "value of b")
	w.delete(heir)
	w.vanishes(heir)
	w.lacks("app:k")
}

func TestDeletingPoolAndEntriesAtOnceDeletesTheKeys(t *testing.T) {
	t.Parallel()
	for _, order := range []string{"the pool first", "the entries first"} {
		t.Run(order, func(t *testing.T) {
			w := newWorld(t)
			p := w.ready()
			entries := []*v1alpha1.CacheEntry{w.entry("a"), w.entry("b"), w.entry("c")}
			for _, e := range entries {
				w.create(e)
				w.becomes(e, isWarm)
			}
			if order == "the pool first" {
				w.delete(p)
			}
			for _, e := range entries {
				w.delete(e)
			}
			if order != "the pool first" {
				w.delete(p)
			}
			w.vanishes(p)
			for _, e := range entries {
				w.vanishes(e)
			}
			w.Expect(w.keys("*")).To(BeEmpty())
		})
	}
}

func TestTheKeysGoEvenWhenTheSecretHasGoneFirst(t *testing.T) {
	w := protectedWorld(t, "hunter2")
	s := w.secret("redis-auth", map[string]string{"password": "hunter2"})
	p := w.ready(credentials)
	e := w.entry("a")
	w.create(e)
	w.becomes(e, isWarm)
	w.delete(s)
	w.delete(p)
	w.becomes(p, waits("InUse"))
	w.stays(p, waits("InUse"), probes/2)
	w.delete(e)
	w.vanishes(p)
	w.vanishes(e)
	w.lacks(mainPrefix + "a")
}

// Pool and entry go together, and Redis with them: it is tried once.
func TestADeletedPoolThatCannotServeIsNotWaitedFor(t *testing.T) {
	w := newWorld(t)
	m := redistest.Miniredis(t)
	p := w.ready(func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{m.Addr()} })
	e := w.entry("a")
	w.create(e)
	w.becomes(e, isWarm)
	m.Close()
	w.delete(p)
	w.delete(e)
	w.vanishes(e)
	w.vanishes(p)
	w.tells(e, `Warning Released: Key "glimr:cache:main:a" stays in Redis, since CachePool "main" cannot serve`)
}

func TestAPoolThatNeverConnectedGoesAtOnce(t *testing.T) {
	w := newWorld(t)
	hole := blackHole(t)
	p := w.pool(func(p *v1alpha1.CachePool) {
		p.Spec.Addresses, p.Spec.Timeout = []string{hole.Addr().String()}, &metav1.Duration{Duration: 200 * time.Millisecond}
	})
	w.create(p)
	w.becomes(p, waits("ConnectionFailed"))
	w.delete(p)
	w.vanishes(p)
}

// A pool of the same name is another pool: nothing is left of the first.
func TestAPoolThatComesBackIsANewPool(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready()
	w.delete(p)
	w.vanishes(p)
	other := w.ready(func(p *v1alpha1.CachePool) { p.Spec.Database = new(int32(1)) })
	e := w.entry("a")
	w.create(e)
	w.becomes(e, isWarm)
	w.Expect(w.keys("*")).To(BeEmpty(), "it works in database 1 now")
	w.delete(e)
	w.vanishes(e)
	w.delete(other)
	w.vanishes(other)
}
