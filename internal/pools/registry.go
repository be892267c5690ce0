// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package pools holds the live connection and the keeper of every CachePool. Controllers ask it for a pool; nobody
// else dials.
package pools

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/keeper"
	"github.com/cachewright/cachewright/internal/metrics"
)

// Listeners are told what happens to objects. They may block until the context ends.
type Listeners struct {
	// Entry : the outcome of an entry's key is another than its owner last saw.
	Entry func(context.Context, types.NamespacedName)
	// Pool : a pool that served does not any more, or something else is new that its status tells.
	Pool func(context.Context, types.NamespacedName)
	// Opened : a pool that did not serve does now.
	Opened func(context.Context, types.NamespacedName)
}

const (
	// stable is how long a pool must have served for its next failure to count as the first.
	stable = 10 * time.Second
	// maxPause is the longest wait before a pool is tried again that keeps failing.
	maxPause = 30 * time.Second
)

// Registry of live pools. It runs keepers from Start until its context ends.
type Registry struct {
	// Vet, if it is set, has the last word on whether a pool may be used on the server that it leads to.
	Vet func(context.Context, types.NamespacedName, Endpoint, cache.Server) error

	clock clock.Clock
	tell  Listeners

	//nolint:containedctx // the life of the goroutines that the registry starts, which is longer than any call's
	ctx   context.Context
	close context.CancelFunc
	work  sync.WaitGroup

	mu   sync.RWMutex
	live map[types.NamespacedName]*Pool
	// attempted says of pools that a connection was tried since the start.
	attempted map[types.NamespacedName]bool
	// home is the pool whose keeper keeps an entry.
	home map[types.NamespacedName]types.NamespacedName
}

// NewRegistry makes an empty Registry.
func NewRegistry(c clock.Clock, tell Listeners) *Registry {
	ctx, cancel := context.WithCancel(context.Background())
	return &Registry{
		clock: c, tell: tell, ctx: ctx, close: cancel,
		live: map[types.NamespacedName]*Pool{}, attempted: map[types.NamespacedName]bool{}, home: map[types.NamespacedName]types.NamespacedName{},
	}
}

// Start waits for the end, and then stops every keeper and closes every connection.
func (r *Registry) Start(ctx context.Context) error {
	<-ctx.Done()
	r.mu.Lock()
	r.close() // nothing is put into use any more
	r.mu.Unlock()
	r.work.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, p := range r.live {
		if p.Cache != nil {
			errs = append(errs, p.Cache.Stop())
		}
	}
	clear(r.live)
	return errors.Join(errs...)
}

// NeedLeaderElection is true: only one operator at a time keeps keys.
func (r *Registry) NeedLeaderElection() bool { return true }

// Connect checks a pool, and connects it first when it is new or its options are. A new connection takes over from
// the old one only when it has passed the check; until then the old one serves.
//
// moved says that the keys are now on another server or in another database than before.
func (r *Registry) Connect(ctx context.Context, id Identity, o cache.Options) (moved bool, err error) {
	live, known := r.Get(id.Name)
	if known && live.identity.UID != id.UID {
		if err := r.Remove(id.Name); err != nil {
			return false, err
		}
		live = Pool{}
	}
	next := live.Cache
	if !live.Uses(o) {
		o.Observer = metrics.Of(id.Name)
		next = cache.Open(o)
	}
	server, err := r.check(ctx, id.Name, next, o)
	gate := gateAfter(err)
	if gate == keeper.Closed && next != live.Cache {
		return false, errors.Join(err, next.Stop())
	}
	moved = live.moved(o, server)
	ended := r.put(Pool{identity: id, options: o, Cache: next, Server: server, Gate: gate}, moved) //nolint:contextcheck // a keeper outlives the call that starts it
	switch {
	case next == live.Cache:
	case ended != nil:
		return false, errors.Join(ended, next.Stop())
	case live.Cache != nil:
		_ = live.Cache.Stop() // nothing depends on the old connection any more
	}
	return moved, err
}

// Check the connection that serves, whatever options it was made with.
func (r *Registry) Check(ctx context.Context, name types.NamespacedName) error {
	live, ok := r.Get(name)
	if !ok {
		return &cache.Error{Class: cache.Unavailable, Reason: cache.ReasonConnectionFailed, Message: "Never connected"}
	}
	server, err := r.check(ctx, name, live.Cache, live.options)
	live.Gate, live.Server = gateAfter(err), server
	return cmp.Or(err, r.put(live, false)) //nolint:contextcheck // as above
}

// check a connection, and whether its pool may use it.
func (r *Registry) check(ctx context.Context, name types.NamespacedName, c *cache.Pool, o cache.Options) (cache.Server, error) {
	server, err := c.Check(ctx)
	if r.Vet != nil && gateAfter(err) != keeper.Closed {
		if veto := r.Vet(ctx, name, EndpointOf(o), server); veto != nil {
			return server, veto
		}
	}
	return server, err
}

// put a checked connection into use. After a gap, and on another server or connection, all keys are looked at, and
// those who share the server are told. moved says that it leads to other keys than the one before. It fails after the end.
func (r *Registry) put(next Pool, moved bool) error {
	name := next.identity.Name
	r.mu.Lock()
	if ended := r.ctx.Err(); ended != nil {
		r.mu.Unlock()
		return ended
	}
	p := r.live[name]
	if p == nil {
		p = r.start(name)
		r.live[name] = p
	}
	restarted := next.Server.ID != "" && next.Server.ID != p.Server.ID
	opened := next.Gate != keeper.Closed && (p.Gate < next.Gate || p.Cache != next.Cache || restarted)
	p.identity, p.options, p.Cache, p.Gate = next.identity, next.options, next.Cache, next.Gate
	if next.Server != (cache.Server{}) { // or else it did not answer, and what is known is still the best guess
		p.Server = next.Server
	}
	p.Keeper.Use(p.Cache, p.Gate, moved)
	p.metrics.Up(p.Gate == keeper.Open)
	if restarted {
		p.Keeper.Rewarm()
	}
	if opened {
		p.swept, p.opened = r.clock.Now(), r.clock.Now()
	}
	r.mu.Unlock()
	if opened {
		r.tell.Opened(r.ctx, name)
	}
	return nil
}

// Verify all keys of a pool, unless that was done less than a period ago.
func (r *Registry) Verify(name types.NamespacedName, period time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.live[name]; p != nil && r.clock.Since(p.swept) >= period {
		p.Keeper.Verify()
		p.swept = r.clock.Now()
	}
}

// start a keeper.
func (r *Registry) start(name types.NamespacedName) *Pool {
	ctx, stop := context.WithCancel(r.ctx)
	p := &Pool{stop: stop, metrics: metrics.Of(name)}
	p.Keeper = keeper.New(r.clock, p.metrics, keeper.Owner{
		Changed: func(entry types.NamespacedName) { r.tell.Entry(ctx, entry) },
		Detects: func(how keeper.Detection) { r.detects(ctx, p, name, how) },
		Unavailable: func(err error) {
			if ctx.Err() == nil { // or else it is gone, not broken
				r.Failed(ctx, name, nil, err)
			}
		},
	})
	r.work.Go(func() { p.Keeper.Run(ctx) })
	return p
}

// detects notes how changes by others are noticed.
func (r *Registry) detects(ctx context.Context, p *Pool, name types.NamespacedName, how keeper.Detection) {
	r.mu.Lock()
	p.Detects = how
	r.mu.Unlock()
	r.tell.Pool(ctx, name)
}

// Failed closes the gate of a pool, as far as an error that concerns the whole server asks for, and has the pool
// checked. c is the connection that was found broken; nil stands for the one in use.
func (r *Registry) Failed(ctx context.Context, name types.NamespacedName, c *cache.Pool, err error) {
	r.mu.Lock()
	p := r.live[name]
	if p == nil || c != nil && c != p.Cache || p.Gate == keeper.Closed {
		r.mu.Unlock()
		return
	}
	p.shut(gateAfter(err))
	p.failure = err
	if now := r.clock.Now(); now.Sub(p.opened) < stable {
		p.notBefore = now.Add(min(maxPause, time.Second<<min(p.flaps, 10)))
		p.flaps++
	} else {
		p.flaps = 0
	}
	r.mu.Unlock()
	r.tell.Pool(ctx, name)
}

// Pause is how long to wait before the next Connect, and what had happened: nothing, unless the pool keeps failing soon
// after it has opened.
func (r *Registry) Pause(name types.NamespacedName) (time.Duration, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if p := r.live[name]; p != nil && p.Gate != keeper.Open {
		return max(0, p.notBefore.Sub(r.clock.Now())), p.failure
	}
	return 0, nil
}

// Unpause a pool: it is to be tried now.
func (r *Registry) Unpause(name types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.live[name]; p != nil {
		p.notBefore = time.Time{}
	}
}

// Close the gate of a pool: nothing is read or written until the next Connect.
func (r *Registry) Close(name types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.live[name]; p != nil {
		p.shut(keeper.Closed)
	}
}

// Get the live side of a pool as it is now; false when it never connected.
func (r *Registry) Get(name types.NamespacedName) (Pool, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if p := r.live[name]; p != nil {
		return *p, true
	}
	return Pool{}, false
}

// Attempted notes that a connection was tried, even if it came to nothing before the first packet.
func (r *Registry) Attempted(name types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempted[name] = true
	p := r.live[name]
	metrics.Of(name).Up(p != nil && p.Gate == keeper.Open)
}

// WasAttempted tells a pool that cannot be connected from one that has not been looked at yet.
func (r *Registry) WasAttempted(name types.NamespacedName) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.attempted[name]
}

// Remove stops the keeper of a pool and closes its connections.
func (r *Registry) Remove(name types.NamespacedName) error {
	r.mu.Lock()
	p := r.live[name]
	delete(r.live, name)
	delete(r.attempted, name)
	metrics.Delete(name)
	r.mu.Unlock()
	if p == nil {
		return nil
	}
	p.stop()
	return p.Cache.Stop()
}
