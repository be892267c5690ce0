// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

func TestAFlushThatTakesTooLongFails(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.fill(mainPrefix, 100)
	f := w.flush("flush", all, run1, atMost(2), atMostLong(5))
	w.create(f)
	w.begun(f)
	next := w.flush("next", all, atMostLong(1))
	w.create(next)
	w.becomes(next, isQueued)

	w.becomes(f, tookTooLong)
	w.Expect(message(f)).To(Equal("The flush took longer than 5 seconds"))
	w.Expect(kstatusOf(t, f)).To(Equal("Failed"))
	w.Expect(f.Status.CompletionTime.Sub(f.Status.StartTime.Time)).To(And(BeNumerically(">=", 5*time.Second), BeNumerically("<=", 15*time.Second)))
	w.Expect(f.Status.Failures).To(BeZero())
	w.Expect(f.Status.Progress.Deleted).To(BeNumerically("<", 50))
	w.consistent(f)
	w.tells(f, "Warning DeadlineExceeded: The flush took longer than 5 seconds")
	w.becomes(next, flushed) // it has waited for longer than its own deadline
	w.Expect(w.keys("*")).To(BeEmpty())

	update(w, f, func(f *v1alpha1.CacheFlush) { f.Spec.RunID, f.Spec.ActiveDeadlineSeconds = "v2", nil })
	w.becomes(f, flushed)
}

func TestAFlushTakesTooLongWhileItsPoolIsAway(t *testing.T) {
	w := newWorld(t)
	proxy := redistest.NewProxy(t, w.addr, 0)
	w.addr = proxy.Addr
	w.ready(unwatched)
	w.fill(mainPrefix, 100)
	f := w.flush("flush", all, atMost(2), atMostLong(3))
	w.create(f)
	w.begun(f)
	proxy.Cut()
	w.becomes(f, tookTooLong)
	w.Expect(f.Status.Failures).To(BeZero())
	proxy.Mend()
}

func TestAFlushTakesTooLongWhileItBacksOff(t *testing.T) {
	t.Parallel()
	m := redistest.Miniredis(t)
	w := worldAt(t, m.Addr())
	w.ready(unwatched)
	w.set(mainPrefix+"a", "v")
	refusing(t, m, "UNLINK", "ERR something", 100)
	f := w.flush("flush", all, atMostLong(2))
	w.create(f)
	w.becomes(f, retrying)
	w.becomes(f, tookTooLong)
	w.Expect(f.Status.Failures).To(BeEquivalentTo(1))
	w.Expect(f.Status.CompletionTime.Sub(f.Status.StartTime.Time)).To(BeNumerically("<", 9*time.Second), "before the next retry")
}

func TestASuspensionStopsTheDeadline(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		suspend, resume func(*world, *v1alpha1.CachePool, *v1alpha1.CacheFlush)
		state           string
	}{
		"of the flush": {
			func(w *world, _ *v1alpha1.CachePool, f *v1alpha1.CacheFlush) { update(w, f, suspend) },
			func(w *world, _ *v1alpha1.CachePool, f *v1alpha1.CacheFlush) { update(w, f, resume) },
			isSuspended,
		},
		"of its pool": {
			func(w *world, p *v1alpha1.CachePool, _ *v1alpha1.CacheFlush) {
				update(w, p, func(p *v1alpha1.CachePool) { p.Spec.Suspend = true })
			},
			func(w *world, p *v1alpha1.CachePool, _ *v1alpha1.CacheFlush) {
				update(w, p, func(p *v1alpha1.CachePool) { p.Spec.Suspend = false })
			},
			"Ready=Unknown/Suspended Suspended=True/PoolSuspended",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := w.ready()
			w.fill(mainPrefix, 30)
			f := w.flush("flush", all, atMost(4), atMostLong(4))
			w.create(f)
			w.begun(f)
			c.suspend(w, p, f)
			w.becomes(f, c.state)
			w.Expect(f.Status.StartTime).To(BeNil())
			deleted := f.Status.Progress.Deleted
			w.stays(f, c.state, 5*time.Second)
			w.look(f)
			w.stays(f, c.state, 200*time.Millisecond)
			resumed := time.Now().Truncate(time.Second)
			update(w, f, atMost(1000))
			c.resume(w, p, f)
			w.becomes(f, flushed)
			w.Expect(f.Status.StartTime.Time).NotTo(BeTemporally("<", resumed))
			w.Expect(deleted).To(BeNumerically(">", 0))
			w.Expect(progress(f)).To(Equal("100% matched 30 deleted 30 preserved 0"))
		})
	}
}
