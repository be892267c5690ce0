// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package keeper keeps the declared keys of one pool true.
package keeper

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/metrics"
	"github.com/cachewright/cachewright/internal/plan"
)

const (
	// patience is how long Keep and Forget wait for an outcome. A round trip on a healthy network takes a
	// millisecond; a worker must not wait for a slow pool.
	patience = 100 * time.Millisecond
	// settledDelay lets the settled entries of an operator's start gather into few batches.
	settledDelay = 200 * time.Millisecond
)

// Owner of the keys is told what its statuses must tell.
type Owner struct {
	// Changed : the outcome of an entry is another than its owner last saw.
	Changed func(entry types.NamespacedName)
	// Detects : how changes by others are noticed has been found out, or is another than before. It is empty when they
	// are not, since a connection broke.
	Detects func(Detection)
	// Unavailable : the pool failed; the keeper waits for Use.
	Unavailable func(error)
}

// Gate says what a keeper may do.
type Gate int

const (
	// Closed : nothing.
	Closed Gate = iota
	// DeletionsOnly : the server takes deletions, but no writes.
	DeletionsOnly
	// Open : everything.
	Open
)

// Keeper owns the declared keys of one pool. One goroutine does all reads and writes of them, in batches, so that no
// two of them race; another has the server tell of changes. Owners are told only when something changed.
type Keeper struct {
	clock   clock.Clock
	owner   Owner
	metrics *metrics.Pool
	seed    maphash.Seed

	mu    sync.Mutex
	pool  *cache.Pool
	gate  Gate
	items map[itemKey]*item
	// byKey has the items that declare a key.
	byKey     map[string][]*item
	looks     queue
	deletions []*item
	// looksFirst says whose turn it is.
	looksFirst bool
	// news are entries whose owners are to be told, besides those of a round.
	news []types.NamespacedName
	wake chan struct{}

	sweep sweep
	watch watch
}

// New makes a Keeper whose gate is closed.
func New(c clock.Clock, m *metrics.Pool, owner Owner) *Keeper {
	return &Keeper{
		clock: c, owner: owner, metrics: m, seed: maphash.MakeSeed(),
		items: map[itemKey]*item{}, byKey: map[string][]*item{}, wake: make(chan struct{}, 1),
		watch: newWatch(),
	}
}

// Keep declares the key of an entry and returns the outcome of looking at it; false when there is none yet, and
// the owner will be told once there is. known is what the entry's status tells of this declaration already, or nil:
// there is no hurry then, and no news if that is what the look finds.
func (k *Keeper) Keep(ctx context.Context, id types.NamespacedName, d Declaration, known *Outcome) (Outcome, bool) {
	k.mu.Lock()
	it := k.items[itemKey{entry: id}]
	if it == nil || it.outdated || !it.decl.same(d) {
		it = k.declare(id, d, known)
		if known != nil {
			k.mu.Unlock()
			return *known, true
		}
	}
	it.decl.Generation = d.Generation        // another one may declare the same
	if it.outcome == nil && it.seen != nil { // it is not looked at yet, and the status still tells
		defer k.mu.Unlock()
		return *it.seen, true
	}
	return k.await(ctx, it)
}

// declare makes an item, or resets it to a new declaration.
func (k *Keeper) declare(id types.NamespacedName, d Declaration, known *Outcome) *item {
	it := k.items[itemKey{entry: id}]
	var before Declaration
	isNew := it == nil
	if !isNew {
		before = it.decl
	}
	it = k.renew(itemKey{entry: id}, d, Forgetting{})
	k.unforget(id, d.Key)
	it.remember(before, known)
	it.because, it.seen = declared, known
	it.spread = float64(maphash.String(k.seed, d.Key)>>11) / (1 << 53)
	state, once := it.once()
	switch {
	case once && known != nil:
		it.conclude(*known)
	case once:
		it.conclude(Outcome{State: state, Written: it.written, Sum: it.sum})
	case known != nil && isNew:
		// Those that come within one delay are looked at together after the next.
		k.schedule(it, k.clock.Now().Truncate(settledDelay).Add(2*settledDelay))
	default:
		k.schedule(it, urgent)
	}
	return it
}

// Forget deletes what an entry has written, unless another entry declares the key, and forgets about it. It returns
// false as long as the key may still be there; the error is cache.ErrChanged when it must stay, since it holds
// something else.
func (k *Keeper) Forget(ctx context.Context, id types.NamespacedName, f Forgetting) (Outcome, bool) {
	k.mu.Lock()
	if kept := k.items[itemKey{entry: id}]; kept != nil && kept.decl.Key == f.Key {
		k.drop(kept)
	}
	f.KeepKey = f.KeepKey || k.protects(f.Key)
	if f.Nothing() {
		k.unforget(id, f.Key)
		k.mu.Unlock()
		return Outcome{}, true
	}
	name := itemKey{entry: id, forget: f.Key}
	it := k.items[name]
	if it != nil && !it.forgetting.same(f) { // what was asked for before is not to happen any more
		k.drop(it)
		it = nil
	}
	if it == nil || it.seen != nil { // new, or it failed the last time
		it = k.renew(name, Declaration{Key: f.Key}, f)
		k.deletions = append(k.deletions, it)
		k.poke()
	}
	outcome, done := k.await(ctx, it)
	if done && (outcome.Err == nil || cache.Is(outcome.Err, cache.ErrChanged.Reason)) {
		k.Abandon(id, f.Key)
	}
	return outcome, done
}

// renew makes or resets an item: its owner has something new to say.
func (k *Keeper) renew(name itemKey, d Declaration, f Forgetting) *item {
	it := k.items[name]
	if it == nil {
		it = &item{itemKey: name, index: -1}
		k.items[name] = it
	} else {
		k.unlist(it)
	}
	it.version++
	it.outdated = false
	it.decl, it.forgetting, it.outcome, it.seen, it.failures, it.done = d, f, nil, nil, 0, make(chan struct{})
	k.list(it)
	return it
}

// unforget a key that its entry has wanted deleted, since an entry declares it now.
func (k *Keeper) unforget(id types.NamespacedName, key string) {
	if it := k.items[itemKey{entry: id, forget: key}]; it != nil {
		k.drop(it)
	}
}

// await unlocks, and waits a little for an outcome if the gate lets one come.
func (k *Keeper) await(ctx context.Context, it *item) (Outcome, bool) {
	if done := it.done; it.outcome == nil && (k.gate == Open || it.forget != "" && k.gate == DeletionsOnly) {
		it.waiting++
		k.mu.Unlock()
		timer := k.clock.NewTimer(patience)
		select {
		case <-done:
		case <-timer.C():
		case <-ctx.Done():
		}
		timer.Stop()
		k.mu.Lock()
		it.waiting--
	}
	defer k.mu.Unlock()
	if it.outcome == nil {
		return Outcome{}, false
	}
	return it.tell(k.clock.Now()), true
}

// Doubt a declaration that may be out of date, since the pool does not serve and so nobody can declare it anew: its key is
// left alone until somebody does. generation is that of the entry now.
func (k *Keeper) Doubt(id types.NamespacedName, generation int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	it := k.items[itemKey{entry: id}]
	if _, once := it.onceOrNone(); once || it.decl.Generation == generation && !it.decl.Sourced {
		return
	}
	it.version++
	it.outdated = true
	k.looks.remove(it)
	k.verified(it)
}

// Drop forgets the declaration of an entry, and says whether there was one; its key is left as it is.
func (k *Keeper) Drop(id types.NamespacedName) bool { return k.abandon(itemKey{entry: id}) }

// Abandon gives up a Forget and leaves the key as it is.
func (k *Keeper) Abandon(id types.NamespacedName, key string) {
	k.abandon(itemKey{entry: id, forget: key})
}

func (k *Keeper) abandon(name itemKey) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	it := k.items[name]
	if it != nil {
		k.drop(it)
	}
	return it != nil
}

func (k *Keeper) drop(it *item) {
	it.version++
	delete(k.items, it.itemKey)
	k.unlist(it)
	k.looks.remove(it)
	k.contest(it, false)
	k.verified(it)
}

// Use makes the keeper work on a pool, as far as the gate lets it. After a gap, or on another connection, all keys are
// looked at. moved says that this pool leads to other keys than the one before.
func (k *Keeper) Use(pool *cache.Pool, gate Gate, moved bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pool == pool && k.gate == gate {
		return
	}
	k.watch.end(nil)
	k.watch.poke()
	k.pool, k.gate = pool, gate
	if moved {
		k.lose()
	}
	if gate == Open {
		k.sweepLocked(lost, settledDelay) // or earlier, once the server tells of changes
	}
	k.poke()
}

// lose what was written once: it was written to another server.
func (k *Keeper) lose() {
	for _, it := range k.items {
		if _, once := it.once(); once && !it.history.Lost {
			it.history.Lost = true
			it.conclude(Outcome{State: plan.Missing})
			k.verified(it)
			k.news = append(k.news, it.entry)
		}
	}
}

func (k *Keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Run does the work until the context ends.
func (k *Keeper) Run(ctx context.Context) {
	var watching sync.WaitGroup
	watching.Go(func() { k.watchServer(ctx) })
	defer watching.Wait()
	for ctx.Err() == nil {
		r, news := k.next()
		for _, id := range news {
			k.owner.Changed(id)
		}
		switch {
		case r != nil:
			r.work(ctx)
			k.settle(r)
		case len(news) == 0:
			k.sleep(ctx)
		}
	}
}

// sleep until a look falls due or something happens.
func (k *Keeper) sleep(ctx context.Context) {
	var timeout <-chan time.Time
	k.mu.Lock()
	if k.gate == Open && len(k.looks) > 0 {
		timer := k.clock.NewTimer(k.looks[0].due.Sub(k.clock.Now()))
		defer timer.Stop()
		timeout = timer.C()
	}
	k.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-k.wake:
	case <-timeout:
	}
}
