// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
)

// Pool are the metrics of one CachePool. Those in vectors without labels are absent until they are set.
type Pool struct {
	Declared, Contested prometheus.Gauge
	Renewals            prometheus.Counter
	Repairs             *prometheus.CounterVec

	connections                 prometheus.Gauge
	up, verified, flushProgress *prometheus.GaugeVec
	errors, flushes, flushKeys  *prometheus.CounterVec
	durations                   *prometheus.HistogramVec

	labels     prometheus.Labels
	collectors []prometheus.Collector

	mu sync.RWMutex
	// byCommand has the durations that were needed so far: to ask the vector costs more than to observe.
	byCommand map[string]prometheus.Observer
}

func newPool(pool types.NamespacedName) *Pool {
	p := &Pool{labels: prometheus.Labels{"namespace": pool.Namespace, "pool": pool.Name}, byCommand: map[string]prometheus.Observer{}}
	p.up = p.gauge("pool_up", "Whether the pool serves: 1 or 0; absent while it is suspended.")
	p.connections = p.gauge("pool_connections", "Connections of the pool that are open, those that wait for news of changes and those to sentinels included.").WithLabelValues()
	p.errors = p.counter("command_errors_total", "Commands that failed, by class and reason; where all of a round trip failed for a reason of the server's, it counts once.",
		"class", "reason")
	p.Declared = p.gauge("declared_keys", "Keys that CacheEntries declare in the pool and that the operator keeps.").WithLabelValues()
	p.Contested = p.gauge("contested_keys", "Declared keys that something else keeps changing or removing.").WithLabelValues()
	p.verified = p.gauge("last_verified_timestamp_seconds", "When the last look at all declared keys of the pool began that has been completed.")
	p.Renewals = p.counter("renewals_total", "Lifetimes of declared keys renewed before they ran out.").WithLabelValues()
	p.Repairs = p.counter("repairs_total", "Declared keys written again, by cause: missing, changed, lifetime, expired, flushed (by a CacheFlush), or lost (with all others).",
		"cause")
	p.flushes = p.counter("flushes_total", "Flushes of the pool that have finished, by result: Complete or Failed.", "result")
	p.flushKeys = p.counter("flush_keys_total", "Keys that flushes of the pool have matched, by what became of them: deleted, preserved, or counted (by a dry run).",
		"result")
	p.flushProgress = p.gauge("flush_progress_ratio", "Part of the server's keys that the flush at work has scanned, from 0 to 1; absent while none is at work.")
	p.durations = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "cachewright_command_duration_seconds", ConstLabels: p.labels,
		Help: "Time from sending a command to having its answer; commands sent together count once, as the first of them.",
		// From a server next door to the default timeout.
		Buckets: []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 3},
	}, []string{"command"})
	p.collectors = append(p.collectors, p.durations)
	// What alerts look for begins at 0, so that the first is seen as an increase.
	p.flushes.WithLabelValues("Complete")
	p.flushes.WithLabelValues("Failed")
	p.errors.WithLabelValues("Denied", "PermissionDenied")
	return p
}

func (p *Pool) gauge(name, help string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "cachewright_" + name, Help: help, ConstLabels: p.labels}, nil)
	p.collectors = append(p.collectors, v)
	return v
}

func (p *Pool) counter(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "cachewright_" + name, Help: help, ConstLabels: p.labels}, labels)
	p.collectors = append(p.collectors, v)
	return v
}

// Up says whether the pool serves.
func (p *Pool) Up(is bool) {
	value := 0.0
	if is {
		value = 1
	}
	p.up.WithLabelValues().Set(value)
}

// Suspended : nobody expects the pool to serve.
func (p *Pool) Suspended() { p.up.Reset() }

// Verified is when the last completed look at all keys began.
func (p *Pool) Verified(began time.Time) { p.verified.WithLabelValues().Set(float64(began.Unix())) }

// Connected : so many connections more are open, or fewer.
func (p *Pool) Connected(delta int) { p.connections.Add(float64(delta)) }

// Took : a round trip, by the first of its commands.
func (p *Pool) Took(command string, d time.Duration) {
	p.mu.RLock()
	o := p.byCommand[command]
	p.mu.RUnlock()
	if o == nil {
		o = p.durations.WithLabelValues(command)
		p.mu.Lock()
		p.byCommand[command] = o
		p.mu.Unlock()
	}
	o.Observe(d.Seconds())
}

// Failed : a command.
func (p *Pool) Failed(class, reason string) { p.errors.WithLabelValues(class, reason).Inc() }
