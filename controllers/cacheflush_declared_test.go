// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

func TestAFlushPreservesDeclaredKeys(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		target   func(*v1alpha1.CacheFlush)
		progress string
	}{
		"all":    {all, "100% matched 3 deleted 2 preserved 1"},
		"prefix": {prefixed("flag"), "100% matched 2 deleted 1 preserved 1"},
		"match":  {matching("flag[s]"), "100% matched 1 deleted 0 preserved 1"},
		"keys":   {named("flags", "flags2", "flags"), "100% matched 2 deleted 1 preserved 1"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.ready()
			e := w.entry("flags")
			w.create(e)
			w.becomes(e, isWarm)
			written := e.Status.LastWriteTime
			w.set(mainPrefix+"flags2", "v")
			w.set(mainPrefix+"other", "v")

			f := w.run("flush", c.target)
			w.Expect(progress(f)).To(Equal(c.progress))
			w.holds(mainPrefix+"flags", "value of flags")
			w.reload(e)
			w.Expect(summary(e)).To(Equal(isWarm))
			w.Expect(e.Status.LastWriteTime).To(Equal(written), "it was never away")
		})
	}
}

func TestAFlushPreservesWhatAnyPoolOfTheServerDeclares(t *testing.T) {
	w := newWorld(t)
	w.ready(under("app:"))
	for name, prefix := range map[string]string{"same": "app:", "inside": "app:users:", "outside": "ap"} {
		p := w.pool(under(prefix), func(p *v1alpha1.CachePool) { p.Name = name })
		w.create(p)
		w.becomes(p, connected)
	}
	for name, key := range map[string]string{"same": "a", "inside": "b", "outside": "p:c"} {
		e := w.entry(name, func(e *v1alpha1.CacheEntry) { e.Spec.PoolRef.Name, e.Spec.Key = name, key })
		w.create(e)
		w.becomes(e, isWarm)
	}
	w.set("app:other", "v")
	w.set("app:users:other", "v")

	f := w.run("flush", all)
	w.Expect(w.keys("*")).To(Equal([]string{"app:a", "app:c", "app:users:b"}))
	w.Expect(progress(f)).To(Equal("100% matched 5 deleted 2 preserved 3"))
	f = w.run("named", named("a", "users:b", "c"))
	w.Expect(progress(f)).To(Equal("100% matched 3 deleted 0 preserved 3"))
	f = w.run("through-another", all, func(f *v1alpha1.CacheFlush) { f.Spec.PoolRef.Name = "inside" })
	w.Expect(progress(f)).To(Equal("100% matched 1 deleted 0 preserved 1"))
}

func TestAFlushDeletesWhatIsDeclaredOnAnotherServerOrDatabase(t *testing.T) {
	w, _ := newRealWorld(t)
	elsewhere := redistest.Start(t).Addr
	w.ready(under("app:"))
	for name, change := range map[string]func(*v1alpha1.CachePool){
		"server":   func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{elsewhere} },
		"database": func(p *v1alpha1.CachePool) { p.Spec.Database = new(int32(1)) },
	} {
		p := w.pool(under("app:"), change, func(p *v1alpha1.CachePool) { p.Name = name })
		w.create(p)
		w.becomes(p, connected)
		e := w.entry(name, func(e *v1alpha1.CacheEntry) { e.Spec.PoolRef.Name = name })
		w.create(e)
		w.becomes(e, isWarm)
		w.set("app:"+name, "v")
	}
	f := w.run("flush", all)
	w.Expect(progress(f)).To(Equal("100% matched 2 deleted 2 preserved 0"))
}

func TestAFlushPreservesTheKeysOfEntriesThatDoNotWrite(t *testing.T) {
	w := newWorld(t)
	w.ready()
	suspended := w.entry("suspended", func(e *v1alpha1.CacheEntry) { e.Spec.Suspend = true })
	w.create(suspended)
	w.becomes(suspended, "Ready=Unknown/Suspended Suspended=True/Suspended")
	sourceless := w.entry("sourceless", func(e *v1alpha1.CacheEntry) {
		e.Spec.Value = nil
		e.Spec.ValueFrom = &v1alpha1.ValueSource{ConfigMapKeyRef: &v1alpha1.KeyReference{Name: "absent", Key: "k"}}
	})
	w.create(sourceless)
	w.becomes(sourceless, "Ready=False/SourceNotFound Reconciling=True/ProgressingWithRetry")
	w.Expect(w.redis.HSet(t.Context(), mainPrefix+"mistyped", "f", "v").Err()).To(Succeed())
	mistyped := w.entry("mistyped")
	w.create(mistyped)
	w.becomes(mistyped, "Ready=False/WrongType Stalled=True/WrongType")
	w.set(mainPrefix+"suspended", "old")
	w.set(mainPrefix+"sourceless", "old")
	w.set(mainPrefix+"other", "v")

	w.Expect(progress(w.run("flush", all))).To(Equal("100% matched 4 deleted 1 preserved 3"))
	w.Expect(progress(w.run("named", named("suspended", "sourceless", "mistyped")))).To(Equal("100% matched 3 deleted 0 preserved 3"))
	w.Expect(w.keys("*")).To(Equal([]string{mainPrefix + "mistyped", mainPrefix + "sourceless", mainPrefix + "suspended"}))
}

func TestAFlushPreservesTheKeysOfASuspendedPoolOfTheServer(t *testing.T) {
	w := newWorld(t)
	w.ready(under("app:"))
	p := w.pool(under("app:"), func(p *v1alpha1.CachePool) { p.Name = "frozen" })
	w.create(p)
	w.becomes(p, connected)
	e := w.entry("flags", func(e *v1alpha1.CacheEntry) { e.Spec.PoolRef.Name = "frozen" })
	w.create(e)
	w.becomes(e, isWarm)
	update(w, p, func(p *v1alpha1.CachePool) { p.Spec.Suspend = true })
	w.becomes(p, "Ready=Unknown/Suspended Suspended=True/Suspended")

	w.Expect(progress(w.run("flush", all))).To(Equal("100% matched 1 deleted 0 preserved 1"))
	w.holds("app:flags", "value of flags")
}

// The server gives itself a new id with every start, which the pools of it notice one after the other.
func TestAFlushPreservesWhatAnotherPoolDeclaresRightAfterARestartOfTheServer(t *testing.T) {
	w, server := newRealWorld(t)
	w.ready(under("app:"))
	p := w.pool(under("app:"), unwatched, func(p *v1alpha1.CachePool) { p.Name = "unaware" })
	w.create(p)
	w.becomes(p, connected)
	e := w.entry("flags", func(e *v1alpha1.CacheEntry) { e.Spec.PoolRef.Name = "unaware" })
	w.create(e)
	w.becomes(e, isWarm)

	server.Restart()
	w.set("app:flags", "value of flags")
	// Whether the pool notices before the first flush or through it, it does before the last.
	for _, name := range []string{"first", "second", "third"} {
		w.run(name, all)
		w.Expect(w.keys("*")).To(Equal([]string{"app:flags"}), name)
	}
}

func TestAnEntryThatIsBeingDeletedPreservesNothing(t *testing.T) {
	w := newWorld(t)
	w.ready()
	e := w.entry("flags", func(e *v1alpha1.CacheEntry) {
		e.Spec.DeletionPolicy = v1alpha1.DeletionRetain
		controllerutil.AddFinalizer(e, "example.com/held")
	})
	w.create(e)
	w.becomes(e, isWarm)
	w.Expect(k8s.Delete(t.Context(), e)).To(Succeed())
	w.Eventually(func(g Gomega) { // as soon as the operator knows
		f := w.flush("", all, dryRun, func(f *v1alpha1.CacheFlush) { f.GenerateName = "look-" })
		w.create(f)
		w.becomes(f, counted)
		g.Expect(f.Status.Progress.Preserved).To(BeZero())
	}).Should(Succeed())

	w.Expect(progress(w.run("flush", all))).To(Equal("100% matched 1 deleted 1 preserved 0"))
	w.lacks(mainPrefix + "flags")
	update(w, e, func(e *v1alpha1.CacheEntry) { controllerutil.RemoveFinalizer(e, "example.com/held") })
	w.vanishes(e)
}

func TestAKeyPassesOnFromTheEntryThatGoesToTheOneThatStays(t *testing.T) {
	w := newWorld(t)
	w.ready()
	holder := w.entry("holder", func(e *v1alpha1.CacheEntry) { e.Spec.Key = "flags" })
	w.create(holder)
	w.becomes(holder, isWarm)
	rival := w.entry("rival", func(e *v1alpha1.CacheEntry) { e.Spec.Key = "flags" })
	w.create(rival)
	w.Expect(k8s.Delete(t.Context(), holder)).To(Succeed())
	w.vanishes(holder)
	w.Expect(progress(w.run("flush", all))).To(Equal("100% matched 1 deleted 0 preserved 1"))
	w.becomes(rival, isWarm)
}

func TestAnEntryThatIsCreatedInTheMiddleOfAFlushIsNotDeleted(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	w.ready()
	proxy.Slow(slowAnswer)
	w.fill(mainPrefix+"user:", manyKeys)
	f := w.flush("flush", all)
	w.create(f)
	w.midway(f)
	var entries []*v1alpha1.CacheEntry
	for _, name := range []string{"user:1", "user:2", "user:150000", "user:300000", "new-1", "new-2", "new-3"} {
		e := w.entry("", func(e *v1alpha1.CacheEntry) {
			e.GenerateName, e.Spec.Key, e.Spec.Value = "entry-", name, new("declared")
		})
		w.create(e)
		entries = append(entries, e)
	}
	w.Expect(k8s.Get(t.Context(), client.ObjectKeyFromObject(f), f)).To(Succeed())
	w.Expect(summary(f)).To(Equal(isRunning), "it has already finished: make it slower")

	proxy.Slow(0)
	w.becomes(f, flushed)
	for _, e := range entries {
		w.becomes(e, isWarm)
		w.Expect(w.redis.Get(t.Context(), mainPrefix+e.Spec.Key).Val()).To(Equal("declared"), e.Spec.Key)
	}
	w.Expect(w.count(mainPrefix)).To(Equal(len(entries)))
}
