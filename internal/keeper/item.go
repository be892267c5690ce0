// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/cachewright/cachewright/internal/plan"
)

// Declaration is what an entry declares of its key.
type Declaration struct {
	// Key without the pool's prefix.
	Key string
	// Value in the bytes that are stored.
	Value string
	// TTL, or 0 for a key without a lifetime.
	TTL    time.Duration
	Policy plan.Policy
	// Counter is set for a counter, which has neither Value nor Policy.
	Counter *Counter
	// Digest names the value, or the increment.
	Digest string
	// Generation of the entry, and Sourced whether its value stands elsewhere.
	Generation int64
	Sourced    bool
	// Requested asks for a look when it is new, whatever it says.
	Requested string
	// History of the value as status and record tell it.
	History plan.History
}

// Counter is an increment that is done once.
type Counter struct {
	ID         string
	By         int64
	RunID      string
	Generation int64
	// Sum is what it came to, if the history says that it is done.
	Sum int64
}

// by how much, which counts only as long as that is not done.
func (c *Counter) by() int64 {
	if c == nil {
		return 0
	}
	return c.By
}

// same says whether there is nothing new to look at.
func (d Declaration) same(o Declaration) bool {
	return d.Key == o.Key && d.Digest == o.Digest && d.TTL == o.TTL && d.Policy == o.Policy && d.Requested == o.Requested &&
		d.History.Recorded == o.History.Recorded && d.Counter.by() == o.Counter.by()
}

// Forgetting is what is to be deleted of what an entry has written.
type Forgetting struct {
	// Key without the pool's prefix. A key that holds no string stays.
	Key string
	// KeepKey leaves the key: only the marker of the counter goes.
	KeepKey bool
	// OnlyDigests, if it is not nil, has the digests of the values that may be deleted.
	OnlyDigests []string
	// Counter, if it is set, is the ID of the counter whose marker goes too.
	Counter string
}

// same says whether there is nothing new to do. No digests means another thing than none to be minded.
func (f Forgetting) same(o Forgetting) bool {
	return f.Key == o.Key && f.KeepKey == o.KeepKey && f.Counter == o.Counter &&
		(f.OnlyDigests == nil) == (o.OnlyDigests == nil) && slices.Equal(f.OnlyDigests, o.OnlyDigests)
}

// Nothing says whether nothing is to be deleted.
func (f Forgetting) Nothing() bool { return f.KeepKey && f.Counter == "" }

// Outcome is what the last look at a key came to.
type Outcome struct {
	// State of the key; it means nothing with an error.
	State plan.State
	// Err is set when the key could not be looked at or written.
	Err error
	// Written is when the declared value was written, or the counter incremented; zero when it was there before it was
	// declared. Repairs and renewals do not count.
	Written time.Time
	// Sum is the value of a counter right after the increment.
	Sum int64
}

// same tells whether two outcomes read the same in a status.
func (o Outcome) same(other Outcome) bool {
	if o.Err == nil || other.Err == nil {
		return (o.Err == nil) == (other.Err == nil) && o.State == other.State && o.Sum == other.Sum
	}
	return o.Err.Error() == other.Err.Error()
}

// Digest of a value.
func Digest(value string) string {
	sum := sha256.Sum256([]byte(value))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// itemKey names an item. An entry has one key that it declares, and any number that it is to forget.
type itemKey struct {
	entry  types.NamespacedName
	forget string
}

// because says why a key is looked at; the zero value: the time has come, or it may have been changed.
type because int

const (
	// declared : its owner has something new to say.
	declared because = iota + 1
	// flushed : a flush of ours has deleted it.
	flushed
	// lost : the server may have lost everything.
	lost
)

// item is one key that an entry declares, or one that is to be forgotten.
type item struct {
	itemKey

	decl       Declaration
	forgetting Forgetting
	// version changes with every call of the owner that says something new, so that an older look is dropped.
	version int
	// outdated : the declaration may be out of date.
	outdated bool
	// due is when to look, and index the place in the queue of looks; -1: no look is due but the next sweep's.
	due   time.Time
	index int
	// because says why, and event that the server told of a change.
	because because
	event   bool
	// expected : a flush of ours is about to delete the key.
	expected bool
	// outcome of the last look, nil before it; done is closed and given up then.
	outcome *Outcome
	done    chan struct{}
	// seen is the outcome that the owner knows of, told when he heard of another than before, and waiting says how many calls of his
	// wait for one.
	seen    *Outcome
	told    time.Time
	waiting int
	// stored is true once the key has held the declared value, and written says since when if it was put there.
	stored  bool
	written time.Time
	history plan.History
	// sum of a counter, once history says that it is incremented.
	sum int64
	// deadline is when the key runs out if nobody touches it; zero: it does not.
	deadline time.Time
	// contest is used by Run only; contested is what the metrics tell of it.
	contest   plan.Contest
	contested bool
	burst     burst
	// echo says that the keeper has written the key, and the server will tell so.
	echo bool
	// failures of writes in a row, and breaks: rounds with this key in which the connection broke.
	failures, breaks int
	// unverified since the last sweep began.
	unverified bool
	spread     float64
}

// remember what was done for the value before it was declared as it is now.
func (it *item) remember(before Declaration, known *Outcome) {
	d, h := it.decl, it.decl.History
	if before.Digest != d.Digest || before.Key != d.Key {
		if before.Key == d.Key && d.Counter == nil {
			h.Written, h.Lost = false, false // the status may not know yet of the value that came in between
		}
		it.stored, it.written, it.history, it.sum = known != nil && holds(known.State), time.Time{}, h, 0
		if d.Counter != nil {
			it.sum = d.Counter.Sum
		}
	}
	it.history.Recorded, it.history.Written = h.Recorded, it.history.Written || h.Written
}

// onceOrNone is once, for an item that may not be there: then there is nothing to do either.
func (it *item) onceOrNone() (plan.State, bool) {
	if it == nil {
		return "", true
	}
	return it.once()
}

// once says whether there is nothing to do any more about what was to be done once, and what state that is.
func (it *item) once() (plan.State, bool) {
	switch {
	case it.decl.Counter == nil && plan.Once(it.decl.Policy, it.history):
	case it.decl.Counter != nil && (it.history.Written || it.history.Lost):
	default:
		return "", false
	}
	switch {
	case it.history.Lost:
		return plan.Missing, true
	case it.decl.Counter != nil:
		return plan.Applied, true
	default:
		return plan.Written, true
	}
}

// conclude sets the outcome, and lets those go on who wait for the first.
func (it *item) conclude(o Outcome) {
	if it.outcome == nil {
		close(it.done)
		it.done = nil
	}
	it.outcome = &o
}

// list an item among those that declare its key.
func (k *Keeper) list(it *item) {
	if it.forget == "" {
		k.byKey[it.decl.Key] = append(k.byKey[it.decl.Key], it)
		k.metrics.Declared.Inc()
	}
}

func (k *Keeper) unlist(it *item) {
	if it.forget != "" {
		return
	}
	k.metrics.Declared.Dec()
	rest := slices.DeleteFunc(k.byKey[it.decl.Key], func(o *item) bool { return o == it })
	if k.byKey[it.decl.Key] = rest; len(rest) == 0 {
		delete(k.byKey, it.decl.Key)
	}
}

// protects says whether an entry declares a key, so that it must stay. Observe declares nothing.
func (k *Keeper) protects(key string) bool {
	return slices.ContainsFunc(k.byKey[key], func(it *item) bool { return it.decl.Policy != plan.Observe })
}

// urgent looks come before all that have waited for their time.
var urgent time.Time

// schedule a look at a key, unless an earlier one is due.
func (k *Keeper) schedule(it *item, due time.Time) {
	if it.outdated {
		return
	}
	if it.index < 0 || due.Before(it.due) {
		it.due = due
		k.looks.put(it)
	}
	k.poke()
}
