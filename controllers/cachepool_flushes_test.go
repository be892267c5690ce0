// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// recent flushes of a pool, each in a line, once there are so many.
func (w *world) recent(p *v1alpha1.CachePool, n int) []string {
	w.t.Helper()
	reads(w, p, func(g Gomega, p *v1alpha1.CachePool) { g.Expect(p.Status.RecentFlushes).To(HaveLen(n)) })
	var lines []string
	for _, f := range p.Status.RecentFlushes {
		w.Expect(f.Namespace).To(Equal(w.namespace))
		w.Expect(f.CompletionTime.IsZero()).To(BeFalse())
		lines = append(lines, fmt.Sprintf("%s %q %s: %s, %d deleted", f.Name, f.RunID, f.Target, f.Result, f.Deleted))
	}
	return lines
}

// At three in the morning, somebody asks what deleted which keys, and when.
func TestAPoolTellsOfItsRecentFlushes(t *testing.T) {
	w := newWorld(t)
	p := w.ready(unwatched)
	w.fill(mainPrefix+"a", 3)
	w.fill(mainPrefix+"b", 2)

	a := w.run("a", prefixed("a"))
	w.Expect(w.recent(p, 1)).To(Equal([]string{`a "" prefix "a": Complete, 3 deleted`}))
	w.Expect(p.Status.RecentFlushes[0].CompletionTime.Equal(a.Status.CompletionTime)).To(BeTrue())

	// Not of those that only count, but of those that fail.
	dry := w.flush("dry", all, dryRun)
	w.create(dry)
	w.becomes(dry, counted)
	w.recent(p, 1)
	many := w.flush("many", named("b1", "b2"), noMore(1))
	w.create(many)
	w.becomes(many, tooMany)
	w.Expect(w.recent(p, 2)).To(ContainElement(`many "" 2 keys: Failed, 0 deleted`))

	// The objects may go.
	w.delete(a)
	w.vanishes(a)
	w.delete(many)
	w.vanishes(many)
	w.run("b", named("b1", "b2"))
	w.Expect(w.recent(p, 3)).To(ContainElements(`a "" prefix "a": Complete, 3 deleted`, `many "" 2 keys: Failed, 0 deleted`, `b "" 2 keys: Complete, 2 deleted`))

	// Nothing is written when nothing has finished.
	w.rests(p, 500*time.Millisecond)
}

// aSecondPasses since a flush has finished: runs of one second are not told apart by their time.
func (w *world) aSecondPasses(f *v1alpha1.CacheFlush) {
	w.t.Helper()
	ended := f.Status.CompletionTime.Time
	w.Eventually(func() bool { return time.Now().Truncate(time.Second).After(ended) }).Should(BeTrue())
}

func TestEachRunOfAFlushIsTold(t *testing.T) {
	w := newWorld(t)
	p := w.ready(unwatched)
	f := w.flush("release", all)
	w.create(f)
	w.becomes(f, flushed)
	w.aSecondPasses(f)
	for i, version := range []string{"v1", "v2", "v1"} {
		w.fill(mainPrefix, i+1)
		update(w, f, func(f *v1alpha1.CacheFlush) { f.Spec.RunID = version })
		w.becomes(f, flushed)
		w.Expect(f.Status.RunID).To(Equal(version))
		w.recent(p, i+2)
		w.aSecondPasses(f)
	}
	w.Expect(w.recent(p, 4)[:3]).To(Equal([]string{
		`release "v1" all: Complete, 3 deleted`, `release "v2" all: Complete, 2 deleted`, `release "v1" all: Complete, 1 deleted`,
	}))
}

// The latest ten are listed, the latest first.
func TestTenFlushesAreListed(t *testing.T) {
	w := newWorld(t)
	p := w.ready(unwatched)
	const flushes = 13
	for i := range flushes {
		f := w.flush(fmt.Sprintf("f%02d", i), named("k"))
		w.create(f)
		w.becomes(f, flushed)
		if i == flushes-2 { // the last one is the only one of its second, so that it must be listed
			w.Eventually(time.Now).Should(BeTemporally(">", f.Status.CompletionTime.Add(time.Second)))
		}
	}
	reads(w, p, func(g Gomega, p *v1alpha1.CachePool) {
		g.Expect(p.Status.RecentFlushes).To(HaveLen(10))
		var names []string
		for i, f := range p.Status.RecentFlushes {
			names = append(names, f.Name)
			if i > 0 {
				g.Expect(f.CompletionTime.After(p.Status.RecentFlushes[i-1].CompletionTime.Time)).To(BeFalse())
			}
		}
		g.Expect(names).To(ContainElement(fmt.Sprintf("f%02d", flushes-1)))
	})
}

// Whatever finishes in the same second is in one order, which does not change.
func TestMoreFlushesThanAreListedFinishInOneSecond(t *testing.T) {
	w := newWorld(t)
	p := w.ready(unwatched)
	const flushes = 16
	all := make([]*v1alpha1.CacheFlush, flushes)
	for i := range all {
		all[i] = w.flush(fmt.Sprintf("f%02d", i), named("k"))
		w.create(all[i])
	}
	for _, f := range all {
		w.becomes(f, flushed)
	}
	reads(w, p, func(g Gomega, p *v1alpha1.CachePool) { g.Expect(p.Status.RecentFlushes).To(HaveLen(10)) })
	w.Eventually(func() int { // all of them have been told by now, the last ones maybe just so
		n := 0
		for _, f := range p.Status.RecentFlushes {
			if f.CompletionTime.Time.Add(time.Second).Before(time.Now()) {
				n++
			}
		}
		return n
	}).Should(Equal(10))
	w.reload(p)
	w.rests(p, time.Second)
}

// An object that goes as soon as it has finished is told all the same.
func TestAFlushThatIsDeletedAtOnceIsTold(t *testing.T) {
	w := newWorld(t)
	p := w.ready(unwatched)
	for i := range 5 {
		f := w.run(fmt.Sprintf("f%d", i), named("k"))
		w.delete(f)
		w.vanishes(f)
	}
	w.recent(p, 5)
}

// A pool that does not serve tells too, and so does one whose flush has failed while it waited.
func TestAPoolThatIsSuspendedOrDownTellsOfItsFlushes(t *testing.T) {
	w := newWorld(t)
	w.addr = "127.0.0.1:1" // nobody listens there
	p := w.pool(unwatched)
	w.create(p)
	w.becomes(p, waits("ConnectionFailed"))
	f := w.flush("flush", all, atMostLong(1))
	w.create(f)
	w.becomes(f, poolIsDown)
	f.Status.StartTime = new(metav1.NewTime(time.Now().Add(-time.Minute)))
	w.Expect(k8s.Status().Update(t.Context(), f)).To(Succeed())
	w.becomes(f, tookTooLong)
	w.Expect(w.recent(p, 1)).To(Equal([]string{`flush "" all: Failed, 0 deleted`}))
	update(w, p, func(p *v1alpha1.CachePool) { p.Spec.Suspend = true })
	reads(w, p, func(g Gomega, p *v1alpha1.CachePool) {
		g.Expect(apimeta.IsStatusConditionTrue(p.Status.Conditions, v1alpha1.ConditionSuspended)).To(BeTrue())
	})
	w.Expect(w.recent(p, 1)).To(Equal([]string{`flush "" all: Failed, 0 deleted`}))
}

func TestFlushesOfOtherPoolsAreNotTold(t *testing.T) {
	w := newWorld(t)
	p := w.ready(unwatched)
	other := w.pool(unwatched, under("other:"), func(p *v1alpha1.CachePool) { p.Name = "other" })
	w.create(other)
	w.becomes(other, connected)
	w.run("theirs", all, func(f *v1alpha1.CacheFlush) { f.Spec.PoolRef.Name = "other" })
	w.recent(other, 1)
	w.run("ours", all)
	w.Expect(w.recent(p, 1)).To(Equal([]string{`ours "" all: Complete, 0 deleted`}))
	w.recent(other, 1)
}
