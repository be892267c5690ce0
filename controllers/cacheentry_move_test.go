// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

const (
	writtenAnnotation = "cachewright.dev/written"
	keysFinalizer     = "cachewright.dev/keys"
)

// recordAt is the record of one key.
func recordAt(p *v1alpha1.CachePool, key string) string {
	return fmt.Sprintf(`[{"pool":{"namespace":%q,"name":%q,"uid":%q},"key":%q}]`, p.Namespace, p.Name, p.UID, key)
}

// holding gives an entry a finalizer and a record, as an operator leaves them that was killed before its first write
// of the status.
func holding(record string) func(*v1alpha1.CacheEntry) {
	return func(e *v1alpha1.CacheEntry) {
		e.Finalizers, e.Annotations = []string{keysFinalizer}, map[string]string{writtenAnnotation: record}
	}
}

func TestTheRecordNamesPoolAndKeyButNeverTheFullName(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	e := w.entry("recorded")
	w.create(e)
	w.becomes(e, isWarm)
	w.Expect(e.Annotations).To(HaveKeyWithValue(writtenAnnotation, recordAt(p, "recorded")))
	w.Expect(e.Finalizers).To(ConsistOf(keysFinalizer))
}

func TestAChangedKeyIsWrittenAndTheOldOneDeleted(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	e := w.entry("moving", keyed("old"))
	w.create(e)
	w.becomes(e, isWarm)
	update(w, e, keyed("new"))
	w.holds(mainPrefix+"new", "value of moving")
	w.lacks(mainPrefix + "old")
	w.becomes(e, isWarm)
	w.Expect(e.Status.Key).To(Equal(mainPrefix + "new"))
	w.Eventually(func() map[string]string { w.reload(e); return e.Annotations }).Should(HaveKeyWithValue(writtenAnnotation, recordAt(p, "new")))
}

func TestAChangedPoolIsWrittenAndTheOldKeyDeleted(t *testing.T) {
	w := newWorld(t)
	w.ready()
	there := redistest.Miniredis(t)
	other := w.pool(func(p *v1alpha1.CachePool) { p.Name, p.Spec.Addresses = "other", []string{there.Addr()} })
	w.create(other)
	e := w.entry("moving", living(2*time.Second))
	w.create(e)
	w.becomes(e, isWarm)
	update(w, e, in("other"))
	w.becomes(e, isWarm)
	w.Expect(there.Get("glimr:cache:other:moving")).To(Equal("value of moving"))
	w.lacks(mainPrefix + "moving")
	w.Expect(e.Status.Pool).To(Equal(w.namespace + "/other"))
	w.Eventually(func() map[string]string { w.reload(e); return e.Annotations }).Should(HaveKeyWithValue(writtenAnnotation, recordAt(other, "moving")))
	w.Consistently(w.keys, 3*time.Second).WithArguments("*").Should(BeEmpty(), "the old keeper has forgotten it")
}

func TestAMoveBetweenTwoReferencesToTheSameKeyDeletesNothing(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(under("app:"))
	w.create(w.pool(under("app:users:"), func(p *v1alpha1.CachePool) { p.Name = "users" }))
	e := w.entry("moving", keyed("users:1"))
	w.create(e)
	w.becomes(e, isWarm)
	gone := w.deletions()
	update(w, e, func(e *v1alpha1.CacheEntry) { e.Spec.PoolRef.Name, e.Spec.Key = "users", "1" })
	w.becomes(e, isWarm)
	w.Expect(e.Status.Pool).To(Equal(w.namespace + "/users"))
	w.Expect(e.Status.Key).To(Equal("app:users:1"))
	w.Expect(gone()).To(BeEmpty())
	w.delete(e)
	w.vanishes(e)
	w.lacks("app:users:1")
}

// A pool is renamed by another one with the same prefix, to which the entries move before the first one goes.
func TestRenamingAPoolDeletesNoKey(t *testing.T) {
	w, _ := newRealWorld(t)
	old := w.ready(under("app:"))
	const n = 20
	entries := make([]*v1alpha1.CacheEntry, n)
	for i := range entries {
		entries[i] = w.entry(fmt.Sprintf("e%02d", i))
		w.create(entries[i])
	}
	for _, e := range entries {
		w.becomes(e, isWarm)
	}
	keys, gone := w.keys("*"), w.deletions()
	w.create(w.pool(under("app:"), func(p *v1alpha1.CachePool) { p.Name = "renamed" }))
	w.delete(old) // it stays as long as entries use it, as when both changes are applied at once
	for _, e := range entries {
		update(w, e, in("renamed"))
	}
	for _, e := range entries {
		w.becomes(e, isWarm)
		w.Expect(e.Status.Pool).To(Equal(w.namespace + "/renamed"))
	}
	w.vanishes(old)
	w.Expect(gone()).To(BeEmpty())
	w.Expect(w.keys("*")).To(Equal(keys))
}

func TestAMoveToAPoolThatDoesNotServeKeepsTheOldKey(t *testing.T) {
	w := newWorld(t)
	w.ready()
	m := redistest.Miniredis(t)
	w.create(w.pool(func(p *v1alpha1.CachePool) { p.Name, p.Spec.Addresses = "other", []string{m.Addr()} }))
	m.Close()
	e := w.entry("moving")
	w.create(e)
	w.becomes(e, isWarm)
	update(w, e, in("other"))
	w.becomes(e, waits("PoolNotReady"))
	w.stores(mainPrefix+"moving", "value of moving", time.Second)
	w.Expect(m.Restart()).To(Succeed())
	w.becomes(e, isWarm)
	w.lacks(mainPrefix + "moving")
}

// The new key cannot be written, and so the old one is not deleted.
func TestAMoveToAKeyOfAnotherTypeKeepsTheOldKey(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]func(*v1alpha1.CacheEntry){"Enforce": enforcing, "WriteOnChange": writingOnChange} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			w.ready()
			e := w.entry("moving", keyed("old"), policy)
			w.create(e)
			w.Eventually(func() string { w.reload(e); return summary(e) }).Should(HavePrefix("Ready=True/"))
			w.list(mainPrefix + "new")
			update(w, e, keyed("new"))
			w.becomes(e, stalls("WrongType"))
			w.stores(mainPrefix+"old", "value of moving", time.Second)
			w.unset(mainPrefix + "new")
			w.holds(mainPrefix+"new", "value of moving")
			w.lacks(mainPrefix + "old")
			w.delete(e)
			w.vanishes(e)
			w.Expect(w.keys("*")).To(BeEmpty())
		})
	}
}

func TestAMoveAwayFromAPoolThatDoesNotServeIsFinishedLater(t *testing.T) {
	w := newWorld(t)
	m := redistest.Miniredis(t)
	w.ready(func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{m.Addr()} })
	w.create(w.pool(func(p *v1alpha1.CachePool) { p.Name = "other" }))
	e := w.entry("moving")
	w.create(e)
	w.becomes(e, isWarm)
	m.Close()
	update(w, e, in("other"))
	w.becomes(e, isWarm)
	w.holds("glimr:cache:other:moving", "value of moving")
	w.Expect(e.Annotations[writtenAnnotation]).To(ContainSubstring(`"main"`))
	w.Expect(m.Restart()).To(Succeed())
	w.Eventually(func() bool { return m.Exists(mainPrefix + "moving") }).Should(BeFalse())
	w.Eventually(func() string { w.reload(e); return e.Annotations[writtenAnnotation] }).ShouldNot(ContainSubstring(`"main"`))
}

func TestARetainedEntryHasNeitherFinalizerNorRecord(t *testing.T) {
	w := newWorld(t)
	w.ready()
	e := w.entry("e", retained)
	w.create(e)
	w.becomes(e, isWarm)
	w.Expect(e.Finalizers).To(BeEmpty())
	w.Expect(e.Annotations).To(BeEmpty())
	update(w, e, keyed("moved"))
	w.holds(mainPrefix+"moved", "value of e")
	w.holds(mainPrefix+"e", "value of e")

	update(w, e, deleting)
	w.Eventually(func() []string { w.reload(e); return e.Finalizers }).Should(ConsistOf(keysFinalizer))
	w.becomes(e, isWarm)
	update(w, e, retained)
	w.Eventually(func() []string { w.reload(e); return e.Finalizers }).Should(BeEmpty())
	w.Expect(e.Annotations).To(BeEmpty())
	w.delete(e)
	w.vanishes(e)
	w.holds(mainPrefix+"moved", "value of e")
}

// An operator recorded a key, wrote it, and was killed; then the key was changed.
func TestACrashBetweenRecordAndStatusLeavesNoKeyBehind(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	w.set(mainPrefix+"old", "value of e")
	e := w.entry("e", keyed("new"), holding(recordAt(p, "old")))
	w.create(e)
	w.becomes(e, isWarm)
	w.holds(mainPrefix+"new", "value of e")
	w.lacks(mainPrefix + "old")
	w.Eventually(func() string { w.reload(e); return e.Annotations[writtenAnnotation] }).Should(Equal(recordAt(p, "new")))
}

func TestACrashAndADeletionLeaveNoKeyBehind(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	w.set(mainPrefix+"old", "value of e")
	w.set(mainPrefix+"new", "value of e")
	update(w, p, suspendPool)
	w.becomes(p, isSuspended)
	both := fmt.Sprintf(`[{"pool":{"namespace":%[1]q,"name":"main","uid":%[2]q},"key":"old"},{"pool":{"namespace":%[1]q,"name":"main","uid":%[2]q},"key":"new"}]`, p.Namespace, p.UID)
	w.create(w.pool(func(p *v1alpha1.CachePool) { p.Name = "other" }))
	e := w.entry("e", in("missing"), holding(both))
	w.create(e)
	w.becomes(e, waits("PoolNotFound"))
	update(w, p, resumePool)
	w.becomes(p, connected)
	w.delete(e)
	w.vanishes(e)
	w.lacks(mainPrefix + "old")
	w.lacks(mainPrefix + "new")
}

// Nobody can have keys deleted that he cannot write, by forging a record.
func TestAForgedRecordDeletesNothing(t *testing.T) {
	w := newWorld(t)
	theirs := *w
	theirs.namespace = space(t)
	their := theirs.ready(under("theirs:"))
	theirEntry := theirs.entry("declared")
	theirs.create(theirEntry)
	theirs.becomes(theirEntry, isWarm)
	w.set("theirs:undeclared", "v")
	mine := w.ready()
	own := w.entry("own")
	w.create(own)
	w.becomes(own, isWarm)
	w.set("elsewhere", "v")

	for name, record := range map[string]string{
		"their-pool":        recordAt(their, "undeclared"),
		"their-entry":       recordAt(their, "declared"),
		"own-namespace":     fmt.Sprintf(`[{"pool":{"namespace":%q,"name":"main","uid":%q},"key":"undeclared"}]`, w.namespace, their.UID),
		"another-entry":     recordAt(mine, "own"),
		"out-of-the-prefix": recordAt(mine, "../../elsewhere"),
		"full-name":         `[{"pool":{"name":"main"},"key":"x","fullName":"elsewhere"}]`,
		"no-json":           `elsewhere`,
		"an-object":         `{"key":"elsewhere"}`,
	} {
		e := w.entry(name, holding(record))
		w.create(e)
		w.becomes(e, isWarm)
		update(w, e, holding(record)) // this one takes its own key for somebody else's
		w.delete(e)
		w.vanishes(e)
	}
	w.Expect(w.keys("*")).To(ContainElements("theirs:declared", "theirs:undeclared", mainPrefix+"own", "elsewhere"))
}

func TestALostRecordIsWrittenAgain(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	e := w.entry("e")
	w.create(e)
	w.becomes(e, isWarm)
	update(w, e, func(e *v1alpha1.CacheEntry) { e.Finalizers, e.Annotations = nil, nil })
	w.Eventually(func() string { w.reload(e); return e.Annotations[writtenAnnotation] }).Should(Equal(recordAt(p, "e")))
	w.Expect(e.Finalizers).To(ConsistOf(keysFinalizer))
}
