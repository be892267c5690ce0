// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// detects waits until a pool tells how changes are noticed.
func (w *world) detects(p *v1alpha1.CachePool, want v1alpha1.ChangeDetection) {
	w.t.Helper()
	w.Eventually(func() v1alpha1.ChangeDetection {
		w.reload(p)
		if p.Status.Server == nil {
			return ""
		}
		return p.Status.Server.ChangeDetection
	}).Should(Equal(want))
}

// app gives a pool the credentials of a Redis user app with some rights, for which it needs Secret redis-auth.
func (w *world) app(rights ...string) func(*v1alpha1.CachePool) {
	w.t.Helper()
	w.Expect(w.redis.ACLSetUser(w.t.Context(), "app", append([]string{"reset", "on", ">hunter2", "~*"}, rights...)...).Err()).To(Succeed())
	w.secret("redis-auth", map[string]string{"username": "app", "password": "hunter2"})
	return credentials
}

// changes that another client may make to a key that holds "value" for an hour.
var changes = map[string]func(ctx context.Context, r *redis.Client, key string) error{
	"deleted":  func(ctx context.Context, r *redis.Client, k string) error { return r.Del(ctx, k).Err() },
	"unlinked": func(ctx context.Context, r *redis.Client, k string) error { return r.Unlink(ctx, k).Err() },
	"taken":    func(ctx context.Context, r *redis.Client, k string) error { return r.GetDel(ctx, k).Err() },
	"same-length": func(ctx context.Context, r *redis.Client, k string) error {
		return r.Set(ctx, k, "VALUE", time.Hour).Err()
	},
	"longer": func(ctx context.Context, r *redis.Client, k string) error {
		return r.Set(ctx, k, "value!", time.Hour).Err()
	},
	"shorter":     func(ctx context.Context, r *redis.Client, k string) error { return r.Set(ctx, k, "", time.Hour).Err() },
	"appended":    func(ctx context.Context, r *redis.Client, k string) error { return r.Append(ctx, k, "x").Err() },
	"one-byte":    func(ctx context.Context, r *redis.Client, k string) error { return r.SetRange(ctx, k, 4, "E").Err() },
	"life-longer": func(ctx context.Context, r *redis.Client, k string) error { return r.Expire(ctx, k, 2*time.Hour).Err() },
	"life-gone":   func(ctx context.Context, r *redis.Client, k string) error { return r.Persist(ctx, k).Err() },
	"life-nearly": func(ctx context.Context, r *redis.Client, k string) error { return r.Expire(ctx, k, time.Minute).Err() },
	"life-over": func(ctx context.Context, r *redis.Client, k string) error {
		return r.PExpire(ctx, k, time.Millisecond).Err()
	},
	"renamed": func(ctx context.Context, r *redis.Client, k string) error {
		return r.Rename(ctx, k, "elsewhere:"+k).Err()
	},
	"moved": func(ctx context.Context, r *redis.Client, k string) error { return r.Move(ctx, k, 1).Err() },
	"overwritten": func(ctx context.Context, r *redis.Client, k string) error {
		_, err := r.TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.Set(ctx, "other:"+k, "other", 0)
			return p.Rename(ctx, "other:"+k, k).Err()
		})
		return err
	},
	"by-a-script": func(ctx context.Context, r *redis.Client, k string) error {
		return r.Eval(ctx, "return redis.call('SET', KEYS[1], 'script')", []string{k}).Err()
	},
	"all-of-it": func(ctx context.Context, r *redis.Client, k string) error { return r.Set(ctx, k, "other", 0).Err() },
}

// undone waits until a key holds "value" for an hour again.
func (w *world) undone(r *redis.Client, key string) {
	w.t.Helper()
	w.Eventually(func(g Gomega) {
		g.Expect(r.Get(w.t.Context(), key).Result()).To(Equal("value"))
		g.Expect(r.PTTL(w.t.Context(), key).Val()).To(BeNumerically("~", time.Hour, 10*time.Minute))
	}).Should(Succeed())
}

// What others do to a key is undone as soon as the server tells: no sweep comes in an hour, and no renewal in half of
// one. Nothing is written to the API server for it.
func TestWhatOthersDoIsUndoneWhenTheServerTells(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready(seldom)
	w.detects(p, v1alpha1.DetectionTracking)
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := w.sub(t)
			e := w.came(isWarm, name, valued("value"), living(time.Hour))
			was := e.DeepCopy()
			w.Expect(change(t.Context(), w.redis, e.Status.Key)).To(Succeed())
			w.undone(w.redis, e.Status.Key)
			w.rests(e, time.Second)
			w.Expect(cmp.Diff(was, e)).To(BeEmpty(), "a repair writes nothing to the API server")
		})
	}
}

// Names alone do not say which database they are in.
func TestChangesAreUndoneInThePoolsDatabase(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready(seldom, func(p *v1alpha1.CachePool) { p.Spec.Database = new(int32(5)) })
	w.detects(p, v1alpha1.DetectionTracking)
	five := redis.NewClient(&redis.Options{Addr: w.addr, DB: 5, PipelinePoolSize: -1})
	t.Cleanup(func() { _ = five.Close() })
	e := w.came(isWarm, "e", valued("value"), living(time.Hour))
	other := w.came(isWarm, "other", valued("value"), living(time.Hour))
	w.Expect(five.Del(t.Context(), e.Status.Key).Err()).To(Succeed())
	w.undone(five, e.Status.Key)

	// The same name in another database is somebody else's.
	w.set(e.Status.Key, "foreign")
	w.unset(other.Status.Key)
	w.Expect(w.redis.FlushDB(t.Context()).Err()).To(Succeed())
	w.set(e.Status.Key, "foreign")
	w.Expect(five.Del(t.Context(), other.Status.Key).Err()).To(Succeed())
	w.undone(five, other.Status.Key)
	w.stores(e.Status.Key, "foreign", time.Second)
	w.Expect(w.redis.DBSize(t.Context()).Val()).To(BeEquivalentTo(1))

	w.Expect(five.FlushDB(t.Context()).Err()).To(Succeed())
	w.undone(five, e.Status.Key)
	w.undone(five, other.Status.Key)
	w.Expect(w.redis.FlushAll(t.Context()).Err()).To(Succeed())
	w.undone(five, e.Status.Key)
	w.undone(five, other.Status.Key)
	w.stays(e, isWarm, time.Second)
}

// A server that lost everything is warmed again, whatever made it lose it, and nothing is written to the API server
// for it: no sweep comes in an hour.
func TestAServerThatLostEverythingIsWarmedAgain(t *testing.T) {
	w, s := newRealWorld(t)
	p := w.ready(seldom)
	w.detects(p, v1alpha1.DetectionTracking)
	const keys = 300
	w.many(keys)
	seen := w.follow()
	w.Eventually(seen).Should(HaveLen(keys))
	for _, loss := range []struct {
		how string
		do  func()
	}{
		{"FLUSHALL", func() { w.Expect(w.redis.FlushAll(t.Context()).Err()).To(Succeed()) }},
		{"FLUSHALL ASYNC", func() { w.Expect(w.redis.FlushAllAsync(t.Context()).Err()).To(Succeed()) }},
		{"FLUSHDB", func() { w.Expect(w.redis.FlushDB(t.Context()).Err()).To(Succeed()) }},
		{"a restart", s.Restart},
		{"a kill", func() { s.Kill(); s.Restart() }},
	} {
		loss.do()
		w.Eventually(func() int { return w.count(mainPrefix + "e") }).Should(Equal(keys), loss.how)
		w.detects(p, v1alpha1.DetectionTracking)
	}
	w.Consistently(seen, 2*time.Second).Should(HaveLen(keys), "as they were")
}

// What changes while nobody is told, since every connection is broken, is found out when the next ones are there.
func TestChangesDuringAGapAreFoundOut(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready(seldom)
	w.detects(p, v1alpha1.DetectionTracking)
	missing, changed := w.came(isWarm, "missing"), w.came(isWarm, "changed", valued("value"))
	watched := w.came(isMissing, "observed", observing)
	for range 3 {
		_, err := w.redis.TxPipelined(t.Context(), func(p redis.Pipeliner) error {
			p.Do(t.Context(), "client", "kill", "type", "normal", "skipme", "yes")
			p.Del(t.Context(), missing.Status.Key)
			p.Set(t.Context(), changed.Status.Key, "VALUE", 0) // as long as the right one
			return nil
		})
		w.Expect(err).NotTo(HaveOccurred())
		w.holds(missing.Status.Key, "value of missing")
		w.holds(changed.Status.Key, "value")
	}
	w.detects(p, v1alpha1.DetectionTracking)
	w.set(watched.Status.Key, "value of observed")
	w.becomes(watched, matches)
	for _, e := range []*v1alpha1.CacheEntry{missing, changed} {
		version := e.ResourceVersion
		w.rests(e, 2*time.Second)
		w.Expect(e.ResourceVersion).To(Equal(version), "nothing was written to the API server")
	}
}

// A server with many keys reports late that one has run out, unless somebody reads it: a timer of the operator's own
// does. The test must not look at the key, so it listens.
func TestExpiryIsNoticedWithoutTheServersHelp(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready(seldom)
	w.detects(p, v1alpha1.DetectionTracking)
	script := `for i = 1, 200000 do redis.call('set', 'other:' .. i, 'v', 'ex', 3600) end`
	w.Expect(w.redis.Eval(t.Context(), script, []string{"other"}).Err()).To(Or(Succeed(), MatchError(redis.Nil)))
	written := w.writings()
	e := w.came(isWarm, "e", ensuring, living(2*time.Second))
	w.Eventually(func() []string { return written() }).Should(HaveLen(4), "the first and three more")
	w.Expect(written()).To(HaveEach(e.Status.Key))
	version := e.ResourceVersion
	w.reload(e)
	w.Expect(e.ResourceVersion).To(Equal(version))
}

// A user who may not ask for news gets none, and sweeps find out.
func TestWithoutTheRightToTrackSweepsFindOut(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready(w.app("+@all", "-client|tracking"))
	w.detects(p, v1alpha1.DetectionPolling)
	w.Expect(summary(p)).To(Equal(connected))
	e := w.came(isWarm, "e", valued("value"), living(time.Hour))
	w.set(e.Status.Key, "VALUE")
	w.undone(w.redis, e.Status.Key)
	w.unset(e.Status.Key)
	w.undone(w.redis, e.Status.Key)
	w.came(isWarm, "new") // it does not wait for a sweep
	w.reload(p)
	w.Expect(p.Status.Server.ChangeDetection).To(Equal(v1alpha1.DetectionPolling))
}

// A user who may not find out the number of a connection cannot have the news of one sent to another. The server then
// tells of all keys under the prefix.
func TestWithoutTheRightToRedirectTheServerBroadcasts(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready(seldom, w.app("+@all", "-client|id"))
	w.detects(p, v1alpha1.DetectionBroadcast)
	w.Expect(summary(p)).To(Equal(connected))
	some := []string{"deleted", "same-length", "life-longer", "life-gone", "life-nearly", "life-over"}
	for _, name := range some {
		e := w.came(isWarm, name, valued("value"), living(time.Hour))
		version := e.ResourceVersion
		w.set(mainPrefix+"undeclared", "v")
		w.Expect(changes[name](t.Context(), w.redis, e.Status.Key)).To(Succeed())
		w.undone(w.redis, e.Status.Key)
		w.rests(e, time.Second)
		w.Expect(e.ResourceVersion).To(Equal(version), name)
	}
	w.Expect(w.redis.FlushAll(t.Context()).Err()).To(Succeed())
	w.Eventually(func() int { return w.count(mainPrefix) }).Should(Equal(len(some)))
	e := w.came(isMissing, "observed", observing)
	w.set(e.Status.Key, "value of observed")
	w.becomes(e, matches)
}

// Values are compared however long they are, and however many change at once.
func TestManyChangesAtOnceAreUndone(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready(seldom)
	w.detects(p, v1alpha1.DetectionTracking)
	const keys = 200
	var entries []*v1alpha1.CacheEntry
	for i := range keys {
		e := w.entry(fmt.Sprintf("e%d", i), valued(fmt.Sprintf("%d %s", i, strings.Repeat("x", i*20))))
		w.create(e)
		entries = append(entries, e)
	}
	for _, e := range entries {
		w.becomes(e, isWarm)
	}
	seen := w.follow()
	w.Eventually(seen).Should(HaveLen(keys))
	_, err := w.redis.Pipelined(t.Context(), func(p redis.Pipeliner) error {
		for i, e := range entries {
			if i%2 == 0 {
				p.Del(t.Context(), e.Status.Key)
			} else {
				p.SetRange(t.Context(), e.Status.Key, int64(len(*e.Spec.Value)-1), "y")
			}
		}
		return nil
	})
	w.Expect(err).NotTo(HaveOccurred())
	for _, e := range entries {
		w.holds(e.Status.Key, *e.Spec.Value)
	}
	w.Consistently(seen, time.Second).Should(HaveLen(keys), "as they were")
}
