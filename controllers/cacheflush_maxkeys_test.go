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

const tooMany = "Ready=False/TooManyKeys Failed=True/TooManyKeys Stalled=True/TooManyKeys"

// noMore than so many keys may go.
func noMore(keys int64) func(*v1alpha1.CacheFlush) {
	return func(f *v1alpha1.CacheFlush) { f.Spec.MaxKeys = &keys }
}

// poolNoMore : the pool says so.
func poolNoMore(keys int64) func(*v1alpha1.CachePool) {
	return limited(v1alpha1.FlushLimits{MaxKeys: &keys})
}

func unlimited(*v1alpha1.CachePool) {}

func unbounded(*v1alpha1.CacheFlush) {}

func TestMoreKeysThanMaxKeysFailTheFlushBeforeTheFirstDeletion(t *testing.T) {
	t.Parallel()
	five := named("1", "2", "3", "4", "5", "none")
	for name, c := range map[string]struct {
		pool   func(*v1alpha1.CachePool)
		target func(*v1alpha1.CacheFlush)
		flush  func(*v1alpha1.CacheFlush)
		want   string
	}{
		"the flush's":               {unlimited, all, noMore(99), "More keys would be deleted than the 99 that maxKeys allows; none was deleted"},
		"the pool's":                {poolNoMore(99), all, unbounded, `More keys would be deleted than the 99 that flushLimits.maxKeys of CachePool "main" allows; none was deleted`},
		"the lower, the pool's":     {poolNoMore(10), all, noMore(99), `More keys would be deleted than the 10 that flushLimits.maxKeys of CachePool "main" allows; none was deleted`},
		"the lower, the flush's":    {poolNoMore(99), all, noMore(1), "More keys would be deleted than the 1 that maxKeys allows; none was deleted"},
		"a prefix":                  {unlimited, prefixed("1"), noMore(11), "More keys would be deleted than the 11 that maxKeys allows; none was deleted"},
		"named keys":                {unlimited, five, noMore(4), "More keys would be deleted than the 4 that maxKeys allows; none was deleted"},
		"as many as allowed":        {poolNoMore(100), all, noMore(101), ""},
		"a prefix, as many":         {unlimited, prefixed("1"), noMore(12), ""},
		"named keys, as many":       {unlimited, five, noMore(5), ""},
		"a dry run has no limit":    {poolNoMore(1), both(all, dryRun), noMore(1), ""},
		"named, in a dry run too":   {poolNoMore(1), both(five, dryRun), noMore(1), ""},
		"the largest possible ones": {poolNoMore(1 << 62), all, noMore(1 << 62), ""},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			w.ready(c.pool)
			w.fill(mainPrefix, 100)
			deletions := w.deletions()
			f := w.flush("flush", c.target, c.flush)
			w.create(f)
			if c.want == "" {
				w.Eventually(func() string { w.reload(f); return summary(f) }).Should(Or(Equal(flushed), Equal(counted)))
				return
			}
			w.becomes(f, tooMany)
			w.Expect(message(f)).To(Equal(c.want))
			w.Expect(f.Status.CompletionTime).NotTo(BeNil())
			w.Expect(f.Status.Progress.Deleted).To(BeZero())
			w.Expect(kstatusOf(t, f)).To(Equal("Failed"))
			w.Expect(deletions()).To(BeEmpty())
			w.Expect(w.count(mainPrefix)).To(Equal(100))
		})
	}
}

// both puts changes together.
func both(changes ...func(*v1alpha1.CacheFlush)) func(*v1alpha1.CacheFlush) {
	return func(f *v1alpha1.CacheFlush) { with(f, changes) }
}

// What stays does not count.
func TestOnlyKeysThatWouldGoCountForMaxKeys(t *testing.T) {
	w := newWorld(t)
	w.ready(limited(v1alpha1.FlushLimits{ProtectedPrefixes: []string{"session:"}}))
	w.fill(mainPrefix+"session:", 10)
	w.fill(mainPrefix+"user:", 3)
	e := w.entry("e", enforcing)
	w.create(e)
	w.becomes(e, isWarm)
	for name, change := range map[string]func(*v1alpha1.CacheFlush){"preserving": noMore(2), "rewriting": both(rewriting, noMore(3))} {
		f := w.flush("too-many-when-"+name, all, change)
		w.create(f)
		w.becomes(f, tooMany)
	}
	w.Expect(progress(w.run("preserving", all, noMore(3)))).To(Equal("100% matched 14 deleted 3 preserved 11"))
	w.Expect(progress(w.run("rewriting", all, rewriting, noMore(1)))).To(Equal("100% matched 11 deleted 1 preserved 10"))
	w.holds(mainPrefix+"e", "value of e")
}

// A flush that takes a while says that it counts, and counts no progress before it deletes.
func TestAFlushTellsThatItCounts(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	w.ready(unwatched)
	w.fill(mainPrefix, manyKeys)
	history := w.record()
	proxy.Slow(slowAnswer)
	f := w.flush("flush", all, noMore(manyKeys))
	w.create(f)
	reads(w, f, func(g Gomega, f *v1alpha1.CacheFlush) {
		g.Expect(message(f)).To(Equal("Keys are being counted first, since at most 300000 may be deleted"))
		g.Expect(summary(f)).To(Equal(isRunning))
		g.Expect(progress(f)).To(Equal("0% matched 0 deleted 0 preserved 0"))
	})
	w.Expect(w.count(mainPrefix)).To(Equal(manyKeys))
	// Suspended and resumed, it counts from the start: it may be long ago.
	update(w, f, suspend)
	w.becomes(f, isSuspended)
	w.fill(mainPrefix+"more", 1)
	proxy.Slow(0)
	update(w, f, resume)
	w.becomes(f, tooMany)
	w.Expect(w.count(mainPrefix)).To(Equal(manyKeys + 1))
	// The next run may have another limit.
	update(w, f, run1)
	update(w, f, func(f *v1alpha1.CacheFlush) { f.Spec.RunID, f.Spec.MaxKeys = "v2", new(int64(manyKeys+1)) })
	w.becomes(f, flushed)
	w.Expect(w.count(mainPrefix)).To(BeZero())
	w.Expect(history.of(message)).To(ContainElement("Keys are being deleted"))
}

// A connection that breaks, or a server that starts anew, costs time only.
func TestCountingSurvivesALostServer(t *testing.T) {
	w, server, proxy := newProxiedWorld(t)
	w.ready()
	w.fill(mainPrefix, manyKeys)
	proxy.Slow(slowAnswer)
	f := w.flush("flush", all, noMore(manyKeys-1))
	w.create(f)
	reads(w, f, func(g Gomega, f *v1alpha1.CacheFlush) {
		g.Expect(message(f)).To(HavePrefix("Keys are being counted first"))
	})
	server.Restart() // without its keys
	w.fill(mainPrefix, 1000)
	proxy.Slow(0)
	w.becomes(f, flushed)
	w.Expect(f.Status.Progress.Deleted).To(BeEquivalentTo(1000))
	w.Expect(f.Status.Failures).To(BeZero(), "waiting for the pool does not count")
	w.Expect(w.count(mainPrefix)).To(BeZero())
}

func TestCountingNeedsTheRightToScan(t *testing.T) {
	t.Parallel()
	m := redistest.Miniredis(t)
	w := worldAt(t, m.Addr())
	w.ready(unwatched)
	refusing(t, m, "SCAN", "NOPERM this user has no permissions to run the 'scan' command", 1) // not that of the pool's own check
	f := w.flush("flush", all, noMore(1))
	w.create(f)
	w.becomes(f, "Ready=False/PermissionDenied Failed=True/PermissionDenied Stalled=True/PermissionDenied")
	w.Expect(message(f)).To(ContainSubstring("SCAN"))
}

// The deadline holds while keys are counted.
func TestCountingEndsAtTheDeadline(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	w.ready(unwatched)
	w.fill(mainPrefix, manyKeys)
	proxy.Slow(4 * slowAnswer)
	f := w.flush("flush", all, noMore(manyKeys), atMostLong(2))
	w.create(f)
	w.becomes(f, tookTooLong)
	w.Expect(f.Status.CompletionTime.Sub(f.Status.StartTime.Time)).To(BeNumerically(">=", 2*time.Second))
	w.Expect(w.count(mainPrefix)).To(Equal(manyKeys))
}
