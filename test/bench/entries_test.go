// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

var (
	entries = flag.Int("entries", 10_000, "how many entries the operator keeps")
	repairs = flag.Int("repairs", 300, "how many keys are deleted, changed and expired each, one after the other")
)

// BenchmarkEntries keeps entries of up to 1 KiB warm, and measures one thing after the other, since they take long to
// create.
func BenchmarkEntries(b *testing.B) {
	for b.Loop() {
		w := newBench(b)
		w.startOperator()
		w.createEntries(*entries)
		fresh := w.untouched()
		w.repair("deleted", fresh, func(key string) error { return w.redis.Unlink(b.Context(), key).Err() })
		w.repair("changed", fresh, func(key string) error { return w.redis.Set(b.Context(), key, "x", 0).Err() })
		w.repair("expired", fresh, func(key string) error { return w.redis.PExpire(b.Context(), key, time.Millisecond).Err() })
		w.flushAll()
		w.restart()
		w.idle()
		w.stopOperator()
	}
}

// untouched gives the keys one by one: the second repair of a key within a minute would be put off.
func (w *bench) untouched() func() string {
	next := 0
	return func() string {
		next++
		return w.key(next)
	}
}

// repair breaks keys, one after the other, and measures the time until each is back.
func (w *bench) repair(how string, fresh func() string, harm func(key string) error) {
	w.Helper()
	took := make([]time.Duration, *repairs)
	for i := range took {
		key := fresh()
		want := w.value(key)
		began := time.Now()
		w.must(harm(key))
		for deadline := began.Add(patience); !w.is(key, want); {
			if time.Now().After(deadline) {
				w.Fatalf("%s, %s, is not back", key, how)
			}
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	w.report(how+"-p50-ms", milliseconds(took[len(took)/2]))
	w.report(how+"-p99-ms", milliseconds(took[len(took)*99/100]))
}

// is says whether a key has its value and enough life left.
func (w *bench) is(key, want string) bool {
	w.Helper()
	var value *redis.StringCmd
	var left *redis.DurationCmd
	_, _ = w.redis.Pipelined(w.Context(), func(p redis.Pipeliner) error {
		value, left = p.Get(w.Context(), key), p.PTTL(w.Context(), key)
		return nil
	})
	return value.Val() == want && left.Val() > time.Minute
}

// flushAll measures how long all keys take to be back, against a bare pipelined SET of them.
func (w *bench) flushAll() {
	w.Helper()
	w.must(w.redis.FlushAll(w.Context()).Err())
	began := time.Now()
	for began := began; int(w.redis.DBSize(w.Context()).Val()) < *entries; {
		if time.Since(began) > patience {
			w.Fatal("the keys are not back")
		}
	}
	took := time.Since(began)

	began = time.Now()
	for batch := range slices.Chunk(w.keys(), 100) {
		_, err := w.redis.Pipelined(w.Context(), func(p redis.Pipeliner) error {
			for _, key := range batch {
				p.Set(w.Context(), "floor:"+key, value(key), time.Hour)
			}
			return nil
		})
		w.must(err)
	}
	floor := time.Since(began)
	for batch := range slices.Chunk(w.keys(), 1000) {
		for i := range batch {
			batch[i] = "floor:" + batch[i]
		}
		w.must(w.redis.Unlink(w.Context(), batch...).Err())
	}
	w.report("flushall-ms", milliseconds(took))
	w.report("flushall/floor", float64(took)/float64(floor))
}

// restart measures what an operator that starts anew under warm entries costs.
func (w *bench) restart() {
	w.Helper()
	w.stopOperator()
	writes, trips, reads := w.apiWrites(), w.network.Trips(), w.calls("getrange")
	w.startOperator()
	deadline := time.Now().Add(patience)
	for w.calls("getrange")-reads < *entries {
		if time.Now().After(deadline) {
			w.Fatal("the keys are not verified")
		}
		pause(w.Context(), 10*time.Millisecond)
	}
	w.report("restart-ms", milliseconds(time.Since(w.started)))
	w.report("restart-round-trips", float64(w.network.Trips()-trips))
	pause(w.Context(), 2*time.Second) // whatever else it might do
	w.report("restart-api-writes", float64(w.apiWrites()-writes))
}

// idle measures what entries cost when nothing happens, over three resyncs.
func (w *bench) idle() {
	w.Helper()
	writes, cpu, began := w.apiWrites(), w.cpu(), time.Now()
	pause(w.Context(), 3*resyncPeriod+time.Second)
	w.report("idle-api-writes", float64(w.apiWrites()-writes))
	w.report("idle-cpu-%", 100*(w.cpu()-cpu)/time.Since(began).Seconds())
	w.report("rss-MiB", w.memory("VmRSS"))
}

// value that an entry's key must have: of every size up to 1 KiB.
func value(key string) string { return strings.Repeat(key, 1024/len(key)*(len(key)%3+1)/3+1) }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// createEntries and wait until they are warm.
func (w *bench) createEntries(n int) {
	w.Helper()
	began := time.Now()
	w.parallel(n, func(i int) error {
		return w.client.Create(w.Context(), w.entry(i))
	})
	var list v1alpha1.CacheEntryList
	for ready := 0; ready < n; {
		pause(w.Context(), 100*time.Millisecond)
		w.must(w.client.List(w.Context(), &list, client.InNamespace(w.namespace)))
		ready = 0
		for i := range list.Items {
			if isReady(list.Items[i].Status.Conditions) {
				ready++
			}
		}
		if time.Since(began) > 20*patience {
			w.Fatalf("%d of %d entries are ready", ready, n)
		}
	}
	w.report("warmup-per-second", float64(n)/time.Since(began).Seconds())
}

func (w *bench) key(i int) string { return fmt.Sprintf("glimr:cache:main:key-%d", i) }

func (w *bench) keys() []string {
	all := make([]string, *entries)
	for i := range all {
		all[i] = w.key(i)
	}
	return all
}
