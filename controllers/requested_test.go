// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2/server"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// touch an object, which is no request to look.
func touch[T client.Object](w *world, o T) {
	w.t.Helper()
	update(w, o, func(o T) {
		labels := o.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels["touched"] = o.GetResourceVersion()
		o.SetLabels(labels)
	})
}

// lacking checks that a key is not there for a while.
func (w *world) lacking(key string, while time.Duration) {
	w.t.Helper()
	w.Consistently(func() (int64, error) { return w.redis.Exists(w.t.Context(), key).Result() }, while, 50*time.Millisecond).Should(BeZero())
}

// The server of these tests tells of no changes, and no sweep comes in an hour: only a request has a key looked at.
func TestARequestHasAnEntryLookedAtNow(t *testing.T) {
	w := newWorld(t)
	w.detects(w.ready(seldom), v1alpha1.DetectionPolling)
	e, other := w.came(isWarm, "e"), w.came(isWarm, "other")
	for _, value := range []string{"2026-11-22T10:00:00Z", "again", "2026-11-22T10:00:00Z"} { // it only has to be another than before
		w.unset(e.Status.Key)
		w.unset(other.Status.Key)
		touch(w, e)
		w.lacking(e.Status.Key, time.Second)
		w.request(e, value)
		version := e.ResourceVersion
		w.holds(e.Status.Key, "value of e")
		w.rests(e, time.Second)
		w.Expect(e.ResourceVersion).To(Equal(version), "nothing is written to the API server when all is well")

		w.unset(e.Status.Key)
		w.request(e, value) // the same value says nothing new
		touch(w, e)
		w.lacking(e.Status.Key, time.Second)
		w.lacking(other.Status.Key, time.Millisecond)
	}
	w.stays(e, isWarm, time.Second) // it is no second writer's doing
}

// What a request finds is told.
func TestARequestTellsWhatItFinds(t *testing.T) {
	w := newWorld(t)
	w.detects(w.ready(seldom), v1alpha1.DetectionPolling)
	stuck, observed, ensured := w.came(isWarm, "stuck"), w.came(isMissing, "observed", observing), w.came(isWarm, "ensured", ensuring)
	w.list(stuck.Status.Key)
	w.set(observed.Status.Key, "value of observed")
	w.set(ensured.Status.Key, "foreign")
	for _, e := range []*v1alpha1.CacheEntry{stuck, observed, ensured} {
		w.rests(e, time.Second)
		w.look(e)
	}
	w.becomes(stuck, stalls("WrongType"))
	w.becomes(observed, matches)
	w.becomes(ensured, isPresent)
	w.unset(stuck.Status.Key)
	w.look(stuck)
	w.becomes(stuck, isWarm)
}

func TestARequestHasAllKeysOfAPoolLookedAtNow(t *testing.T) {
	w := newWorld(t)
	p := w.ready(seldom)
	w.detects(p, v1alpha1.DetectionPolling)
	w.many(9)
	seen := w.follow()
	w.Eventually(seen).Should(HaveLen(9))
	for i, value := range []string{"one", "two", "three"} {
		// Other keys each time: a second change of the same one within a minute would be a contest.
		gone := []string{mainPrefix + fmt.Sprintf("e%d", 3*i), mainPrefix + fmt.Sprintf("e%d", 3*i+1)}
		late := mainPrefix + fmt.Sprintf("e%d", 3*i+2)
		w.Expect(w.redis.Del(t.Context(), gone...).Err()).To(Succeed())
		touch(w, p)
		w.lacking(gone[0], time.Second)
		w.request(p, value)
		version := p.ResourceVersion
		w.Eventually(func() int { return w.count(mainPrefix + "e") }).Should(Equal(9))
		w.rests(p, time.Second)
		w.Expect(p.ResourceVersion).To(Equal(version), "nothing is written to the API server when all is well")

		w.unset(late)
		w.request(p, value) // the same value says nothing new
		touch(w, p)
		w.lacking(late, time.Second)
		w.request(p, value+" and now")
		w.Eventually(func() int { return w.count(mainPrefix + "e") }).Should(Equal(9))
	}
	w.Consistently(func() int { return len(seen()) }, time.Second).Should(Equal(9), "as they were")
}

// A pool that fails again and again, soon after each probe that went well, is tried again after a long pause, or when
// somebody asks for it.
func TestARequestSkipsTheBackOffOfAPool(t *testing.T) {
	t.Parallel()
	m := redistest.Miniredis(t)
	w := worldAt(t, m.Addr())
	p := w.ready(seldom)
	e := w.came(isWarm, "e")
	var mu sync.Mutex
	asked, mended := 0, false
	m.Server().SetPreHook(func(peer *server.Peer, command string, args ...string) bool {
		mu.Lock()
		defer mu.Unlock()
		if mended || command != "GETRANGE" || args[0] != mainPrefix+"e" {
			return false
		}
		asked++
		peer.WriteError("LOADING Redis is loading the dataset in memory")
		return true
	})
	t.Cleanup(func() { m.Server().SetPreHook(nil) })
	w.look(e)
	w.Eventually(func() int { mu.Lock(); defer mu.Unlock(); return asked }, 2*patience).Should(BeNumerically(">=", 6), "the pauses grow")
	w.becomes(p, waits("Loading"))
	mu.Lock()
	mended = true
	mu.Unlock()
	touch(w, p)
	w.stays(p, waits("Loading"), 2*time.Second)
	w.request(p, "now")
	w.Eventually(func() string { w.reload(p); return summary(p) }, 5*time.Second).Should(Equal(connected))
	w.becomes(e, isWarm)
}

// A flush that the server keeps refusing waits for ever longer, or until somebody asks for it.
func TestARequestSkipsTheBackOffOfAFlush(t *testing.T) {
	t.Parallel()
	m := redistest.Miniredis(t)
	w := worldAt(t, m.Addr())
	w.ready(seldom)
	w.set(mainPrefix+"a", "v")
	asked := refusing(t, m, "UNLINK", "ERR nope", 3)
	f := w.flush("flush", all)
	w.create(f)
	w.becomes(f, retrying)
	for i, value := range []string{"one", "two"} {
		w.Eventually(func() int32 { w.reload(f); return f.Status.Failures }).Should(BeEquivalentTo(i + 1))
		touch(w, f)
		w.rests(f, time.Second)
		w.Expect(asked.Load()).To(BeEquivalentTo(i + 1))
		w.request(f, value)
	}
	w.Eventually(func() int32 { w.reload(f); return f.Status.Failures }).Should(BeEquivalentTo(3))
	w.request(f, "two") // the same value says nothing new
	touch(w, f)
	w.rests(f, 2*time.Second)
	w.request(f, "three") // it would have waited for 40 s, longer than this test is patient
	w.becomes(f, flushed)
	w.lacks(mainPrefix + "a")
}

// An entry that waits for its pool waits on, whoever asks; nothing is written for it.
func TestARequestDoesNotHelpAnEntryWithoutItsPool(t *testing.T) {
	w := newWorld(t)
	e := w.came(waits("PoolNotFound"), "e")
	w.look(e)
	w.rests(e, time.Second)
	update(w, e, func(e *v1alpha1.CacheEntry) {
		e.Spec.Suspend = true
		metav1.SetMetaDataAnnotation(&e.ObjectMeta, "cachewright.dev/requestedAt", "now")
	})
	w.becomes(e, isSuspended)
	w.rests(e, time.Second)
}
