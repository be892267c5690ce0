// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/plan"
)

const (
	// retryAfter is the wait after a write that Redis refused for a reason of its own, and its limit.
	retryAfter, maxRetryAfter = time.Second, 30 * time.Second
	// observePause is the shortest time between two changes of what is told of a key that is only observed.
	observePause = 10 * time.Second
	// reclaim is how long after its deadline a key is looked at that has run out, even if that look comes early.
	reclaim = early + 5*time.Millisecond
)

// Causes of repairs besides those of package plan.
const (
	expired plan.Cause = "expired"
	ours    plan.Cause = "flushed"
	all     plan.Cause = "lost"
)

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
			k.postpone(t)
		case cache.ServerWide(t.err) && !r.culprit(t):
			broken = t.err
			if cache.Is(t.err, cache.ReasonConnectionFailed) {
				t.item.breaks++
			}
			k.postpone(t)
		case k.conclude(r, t):
			news = append(news, t.item.entry)
		}
	}
	if broken != nil {
		k.gate = Closed
		k.watch.end(nil)
	}
	k.mu.Unlock()
	if broken != nil {
		k.owner.Unavailable(broken)
	}
	for _, id := range news {
		k.owner.Changed(id)
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
func (k *Keeper) postpone(t *task) {
	it := t.item
	if it.forget != "" {
		k.deletions = append(k.deletions, it)
		return
	}
	it.because = max(it.because, t.because)
	k.looks.put(it)
}

// conclude a look, plan the next, and say whether the outcome is news to the owner.
func (k *Keeper) conclude(r *round, t *task) bool {
	it, now := t.item, k.clock.Now()
	if t.again {
		k.postpone(t)
		return false
	}
	k.count(r, t)
	it.note(t, now)
	if t.err == nil && (t.wait > 0 || it.contest.On(now) && t.state == plan.Warm) {
		t.state = plan.Contested
	}
	it.conclude(Outcome{State: t.state, Err: t.err, Written: it.written, Sum: t.sum})
	k.contest(it, t.err == nil && t.state == plan.Contested)
	k.plan(r, t, now)
	k.verified(it)
	return k.isNews(it, now)
}

// note what a look has found, and what was done.
func (it *item) note(t *task, now time.Time) {
	if t.wrote && !it.stored {
		it.written = now
	}
	if t.err == nil && t.wait == 0 {
		it.stored = it.stored || holds(t.state)
		it.history.Written = it.history.Written || t.state == plan.Written || t.state == plan.Applied
		it.sum, it.breaks = t.sum, 0
	}
	it.echo = t.wrote
	it.deadline = time.Time{}
}

// holds says whether a key is taken to hold the declared value.
func holds(s plan.State) bool {
	return s == plan.Warm || s == plan.Written || s == plan.Applied || s == plan.Matches
}

// contest notes whether a key is contested.
func (k *Keeper) contest(it *item, on bool) {
	switch {
	case on && !it.contested:
		k.metrics.Contested.Inc()
	case !on && it.contested:
		k.metrics.Contested.Dec()
	}
	it.contested = on
}

// count repairs and renewals, and changes that were none.
func (k *Keeper) count(r *round, t *task) {
	it := t.item
	switch {
	case t.wrote && it.stored && t.decl.Counter == nil:
		k.countRepair(t)
	case t.event && !it.echo && it.outcome != nil && t.unchanged(r.began, *it.outcome):
		k.idle(k.clock.Now())
	}
}

// unchanged says whether a key holds the declared value as it did before, for as long as it did, as far as clocks can tell.
func (t *task) unchanged(began time.Time, before Outcome) bool {
	if t.wrote || t.wait > 0 || !holds(t.state) || !before.same(Outcome{State: t.state, Err: t.err, Sum: t.sum}) {
		return false
	}
	if t.left <= 0 || t.deadline.IsZero() {
		return t.left <= 0 && t.deadline.IsZero()
	}
	return began.Add(t.left).Sub(t.deadline).Abs() < time.Second
}

func (k *Keeper) countRepair(t *task) {
	switch {
	case t.cause == plan.Renewal:
		k.metrics.Renewals.Inc()
	case t.because == lost && t.cause == plan.Absent:
		k.metrics.Repairs.WithLabelValues(string(all)).Inc()
	case t.because == flushed && t.cause == plan.Absent:
		k.metrics.Repairs.WithLabelValues(string(ours)).Inc()
	default:
		k.metrics.Repairs.WithLabelValues(string(t.cause)).Inc()
	}
}

// plan the next look. A failed write is tried again, ever more seldom; a deletion only when its owner asks again; the
// rest waits for an event, the end of its lifetime, or the next sweep.
func (k *Keeper) plan(r *round, t *task, now time.Time) {
	it := t.item
	it.failures++
	if e, ok := errors.AsType[*cache.Error](t.err); !ok || e.Class != cache.Failed {
		it.failures = 0
	}
	if t.err == nil && t.left > 0 {
		it.deadline = r.began.Add(t.left)
	}
	switch due, ok := t.next(r.began, it.spread); {
	case it.forget != "":
	case it.failures > 0:
		it.because = max(it.because, t.because, declared) // trying again is no second repair
		k.schedule(it, now.Add(min(maxRetryAfter, retryAfter<<min(it.failures-1, 10))))
	case t.wait > 0:
		k.schedule(it, now.Add(t.wait))
	case ok:
		k.schedule(it, due)
	}
	if t.err == nil && t.state == plan.Contested && t.wait == 0 {
		k.schedule(it, now.Add(it.contest.Calm(now)))
	}
}

// next is when a key must be looked at since its lifetime ends; false: there is no such time.
func (t *task) next(began time.Time, spread float64) (time.Time, bool) {
	switch {
	case t.err != nil, t.left <= 0, t.decl.Counter != nil, t.decl.Policy == plan.WriteOnChange:
		return time.Time{}, false
	case t.decl.Policy == plan.Enforce:
		return began.Add(plan.RenewIn(t.decl.TTL, t.left, spread)), true
	default:
		return began.Add(t.left + reclaim), true
	}
}

// isNews says whether the owner is to be told of an outcome.
func (k *Keeper) isNews(it *item, now time.Time) bool {
	if it.waiting > 0 || it.seen != nil && it.seen.same(*it.outcome) {
		return false
	}
	if pause := it.pause(now); pause > 0 {
		k.schedule(it, now.Add(pause))
		return false
	}
	return true
}

// pause before the owner may be told of another outcome. What is only observed is told of after a while only.
func (it *item) pause(now time.Time) time.Duration {
	if it.decl.Policy != plan.Observe || it.seen == nil {
		return 0
	}
	return max(0, it.told.Add(observePause).Sub(now))
}

// tell the owner the outcome, or what he knows already while a pause lasts.
func (it *item) tell(now time.Time) Outcome {
	switch {
	case it.seen != nil && it.seen.same(*it.outcome):
	case it.pause(now) > 0:
		return *it.seen
	case it.seen != nil:
		it.told = now
	}
	it.seen = it.outcome
	return *it.outcome
}
