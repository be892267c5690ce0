// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package metrics has the operator's own Prometheus metrics. They are labeled by pool, never by key.
package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

var (
	labels = []string{"namespace", "pool"}

	declared = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "cachewright_declared_keys",
		Help: "Keys that CacheEntries declare in the pool and that the operator keeps.",
	}, labels)
	contested = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "cachewright_contested_keys",
		Help: "Declared keys that something else keeps changing or removing.",
	}, labels)
	verified = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "cachewright_last_verified_timestamp_seconds",
		Help: "When the last look at all declared keys of the pool began that has been completed.",
	}, labels)
	renewals = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cachewright_renewals_total",
		Help: "Lifetimes of declared keys renewed before they ran out.",
	}, labels)
	repairs = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cachewright_repairs_total",
		Help: "Declared keys written again, by cause: missing, changed, lifetime, expired, flushed by a CacheFlush, or lost with all others.",
	}, append(labels, "cause"))
	flushes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cachewright_flushes_total",
		Help: "Flushes of the pool that have finished, by result: Complete or Failed.",
	}, append(labels, "result"))
	flushKeys = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cachewright_flush_keys_total",
		Help: "Keys that flushes of the pool have matched, by what became of them: deleted, preserved, or counted by a dry run.",
	}, append(labels, "result"))
	flushProgress = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "cachewright_flush_progress_ratio",
		Help: "Part of the server's keys that the flush at work has scanned, from 0 to 1; there is none while none is at work.",
	}, labels)
	left = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cachewright_keys_left_total",
		Help: "Keys that stayed in Redis although their CacheEntry would have had them deleted.",
	}, labels)
)

func init() { //nolint:gochecknoinits // as controller-runtime registers its own
	metrics.Registry.MustRegister(declared, contested, verified, renewals, repairs, left, flushes, flushKeys, flushProgress)
}

// Pool are the metrics of one CachePool.
type Pool struct {
	Declared, Contested, Verified prometheus.Gauge
	Renewals                      prometheus.Counter
	Repairs                       *prometheus.CounterVec
	labels                        prometheus.Labels
}

// Of a CachePool.
func Of(pool types.NamespacedName) Pool {
	l := of(pool)
	return Pool{
		Declared: declared.With(l), Contested: contested.With(l), Verified: verified.With(l),
		Renewals: renewals.With(l), Repairs: repairs.MustCurryWith(l), labels: l,
	}
}

// Left notes that a key stayed in Redis. It counts on when the pool is gone, since then keys stay.
func Left(pool types.NamespacedName) { left.With(of(pool)).Inc() }

// Delete the metrics of a CachePool that is no more.
func (p Pool) Delete() {
	for _, gauge := range []*prometheus.GaugeVec{declared, contested, verified, flushProgress} {
		gauge.Delete(p.labels)
	}
	renewals.Delete(p.labels)
	for _, counter := range []*prometheus.CounterVec{repairs, flushes, flushKeys} {
		counter.DeletePartialMatch(p.labels)
	}
}

// What becomes of the keys that a flush matches.
const (
	Deleted   = "deleted"
	Preserved = "preserved"
	Counted   = "counted"
)

// FlushKeys counts keys that a flush of a CachePool has matched, by what became of them.
func FlushKeys(pool types.NamespacedName, result string, keys int64) {
	flushKeys.MustCurryWith(of(pool)).WithLabelValues(result).Add(float64(keys))
}

// FlushProgress notes how far the flush at work in a CachePool is, in percent.
func FlushProgress(pool types.NamespacedName, percent int32) {
	flushProgress.With(of(pool)).Set(float64(percent) / 100)
}

// FlushPaused notes that no flush is at work in a CachePool.
func FlushPaused(pool types.NamespacedName) { flushProgress.Delete(of(pool)) }

// FlushFinished counts a flush of a CachePool, by the condition that says how it ended.
func FlushFinished(pool types.NamespacedName, result string) {
	flushes.MustCurryWith(of(pool)).WithLabelValues(result).Inc()
}

func of(pool types.NamespacedName) prometheus.Labels {
	return prometheus.Labels{"namespace": pool.Namespace, "pool": pool.Name}
}
