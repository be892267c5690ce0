// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package pools

import (
	"context"

	"k8s.io/apimachinery/pkg/types"

	"github.com/cachewright/cachewright/internal/keeper"
)

// Each entry has its key kept by one keeper, that of the pool where it is at home.

// Abandon whatever is to be done about a key that an entry has declared; the key stays.
func (r *Registry) Abandon(pool, entry types.NamespacedName, key string) {
	if live, ok := r.Get(pool); ok {
		live.Keeper.Abandon(entry, key)
	}
}

// Settle has the key of an entry kept by no other pool's keeper.
func (r *Registry) Settle(pool, entry types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.home[entry]; ok && old != pool && r.live[old] != nil {
		r.live[old].Keeper.Drop(entry)
	}
	r.home[entry] = pool
}

// Doubt what a pool that does not serve knows of an entry, unless it is of this generation.
func (r *Registry) Doubt(entry types.NamespacedName, generation int64) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if p := r.live[r.home[entry]]; p != nil {
		p.Keeper.Doubt(entry, generation)
	}
}

// Keep hands the key of an entry to the keeper of a pool, and takes it from the keeper that had it.
func (r *Registry) Keep(ctx context.Context, pool, entry types.NamespacedName, d keeper.Declaration, known *keeper.Outcome) (keeper.Outcome, bool) {
	r.Settle(pool, entry)
	live, ok := r.Get(pool)
	if !ok {
		return keeper.Outcome{}, false
	}
	return live.Keeper.Keep(ctx, entry, d, known)
}

// Drop stops keeping the key of an entry, and says whether it was kept; the key stays. A Keep that is under way may come
// after it, and so the home stays known: the next Drop finds the key there.
func (r *Registry) Drop(entry types.NamespacedName) (kept bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	p := r.live[r.home[entry]]
	return p != nil && p.Keeper.Drop(entry)
}

// Gone : the entry is no more, and nobody is about to Keep its key.
func (r *Registry) Gone(entry types.NamespacedName) {
	r.Drop(entry)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.home, entry)
}
