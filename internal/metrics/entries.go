// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// EntryState is what CacheEntries are counted by.
type EntryState struct {
	// Pool that the entry names, whether or not it is there.
	Pool types.NamespacedName
	// Ready is the status of the condition of that name, in lower case, and Reason its reason.
	Ready, Reason string
}

// Entries counts CacheEntries by their states.
type Entries struct {
	mu     sync.Mutex
	states map[types.NamespacedName]EntryState
}

var entries = prometheus.NewDesc("cachewright_entries",
	"CacheEntries that name the pool, by status (true, false or unknown) and reason of their Ready condition.",
	[]string{"namespace", "pool", "ready", "reason"}, nil)

// NewEntries counts none yet.
func NewEntries() *Entries { return &Entries{states: map[types.NamespacedName]EntryState{}} }

// Set the state of an entry.
func (e *Entries) Set(entry types.NamespacedName, state EntryState) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.states[entry] = state
}

// Delete an entry that is no more.
func (e *Entries) Delete(entry types.NamespacedName) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.states, entry)
}

// Start publishes the counts until the context ends. A manager starts it on its leader only: others would count the same
// entries again.
func (e *Entries) Start(ctx context.Context) error {
	if err := metrics.Registry.Register(e); err != nil {
		return err
	}
	<-ctx.Done()
	metrics.Registry.Unregister(e)
	return nil
}

// Describe the metric.
func (*Entries) Describe(to chan<- *prometheus.Desc) { to <- entries }

// Collect counts.
func (e *Entries) Collect(to chan<- prometheus.Metric) {
	counts := map[EntryState]int{}
	e.mu.Lock()
	for _, state := range e.states {
		counts[state]++
	}
	e.mu.Unlock()
	for s, n := range counts {
		to <- prometheus.MustNewConstMetric(entries, prometheus.GaugeValue, float64(n), s.Pool.Namespace, s.Pool.Name, s.Ready, s.Reason)
	}
}
