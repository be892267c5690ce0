// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"flag"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/cachewright/cachewright/internal/cache"
)

var (
	keys = flag.Int("keys", 1_000_000, "how many keys the server holds; half of them are flushed")
	// pauses of the other client show what a flush costs when it has the server to itself.
	pauses = flag.Duration("pauses", 0, "how long the other client waits between two reads")
)

// foreign is the prefix of the other half of the keys.
const foreign = "glimr:cache:other:"

// BenchmarkFlush deletes half of the keys of a server in several ways, one after the other and all again, while
// another client reads the other half. Times are compared within a repeat only: machines have moods.
func BenchmarkFlush(b *testing.B) {
	w := newFlushBench(b)
	w.fill(*keys)
	ways := []*way{
		{name: engine, flush: w.byEngine},
		{name: glimr, flush: w.byGlimr},
		{name: redisCLI, flush: w.byRedisCLI},
		{name: blocking, flush: w.byKeys},
		{name: object, flush: w.byObject, before: w.startFlusher, after: w.stopOperator},
		{name: flushDB, flush: w.byFlushDB, deletesAll: true},
	}
	if _, err := exec.LookPath("redis-cli"); err != nil {
		ways = slices.DeleteFunc(ways, func(way *way) bool { return way.name == redisCLI })
		say("no redis-cli on PATH: that way to flush is skipped\n")
	}
	for range *repeats {
		for _, way := range ways {
			w.measure(way)
		}
	}
	r := newReport(b, "flush")
	compare(r, ways)
	r.end()
}

// way to flush.
type way struct {
	name string
	// flush deletes the keys, and says for how long it did, and how many it deleted, if it knows.
	flush func() (took time.Duration, deleted int64)
	// before and after are not measured; either may be nil.
	before, after func()
	// deletesAll keys, those that it should not too.
	deletesAll bool

	// took milliseconds, and waits of another client meanwhile, for each repeat. history is how the last one went.
	took              []float64
	p50, p99, longest []float64
	history           [][2]float64
}

// unknown is the number of deleted keys where nobody counts.
const unknown = -1

// flushBench is a server full of keys, and a pool on it.
type flushBench struct {
	*bench

	keys int
	// memories of the operators that have run so far.
	memories []peaks
}

func newFlushBench(b *testing.B) *flushBench {
	b.Helper()
	w := &flushBench{bench: newBench(b)}
	w.createPool(w.server.Addr)
	return w
}

// fill the server, and have it keep the keys on disk, from where each measurement takes them anew.
func (w *flushBench) fill(n int) {
	w.Helper()
	w.keys = n
	w.must(w.redis.FlushAll(w.Context()).Err())
	for from := 0; from < n/2; from += batch {
		_, err := w.redis.Pipelined(w.Context(), func(p redis.Pipeliner) error {
			for i := from; i < min(n/2, from+batch); i++ {
				p.Set(w.Context(), name(prefix, i), value, 0)
				p.Set(w.Context(), name(foreign, i), value, 0)
			}
			return nil
		})
		w.must(err)
	}
	w.must(w.redis.Save(w.Context()).Err())
}

func name(prefix string, i int) string { return fmt.Sprintf("%suser:%07d", prefix, i) }

// measure a way once, on a server that has just started.
func (w *flushBench) measure(way *way) {
	w.Helper()
	w.server.Restart()
	if got := w.redis.DBSize(w.Context()).Val(); got != int64(w.keys/2*2) {
		w.Fatalf("the server has %d keys before %s", got, way.name)
	}
	if way.before != nil {
		way.before()
	}
	reader := w.startReader()
	began := time.Now()
	took, deleted := way.flush()
	of := reader.stop(began)
	way.took = append(way.took, milliseconds(took))
	way.p50, way.p99, way.longest = append(way.p50, of.p50), append(way.p99, of.p99), append(way.longest, of.longest)
	way.history = of.history
	w.verify(way, deleted)
	if way.after != nil {
		way.after()
	}
}

// verify that the keys are gone that should, and no others.
func (w *flushBench) verify(way *way, deleted int64) {
	w.Helper()
	half := int64(w.keys / 2)
	if deleted != unknown && deleted != half {
		w.Fatalf("%s: says that it deleted %d keys of %d", way.name, deleted, half)
	}
	if way.deletesAll {
		half = 0
	}
	if left := w.redis.DBSize(w.Context()).Val(); left != half {
		w.Fatalf("%s: %d keys are left, want %d", way.name, left, half)
	}
	var found int64
	for from := 0; from < int(half); from += batch {
		names := make([]string, min(batch, int(half)-from))
		for i := range names {
			names[i] = name(foreign, from+i)
		}
		n, err := w.redis.Exists(w.Context(), names...).Result()
		w.must(err)
		found += n
	}
	if found != half {
		w.Fatalf("%s: %d foreign keys of %d are left", way.name, found, half)
	}
}

// byEngine is the scan of this repository, without the operator around it.
func (w *flushBench) byEngine() (time.Duration, int64) {
	w.Helper()
	pool := cache.Open(cache.Options{Addresses: []string{w.server.Addr}, Prefix: prefix, Timeout: patience})
	defer func() { w.must(pool.Stop()) }()
	_, err := pool.Check(w.Context()) // it connects, as the operator has long done
	w.must(err)
	began := time.Now()
	result, err := pool.NewScan(cache.All(), cache.ScanOptions{}).Run(w.Context(), cache.Checkpoint{}, func() bool { return false })
	took := time.Since(began)
	w.must(err)
	if !result.Checkpoint.Done {
		w.Fatal("the scan has not come to its end")
	}
	return took, result.Deleted
}

// byGlimr is the algorithm of the glimr_redis driver: pages of SCAN, each deleted before the next one is asked for.
func (w *flushBench) byGlimr() (time.Duration, int64) {
	w.Helper()
	w.must(w.redis.Ping(w.Context()).Err())
	began := time.Now()
	var deleted int64
	for cursor, first := uint64(0), true; first || cursor != 0; first = false {
		page, next, err := w.redis.Scan(w.Context(), cursor, prefix+"*", 100).Result()
		w.must(err)
		if cursor = next; len(page) == 0 {
			continue
		}
		n, err := w.redis.Del(w.Context(), page...).Result()
		w.must(err)
		deleted += n
	}
	return time.Since(began), deleted
}

// byRedisCLI is what people type.
func (w *flushBench) byRedisCLI() (time.Duration, int64) {
	w.Helper()
	_, port, err := net.SplitHostPort(w.server.Addr)
	w.must(err)
	const line = `set -eo pipefail; redis-cli -p "$1" --scan --pattern "$2" | xargs -n 1000 redis-cli -p "$1" unlink >/dev/null`
	began := time.Now()
	out, err := exec.CommandContext(w.Context(), "bash", "-c", line, "bash", port, prefix+"*").CombinedOutput()
	if err != nil {
		w.Fatalf("%v: %s", err, out)
	}
	return time.Since(began), unknown
}

// byKeys is the way that the manual of Redis warns of.
func (w *flushBench) byKeys() (time.Duration, int64) {
	w.Helper()
	w.must(w.redis.Ping(w.Context()).Err())
	began := time.Now()
	found, err := w.redis.Keys(w.Context(), prefix+"*").Result()
	w.must(err)
	var deleted int64
	for some := range slices.Chunk(found, batch) {
		n, err := w.redis.Unlink(w.Context(), some...).Result()
		w.must(err)
		deleted += n
	}
	return time.Since(began), deleted
}

// byFlushDB is the limit that nobody can reach who leaves the keys of others alone.
func (w *flushBench) byFlushDB() (time.Duration, int64) {
	w.Helper()
	w.must(w.redis.Ping(w.Context()).Err())
	began := time.Now()
	w.must(w.redis.FlushDBAsync(w.Context()).Err())
	return time.Since(began), unknown
}
