// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/claims"
	"github.com/cachewright/cachewright/internal/keeper"
	"github.com/cachewright/cachewright/internal/plan"
	"github.com/cachewright/cachewright/internal/status"
)

// task is what is to be kept: an entry, its content, and where it goes.
type task struct {
	entry    *v1alpha1.CacheEntry
	pool     *livePool
	content  content
	place    claims.Place
	fullName string
	// written says that the status tells of this content as written to this key.
	written bool
	// lost says that this was on a server from which the pool has moved away, and that it is not to be written again.
	lost bool
	// recorded says that the record tells that this content may be written, or that there is to be no record.
	recorded bool
}

func (r *cacheEntryReconciler) task(entry *v1alpha1.CacheEntry, pool *livePool, c content) *task {
	t := &task{entry: entry, pool: pool, content: c, place: claimOf(entry).Place}
	t.fullName = fullName(pool.CachePool, t.place)
	t.written = c.writtenIn(entry) && entry.Status.Key == t.fullName && entry.Status.Pool == pool.name.String()
	t.consult(recordOf(entry))
	t.lost = t.written && t.once() && (t.lost || t.says() == v1alpha1.ReasonMissing)
	return t
}

// consult the record.
func (t *task) consult(recorded []location) {
	here := t.here()
	l, ok := here.among(recorded)
	if len(recorded) > 0 {
		t.written = t.written && ok // or else it was another pool of this name
	}
	if l.Digest != "" && here.Digest != "" && l.Digest != here.Digest {
		t.written = false // another value may have been written since, before the status could say so
	}
	t.recorded, t.lost = ok && l.Digest == here.Digest && !l.Compare || !recordable(t.entry), l.Lost
}

// keep hands the key to the keeper, and says what came of it.
func (r *cacheEntryReconciler) keep(ctx context.Context, t *task) (*status.Verdict, error) {
	id := client.ObjectKeyFromObject(t.entry)
	outcome, done := r.registry.Keep(ctx, t.pool.name, id, t.declaration(), t.known())
	if done && outcome.Err == nil && outcome.State == plan.Unrecorded {
		if err := r.recordHere(ctx, t); err != nil {
			return nil, err
		}
		outcome, done = r.registry.Keep(ctx, t.pool.name, id, t.declaration(), nil)
	}
	switch {
	case !done:
		return nil, status.Progressing("The key is being written")
	case outcome.Err != nil:
		return nil, refusal(outcome.Err)
	case outcome.State == plan.Missing && t.once() && recordable(t.entry): // conditions come and go; this must not be forgotten
		t.lost = true
		if err := r.recordHere(ctx, t); err != nil {
			return nil, err
		}
	}
	verdict := t.verdict(outcome).Also(func() { r.publish(t, outcome) })
	if outcome.State == plan.WrongType { // nothing is written here, and so what was written elsewhere is not left yet
		return nil, verdict
	}
	return verdict, nil
}

// declaration of the entry to the keeper.
func (t *task) declaration() keeper.Declaration {
	spec := &t.entry.Spec
	d := keeper.Declaration{
		Key: t.place.Key, Value: t.content.value, Digest: t.content.identity,
		Policy: plan.Policy(t.entry.EffectivePolicy()), Requested: requestedAt(t.entry),
		Generation: t.entry.Generation, Sourced: spec.ValueFrom != nil,
		History: plan.History{Written: t.written, Recorded: t.recorded, Lost: t.lost},
	}
	if spec.TTL != nil {
		d.TTL = spec.TTL.Duration
	}
	if c := spec.Counter; c != nil {
		d.Counter = &keeper.Counter{ID: string(t.entry.UID), By: c.Increment, RunID: c.RunID, Generation: t.entry.Generation}
		if t.written {
			d.Counter.Sum = t.entry.Status.Counter.Value
		}
	}
	return d
}

// known is what the status tells of the present declaration, if that need not be looked at before anything is said.
func (t *task) known() *keeper.Outcome {
	s := &t.entry.Status
	ready := apimeta.FindStatusCondition(s.Conditions, v1alpha1.ConditionReady)
	if ready == nil || ready.ObservedGeneration != t.entry.Generation || s.Key != t.fullName || s.Pool != t.pool.name.String() {
		return nil
	}
	switch state := plan.State(ready.Reason); state {
	case plan.Warm, plan.Present, plan.Written, plan.Applied, plan.Matches, plan.Differs, plan.Missing:
		if !t.stillIs(state) {
			return nil
		}
		o := &keeper.Outcome{State: state}
		if s.Counter != nil {
			o.Sum = s.Counter.Value
		}
		return o
	default:
		return nil
	}
}

// stillIs says whether a state that the status tells of may be said again before the key is looked at. What the entry writes
// it must have written already.
func (t *task) stillIs(state plan.State) bool {
	switch t.entry.EffectivePolicy() {
	case v1alpha1.PolicyObserve:
		return true
	case v1alpha1.PolicyEnsurePresent: // of a Secret that has changed, nothing tells whether this content was written
		return t.written || state != plan.Warm || !t.content.secret
	default:
		return t.written
	}
}

// once says whether the entry writes once.
func (t *task) once() bool {
	return t.entry.Spec.Counter != nil || t.entry.EffectivePolicy() == v1alpha1.PolicyWriteOnChange
}

// says is the reason of Ready, if it speaks of the present generation.
func (t *task) says() string {
	ready := apimeta.FindStatusCondition(t.entry.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil || ready.ObservedGeneration != t.entry.Generation {
		return ""
	}
	return ready.Reason
}

// verdict on a key in a state.
func (t *task) verdict(o keeper.Outcome) *status.Verdict {
	reason := string(o.State)
	switch o.State {
	case plan.Warm, plan.Matches:
		return status.Ready(reason, "The key holds the declared value")
	case plan.Present:
		return status.Ready(reason, "The key holds a value that others have put there")
	case plan.Written:
		return status.Ready(reason, "The declared value was written")
	case plan.Applied:
		return status.Ready(reason, "The counter was incremented for run %q", t.entry.Spec.Counter.RunID)
	case plan.Differs:
		return status.NotReady(reason, "The key holds another value than the declared one")
	case plan.Missing:
		if t.entry.EffectivePolicy() == v1alpha1.PolicyObserve {
			return status.NotReady(reason, "The key does not exist")
		}
		return status.NotReady(reason, "CachePool %q has moved to another server, to which this was not written", spoken(t.pool.name, t.entry.Namespace))
	case plan.WrongType:
		return status.Stalled(reason, "%s", cache.ErrWrongType.Message)
	case plan.Contested:
		return status.Waiting(reason, "Something else keeps changing or removing the key: another client, or an eviction for want of memory; it is put right ever more seldom")
	case plan.Unrecorded:
	}
	return status.Progressing("The key is being written")
}

// publish in the status what was done, and where.
func (r *cacheEntryReconciler) publish(t *task, o keeper.Outcome) {
	s := &t.entry.Status
	if s.Pool != t.pool.name.String() || s.Key != t.fullName { // what was written is elsewhere
		s.WrittenDigest, s.SourceResourceVersion = "", ""
	}
	s.Pool, s.Key = t.pool.name.String(), t.fullName
	switch {
	case o.State == plan.Applied && !t.written:
		s.Counter = &v1alpha1.CounterStatus{RunID: t.entry.Spec.Counter.RunID, Value: o.Sum}
		s.LastWriteTime = new(metav1.NewTime(r.clock.Now()))
	case o.State == plan.Written, o.State == plan.Warm && t.wrote(o):
		if !t.written || t.content.sourceVersion != s.SourceResourceVersion {
			t.content.publish(t.entry, o.Written, r.clock.Now())
		}
	}
}

// wrote says whether the value that a key holds is the entry's own. EnsurePresent may have found it there; what is on
// record it has written, or meant to when it found nothing.
func (t *task) wrote(o keeper.Outcome) bool {
	return t.entry.EffectivePolicy() == v1alpha1.PolicyEnforce || !o.Written.IsZero() || t.recorded && recordable(t.entry)
}

// refusal turns the error of a look or a write into the verdict on the entry.
func refusal(err error) *status.Verdict {
	e, ok := errors.AsType[*cache.Error](err)
	switch {
	case !ok:
		return status.Waiting(v1alpha1.ReasonWriteFailed, "%v", err)
	case e.Class == cache.Failed:
		return status.Waiting(v1alpha1.ReasonWriteFailed, "%s", e.Message)
	case errors.Is(err, cache.ErrStale): // what we know of the entry is out of date
		return status.Silent(deletionRetry)
	default:
		return status.Stalled(e.Reason, "%s", e.Message)
	}
}
