// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package metrics has the operator's own Prometheus metrics. They are labeled by pool, never by key. docs/metrics.md
// lists them all.
package metrics

import (
	"maps"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

var (
	live = pools{byName: map[types.NamespacedName]*Pool{}}

	left = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cachewright_keys_left_total",
		Help: "Keys that stayed in Redis although a CacheEntry of this namespace would have had them deleted.",
	}, []string{"namespace"})
)

func init() { //nolint:gochecknoinits // as controller-runtime registers its own
	metrics.Registry.MustRegister(&live, left)
}

// pools collects the metrics of all pools. What is no longer among them is not collected, even if somebody still counts.
type pools struct {
	mu     sync.Mutex
	byName map[types.NamespacedName]*Pool
}

// Describe nothing: pools come and go.
func (*pools) Describe(chan<- *prometheus.Desc) {}

// Collect the metrics of all pools.
func (p *pools) Collect(to chan<- prometheus.Metric) {
	p.mu.Lock()
	all := slices.Collect(maps.Values(p.byName))
	p.mu.Unlock()
	for _, pool := range all {
		for _, c := range pool.collectors {
			c.Collect(to)
		}
	}
}

// Of a CachePool, which has them from now on until Delete.
func Of(pool types.NamespacedName) *Pool {
	live.mu.Lock()
	defer live.mu.Unlock()
	p := live.byName[pool]
	if p == nil {
		p = newPool(pool)
		live.byName[pool] = p
	}
	return p
}

// Delete the metrics of a CachePool that is no more.
func Delete(pool types.NamespacedName) {
	live.mu.Lock()
	defer live.mu.Unlock()
	delete(live.byName, pool)
}

// in the metrics of a CachePool, unless it is no more.
func in(pool types.NamespacedName, note func(*Pool)) {
	live.mu.Lock()
	p := live.byName[pool]
	live.mu.Unlock()
	if p != nil {
		note(p)
	}
}

// Left notes that a key of an entry in this namespace stayed in Redis. Its pool may be gone, and is not named: the name comes
// from an annotation that whoever has the entry may change, and this series is never deleted.
func Left(namespace string) { left.WithLabelValues(namespace).Inc() }

// What becomes of the keys that a flush matches.
const (
	Deleted   = "deleted"
	Preserved = "preserved"
	Counted   = "counted"
)

// FlushKeys counts keys that a flush of a CachePool has matched, by what became of them.
func FlushKeys(pool types.NamespacedName, result string, keys int64) {
	in(pool, func(p *Pool) { p.flushKeys.WithLabelValues(result).Add(float64(keys)) })
}

// FlushProgress notes how far the flush at work in a CachePool is, in percent.
func FlushProgress(pool types.NamespacedName, percent int32) {
	in(pool, func(p *Pool) { p.flushProgress.WithLabelValues().Set(float64(percent) / 100) })
}

// FlushPaused notes that no flush is at work in a CachePool.
func FlushPaused(pool types.NamespacedName) { in(pool, func(p *Pool) { p.flushProgress.Reset() }) }

// FlushFinished counts a flush of a CachePool, by the condition that says how it ended.
func FlushFinished(pool types.NamespacedName, result string) {
	in(pool, func(p *Pool) { p.flushes.WithLabelValues(result).Inc() })
}
