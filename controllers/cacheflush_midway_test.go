// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/status"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// halfway through a flush of many keys, over a slow network.
func (w *world) halfway(proxy *redistest.Proxy) *v1alpha1.CacheFlush {
	w.t.Helper()
	w.fill(mainPrefix, manyKeys)
	proxy.Slow(slowAnswer)
	f := w.flush("flush", all)
	w.create(f)
	w.midway(f)
	return f
}

// A cursor means nothing to another server: there the scan starts again, and says so.
func TestAServerThatMovedInTheMiddleOfAFlushIsFlushedFromTheStart(t *testing.T) {
	w, server, proxy := newProxiedWorld(t)
	p := w.ready()
	f := w.halfway(proxy)

	next := redistest.Start(t)
	network := redistest.NewProxy(t, next.Addr, 0)
	w.redis = next.Client(t)
	w.fill(mainPrefix, manyKeys)
	network.Slow(slowAnswer)
	h := w.record()
	update(w, p, func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{network.Addr} })
	w.Eventually(func() []string { return h.of(message) }).Should(ContainElement(ContainSubstring("again from the start, since the server was restarted or replaced")))
	network.Slow(0)
	w.becomes(f, flushed)
	w.Expect(w.count(mainPrefix)).To(BeZero())
	left, err := server.Client(t).DBSize(t.Context()).Result()
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(left).To(BeNumerically(">", 0), "what is on the old server stays")
}

// A pool that is deleted is held until the flush at work has ended.
func TestAPoolThatIsDeletedInTheMiddleOfAFlushServesItToItsEnd(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	p := w.ready()
	f := w.halfway(proxy)
	w.delete(p)
	w.becomes(p, waits("InUse"))
	proxy.Slow(0)
	w.becomes(f, flushed)
	w.vanishes(p)
	w.Expect(w.count(mainPrefix)).To(BeZero())
	w.Expect(f.Status.Failures).To(BeZero())
}

// Somebody has removed the finalizer. The flush waits, and goes on in a pool of that name.
func TestAFlushWhosePoolVanishesInTheMiddleWaitsForAnother(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	p := w.ready()
	f := w.halfway(proxy)
	w.delete(p)
	w.Expect(k8s.Patch(t.Context(), p, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)))).To(Succeed())
	w.becomes(f, "Ready=False/PoolNotFound Reconciling=True/PoolNotFound")
	deleted := f.Status.Progress.Deleted
	proxy.Slow(0)
	w.ready()
	w.becomes(f, flushed)
	w.Expect(w.count(mainPrefix)).To(BeZero())
	w.Expect(f.Status.Progress.Deleted).To(BeNumerically(">", deleted))
	w.Expect(f.Status.Failures).To(BeZero(), "waiting for a pool does not count")
}

// A prefix is changed by creating the pool anew. What was looked for under the old one says nothing about the new one.
func TestAFlushWhosePoolIsReplacedByOneWithAnotherPrefixBeginsAnew(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	p := w.ready()
	f := w.halfway(proxy)
	update(w, f, suspend)
	w.becomes(f, isSuspended)
	w.delete(p)
	w.vanishes(p)
	proxy.Slow(0)
	left := w.count(mainPrefix)
	w.fill("another:", 1000)
	w.ready(under("another:"))
	update(w, f, resume)
	w.becomes(f, flushed)
	w.Expect(w.count("another:")).To(BeZero())
	w.Expect(w.count(mainPrefix)).To(And(Equal(left), BeNumerically(">", 0)))
}

func progressOf(o status.Object) string {
	flush, _ := o.(*v1alpha1.CacheFlush)
	return progress(flush)
}

// The status is written at most once a second, besides for what begins and ends.
func TestProgressIsToldAtMostOnceASecond(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	w.ready(unwatched)
	f := w.halfway(proxy)
	began, h := time.Now(), w.record()
	w.Eventually(func() int {
		return len(h.of(progressOf))
	}).Should(BeNumerically(">", 3))
	seconds := time.Since(began).Seconds()
	w.Expect(len(h.all())).To(BeNumerically("<=", seconds+2), "writes in %.1f s", seconds)
	percents := h.of(progressOf)
	w.Expect(slices.Compact(slices.Clone(percents))).To(Equal(percents))
	w.delete(f)
	w.vanishes(f)
}
