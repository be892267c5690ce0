// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"fmt"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/status"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// stage of a flush in a line: its run, whether that has started, and its conditions.
func stage(o status.Object) string {
	f, ok := o.(*v1alpha1.CacheFlush)
	if !ok {
		return "no flush"
	}
	return fmt.Sprintf("%s started=%t %s", f.Status.RunID, f.Status.StartTime != nil, summary(f))
}

// clean checks that each run begins with a status in which there is nothing else.
func (h *history) clean(w *world) {
	w.t.Helper()
	last := ""
	for _, s := range h.all() {
		f := s["flush"]
		if f == nil || f.Status.RunID == last {
			continue
		}
		last = f.Status.RunID
		w.consistent(f)
		rest := f.Status.DeepCopy()
		w.Expect(rest.Conditions).To(HaveLen(2), "Ready and Reconciling")
		rest.Conditions, rest.Target, rest.ObservedGeneration = nil, "", 0
		w.Expect(*rest).To(Equal(v1alpha1.CacheFlushStatus{RunID: last}))
	}
}

func TestANewRunIDRunsACompleteFlushAgain(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.set(mainPrefix+"a", "v")
	h := w.record()
	f := w.run("flush", all, run1)
	w.Expect(f.Status.RunID).To(Equal("v1"))
	w.Expect(progress(f)).To(Equal("100% matched 1 deleted 1 preserved 0"))
	w.set(mainPrefix+"a", "v")
	w.set(mainPrefix+"b", "v")
	update(w, f, run2)
	w.becomes(f, flushed)
	w.Expect(f.Status.RunID).To(Equal("v2"))
	w.Expect(progress(f)).To(Equal("100% matched 2 deleted 2 preserved 0"))
	w.Expect(kstatusOf(t, f)).To(Equal("Current"))
	w.Expect(w.keys("*")).To(BeEmpty())
	w.Eventually(func() []string { return h.of(stage) }).Should(Equal([]string{
		" started=false stale", "v1 started=false " + isQueued, "v1 started=true " + isRunning, "v1 started=true " + flushed,
		"v1 started=true stale Ready", "v2 started=false " + isQueued, "v2 started=true " + isRunning, "v2 started=true " + flushed,
	}))
	h.clean(w)
}

func TestANewRunIDRunsAFailedFlushAgain(t *testing.T) {
	t.Parallel()
	m := redistest.Miniredis(t)
	w := worldAt(t, m.Addr())
	w.ready(unwatched)
	w.set(mainPrefix+"a", "v")
	h := w.record()
	refusing(t, m, "UNLINK", "ERR something", 1)
	f := w.flush("flush", all, run1, func(f *v1alpha1.CacheFlush) { f.Spec.BackoffLimit = new(int32(0)) })
	w.create(f)
	w.becomes(f, failedOften)
	w.Expect(f.Status.Failures).To(BeEquivalentTo(1))
	update(w, f, run2)
	w.becomes(f, flushed)
	w.Expect(f.Status.Failures).To(BeZero())
	w.Expect(progress(f)).To(Equal("100% matched 1 deleted 1 preserved 0"))
	w.Eventually(func() []string { return h.of(stage) }).Should(Equal([]string{
		" started=false stale", "v1 started=false " + isQueued, "v1 started=true " + isRunning, "v1 started=true " + failedOften,
		"v1 started=true stale Ready", "v2 started=false " + isQueued, "v2 started=true " + isRunning, "v2 started=true " + flushed,
	}))
	h.clean(w)
}

func TestAFlushWithoutARunIDGetsOne(t *testing.T) {
	w := newWorld(t)
	w.ready()
	f := w.run("flush", all)
	w.Expect(f.Status.RunID).To(BeEmpty())
	w.set(mainPrefix+"a", "v")
	w.set(mainPrefix+"b", "v")
	update(w, f, func(f *v1alpha1.CacheFlush) { f.Spec.All, f.Spec.Prefix, f.Spec.RunID = nil, "a", "v1" })
	w.becomes(f, flushed)
	w.Expect(f.Status.RunID).To(Equal("v1"))
	w.Expect(f.Status.Target).To(Equal(`prefix "a"`))
	w.Expect(w.keys("*")).To(Equal([]string{mainPrefix + "b"}))
}

func TestAnOlderRunIDThatReturnsRunsAgain(t *testing.T) {
	w := newWorld(t)
	w.ready()
	f := w.run("flush", all, run1)
	for _, again := range []func(*v1alpha1.CacheFlush){run2, run1, run2} {
		w.set(mainPrefix+"a", "v")
		update(w, f, again)
		w.becomes(f, flushed)
		w.Expect(f.Status.RunID).To(Equal(f.Spec.RunID))
		w.Expect(progress(f)).To(Equal("100% matched 1 deleted 1 preserved 0"))
		w.lacks(mainPrefix + "a")
	}
}

func TestARunIDRunsOnceWhateverElseHappens(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	f := w.run("flush", all, run1)
	w.set(mainPrefix+"later", "v")
	end := f.DeepCopy()
	for i, touch := range []func(){
		func() { w.look(f) },
		func() { update(w, f, suspend); update(w, f, resume) },
		func() { update(w, f, atMost(1)) },
		func() { update(w, f, run1) },
		func() { w.look(p) },
		func() {
			update(w, p, func(p *v1alpha1.CachePool) { p.Spec.Suspend = true })
			w.becomes(p, "Ready=Unknown/Suspended Suspended=True/Suspended")
			update(w, p, func(p *v1alpha1.CachePool) { p.Spec.Suspend = false })
			w.becomes(p, connected)
		},
	} {
		touch()
		w.run(fmt.Sprintf("after-%d", i), prefixed("none"), run1)
		w.becomes(f, flushed)
		w.Expect(w.keys("*")).To(Equal([]string{mainPrefix + "later"}))
	}
	w.Expect(f.Status.Progress).To(Equal(end.Status.Progress))
	w.Expect(f.Status.StartTime).To(Equal(end.Status.StartTime))
}

func TestANewRunIDIsRecordedWhileTheFlushWaits(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		pool  bool
		flush func(*v1alpha1.CacheFlush)
		state string
		free  func(*world, *v1alpha1.CacheFlush)
	}{
		"for a pool": {state: "Ready=False/PoolNotFound Reconciling=True/PoolNotFound", free: func(w *world, _ *v1alpha1.CacheFlush) { w.ready() }},
		"suspended": {
			pool: true, flush: suspend, state: isSuspended,
			free: func(w *world, f *v1alpha1.CacheFlush) { update(w, f, resume) },
		},
		"for its turn": {pool: true, state: isQueued, free: func(w *world, _ *v1alpha1.CacheFlush) {
			update(w, w.flush("a-first"), func(f *v1alpha1.CacheFlush) { f.Spec.MaxKeysPerSecond = nil })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.fill(mainPrefix, 50)
			if c.pool {
				w.ready()
			}
			if c.state == isQueued {
				first := w.flush("a-first", prefixed("1"), atMost(1))
				w.create(first)
				w.begun(first)
			}
			h := w.record()
			f := w.flush("flush", all)
			if c.flush != nil {
				c.flush(f)
			}
			w.create(f)
			w.becomes(f, c.state)
			for _, again := range []func(*v1alpha1.CacheFlush){run1, run2, run3} {
				update(w, f, again)
				reads(w, f, func(g Gomega, f *v1alpha1.CacheFlush) { g.Expect(f.Status.RunID).To(Equal(f.Spec.RunID)) })
				w.becomes(f, c.state)
				w.Expect(f.Status.StartTime).To(BeNil())
				w.Expect(f.Status.Progress).To(BeNil())
			}
			c.free(w, f)
			w.becomes(f, flushed)
			w.Expect(f.Status.RunID).To(Equal("v3"))
			w.Expect(w.keys("*")).To(BeEmpty())
			h.clean(w)
			w.Expect(h.of(stage)).NotTo(ContainElement(HavePrefix("v2 started=true")), "it ran once")
		})
	}
}

func TestANewRunIDEndsTheRunThatIsUnderWay(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.fill(mainPrefix+"a", 100)
	w.fill(mainPrefix+"b", 10)
	h := w.record()
	f := w.flush("flush", prefixed("a"), run1, atMost(2))
	w.create(f)
	w.begun(f)
	update(w, f, func(f *v1alpha1.CacheFlush) {
		f.Spec.Prefix, f.Spec.RunID, f.Spec.MaxKeysPerSecond = "b", "v2", nil
	})
	w.becomes(f, flushed)
	w.Expect(f.Status.RunID).To(Equal("v2"))
	w.Expect(f.Status.Target).To(Equal(`prefix "b"`))
	w.Expect(progress(f)).To(Equal("100% matched 10 deleted 10 preserved 0"))
	w.Expect(w.count(mainPrefix + "a")).To(BeNumerically(">", 80))
	w.Expect(w.count(mainPrefix + "b")).To(BeZero())
	h.clean(w)
	w.Expect(h.of(stage)).NotTo(ContainElement("v1 started=true " + flushed))
}

func TestANewRunMayBeOfAnotherKindAndItsPoolIsFreeForOthers(t *testing.T) {
	w := newWorld(t)
	main := w.ready()
	other := w.pool(under("other:"), func(p *v1alpha1.CachePool) { p.Name = "other" })
	w.create(other)
	w.becomes(other, connected)
	w.fill(mainPrefix, 50)
	w.fill("other:", 50)
	f := w.flush("flush", all, run1, atMost(1))
	w.create(f)
	w.begun(f)
	behind := w.flush("behind", prefixed("none"))
	w.create(behind)
	w.becomes(behind, isQueued)
	w.delete(main)
	w.becomes(main, "Ready=False/InUse Reconciling=True/ProgressingWithRetry")
	update(w, f, func(f *v1alpha1.CacheFlush) { f.Spec.PoolRef.Name, f.Spec.RunID = "other", "v2" })
	w.begun(f)
	w.vanishes(main)
	w.becomes(behind, "Ready=False/PoolNotFound Reconciling=True/PoolNotFound")
	update(w, f, func(f *v1alpha1.CacheFlush) {
		f.Spec.All, f.Spec.Keys, f.Spec.RunID, f.Spec.Mode = nil, []string{"7", "8", "none"}, "v3", v1alpha1.FlushDryRun
	})
	w.becomes(f, counted)
	w.Expect(progress(f)).To(HavePrefix("100% matched 2 deleted 0"))
}

func TestAFlushThatGoesToAnotherPoolPassesItsTurnOn(t *testing.T) {
	w := newWorld(t)
	w.ready(unwatched)
	other := w.pool(under("other:"), unwatched, func(p *v1alpha1.CachePool) { p.Name = "other" })
	w.create(other)
	w.becomes(other, connected)
	w.fill(mainPrefix, 50)
	w.fill("other:", 50)
	f := w.flush("flush", all, run1, atMost(1))
	w.create(f)
	w.begun(f)
	behind := w.flush("behind", prefixed("none"))
	w.create(behind)
	w.becomes(behind, isQueued)
	update(w, f, func(f *v1alpha1.CacheFlush) { f.Spec.PoolRef.Name, f.Spec.RunID = "other", "v2" })
	w.becomes(behind, flushed)
	w.begun(f)
	w.Expect(w.count("other:")).To(BeNumerically("<", 50))
}
