// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"testing"

	. "github.com/onsi/gomega"
	apimeta "k8s.io/apimachinery/pkg/api/meta"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

func TestAFlushThatIsCreatedSuspendedDoesNothing(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.set(mainPrefix+"a", "v")
	f := w.flush("flush", all, suspend)
	w.create(f)
	w.becomes(f, isSuspended)
	w.Expect(f.Status.StartTime).To(BeNil())
	w.Expect(f.Status.Progress).To(BeNil())

	w.run("another", prefixed("b")) // time in which it could have done something
	w.Expect(w.keys("*")).To(HaveLen(1))
	w.reload(f)
	w.Expect(summary(f)).To(Equal(isSuspended))

	update(w, f, resume)
	w.becomes(f, flushed)
	w.Expect(progress(f)).To(Equal("100% matched 1 deleted 1 preserved 0"))
	w.Expect(w.keys("*")).To(BeEmpty())
}

func TestAFlushThatIsSuspendedInTheMiddleGoesOnWhereItStopped(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	w.ready()
	proxy.Slow(slowAnswer)
	w.fill(mainPrefix+"user:", manyKeys)
	h := w.record()
	f := w.flush("flush", all)
	w.create(f)
	w.midway(f)
	update(w, f, suspend)
	w.becomes(f, isSuspended)

	kept := f.DeepCopy()
	w.Expect(kept.Status.Progress.Percent).To(And(BeNumerically(">", 0), BeNumerically("<", 100)))
	w.Expect(kept.Status.Checkpoints).To(HaveLen(1))
	w.Expect(kept.Status.Checkpoints[0].Node).To(Equal(w.addr))
	w.Expect(kept.Status.Checkpoints[0].ServerID).NotTo(BeEmpty())
	w.Expect(kept.Status.Checkpoints[0].Cursor).NotTo(Or(BeEmpty(), Equal("0")))
	left := w.count(mainPrefix)
	w.Expect(kept.Status.Progress.Deleted).To(BeEquivalentTo(manyKeys-left), "nothing that was deleted goes uncounted")
	proxy.Slow(0)
	w.run("another", prefixed("none")) // it has given up its turn, and time passes
	w.Expect(w.count(mainPrefix)).To(Equal(left))
	w.reload(f)
	w.Expect(f.Status).To(Equal(kept.Status))

	update(w, f, resume)
	w.becomes(f, flushed)
	w.Expect(w.count(mainPrefix)).To(BeZero())
	w.Expect(kept.Status.StartTime).To(BeNil(), "as for a Job")
	w.Expect(f.Status.StartTime).NotTo(BeNil())
	w.Expect(progress(f)).To(Equal("100% matched 300000 deleted 300000 preserved 0"))
	var last int32
	for _, s := range h.all() {
		if p := s["flush"].Status.Progress; p != nil {
			w.Expect(p.Percent).To(BeNumerically(">=", last), "it goes on, and not from the start")
			last = p.Percent
		}
	}
}

func TestAFlushThatIsSuspendedInItsFirstSliceCountsWhatItDeleted(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	w.ready()
	proxy.Slow(slowAnswer)
	w.fill(mainPrefix+"user:", manyKeys)
	f := w.flush("flush", all)
	w.create(f)
	w.becomes(f, isRunning)
	update(w, f, suspend)
	w.becomes(f, isSuspended)
	w.Expect(f.Status.Progress.Deleted).To(BeEquivalentTo(manyKeys - w.count(mainPrefix)))
	w.Expect(f.Status.Progress.Percent).To(BeNumerically("<", 100), "it stops within a slice")

	proxy.Slow(0)
	update(w, f, resume)
	w.becomes(f, flushed)
	w.Expect(progress(f)).To(Equal("100% matched 300000 deleted 300000 preserved 0"))
}

func TestAFlushThatIsTouchedInTheMiddleLosesNothing(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	w.ready()
	proxy.Slow(slowAnswer)
	w.fill(mainPrefix+"user:", manyKeys)
	f := w.flush("flush", all)
	w.create(f)
	w.becomes(f, isRunning)
	for range 5 {
		update(w, f, func(f *v1alpha1.CacheFlush) {
			f.Labels = map[string]string{"touched": f.ResourceVersion}
			f.Spec.TTLSecondsAfterFinished = new(int32(1000) + int32(f.Generation))
		})
	}
	proxy.Slow(0)
	w.becomes(f, flushed)
	w.Expect(progress(f)).To(Equal("100% matched 300000 deleted 300000 preserved 0"))
	w.Expect(w.count(mainPrefix)).To(BeZero())
}

func TestAFlushIsSuspendedWithItsPool(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	p := w.ready()
	proxy.Slow(slowAnswer)
	w.fill(mainPrefix+"user:", manyKeys)
	f := w.flush("flush", all)
	w.create(f)
	w.midway(f)
	update(w, p, func(p *v1alpha1.CachePool) { p.Spec.Suspend = true })
	w.becomes(f, "Ready=Unknown/Suspended Suspended=True/PoolSuspended")
	w.Expect(message(f)).To(ContainSubstring(`CachePool "main"`))
	left := w.count(mainPrefix)
	w.Expect(left).To(BeNumerically(">", 0))
	w.Expect(f.Status.Progress.Deleted).To(BeEquivalentTo(manyKeys - left))

	queued := w.flush("queued", all)
	w.create(queued)
	w.becomes(queued, "Ready=Unknown/Suspended Suspended=True/PoolSuspended")
	w.Expect(w.count(mainPrefix)).To(Equal(left))

	proxy.Slow(0)
	update(w, p, func(p *v1alpha1.CachePool) { p.Spec.Suspend = false })
	w.becomes(f, flushed)
	w.becomes(queued, flushed)
	w.Expect(w.count(mainPrefix)).To(BeZero())
}

func TestAFinishedFlushIgnoresSuspend(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	f := w.run("flush", all)
	update(w, f, suspend)
	w.becomes(f, flushed)
	update(w, p, func(p *v1alpha1.CachePool) { p.Spec.Suspend = true })
	w.becomes(p, "Ready=Unknown/Suspended Suspended=True/Suspended")
	update(w, f, func(f *v1alpha1.CacheFlush) { f.Spec.TTLSecondsAfterFinished = new(int32(1000)) })
	w.becomes(f, flushed)
}

// Somebody has edited the status.
func TestAFinishedFlushWithoutReadySaysItAgain(t *testing.T) {
	w := newWorld(t)
	w.ready(poolNoMore(1))
	w.fill(mainPrefix, 2)
	done, failed := w.run("done", named("1")), w.flush("failed", all, noMore(1))
	w.fill(mainPrefix, 2)
	w.create(failed)
	w.becomes(failed, tooMany)
	for f, want := range map[*v1alpha1.CacheFlush]string{done: flushed, failed: tooMany} {
		apimeta.RemoveStatusCondition(&f.Status.Conditions, v1alpha1.ConditionReady)
		w.Expect(k8s.Status().Update(t.Context(), f)).To(Succeed())
		w.becomes(f, want)
		w.Expect(message(f)).NotTo(BeEmpty())
	}
}

func TestDeletingAFlushCancelsIt(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	w.ready()
	proxy.Slow(slowAnswer)
	w.fill(mainPrefix+"user:", manyKeys)
	f := w.flush("flush", prefixed("user:"))
	w.create(f)
	w.midway(f)
	w.Expect(k8s.Delete(t.Context(), f)).To(Succeed())
	w.vanishes(f)
	proxy.Slow(0)

	w.run("next", prefixed("none"))
	left := w.count(mainPrefix)
	w.Expect(left).To(BeNumerically(">", 0))
	w.run("after-that", prefixed("none"))
	w.Expect(w.count(mainPrefix)).To(Equal(left))
}
