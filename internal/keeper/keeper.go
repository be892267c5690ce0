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
)

// Declaration is what an entry declares of its key.
type Declaration struct {
	// Key without the pool's prefix.
	Key string
	// Value in the bytes that are stored.
	Value string
	// TTL, or 0 for a key without a lifetime.
	TTL time.Duration
	// Digest names the declaration: a new one is looked at once more, the same one is not.
	Digest string
}

// Outcome is what the last look at a key came to.
type Outcome struct {
	// Err is nil when the key holds what is declared.
	Err error
	// Written is when the declared value was written; zero when it was there before it was declared. Repairs and
	// renewals do not count.
	Written time.Time
}

// same tells whether two outcomes read the same in a status.
func (o Outcome) same(other Outcome) bool {
	if o.Err == nil || other.Err == nil {
		return (o.Err == nil) == (other.Err == nil)
	}
	return o.Err.Error() == other.Err.Error()
}

const (
	// patience is how long Keep and Forget wait for an outcome. A round trip on a healthy network takes a
	// millisecond; a worker must not wait for a slow pool.
	patience = 100 * time.Millisecond
	// settledDelay lets the settled entries of an operator's start gather into few batches.
	settledDelay = 25 * time.Millisecond
	// roundSize is how many keys one round looks at, and roundBytes how long their values are together: a round
	// holds what it has read until it is over.
	roundSize, roundBytes = 1000, 8 << 20
	// maxBreaks is how often the connection may break in rounds with a key before the key is tried alone.
	maxBreaks = 2
	// early is how much too early a look may be, to share a round with others.
	early = 10 * time.Millisecond
	// retryAfter is the wait after a write that Redis refused for a reason of its own, and its limit.
	retryAfter, maxRetryAfter = time.Second, 30 * time.Second
)

// Keeper owns the declared keys of one pool. One goroutine, Run, does all reads and writes of them, in batches, so
// that no two of them race. It tells the owner of an entry only when something changed.
type Keeper struct {
	clock clock.Clock
	// changed is called when the outcome of an entry is another than its owner last saw.
	changed func(types.NamespacedName)
	// unavailable is called when the pool failed; the keeper then waits for Use.
	unavailable func(error)
	seed        maphash.Seed

	mu    sync.Mutex
	pool  *cache.Pool
	gate  Gate
	items map[itemKey]*item
	// declared counts the entries that declare a key.
	declared  map[string]int
	looks     queue
	deletions []*item
	wake      chan struct{}
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

// itemKey names an item. An entry has one key that it declares, and any number that it is to forget.
type itemKey struct {
	entry  types.NamespacedName
	forget string
}

// item is one key that an entry declares, or one that is to be forgotten.
type item struct {
	itemKey
	decl Declaration
	// version changes with every call of the owner that says something new, so that an older look is dropped.
	version int
	// due is when to look, and index the place in the queue of looks; -1: no look is due but the next sweep's.
	due   time.Time
	index int
	// outcome of the last look, nil before it; done is closed then.
	outcome *Outcome
	done    chan struct{}
	// seen is the outcome that the owner knows of, and waiting says how many calls of his wait for one.
	seen    *Outcome
	waiting int
	// stored is true once the key has held the declared value, and written says since when if it was put there.
	stored  bool
	written time.Time
	// failures of writes in a row, and breaks: rounds with this key in which the connection broke.
	failures, breaks int
	spread           float64
}

// New makes a Keeper whose gate is closed.
func New(c clock.Clock, changed func(types.NamespacedName), unavailable func(error)) *Keeper {
	return &Keeper{
		clock: c, changed: changed, unavailable: unavailable, seed: maphash.MakeSeed(),
		items: map[itemKey]*item{}, declared: map[string]int{}, wake: make(chan struct{}, 1),
	}
}

// Keep declares the key of an entry and returns the outcome of looking at it; false when there is none yet, and
// changed will be called once there is. settled says that the entry's status already tells of this declaration as
// kept: there is no hurry then, and no news if that is what the look finds.
func (k *Keeper) Keep(ctx context.Context, id types.NamespacedName, d Declaration, settled bool) (Outcome, bool) {
	k.mu.Lock()
	name := itemKey{entry: id}
	it := k.items[name]
	if it == nil || it.decl.Digest != d.Digest || it.decl.Key != d.Key || it.decl.TTL != d.TTL {
		sameValue := it != nil && it.decl.Digest == d.Digest && it.decl.Key == d.Key
		it = k.renew(name, d)
		k.unforget(id, d.Key)
		if !sameValue {
			it.stored, it.written = settled, time.Time{}
		}
		it.spread = float64(maphash.String(k.seed, d.Key)>>11) / (1 << 53)
		if settled {
			it.seen = &Outcome{}
			k.schedule(it, k.clock.Now().Add(settledDelay))
			k.mu.Unlock()
			return Outcome{}, true
		}
		k.schedule(it, k.clock.Now())
	}
	return k.await(ctx, it)
}

// Forget deletes a key that an entry declares or has declared, unless it holds another type than a string or another
// entry declares it, and forgets about it. It returns false as long as the key may still be there.
func (k *Keeper) Forget(ctx context.Context, id types.NamespacedName, key string) (Outcome, bool) {
	k.mu.Lock()
	if kept := k.items[itemKey{entry: id}]; kept != nil && kept.decl.Key == key {
		k.drop(kept)
	}
	if k.declared[key] > 0 {
		k.unforget(id, key)
		k.mu.Unlock()
		return Outcome{}, true
	}
	name := itemKey{entry: id, forget: key}
	it := k.items[name]
	if it == nil || it.seen != nil { // new, or it failed the last time
		it = k.renew(name, Declaration{Key: key})
		k.deletions = append(k.deletions, it)
		k.poke()
	}
	outcome, done := k.await(ctx, it)
	if done && outcome.Err == nil {
		k.Abandon(id, key)
	}
	return outcome, done
}

// renew makes or resets an item: its owner has something new to say.
func (k *Keeper) renew(name itemKey, d Declaration) *item {
	it := k.items[name]
	if it == nil {
		it = &item{itemKey: name, index: -1}
		k.items[name] = it
	} else {
		k.count(it, -1)
	}
	it.version++
	it.decl, it.outcome, it.seen, it.failures, it.done = d, nil, nil, 0, make(chan struct{})
	k.count(it, +1)
	return it
}

// count an entry among those that declare its key, or no longer.
func (k *Keeper) count(it *item, n int) {
	if it.forget != "" {
		return
	}
	if k.declared[it.decl.Key] += n; k.declared[it.decl.Key] == 0 {
		delete(k.declared, it.decl.Key)
	}
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
	it.seen = it.outcome
	return *it.outcome, true
}

// Drop forgets the declaration of an entry and leaves its key as it is.
func (k *Keeper) Drop(id types.NamespacedName) { k.Abandon(id, "") }

// Abandon gives up a Forget and leaves the key as it is.
func (k *Keeper) Abandon(id types.NamespacedName, key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if it := k.items[itemKey{entry: id, forget: key}]; it != nil {
		k.drop(it)
	}
}

func (k *Keeper) drop(it *item) {
	it.version++
	delete(k.items, it.itemKey)
	k.count(it, -1)
	k.looks.remove(it)
}

// Sweep makes the keeper look at all keys now.
func (k *Keeper) Sweep() {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.clock.Now()
	for _, it := range k.items {
		if it.forget == "" {
			k.schedule(it, now)
		}
	}
}

// Use makes the keeper work on a pool, as far as the gate lets it. Looks that fell due meanwhile are done at once.
func (k *Keeper) Use(pool *cache.Pool, gate Gate) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pool, k.gate = pool, gate
	k.poke()
}

// schedule the next look at a key.
func (k *Keeper) schedule(it *item, due time.Time) {
	it.due = due
	k.looks.put(it)
	k.poke()
}

func (k *Keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Run does the work until the context ends.
func (k *Keeper) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if r := k.next(); r != nil {
			r.work(ctx)
			k.settle(r)
			continue
		}
		k.sleep(ctx)
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
