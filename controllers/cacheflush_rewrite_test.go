// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// rewriting has declared keys deleted and written again.
func rewriting(f *v1alpha1.CacheFlush) { f.Spec.DeclaredEntries = v1alpha1.DeclaredRewrite }

// sorted deletions of keys since a call of deletions, without the prefix of pool main.
func sorted(gone []string) []string {
	names := make([]string, len(gone))
	for i, name := range gone {
		names[i] = name[len(mainPrefix):]
	}
	slices.Sort(names)
	return names
}

// manyPolicies declares a key under each policy, and keys whose entries cannot write now. The entries that are under way
// hold their keys, whatever that means to each of them.
func (w *world) manyPolicies() (entries map[string]*v1alpha1.CacheEntry) {
	w.t.Helper()
	w.set(mainPrefix+"found", "theirs")
	w.set(mainPrefix+"observed", "value of observed")
	w.set(mainPrefix+"suspended", "old")
	w.set(mainPrefix+"sourceless", "old")
	w.Expect(w.redis.HSet(w.t.Context(), mainPrefix+"mistyped", "f", "v").Err()).To(Succeed())
	entries = map[string]*v1alpha1.CacheEntry{}
	for name, c := range map[string]struct {
		change func(*v1alpha1.CacheEntry)
		want   string
	}{
		"enforced":   {enforcing, isWarm},
		"present":    {ensuringPresent, isWarm},
		"found":      {ensuringPresent, isThereAlready},
		"written":    {writingOnChange, "Ready=True/Written"},
		"observed":   {onlyObserving, "Ready=True/Matches"},
		"counter":    {counting(5, "r"), isApplied},
		"suspended":  {func(e *v1alpha1.CacheEntry) { e.Spec.Suspend = true }, "Ready=Unknown/Suspended Suspended=True/Suspended"},
		"sourceless": {fromConfigMap("absent", "k"), waits("SourceNotFound")},
		"mistyped":   {enforcing, stalls("WrongType")},
	} {
		e := w.entry(name, c.change)
		w.create(e)
		w.becomes(e, c.want)
		entries[name] = e
	}
	return entries
}

func TestRewriteDeletesWhatEnforceAndEnsurePresentWriteAgainAndNothingElse(t *testing.T) {
	t.Parallel()
	for name, target := range map[string]func(*v1alpha1.CacheFlush){
		"all":  all,
		"keys": named("enforced", "present", "found", "written", "observed", "counter", "suspended", "sourceless", "mistyped", "other", "absent"),
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			w.ready()
			entries := w.manyPolicies()
			written := entries["enforced"].Status.LastWriteTime
			w.set(mainPrefix+"other", "v")
			deletions := w.deletions()

			dry := w.flush("dry", target, rewriting, dryRun)
			w.create(dry)
			w.becomes(dry, counted)
			w.Expect(progress(dry)).To(Equal("100% matched 10 deleted 0 preserved 6"))
			w.Expect(deletions()).To(BeEmpty())

			f := w.run("flush", target, rewriting)
			w.Expect(progress(f)).To(Equal("100% matched 10 deleted 4 preserved 6"))
			w.Expect(sorted(deletions())).To(Equal([]string{"enforced", "found", "other", "present"}))
			w.holds(mainPrefix+"enforced", "value of enforced")
			w.holds(mainPrefix+"present", "value of present")
			w.holds(mainPrefix+"found", "value of found")
			w.becomes(entries["found"], isWarm)
			for _, name := range []string{"enforced", "present"} {
				w.stays(entries[name], isWarm, 200*time.Millisecond)
			}
			w.Expect(entries["enforced"].Status.LastWriteTime).To(Equal(written), "it is no new value")
		})
	}
}

// Nor does it without events from the server: the flush has the key looked at.
func TestARewrittenKeyIsBackAtOnceWithoutEvents(t *testing.T) {
	w := newWorld(t)
	w.ready(unwatched)
	e := w.entry("e", enforcing)
	w.create(e)
	w.becomes(e, isWarm)
	w.set(mainPrefix+"e", "changed behind the operator's back")
	f := w.run("flush", all, rewriting)
	w.Expect(progress(f)).To(Equal("100% matched 1 deleted 1 preserved 0"))
	w.holds(mainPrefix+"e", "value of e")
	w.stays(e, isWarm, 200*time.Millisecond)
}

// One flush after the other is no second writer.
func TestRewritesOneAfterTheOtherContestNothing(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready()
	w.watched(p)
	e := w.entry("e", enforcing)
	w.create(e)
	w.becomes(e, isWarm)
	f := w.flush("flush", named("e"), rewriting)
	w.create(f)
	for i := range 5 {
		update(w, f, func(f *v1alpha1.CacheFlush) { f.Spec.RunID = fmt.Sprintf("v%d", i) })
		w.becomes(f, flushed)
		w.Expect(f.Status.Progress.Deleted).To(BeEquivalentTo(1))
		w.holds(mainPrefix+"e", "value of e")
		w.reload(e)
		w.Expect(summary(e)).To(Equal(isWarm))
	}
	w.stays(e, isWarm, time.Second)
}

// A run of many slices comes by a key that is back again and again.
func TestADeclaredKeyIsDeletedOnceInARun(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready()
	w.watched(p)
	var want []string
	for i := range 10 {
		e := w.entry(fmt.Sprintf("e%d", i), enforcing)
		w.create(e)
		w.becomes(e, isWarm)
		want = append(want, e.Name)
	}
	w.fill(mainPrefix, 60)
	deletions := w.deletions()
	f := w.run("flush", all, rewriting, atMost(30)) // the engine looks at a page anew in each slice that cannot finish it
	w.Expect(progress(f)).To(Equal("100% matched 70 deleted 70 preserved 0"), "what is back does not count")
	gone := slices.DeleteFunc(sorted(deletions()), func(name string) bool { return name[0] != 'e' })
	w.Expect(gone).To(Equal(want))
	for _, name := range want {
		w.holds(mainPrefix+name, "value of "+name)
	}
	names := []string{"e0", "e1", "1"}
	w.set(mainPrefix+"1", "v")
	f = w.run("named", named(names...), rewriting, atMost(1))
	w.Expect(progress(f)).To(Equal("100% matched 3 deleted 3 preserved 0"))
	w.Expect(sorted(deletions())).To(Equal([]string{"1", "e0", "e1"}))
}

func TestARewriteReachesWhatAnotherPoolOfTheServerDeclares(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(under("app:"))
	inside := w.pool(under("app:users:"), func(p *v1alpha1.CachePool) { p.Name = "inside" })
	w.create(inside)
	w.becomes(inside, connected)
	e := w.entry("e", func(e *v1alpha1.CacheEntry) { e.Spec.PoolRef.Name = "inside" })
	w.create(e)
	w.becomes(e, isWarm)
	younger := w.entry("younger", func(e *v1alpha1.CacheEntry) { e.Spec.Key = "users:e" })
	w.create(younger)
	w.becomes(younger, stalls("KeyConflict"))
	deletions := w.deletions()

	f := w.run("flush", all, rewriting)
	w.Expect(progress(f)).To(Equal("100% matched 1 deleted 1 preserved 0"))
	w.Expect(deletions()).To(Equal([]string{"app:users:e"}))
	w.holds("app:users:e", "value of e")

	// Somebody who only looks keeps it there, whichever pool he looks through.
	observer := w.entry("observer", onlyObserving, func(e *v1alpha1.CacheEntry) { e.Spec.Key, e.Spec.Value = "users:e", new("value of e") })
	w.create(observer)
	w.becomes(observer, "Ready=True/Matches")
	w.Expect(progress(w.run("observed", all, rewriting))).To(Equal("100% matched 1 deleted 0 preserved 1"))

	// And so does a pool that does not serve.
	w.delete(observer)
	w.vanishes(observer)
	update(w, inside, func(p *v1alpha1.CachePool) { p.Spec.Suspend = true })
	w.becomes(inside, "Ready=Unknown/Suspended Suspended=True/Suspended")
	w.Expect(progress(w.run("suspended", all, rewriting))).To(Equal("100% matched 1 deleted 0 preserved 1"))
}

func TestProtectedKeysAreNotRewritten(t *testing.T) {
	w := newWorld(t)
	w.ready(limited(v1alpha1.FlushLimits{ProtectedPrefixes: []string{"e"}}))
	e := w.entry("e", enforcing)
	w.create(e)
	w.becomes(e, isWarm)
	w.Expect(progress(w.run("flush", all, rewriting))).To(Equal("100% matched 1 deleted 0 preserved 1"))
	w.Expect(progress(w.run("named", named("e"), rewriting))).To(Equal("100% matched 1 deleted 0 preserved 1"))
}
