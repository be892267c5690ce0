// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2/server"
	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

func TestAKeyOfAnotherTypeStallsItsEntryUntilASweepFindsItGone(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	w.Expect(w.redis.LPush(t.Context(), mainPrefix+"e", "x").Err()).To(Succeed())
	e := w.entry("e")
	w.create(e)
	w.becomes(e, stalls("WrongType"))
	w.says(e, "The key holds another type than a string")
	w.stays(e, stalls("WrongType"), sweeps/2)
	w.Expect(w.redis.LRange(t.Context(), mainPrefix+"e", 0, -1).Val()).To(Equal([]string{"x"}))
	w.Expect(w.redis.Del(t.Context(), mainPrefix+"e").Err()).To(Succeed())
	w.becomes(e, isWarm)
	w.holds(mainPrefix+"e", "value of e")

	w.Expect(w.redis.Del(t.Context(), mainPrefix+"e").Err()).To(Succeed())
	w.Expect(w.redis.HSet(t.Context(), mainPrefix+"e", "f", "x").Err()).To(Succeed())
	w.becomes(e, stalls("WrongType"))
}

func TestAnEntryWhoseKeyTheUserMayNotTouch(t *testing.T) {
	w, _ := newRealWorld(t)
	for _, rule := range []string{"resetkeys", "~" + mainPrefix + "ok*", "~" + mainPrefix + "cachewright-check-*"} {
		w.Expect(w.redis.Do(t.Context(), "acl", "setuser", "default", rule).Err()).To(Succeed())
	}
	w.ready()
	allowed, denied := w.entry("ok"), w.entry("denied")
	w.create(denied)
	w.create(allowed)
	w.becomes(allowed, isWarm)
	w.becomes(denied, stalls("PermissionDenied"))
	w.Expect(message(denied)).To(HavePrefix("The Redis user may not run PTTL on "))
	w.rests(denied, time.Second)
	w.Expect(w.redis.Do(t.Context(), "acl", "setuser", "default", "allkeys").Err()).To(Succeed())
	w.becomes(denied, isWarm) // by a sweep
}

// A write that the server refuses for a reason of its own is tried again. What it says may quote the value, and is not shown.
func TestAWriteThatTheServerRefusesIsTriedAgain(t *testing.T) {
	m := redistest.Miniredis(t)
	t.Parallel()
	w := worldAt(t, m.Addr())
	var refused atomic.Int32
	m.Server().SetPreHook(func(peer *server.Peer, command string, args ...string) bool {
		if command != "SET" || args[0] != mainPrefix+"e" || refused.Add(1) > 2 {
			return false
		}
		peer.WriteError("ERR I do not like " + args[1])
		return true
	})
	p := w.ready(seldom)
	w.secret("source", map[string]string{"k": "hunter2"})
	e, other := w.came(waits("WriteFailed"), "e", fromSecret("source", "k")), w.came(isWarm, "other")
	w.says(e, "SET failed: the server answers with the error ERR")
	w.becomes(e, isWarm)
	w.holds(e.Status.Key, "hunter2")
	w.Expect(refused.Load()).To(BeEquivalentTo(3))
	w.discreet(e, "hunter2")
	w.Expect(summary(p)).To(Equal(connected), "it is this key's alone")
	w.stays(other, isWarm, time.Second)
}

func TestAnEntryWaitsForItsPoolToBeCreated(t *testing.T) {
	w := newWorld(t)
	e := w.entry("e")
	w.create(e)
	w.becomes(e, waits("PoolNotFound"))
	w.says(e, `No CachePool "main" serves this namespace`)
	w.rests(e, time.Second)
	w.ready(unwatched)
	w.becomes(e, isWarm)
}

func TestThePoolIsNamedDefaultByDefault(t *testing.T) {
	w := newWorld(t)
	e := w.entry("e", func(e *v1alpha1.CacheEntry) { e.Spec.PoolRef = v1alpha1.PoolReference{} })
	w.create(e)
	w.becomes(e, waits("PoolNotFound"))
	w.ready(func(p *v1alpha1.CachePool) { p.Name = "default" })
	w.becomes(e, isWarm)
	w.holds("glimr:cache:default:e", "value of e")
}

// A pool that goes down changes only its own Ready at once. New and changed entries say PoolNotReady, the others
// follow after a minute.
func TestABrokenPoolChangesOnlyNewEntriesAtOnce(t *testing.T) {
	w := newWorld(t)
	m := redistest.Miniredis(t)
	p := w.ready(func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{m.Addr()} })
	old, changed := w.entry("old"), w.entry("changed")
	w.create(old)
	w.create(changed)
	w.becomes(old, isWarm)
	w.becomes(changed, isWarm)
	m.Close()
	w.becomes(p, waits("ConnectionFailed"))

	fresh := w.entry("fresh")
	w.create(fresh)
	update(w, changed, valued("changed"))
	w.becomes(fresh, waits("PoolNotReady"))
	w.says(fresh, `CachePool "main" is not ready`)
	w.becomes(changed, waits("PoolNotReady"))
	w.Expect(fresh.Finalizers).To(BeEmpty(), "nothing was written")
	w.stays(old, isWarm, probes)
	w.rests(old, time.Second)
	w.rests(fresh, time.Second)

	w.Expect(m.Restart()).To(Succeed())
	w.becomes(fresh, isWarm)
	w.becomes(changed, isWarm)
	w.Expect(m.Get(mainPrefix + "changed")).To(Equal("changed"))
}

func TestASuspendedEntryIsLeftAlone(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	e := w.entry("e", living(3*time.Second))
	w.create(e)
	w.becomes(e, isWarm)
	update(w, e, suspendEntry)
	w.becomes(e, isSuspended) // a generation first seen while suspended
	w.says(e, "The entry is suspended")
	w.lacks(mainPrefix + "e") // it is not renewed
	w.Consistently(func() []string { return w.keys("*") }, sweeps/2, time.Second).Should(BeEmpty())

	update(w, e, valued("new"))
	w.becomes(e, isSuspended)
	w.Expect(w.keys("*")).To(BeEmpty())
	update(w, e, resumeEntry)
	w.becomes(e, isWarm)
	w.holds(mainPrefix+"e", "new")
}

// Suspension says nothing of the key: what was written last stays in the status.
func TestASuspendedEntryKeepsTheRestOfItsStatus(t *testing.T) {
	w := newWorld(t)
	w.ready()
	e := w.entry("e")
	w.create(e)
	w.becomes(e, isWarm)
	was := e.DeepCopy()
	update(w, e, suspendEntry)
	w.becomes(e, isSuspended)
	w.Expect(e.Status.Key).To(Equal(was.Status.Key))
	w.Expect(e.Status.WrittenDigest).To(Equal(was.Status.WrittenDigest))
	w.Expect(e.Status.LastWriteTime).To(Equal(was.Status.LastWriteTime))
	w.Expect(e.Finalizers).To(Equal(was.Finalizers))
}

func TestEventsTellWhatReadyBecame(t *testing.T) {
	w := newWorld(t)
	w.ready()
	e := w.entry("e", fromConfigMap("source", "k"))
	w.create(e)
	w.tells(e, `Warning SourceNotFound: ConfigMap "source" does not exist; the key in Redis stays as it is`)
	w.configMap(map[string]string{"k": "v"})
	w.tells(e, "Normal Warm: The key holds the declared value")
	w.Expect(w.events(e)).To(HaveLen(2))
}
