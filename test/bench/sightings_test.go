// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"context"
	"sync"
	"time"

	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// sightings of entries that are Ready.
type sightings struct {
	bench *bench
	began time.Time
	// writes to the API server for each entry.
	writes float64
	stop   context.CancelFunc

	mu sync.Mutex
	// ready is when an entry was first seen so, in order.
	ready []time.Time
	names map[string]bool
	// want is how many are waited for, and all is closed when they have been seen.
	want int
	all  chan struct{}
}

// watchReady has the API server tell of n entries.
func (b *bench) watchReady(n int) *sightings {
	b.Helper()
	s := &sightings{bench: b, names: map[string]bool{}, want: n, all: make(chan struct{})}
	c, err := cache.New(b.config, cache.Options{Scheme: b.client.Scheme()})
	b.must(err)
	informer, err := c.GetInformer(b.Context(), &v1alpha1.CacheEntry{}, cache.BlockUntilSynced(false))
	b.must(err)
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    s.see,
		UpdateFunc: func(_, object any) { s.see(object) },
	})
	b.must(err)
	ctx, cancel := context.WithCancel(b.Context())
	b.Cleanup(cancel)
	s.stop = cancel
	go func() { _ = c.Start(ctx) }()
	if !c.WaitForCacheSync(ctx) {
		b.Fatal("the entries cannot be watched")
	}
	s.began = time.Now()
	return s
}

func (s *sightings) see(object any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := object.(*v1alpha1.CacheEntry); ok && !s.names[e.Name] && isReady(e.Status.Conditions) {
		s.names[e.Name] = true
		if s.ready = append(s.ready, time.Now()); len(s.ready) == s.want {
			close(s.all)
		}
	}
}

// await all of them, and stop watching.
func (s *sightings) await() {
	s.bench.Helper()
	late := time.NewTimer(patience + time.Duration(s.want)*50*time.Millisecond)
	defer late.Stop()
	select {
	case <-s.all:
	case <-late.C:
		s.bench.Fatalf("only %d of %d entries are ready", len(s.ready), s.want)
	}
	s.stop()
}

// seconds until entry number i was Ready.
func (s *sightings) seconds(i int) float64 { return s.ready[i].Sub(s.began).Seconds() }

// curve of how many were Ready when, in some hundred points.
func (s *sightings) curve() [][2]float64 {
	var points [][2]float64
	for i := 0; i < s.want; i += max(1, s.want/300) {
		points = append(points, [2]float64{s.seconds(i), float64(i + 1)})
	}
	return append(points, [2]float64{s.seconds(s.want - 1), float64(s.want)})
}
