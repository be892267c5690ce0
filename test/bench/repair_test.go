// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"flag"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

var harmed = flag.Int("repairs", 300, "how many keys are deleted, overwritten, expired and evicted each, one after the other")

// repairs breaks keys in several ways, one after the other, and measures the time until each is back, for a client that
// asks for it all the time. The floor is one that sets the key itself.
func (k *kept) repairs() {
	k.Helper()
	k.prepareEvictions()
	ways := []struct {
		name string
		harm func(key string)
	}{
		{"deleted", func(key string) { k.must(k.redis.Unlink(k.Context(), key).Err()) }},
		{"overwritten", func(key string) { k.must(k.redis.Set(k.Context(), key, "x", 0).Err()) }},
		{"expired", func(key string) { k.must(k.redis.PExpire(k.Context(), key, time.Millisecond).Err()) }},
		{"evicted", k.evict},
		{"floor", func(key string) {
			k.must(k.redis.Unlink(k.Context(), key).Err())
			k.must(k.redis.Set(k.Context(), key, k.value, time.Hour).Err())
		}},
	}
	took := make([][]float64, len(ways))
	for i := range min(*harmed, *entries/len(ways)) {
		for j, way := range ways { // each on a key of its own: the second repair of a key within a minute would be put off
			name := prefix + key(i*len(ways)+j)
			if way.name == "evicted" {
				k.expireFirst(name)
			}
			began := time.Now()
			way.harm(name)
			k.awaitKey(name)
			took[j] = append(took[j], milliseconds(time.Since(began)))
		}
	}
	plot := plotData{
		Name: "repair", Title: fmt.Sprintf("Of %s keys, one that is deleted is back after %.2g ms (median)", count(*entries), median(took[0])),
		X: axis{Label: "milliseconds until it is back", Log: true}, Y: axis{Label: "% of the repairs"},
	}
	floor := took[len(ways)-1]
	for j, way := range ways {
		plot.Series = append(plot.Series, line{Name: way.name, Dashed: way.name == "floor", Points: distribution(took[j])})
		if way.name == "floor" {
			plot.Series[j].Name = "floor: set by who unlinked it"
			break
		}
		k.add(way.name+"-p50", "a key is "+way.name+", until it is back: p50", "ms", new(5.), quantile(took[j], 0.5))
		k.add(way.name+"-p99", "a key is "+way.name+", until it is back: p99", "ms", new(50.), quantile(took[j], 0.99))
		k.add(way.name+"-floor", "a key is "+way.name+", until it is back: p50 / floor", "", nil, median(took[j])/median(floor))
	}
	k.plot(plot)
}

// distribution of what was measured: how many percent are at most as much.
func distribution(measured []float64) [][2]float64 {
	var points [][2]float64
	for i, value := range slices.Sorted(slices.Values(measured)) {
		points = append(points, [2]float64{value, 100 * float64(i+1) / float64(len(measured))})
	}
	return points
}

// awaitKey until it has its value, and enough life left.
func (k *kept) awaitKey(name string) {
	k.Helper()
	for deadline := time.Now().Add(patience); ; {
		var text *redis.StringCmd
		var left *redis.DurationCmd
		_, _ = k.redis.Pipelined(k.Context(), func(p redis.Pipeliner) error {
			text, left = p.Get(k.Context(), name), p.PTTL(k.Context(), name)
			return nil
		})
		if text.Val() == k.value && left.Val() > time.Minute {
			return
		}
		if time.Now().After(deadline) {
			k.Fatalf("%s is not back", name)
		}
	}
}

// prepareEvictions has the server, once it is short of memory, look at all keys for the one that expires first.
func (k *kept) prepareEvictions() {
	k.Helper()
	k.must(k.redis.ConfigSet(k.Context(), "maxmemory-policy", "volatile-ttl").Err())
	k.must(k.redis.ConfigSet(k.Context(), "maxmemory-samples", strconv.Itoa(2**entries)).Err())
}

// expireFirst makes a key the one that will expire first, though not so soon that the operator would mind.
func (k *kept) expireFirst(name string) {
	k.Helper()
	k.must(k.redis.PExpire(k.Context(), name, 50*time.Minute).Err())
	pause(k.Context(), 20*time.Millisecond) // the operator has looked
	k.measureMemory()
}

// measureMemory that the server uses.
func (k *kept) measureMemory() {
	k.Helper()
	used, err := strconv.Atoi(k.redis.InfoMap(k.Context(), "memory").Item("Memory", "used_memory"))
	k.must(err)
	k.used = used
}

// evict the key that expires first: for the time of one command, the server has less memory than it uses.
func (k *kept) evict(name string) {
	k.Helper()
	var there *redis.IntCmd
	_, err := k.redis.Pipelined(k.Context(), func(p redis.Pipeliner) error {
		p.ConfigSet(k.Context(), "maxmemory", strconv.Itoa(k.used-1))
		p.Ping(k.Context())
		p.ConfigSet(k.Context(), "maxmemory", "0")
		there = p.Exists(k.Context(), name)
		return nil
	})
	k.must(err)
	if there.Val() != 0 { // it uses less by now
		k.measureMemory()
		k.evict(name)
	}
}
