// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/alicebob/miniredis/v2/server"
	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// TestFlushesOfOnePoolRunOneAtATime creates them in an order other than that of their names, since those created
// within a second are told apart by name.
func TestFlushesOfOnePoolRunOneAtATime(t *testing.T) {
	w := newWorld(t)
	w.ready()
	h := w.record()
	var flushes []*v1alpha1.CacheFlush
	for i := range 20 {
		w.set(fmt.Sprintf("%s%02d:a", mainPrefix, i), "v")
		f := w.flush(fmt.Sprintf("flush-%02d", (i*7)%20), prefixed(fmt.Sprintf("%02d:", i)))
		w.create(f)
		flushes = append(flushes, f)
	}
	for _, f := range flushes {
		w.becomes(f, flushed)
		w.Expect(progress(f)).To(Equal("100% matched 1 deleted 1 preserved 0"))
	}
	w.Expect(w.keys("*")).To(BeEmpty())
	w.Eventually(h.ended).Should(HaveLen(20))
	w.Expect(h.together()).To(Equal(1), "they run one at a time")
}

func TestQueuedFlushesRunOldestFirst(t *testing.T) {
	w := newWorld(t)
	w.ready()
	h := w.record()
	p := w.pool()
	update(w, p, func(p *v1alpha1.CachePool) { p.Spec.Suspend = true })
	w.becomes(p, "Ready=Unknown/Suspended Suspended=True/Suspended")
	var flushes []*v1alpha1.CacheFlush
	for i := range 20 {
		f := w.flush(fmt.Sprintf("flush-%02d", (i*7)%20), all)
		w.create(f)
		w.becomes(f, "Ready=Unknown/Suspended Suspended=True/PoolSuspended")
		flushes = append(flushes, f)
	}
	update(w, p, func(p *v1alpha1.CachePool) { p.Spec.Suspend = false })
	slices.SortFunc(flushes, func(a, b *v1alpha1.CacheFlush) int {
		if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
			return c
		}
		return slices.Compare([]byte(a.Name), []byte(b.Name))
	})
	var want []string
	for _, f := range flushes {
		w.becomes(f, flushed)
		want = append(want, f.Name)
	}
	w.Eventually(h.ended).Should(Equal(want))
	w.Expect(h.together()).To(Equal(1))
}

func TestAQueuedFlushSaysWhatItWaitsFor(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	w.ready()
	proxy.Slow(slowAnswer)
	w.fill(mainPrefix+"user:", manyKeys)
	h := w.record()
	running := w.flush("z-running", prefixed("user:"))
	w.create(running)
	w.becomes(running, isRunning)
	queued := w.flush("a-queued", all)
	w.create(queued)
	w.becomes(queued, isQueued)
	w.Expect(message(queued)).To(ContainSubstring(`CacheFlush "z-running"`))
	w.Expect(queued.Status.StartTime).To(BeNil(), "waiting does not count")

	// Named keys need no scan, and so no turn.
	w.set(mainPrefix+"a", "v")
	w.run("named", named("a"))
	w.reload(running)
	w.Expect(summary(running)).To(Equal(isRunning))
	w.reload(queued)
	w.Expect(summary(queued)).To(Equal(isQueued))

	// Nor does a flush wait for one of another pool, on the same server.
	other := w.pool(under("other:"), func(p *v1alpha1.CachePool) { p.Name = "other" })
	w.create(other)
	w.becomes(other, connected)
	w.run("elsewhere", all, func(f *v1alpha1.CacheFlush) { f.Spec.PoolRef.Name = "other" })
	w.reload(running)
	w.Expect(summary(running)).To(Equal(isRunning))

	proxy.Slow(0)
	w.becomes(running, flushed)
	w.becomes(queued, flushed)
	w.Eventually(h.ended).Should(ContainElement("a-queued"))
	w.Expect(slices.Index(h.ended(), "z-running")).To(BeNumerically("<", slices.Index(h.ended(), "a-queued")))
}

func TestASuspendedFlushGivesUpItsTurn(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	w.ready()
	proxy.Slow(slowAnswer)
	w.fill(mainPrefix+"user:", manyKeys)
	h := w.record()
	first := w.flush("first", prefixed("user:"))
	w.create(first)
	w.midway(first)
	second := w.flush("second", prefixed("other:"))
	w.create(second)
	w.becomes(second, isQueued)

	update(w, first, suspend)
	w.becomes(first, isSuspended)
	proxy.Slow(0)
	w.becomes(second, flushed)
	third := w.flush("third", prefixed("other:"))
	w.create(third)
	w.becomes(third, flushed)
	update(w, first, resume)
	w.becomes(first, flushed)
	w.Expect(h.together()).To(Equal(1), "not even while the first ends its slice")
}

func TestADeletedFlushGivesUpItsTurn(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	w.ready()
	proxy.Slow(slowAnswer)
	w.fill(mainPrefix+"user:", manyKeys)
	first := w.flush("first", prefixed("user:"))
	w.create(first)
	w.midway(first)
	second := w.flush("second", prefixed("other:"))
	w.create(second)
	w.becomes(second, isQueued)
	w.Expect(k8s.Delete(t.Context(), first)).To(Succeed())
	proxy.Slow(0)
	w.becomes(second, flushed)
}

func TestAFlushThatBacksOffGivesUpItsTurn(t *testing.T) {
	t.Parallel()
	m := redistest.Miniredis(t)
	w := worldAt(t, m.Addr())
	w.ready()
	w.set(mainPrefix+"bad:1", "v")
	w.set(mainPrefix+"good:1", "v")
	m.Server().SetPreHook(func(peer *server.Peer, command string, args ...string) bool {
		if command == "UNLINK" && slices.Contains(args, mainPrefix+"bad:1") {
			peer.WriteError("ERR something")
			return true
		}
		return false
	})
	t.Cleanup(func() { m.Server().SetPreHook(nil) })
	bad := w.flush("a-bad", prefixed("bad:"))
	w.create(bad)
	w.becomes(bad, retrying)
	good := w.run("b-good", prefixed("good:"))
	w.Expect(progress(good)).To(Equal("100% matched 1 deleted 1 preserved 0"))
	w.reload(bad)
	w.Expect(summary(bad)).To(Equal(retrying))
	w.Expect(bad.Status.Failures).To(BeEquivalentTo(1), "it waits, whatever happens around it")
}
