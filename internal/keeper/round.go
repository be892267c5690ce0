// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"context"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/plan"
)

// round is a batch of keys that are looked at and mended together.
type round struct {
	pool  *cache.Pool
	began time.Time
	tasks []*task
	// suspect says that the only task is one that the connection keeps breaking with, and answers that the server
	// then answers to another command with the same key.
	suspect, answers bool
}

// task is one key of a round. It has copies of what the item says, since the owner may change that meanwhile.
type task struct {
	item    *item
	version int
	decl    Declaration
	forget  bool

	// left of the key's life, when the round is over.
	left  time.Duration
	wrote bool
	err   error
}

// next takes what is to be done now: deletions, or else looks in the order in which they fell due. nil: nothing. The
// two do not share a round, since a key that goes could be one that comes.
func (k *Keeper) next() *round {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gate == Closed {
		return nil
	}
	r := &round{pool: k.pool, began: k.clock.Now()}
	for len(k.deletions) > 0 && len(r.tasks) < roundSize {
		it := k.deletions[0]
		k.deletions = k.deletions[1:]
		switch {
		case k.items[it.itemKey] != it: // abandoned since
		case k.declared[it.decl.Key] > 0:
			k.drop(it)
		default:
			r.add(it)
		}
	}
	if len(r.tasks) == 0 && k.gate == Open {
		k.takeLooks(r)
	}
	if len(r.tasks) == 0 {
		return nil
	}
	return r
}

// takeLooks puts the looks that are due into a round. A key that may be what breaks the connection comes alone.
func (k *Keeper) takeLooks(r *round) {
	for bytes := 0; len(k.looks) > 0 && len(r.tasks) < roundSize && bytes < roundBytes; {
		it := k.looks[0]
		suspect := it.breaks >= maxBreaks
		if it.due.After(r.began.Add(early)) || suspect && len(r.tasks) > 0 {
			return
		}
		bytes += len(it.decl.Value)
		k.looks.remove(it)
		r.add(it)
		if r.suspect = suspect; suspect {
			return
		}
	}
}

func (r *round) add(it *item) {
	r.tasks = append(r.tasks, &task{item: it, version: it.version, decl: it.decl, forget: it.forget != ""})
}

// work looks at the keys, decides, and acts, each in as few round trips as possible.
func (r *round) work(ctx context.Context) {
	looks := make([]cache.Look, len(r.tasks))
	for i, t := range r.tasks {
		looks[i] = cache.Look{Key: t.decl.Key, Size: len(t.decl.Value)}
	}
	var writes, deletions []*task
	for i, seen := range r.pool.Observe(ctx, looks) {
		t := r.tasks[i]
		t.left, t.err = seen.TTL, seen.Err
		switch {
		case t.err != nil:
		case t.forget:
			if seen.Exists && seen.String {
				deletions = append(deletions, t)
			}
		default:
			writes = t.decide(seen, writes)
		}
	}
	r.put(ctx, writes)
	r.delete(ctx, deletions)
	if r.suspect && cache.Is(r.tasks[0].err, cache.ReasonConnectionFailed) {
		_, err := r.pool.Has(ctx, r.tasks[0].decl.Key)
		r.answers = err == nil
	}
}

// decide adds the task to the writes if its key needs one.
func (t *task) decide(seen cache.Observation, writes []*task) []*task {
	switch plan.Enforce(plan.Declared{Value: t.decl.Value, TTL: t.decl.TTL}, seen) {
	case plan.Put:
		return append(writes, t)
	case plan.Refuse:
		t.err = cache.ErrWrongType
	case plan.Leave:
	}
	return writes
}

func (r *round) put(ctx context.Context, tasks []*task) {
	writes := make([]cache.Write, len(tasks))
	for i, t := range tasks {
		writes[i] = cache.Write{Key: t.decl.Key, Value: t.decl.Value, TTL: t.decl.TTL}
	}
	for i, err := range r.pool.PutAll(ctx, writes) {
		tasks[i].err, tasks[i].wrote, tasks[i].left = err, err == nil, tasks[i].decl.TTL
	}
}

func (r *round) delete(ctx context.Context, tasks []*task) {
	keys := make([]string, len(tasks))
	for i, t := range tasks {
		keys[i] = t.decl.Key
	}
	for i, err := range r.pool.ForgetAll(ctx, keys) {
		tasks[i].err = err
	}
}

// settle takes the results over, plans the next looks, and tells the owners what is new to them.
func (k *Keeper) settle(r *round) {
	var news []types.NamespacedName
	var broken error
	k.mu.Lock()
	current := k.pool == r.pool // or else another connection has taken over, maybe to another server
	for _, t := range r.tasks {
		switch {
		case t.version != t.item.version:
		case !current:
			k.postpone(t.item)
		case cache.ServerWide(t.err) && !r.culprit(t):
			broken = t.err
			if cache.Is(t.err, cache.ReasonConnectionFailed) {
				t.item.breaks++
			}
			k.postpone(t.item)
		case k.conclude(r, t):
			news = append(news, t.item.entry)
		}
	}
	if broken != nil {
		k.gate = Closed
	}
	k.mu.Unlock()
	if broken != nil {
		k.unavailable(broken)
	}
	for _, id := range news {
		k.changed(id)
	}
}

// culprit says whether the connection keeps breaking because of this key alone, for example since a proxy does not let
// its value through. The error is then the key's, and the others are served.
func (r *round) culprit(t *task) bool {
	if !r.answers {
		return false
	}
	t.err = &cache.Error{Class: cache.Failed, Reason: cache.ReasonCommandFailed, Message: "The connection breaks whenever this key is read or written"}
	return true
}

// postpone a key until the pool serves again.
func (k *Keeper) postpone(it *item) {
	if it.forget != "" {
		k.deletions = append(k.deletions, it)
		return
	}
	k.looks.put(it)
}

// note the outcome of a look, and let those go on who wait for the first.
func (k *Keeper) note(it *item, t *task) {
	first := it.outcome == nil
	if t.wrote && !it.stored {
		it.written = k.clock.Now()
	}
	it.stored = it.stored || t.err == nil
	it.outcome = &Outcome{Err: t.err, Written: it.written}
	if first {
		close(it.done)
	}
}

// conclude a look, plan the next, and say whether the outcome is news to the owner. A failed write is tried again,
// ever more seldom; a deletion only when its owner asks again; the rest waits for the next sweep.
func (k *Keeper) conclude(r *round, t *task) bool {
	it := t.item
	k.note(it, t)
	if t.err == nil {
		it.breaks = 0
	}
	it.failures++
	if e, ok := errors.AsType[*cache.Error](t.err); !ok || e.Class != cache.Failed {
		it.failures = 0
	}
	switch {
	case t.forget:
	case it.failures > 0:
		it.due = k.clock.Now().Add(min(maxRetryAfter, retryAfter<<min(it.failures-1, 10)))
		k.looks.put(it)
	case t.err == nil && t.decl.TTL > 0:
		it.due = r.began.Add(plan.RenewIn(t.decl.TTL, t.left, it.spread))
		k.looks.put(it)
	}
	return it.waiting == 0 && (it.seen == nil || !it.seen.same(*it.outcome))
}
