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
		Help: "Declared keys written again, by cause: missing, changed, lifetime, expired, or lost with all others.",
	}, append(labels, "cause"))
	left = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cachewright_keys_left_total",
		Help: "Keys that stayed in Redis although their CacheEntry would have had them deleted.",
	}, labels)
)

func init() { //nolint:gochecknoinits // as controller-runtime registers its own
	metrics.Registry.MustRegister(declared, contested, verified, renewals, repairs, left)
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
	for _, gauge := range []*prometheus.GaugeVec{declared, contested, verified} {
		gauge.Delete(p.labels)
	}
	renewals.Delete(p.labels)
	repairs.DeletePartialMatch(p.labels)
}

func of(pool types.NamespacedName) prometheus.Labels {
	return prometheus.Labels{"namespace": pool.Namespace, "pool": pool.Name}
}
