// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"context"
	"errors"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/plan"
)

const (
	// roundSize is how many keys one round looks at, and roundBytes how long their values are together: a round
	// holds what it has read until it is over.
	roundSize, roundBytes = 1000, 8 << 20
	// maxBreaks is how often the connection may break in rounds with a key before the key is tried alone.
	maxBreaks = 2
	// early is how much too early a look may be, to share a round with others.
	early = 10 * time.Millisecond
	// largest is the size of the largest value that an entry may have written.
	largest = 1 << 20
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
	item       *item
	version    int
	decl       Declaration
	forgetting Forgetting
	history    plan.History
	because    because
	event      bool
	deadline   time.Time

	state plan.State
	// left of the key's life, when the round is over.
	left  time.Duration
	cause plan.Cause
	wrote bool
	// again : somebody was faster; another look tells what is there.
	again bool
	// wait before a contested key is written.
	wait time.Duration
	sum  int64
	err  error
}

// next takes what is to be done now: deletions, or looks in the order in which they fell due; nil: nothing. The two do
// not share a round, since a key that goes could be one that comes, and take turns, so that neither holds up the other.
func (k *Keeper) next() (*round, []types.NamespacedName) {
	k.mu.Lock()
	defer k.mu.Unlock()
	news := k.news
	k.news = nil
	r := &round{pool: k.pool, began: k.clock.Now()}
	turns := []func(*round){k.takeDeletions, k.takeLooks}
	if k.looksFirst = !k.looksFirst; k.looksFirst {
		slices.Reverse(turns)
	}
	for _, take := range turns {
		take(r)
		if len(r.tasks) > 0 {
			return r, news
		}
	}
	return nil, news
}

// takeDeletions puts deletions into a round.
func (k *Keeper) takeDeletions(r *round) {
	if k.gate == Closed {
		return
	}
	for bytes := 0; len(k.deletions) > 0 && len(r.tasks) < roundSize && bytes < roundBytes; {
		it := k.deletions[0]
		k.deletions = k.deletions[1:]
		it.forgetting.KeepKey = it.forgetting.KeepKey || k.protects(it.decl.Key)
		switch {
		case k.items[it.itemKey] != it: // abandoned since
		case it.forgetting.Nothing():
			k.drop(it)
		default:
			r.add(it)
			bytes += r.tasks[len(r.tasks)-1].look().Size
		}
	}
}

// takeLooks puts the looks that are due into a round. A key that may be what breaks the connection comes alone.
func (k *Keeper) takeLooks(r *round) {
	if k.gate != Open {
		return
	}
	for bytes := 0; len(k.looks) > 0 && len(r.tasks) < roundSize && bytes < roundBytes; {
		it := k.looks[0]
		suspect := it.breaks >= maxBreaks
		if it.due.After(r.began.Add(early)) || suspect && len(r.tasks) > 0 {
			return
		}
		bytes += len(it.decl.Value)
		k.looks.remove(it)
		r.add(it)
		it.because, it.event = 0, false // before the key is read: what happens from now on is new
		if r.suspect = suspect; suspect {
			return
		}
	}
}

func (r *round) add(it *item) {
	if it.expected {
		it.because = max(it.because, flushed)
	}
	r.tasks = append(r.tasks, &task{
		item: it, version: it.version, decl: it.decl, forgetting: it.forgetting, history: it.history,
		because: it.because, event: it.event, deadline: it.deadline,
	})
}

// work looks at the keys, decides, and acts, each in as few round trips as possible.
func (r *round) work(ctx context.Context) {
	var looks []cache.Look
	var looked, counters []*task
	for _, t := range r.tasks {
		if t.decl.Counter != nil {
			counters = append(counters, t)
			continue
		}
		looks, looked = append(looks, t.look()), append(looked, t)
	}
	var writes []*task
	var deletions deletions
	for i, seen := range r.pool.Observe(ctx, looks) {
		t := looked[i]
		t.left, t.err = lives(seen), seen.Err
		switch {
		case t.err != nil:
		case t.item.forget != "":
			deletions.decide(t, seen)
		case t.decide(seen, r.began):
			writes = append(writes, t)
		}
	}
	r.put(ctx, writes)
	r.increment(ctx, counters)
	deletions.do(ctx, r.pool)
	if r.suspect && cache.Is(r.tasks[0].err, cache.ReasonConnectionFailed) {
		_, err := r.pool.Has(ctx, r.tasks[0].decl.Key)
		r.answers = err == nil
	}
}

// lives says how long a key lives on. In its last millisecond, the server says 0, as if it were not there.
func lives(seen cache.Observation) time.Duration {
	if seen.Exists && seen.TTL == 0 {
		return time.Millisecond
	}
	return seen.TTL
}

func (t *task) look() cache.Look {
	l := cache.Look{Key: t.decl.Key, Size: len(t.decl.Value)}
	if t.forgetting.OnlyDigests != nil {
		l.Size = largest // it could be any of them
	}
	return l
}

// decide whether the key is written.
func (t *task) decide(seen cache.Observation, now time.Time) bool {
	d := plan.Decide(plan.Declared{Policy: t.decl.Policy, Value: t.decl.Value, TTL: t.decl.TTL}, t.history, seen)
	t.state, t.cause = d.State, d.Cause
	contest := &t.item.contest
	switch {
	case d.Action == plan.Leave && t.because == lost:
		contest.Forgive(now)
		return false
	case d.Action == plan.Leave:
		contest.Right()
		return false
	case t.because != 0:
		contest.Excuse(now)
		return true
	case d.Cause == plan.Renewal && !t.event: // or else somebody has shortened its life
		return true
	case t.expired(now):
		t.cause = expired
		return true
	default:
		t.wait = contest.Undo(now)
		return t.wait == 0
	}
}

// expired says whether a key that is not there has just run out.
func (t *task) expired(now time.Time) bool {
	return t.cause == plan.Absent && !t.deadline.IsZero() && !now.Add(early).Before(t.deadline)
}

func (r *round) put(ctx context.Context, tasks []*task) {
	writes := make([]cache.Write, len(tasks))
	for i, t := range tasks {
		// What was not there must still not be: it could be something that is not ours to overwrite.
		writes[i] = cache.Write{Key: t.decl.Key, Value: t.decl.Value, TTL: t.decl.TTL, IfAbsent: t.cause == plan.Absent || t.cause == expired}
	}
	for i, err := range r.pool.PutAll(ctx, writes) {
		t := tasks[i]
		if err != nil {
			t.item.contest.Excuse(r.began)
		}
		if t.again = errors.Is(err, cache.ErrExists); t.again {
			continue
		}
		t.err, t.wrote, t.left = err, err == nil, t.decl.TTL
	}
}

func (r *round) increment(ctx context.Context, tasks []*task) {
	increments := make([]cache.Increment, len(tasks))
	for i, t := range tasks {
		c := t.decl.Counter
		increments[i] = cache.Increment{Key: t.decl.Key, ID: c.ID, By: c.By, TTL: t.decl.TTL, RunID: c.RunID, Generation: c.Generation}
	}
	for i, sum := range r.pool.IncrementAll(ctx, increments) {
		tasks[i].state, tasks[i].sum, tasks[i].err, tasks[i].wrote = plan.Applied, sum.Value, sum.Err, sum.Err == nil
	}
}

// deletions of a round, and the tasks that they belong to.
type deletions struct {
	all   []cache.Deletion
	tasks []*task
}

// decide what is deleted.
func (d *deletions) decide(t *task, seen cache.Observation) {
	f := t.forgetting
	deletion := cache.Deletion{Key: f.Key}
	switch {
	case f.KeepKey, !seen.Exists, !seen.String:
	case f.OnlyDigests == nil:
		d.add(t, deletion)
	case slices.Contains(f.OnlyDigests, Digest(seen.Value)):
		deletion.Value = &seen.Value
		d.add(t, deletion)
	default:
		t.err = cache.ErrChanged
	}
	if f.Counter != "" {
		d.add(t, cache.Deletion{Key: f.Key, Counter: f.Counter})
	}
}

func (d *deletions) add(t *task, deletion cache.Deletion) {
	d.all, d.tasks = append(d.all, deletion), append(d.tasks, t)
}

func (d *deletions) do(ctx context.Context, pool *cache.Pool) {
	for i, err := range pool.ForgetAll(ctx, d.all) {
		if err != nil {
			d.tasks[i].err = err
		}
	}
}
