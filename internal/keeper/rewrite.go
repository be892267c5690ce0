// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/cachewright/cachewright/internal/plan"
)

// CanRewrite says whether the key of an entry of this generation would be written again at once, were it deleted.
func (k *Keeper) CanRewrite(id types.NamespacedName, key string, generation int64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.items[itemKey{entry: id}].rewritable(k.gate, key, generation)
}

// ExpectDeletion says that a flush of ours deletes the key of an entry: whoever finds it gone before Rewrite is called has met no
// second writer. It is false when the key would not be written again at once, and so must stay.
func (k *Keeper) ExpectDeletion(id types.NamespacedName, key string, generation int64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	it := k.items[itemKey{entry: id}]
	if !it.rewritable(k.gate, key, generation) {
		return false
	}
	it.expected = true
	return true
}

// Rewrite the key of an entry, if it is gone: the flush has deleted it, or will not any more.
func (k *Keeper) Rewrite(id types.NamespacedName, key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	it := k.items[itemKey{entry: id}]
	if it == nil {
		return
	}
	it.expected = false
	if it.decl.Key == key {
		it.because = max(it.because, flushed)
		k.schedule(it, urgent)
	}
}

// rewritable says whether a key would be written again: its entry writes whatever is missing, and can do so now.
func (it *item) rewritable(gate Gate, key string, generation int64) bool {
	if it == nil || gate != Open || it.outdated {
		return false
	}
	if it.decl.Key != key || it.decl.Generation != generation || it.decl.Counter != nil {
		return false
	}
	if !slices.Contains([]plan.Policy{plan.Enforce, plan.EnsurePresent}, it.decl.Policy) {
		return false
	}
	o := cmp.Or(it.outcome, it.seen)
	return o != nil && o.Err == nil && slices.Contains([]plan.State{plan.Warm, plan.Present, plan.Contested}, o.State)
}
