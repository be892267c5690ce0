// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// BenchmarkLosses has the server lose all keys, whose values are 1 KiB.
func BenchmarkLosses(b *testing.B) {
	k := newKept(b, "losses", strings.Repeat("v", 1024))
	read := k.reads()
	k.startOperator()
	k.awaitReads(read + *entries)
	k.floods()
	k.outage()
	k.stopOperator()
	k.end()
}

// floods measure how long all keys take to be back after FLUSHALL, against a bare pipelined SET of as many.
func (k *kept) floods() {
	k.Helper()
	var ours, floors []float64
	for range *repeats {
		k.must(k.redis.FlushAll(k.Context()).Err())
		profiled := k.operator.profile("flushall", 2)
		began := time.Now()
		k.awaitKeys(began)
		ours = append(ours, milliseconds(time.Since(began)))
		profiled()
		pause(k.Context(), time.Second) // the operator has had a look at all of them

		began = time.Now()
		k.pipelined(*entries, "floor:", func(p redis.Pipeliner, name string, _ int) { p.Set(k.Context(), name, k.value, time.Hour) })
		floors = append(floors, milliseconds(time.Since(began)))
		k.pipelined(*entries, "floor:", func(p redis.Pipeliner, name string, _ int) { p.Unlink(k.Context(), name) })
	}
	k.add("flushall", "FLUSHALL until all keys are back", "ms", new(1000.), ours...)
	k.add("flushall-floor", "FLUSHALL until all keys are back / floor", "", nil, ratios(ours, floors)...)
}

// outage measures what a server costs that is away for some seconds, and comes back without data.
func (k *kept) outage() {
	k.Helper()
	const away = 5 * time.Second
	asked := k.requests().ofEntries
	k.server.Kill()
	pause(k.Context(), away)
	k.server.Restart()
	began := time.Now()
	k.awaitKeys(began)
	k.add("outage", fmt.Sprintf("Redis is away for %s and comes back empty, until all keys are back", away), "ms", nil, milliseconds(time.Since(began)))
	pause(k.Context(), 2*time.Second) // whatever else it might do
	k.add("outage-writes", fmt.Sprintf("Redis is away for %s: writes to the API server for entries", away), "", new(0.), float64(k.requests().ofEntries-asked))
}

// awaitKeys until the server has them all.
func (k *kept) awaitKeys(began time.Time) {
	k.Helper()
	for int(k.redis.DBSize(k.Context()).Val()) < *entries {
		if time.Since(began) > patience {
			k.Fatal("the keys are not back")
		}
	}
}
