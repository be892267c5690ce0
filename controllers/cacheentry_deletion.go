// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/keeper"
	"github.com/cachewright/cachewright/internal/metrics"
	"github.com/cachewright/cachewright/internal/status"
)

const (
	// deletionPatience is how long a deletion waits for a pool that cannot serve.
	deletionPatience = 5 * time.Minute
	// deletionRetry is the time between two attempts to delete a key.
	deletionRetry = 5 * time.Second
)

// leave the locations that the entry has moved away from, now that the new one is written. What cannot be deleted
// yet stays on record and is tried again.
func (r *cacheEntryReconciler) leave(ctx context.Context, entry *v1alpha1.CacheEntry, former []location, v *status.Verdict) (*status.Verdict, error) {
	if len(former) == 0 {
		return v, nil
	}
	waiting, err := r.releaseAll(ctx, entry, former)
	if waiting != nil {
		v = v.In(deletionRetry)
	}
	return v, err
}

// delete the keys of an entry that is being deleted, and let it go.
func (r *cacheEntryReconciler) delete(ctx context.Context, entry *v1alpha1.CacheEntry) (*status.Verdict, error) {
	name := client.ObjectKeyFromObject(entry)
	r.tellRivals(ctx, name, r.claims.Delete(name, entry.UID))
	r.registry.Drop(name) // it declares nothing from now on, though a look that began before may have said so again
	if !controllerutil.ContainsFinalizer(entry, finalizer) {
		return status.Silent(0), nil
	}
	recorded := recordOf(entry)
	if len(recorded) == 0 { // somebody has removed the record; the spec is the next best
		recorded = []location{{Pool: locationPool{Namespace: entry.Pool().Namespace, Name: entry.Pool().Name}, Key: entry.Spec.Key}}
	}
	waiting, err := r.releaseAll(ctx, entry, recorded)
	switch {
	case err != nil:
		return nil, err
	case waiting != nil:
		return waiting, nil
	}
	return status.Silent(0), nil
}

// releaseAll releases locations and takes them off the record. Those that cannot be released yet stay on it, and the
// verdict says why.
func (r *cacheEntryReconciler) releaseAll(ctx context.Context, entry *v1alpha1.CacheEntry, locations []location) (*status.Verdict, error) {
	recorded := recordOf(entry)
	if len(recorded) == 0 {
		recorded = locations
	}
	var waiting *status.Verdict
	var notes []string
	for _, l := range locations {
		note, err := r.release(ctx, entry, l)
		verdict, ok := errors.AsType[*status.Verdict](err)
		switch {
		case ok:
			waiting = verdict
		case err != nil:
			return nil, err
		default:
			notes = append(notes, note)
			recorded = slices.DeleteFunc(slices.Clone(recorded), func(o location) bool { return o == l })
		}
	}
	err := r.setRecord(ctx, entry, recorded)
	if !entry.DeletionTimestamp.IsZero() {
		err = client.IgnoreNotFound(err) // the record has gone with the entry
	}
	if err != nil {
		return nil, err
	}
	r.tellLeft(ctx, entry, notes)
	return waiting, nil
}

// abandonAll gives up every deletion that was asked for: the keys are to stay.
func (r *cacheEntryReconciler) abandonAll(entry *v1alpha1.CacheEntry) {
	for _, l := range recordOf(entry) {
		r.abandon(entry, l)
	}
}

// abandon the deletion of a key, if it was asked for.
func (r *cacheEntryReconciler) abandon(entry *v1alpha1.CacheEntry, l location) {
	r.registry.Abandon(l.pool(), client.ObjectKeyFromObject(entry), l.place(entry.Namespace).Key)
}

// release one location: its key is deleted, or it stays for a reason. A note says so when somebody should know.
func (r *cacheEntryReconciler) release(ctx context.Context, entry *v1alpha1.CacheEntry, l location) (note string, err error) {
	pool, err := r.poolAt(ctx, entry, l)
	if err != nil {
		return "", err
	}
	if !r.pools.synced() {
		return "", status.Silent(startupDelay)
	}
	inherited, err := r.inherited(ctx, entry, pool, l)
	if err != nil {
		return "", err
	}
	f := keeper.Forgetting{Key: l.place(entry.Namespace).Key, KeepKey: inherited || retains(entry)}
	if entry.Spec.Counter != nil {
		f.Counter = string(entry.UID)
	}
	switch {
	case f.Nothing():
	case pool == nil:
		note = stays(f, l.Key, "CachePool %q is gone, or does not serve this namespace any more", spoken(l.pool(), entry.Namespace))
	case entry.Spec.Suspend:
		note = stays(f, fullName(pool, l.place(entry.Namespace)), "the entry is suspended")
	case pool.Spec.Suspend:
		note = stays(f, fullName(pool, l.place(entry.Namespace)), "CachePool %q is suspended", spoken(l.pool(), entry.Namespace))
	default:
		return r.deleteKey(ctx, entry, pool, l, f)
	}
	r.abandon(entry, l) // a deletion that was asked for before
	return note, nil
}

// stays is the note on what is left in Redis: a key, or where that is to stay anyway, the marker of a counter.
func stays(f keeper.Forgetting, key, format string, args ...any) string {
	what := "Key"
	if f.KeepKey {
		what = "The marker of counter"
	}
	return fmt.Sprintf("%s %q stays in Redis, since %s", what, key, fmt.Sprintf(format, args...))
}

// poolAt finds the pool of a location; nil when it is gone, or does not serve the entry's namespace any more.
func (r *cacheEntryReconciler) poolAt(ctx context.Context, entry *v1alpha1.CacheEntry, l location) (*v1alpha1.CachePool, error) {
	pool, err := r.pools.pool(ctx, l.pool(), entry.Namespace)
	if pool == nil || l.Pool.UID != "" && l.Pool.UID != pool.UID {
		return nil, err
	}
	return pool, err
}

// retains says whether the entry leaves its key when it goes.
func retains(entry *v1alpha1.CacheEntry) bool {
	return entry.EffectiveDeletionPolicy() == v1alpha1.DeletionRetain || entry.EffectivePolicy() == v1alpha1.PolicyObserve
}

// digests of the values that the entry may have written last to a location: nil when it may delete whatever is there.
// Of a Secret only the present content is known. Once that may have been written, there are no other digests.
func (r *cacheEntryReconciler) digests(ctx context.Context, entry *v1alpha1.CacheEntry, pool *v1alpha1.CachePool, l location) ([]string, error) {
	if p := entry.EffectivePolicy(); p != v1alpha1.PolicyEnsurePresent && p != v1alpha1.PolicyWriteOnChange {
		return nil, nil
	}
	digests := []string{l.Digest}
	if entry.Status.Pool == l.Pool.Namespace+"/"+l.Pool.Name && entry.Status.Key == fullName(pool, l.place(entry.Namespace)) {
		digests = append(digests, entry.Status.WrittenDigest)
	}
	if from := entry.Spec.ValueFrom; from != nil && from.SecretKeyRef != nil {
		c, err := r.content(ctx, entry)
		if _, ok := errors.AsType[*status.Verdict](err); ok {
			return digests, nil
		}
		return append(digests, c.identity), err
	}
	return digests, nil
}

// inherited says whether a key passes on to another entry, which has it on record then.
func (r *cacheEntryReconciler) inherited(ctx context.Context, entry *v1alpha1.CacheEntry, pool *v1alpha1.CachePool, l location) (bool, error) {
	claimed, err := r.pools.claimants(ctx, pool, l.place(entry.Namespace), entry.Namespace)
	if err != nil {
		return false, err
	}
	for _, c := range claimed {
		if c.UID == entry.UID {
			if entry.DeletionTimestamp.IsZero() && c.Place == claimOf(entry).Place {
				return true, nil // it is where the entry is now
			}
			continue
		}
		heir := &v1alpha1.CacheEntry{}
		err := r.Get(ctx, c.Entry, heir)
		switch {
		case client.IgnoreNotFound(err) != nil:
			return false, err
		case err != nil, heir.UID != c.UID, !heir.DeletionTimestamp.IsZero(), claimOf(heir).Place != c.Place: // the index does not know yet
			continue
		}
		return true, r.bequeath(ctx, heir)
	}
	return false, nil
}

// bequeath a key to the entry that declares it, by putting it on record there: should that go before it was ever looked
// at, it deletes the key as if it had written it. EnsurePresent takes what it finds for somebody else's.
func (r *cacheEntryReconciler) bequeath(ctx context.Context, heir *v1alpha1.CacheEntry) error {
	pool, err := r.pools.pool(ctx, heir.Pool(), heir.Namespace)
	if err != nil || pool == nil || !recordable(heir) || heir.EffectivePolicy() == v1alpha1.PolicyEnsurePresent {
		return err
	}
	recorded, l := recordOf(heir), locationIn(pool, heir.Spec.Key)
	if _, ok := l.among(recorded); ok {
		return nil
	}
	err = r.setRecord(ctx, heir, append(recorded, l))
	if apierrors.IsNotFound(err) { // it is gone already, and the cache does not know yet
		return status.Silent(conflictDelay)
	}
	return err
}

// deleteKey through the keeper. It gives up on a pool that cannot serve after a while, or at once when that is being
// deleted too, so that no deletion hangs.
func (r *cacheEntryReconciler) deleteKey(ctx context.Context, entry *v1alpha1.CacheEntry, pool *v1alpha1.CachePool, l location, f keeper.Forgetting) (note string, err error) {
	name := fullName(pool, l.place(entry.Namespace))
	if f.OnlyDigests, err = r.digests(ctx, entry, pool, l); err != nil && !r.hopeless(entry, pool, true) {
		return "", err
	}
	waiting := status.Waiting(v1alpha1.ReasonPoolNotReady, "The key cannot be deleted yet, since CachePool %q does not serve", spoken(l.pool(), entry.Namespace))
	why := fmt.Sprintf("CachePool %q cannot serve", spoken(l.pool(), entry.Namespace))
	live, ok := r.registry.Get(l.pool())
	serves := ok && live.Gate >= keeper.DeletionsOnly
	if serves {
		switch outcome, done := live.Keeper.Forget(ctx, client.ObjectKeyFromObject(entry), f); {
		case !done:
			waiting = status.Progressing("The key is being deleted")
		case outcome.Err == nil:
			return "", nil
		case errors.Is(outcome.Err, cache.ErrChanged):
			return stays(f, name, "it does not hold what the entry is known to have written last"), nil
		default:
			why = "it could not be deleted: " + refusal(outcome.Err).Message
			waiting = status.Waiting(v1alpha1.ReasonWriteFailed, "The key cannot be deleted yet: %s", refusal(outcome.Err).Message)
		}
	}
	giveUp := r.hopeless(entry, pool, serves)
	if giveUp || !serves { // once the pool serves, this is decided anew
		r.abandon(entry, l)
	}
	if giveUp {
		return stays(f, name, "%s", why), nil
	}
	return "", waiting.In(deletionRetry)
}

// hopeless says whether to give up on a key: after a while, or at once when the pool does not serve and is being deleted
// too.
func (r *cacheEntryReconciler) hopeless(entry *v1alpha1.CacheEntry, pool *v1alpha1.CachePool, serves bool) bool {
	if !serves && !pool.DeletionTimestamp.IsZero() && r.registry.WasAttempted(client.ObjectKeyFromObject(pool)) {
		return true
	}
	return !entry.DeletionTimestamp.IsZero() && r.clock.Since(entry.DeletionTimestamp.Time) >= deletionPatience
}

// tellLeft says in the log, in events and in a metric which keys stay.
func (r *cacheEntryReconciler) tellLeft(ctx context.Context, entry *v1alpha1.CacheEntry, notes []string) {
	for _, note := range notes {
		if note != "" {
			metrics.Left(entry.Namespace)
			ctrl.LoggerFrom(ctx).Info(note)
			about, with := r.witness(ctx, entry)
			r.recorder.Eventf(about, with, corev1.EventTypeWarning, v1alpha1.ReasonReleased, "Delete", "%s", note)
		}
	}
}

// witness is the object that an event of an entry is about: in a namespace that is terminating no event can be created,
// and it is the namespace, if the operator may read it. The event is then related to the entry: of events that only differ
// in what they say, the API server gets one.
func (r *cacheEntryReconciler) witness(ctx context.Context, entry *v1alpha1.CacheEntry) (about, with runtime.Object) {
	if len(r.pools.namespaces) == 0 {
		if n, err := r.pools.namespace(ctx, entry.Namespace); err == nil && n.DeletionTimestamp != nil {
			return n, entry
		}
	}
	return entry, nil
}
