// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// refusing answers a command with an error a number of times, and counts how often it was asked for.
func refusing(t *testing.T, m *miniredis.Miniredis, name, text string, times int32) *atomic.Int32 {
	t.Helper()
	asked := &atomic.Int32{}
	m.Server().SetPreHook(func(peer *server.Peer, command string, args ...string) bool {
		check := slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, "cachewright-check") })
		if command != name || check || asked.Add(1) > times {
			return false
		}
		peer.WriteError(text)
		return true
	})
	t.Cleanup(func() { m.Server().SetPreHook(nil) })
	return asked
}

func TestAFlushRetriesWhatTheServerRefusesAndRecovers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		command string
		target  func(*v1alpha1.CacheFlush)
	}{
		"the deletion":               {"UNLINK", all},
		"the scan":                   {"SCAN", all},
		"the deletion of named keys": {"UNLINK", named("user:1")},
		"the look at named keys":     {"EXISTS", named("user:1")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := redistest.Miniredis(t)
			w := worldAt(t, m.Addr())
			w.ready(unwatched)
			w.set(mainPrefix+"user:1", "v")
			h := w.record()
			asked := refusing(t, m, c.command, "ERR something with user:1 in it", 1)
			f := w.flush("flush", c.target)
			w.create(f)
			w.becomes(f, retrying)
			w.Expect(f.Status.Failures).To(BeEquivalentTo(1))
			w.Expect(message(f)).To(Equal(c.command + " failed: the server answers with the error ERR"))
			w.Expect(kstatusOf(t, f)).To(Equal("InProgress"))
			w.Expect(asked.Load()).To(BeEquivalentTo(1), "it backs off")

			w.becomes(f, flushed)
			w.lacks(mainPrefix + "user:1")
			w.Expect(f.Status.Failures).To(BeEquivalentTo(1))
			w.Expect(progress(f)).To(Equal("100% matched 1 deleted 1 preserved 0"), "a page that was not dealt with does not count")
			w.Eventually(func() []string { return h.of(summary) }).Should(Equal([]string{"stale", isRunning, retrying, isRunning, flushed}))
		})
	}
}

func TestAFlushFailsAtOnceWithoutTheRightToDelete(t *testing.T) {
	t.Parallel()
	for name, target := range map[string]func(*v1alpha1.CacheFlush){"all": all, "keys": named("a")} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			w.ready(unwatched)
			w.set(mainPrefix+"a", "v")
			// The pool's own checks pass, so it stays Ready.
			w.Expect(w.redis.Do(t.Context(), "acl", "setuser", "default", "resetkeys", "%R~*", "~"+mainPrefix+"cachewright-check-*").Err()).To(Succeed())
			f := w.flush("flush", target)
			w.create(f)
			w.becomes(f, "Ready=False/PermissionDenied Failed=True/PermissionDenied Stalled=True/PermissionDenied")
			w.Expect(message(f)).To(HavePrefix("The Redis user may not run UNLINK"))
			w.Expect(f.Status.CompletionTime).NotTo(BeNil())
			w.Expect(kstatusOf(t, f)).To(Equal("Failed"))
			w.Expect(w.redis.Exists(t.Context(), mainPrefix+"a").Val()).To(BeEquivalentTo(1))

			// The end is the end, also once the right is there again.
			w.Expect(w.redis.Do(t.Context(), "acl", "setuser", "default", "resetkeys", "~*").Err()).To(Succeed())
			w.run("another", named("b"))
			w.look(f)
			w.run("and-another", named("b"))
			w.reload(f)
			w.Expect(summary(f)).To(Equal("Ready=False/PermissionDenied Failed=True/PermissionDenied Stalled=True/PermissionDenied"))
			w.Expect(w.redis.Exists(t.Context(), mainPrefix+"a").Val()).To(BeEquivalentTo(1))
		})
	}
}

func TestALostConnectionInTheMiddleIsNoFailure(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	p := w.ready(unwatched)
	proxy.Slow(slowAnswer)
	w.fill(mainPrefix+"user:", manyKeys)
	h := w.record()
	f := w.flush("flush", all)
	w.create(f)
	w.midway(f)
	proxy.Cut()
	w.becomes(p, "Ready=False/ConnectionFailed Reconciling=True/ProgressingWithRetry")
	reads(w, f, func(g Gomega, f *v1alpha1.CacheFlush) { g.Expect(summary(f)).To(Equal(isRunning)) })
	late := w.flush("late", prefixed("other"))
	w.create(late)
	w.becomes(late, poolIsDown)

	proxy.Slow(0)
	proxy.Mend()
	w.becomes(f, flushed)
	w.becomes(late, flushed)
	w.Expect(f.Status.Failures).To(BeZero())
	w.Expect(w.count(mainPrefix)).To(BeZero())
	w.Expect(progress(f)).To(HavePrefix("100%"))
	w.Eventually(func() []string { return h.of(summary) }).Should(Equal([]string{"stale", isRunning, flushed}))
	w.Expect(h.together()).To(Equal(1))
	w.Expect(h.of(message)).NotTo(ContainElement(ContainSubstring("again")), "the server was there all the time")
}

func TestARestartedServerIsScannedAgainFromTheStart(t *testing.T) {
	w, server, proxy := newProxiedWorld(t)
	w.ready(unwatched)
	proxy.Slow(slowAnswer)
	w.fill(mainPrefix+"user:", manyKeys)
	h := w.record()
	f := w.flush("flush", prefixed("user:"))
	w.create(f)
	w.midway(f)
	id := f.Status.Checkpoints[0].ServerID
	proxy.Cut()
	server.Restart()
	w.fill(mainPrefix+"user:", 100_000) // as if it had loaded them from its disk
	w.fill(mainPrefix+"other:", 10)
	proxy.Mend()

	w.Eventually(func() []string { return h.of(message) }).Should(ContainElement(
		"Keys are being deleted, again from the start, since the server was restarted or replaced"))
	proxy.Slow(0)
	w.becomes(f, flushed)
	w.Expect(f.Status.Failures).To(BeZero())
	w.Expect(f.Status.Checkpoints[0].ServerID).NotTo(Equal(id))
	w.Expect(w.count(mainPrefix + "user:")).To(BeZero())
	w.Expect(w.count(mainPrefix + "other:")).To(Equal(10))
	w.Eventually(func() []string { return h.of(summary) }).Should(Equal([]string{"stale", isRunning, flushed}))
}

func TestAFlushRunsOnAServerWithoutMemory(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready()
	w.set(mainPrefix+"a", "v")
	w.Expect(w.redis.ConfigSet(t.Context(), "maxmemory", "1").Err()).To(Succeed())
	w.look(p)
	w.becomes(p, "Ready=False/OutOfMemory Reconciling=True/ProgressingWithRetry")
	f := w.run("flush", all)
	w.Expect(progress(f)).To(Equal("100% matched 1 deleted 1 preserved 0"))
	w.lacks(mainPrefix + "a")
}

func TestAFlushWaitsForAReplicaToBecomeWritable(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready(unwatched)
	w.set(mainPrefix+"a", "v")
	// It replicates from nobody, so it stays a replica with what it has.
	w.Expect(w.redis.ReplicaOf(t.Context(), "127.0.0.1", "1").Err()).To(Succeed())
	f := w.flush("flush", all)
	w.create(f)
	w.becomes(p, "Ready=False/ReadOnlyReplica Reconciling=True/ProgressingWithRetry")
	w.Expect(w.redis.ReplicaOf(t.Context(), "no", "one").Err()).To(Succeed())
	w.becomes(f, flushed)
	w.Expect(f.Status.Failures).To(BeZero())
	w.lacks(mainPrefix + "a")
}
