// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"cmp"
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
	"github.com/cachewright/cachewright/internal/claims"
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
	released, notes, waiting, err := r.releaseEach(ctx, entry, locations)
	if err != nil {
		return nil, err
	}
	recorded = slices.DeleteFunc(slices.Clone(recorded), func(l location) bool { return slices.Contains(released, l) })
	if err := r.setRecord(ctx, entry, recorded); err != nil {
		return nil, err
	}
	r.tellLeft(ctx, entry, notes)
	return waiting, nil
}

// releaseEach of some locations, with notes on keys that stay. Of those that cannot be released yet, the verdict says why.
func (r *cacheEntryReconciler) releaseEach(ctx context.Context, entry *v1alpha1.CacheEntry, locations []location) (released []location, notes []string, waiting *status.Verdict, err error) {
	for _, l := range locations {
		note, err := r.release(ctx, entry, l)
		verdict, ok := errors.AsType[*status.Verdict](err)
		switch {
		case ok:
			waiting = verdict
		case err != nil:
			return nil, nil, nil, err
		default:
			released, notes = append(released, l), append(notes, note)
		}
	}
	return released, notes, waiting, nil
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
	keep := retains(entry)
	if !keep {
		if keep, note, err = r.passOn(ctx, entry, pool, l); err != nil {
			return "", err
		}
	}
	f := keeper.Forgetting{Key: l.place(entry.Namespace).Key, KeepKey: keep}
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

// compares says whether the entry leaves a key that others have changed.
func compares(entry *v1alpha1.CacheEntry) bool {
	p := entry.EffectivePolicy()
	return p == v1alpha1.PolicyEnsurePresent || p == v1alpha1.PolicyWriteOnChange
}

// digests of the values that the entry may have written last to a location: nil when it may delete whatever is there.
// Of a Secret only the present content is known. Once that may have been written, there are no other digests.
func (r *cacheEntryReconciler) digests(ctx context.Context, entry *v1alpha1.CacheEntry, pool *v1alpha1.CachePool, l location) ([]string, error) {
	if !compares(entry) && !l.Compare {
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

// passOn a key to another entry that declares it, and say whether there is one. It has the key on record then. Should that be
// impossible for long, a note tells.
func (r *cacheEntryReconciler) passOn(ctx context.Context, entry *v1alpha1.CacheEntry, pool *v1alpha1.CachePool, l location) (yes bool, note string, err error) {
	heir, there, err := r.heir(ctx, entry, pool, l)
	if err != nil || heir == nil || heir.UID == entry.UID { // it is where the entry is now
		return heir != nil, "", err
	}
	there.Digest, there.Compare = l.Digest, l.Compare || compares(entry)
	if heir.EffectivePolicy() == v1alpha1.PolicyWriteOnChange {
		there.Digest = cmp.Or(l.Digest, entry.Status.WrittenDigest)
	}
	if there.Compare && there.Digest == "" { // nothing is known of what may be deleted
		return true, "", nil
	}
	err = r.bequeath(ctx, heir, there)
	switch {
	case err == nil:
		return true, "", nil
	case apierrors.IsConflict(err), apierrors.IsNotFound(err): // it has changed, or gone, and the cache does not know yet
		return false, "", status.Silent(conflictDelay)
	case r.hopeless(entry, pool, true):
		return true, fmt.Sprintf("Key %q stays in Redis for another CacheEntry, which could not be told to delete it", l.Key), nil
	}
	ctrl.LoggerFrom(ctx).Error(err, "A key could not be put on the record of the entry that it passes on to", "heir", client.ObjectKeyFromObject(heir))
	return false, "", status.Waiting(v1alpha1.ReasonWriteFailed, "The key cannot be passed on yet to another CacheEntry that declares it").In(deletionRetry)
}

// heir of a key that an entry leaves, and where that is in the heir's own words; nil when nobody declares it. It is the entry
// itself when that has come back.
func (r *cacheEntryReconciler) heir(ctx context.Context, entry *v1alpha1.CacheEntry, pool *v1alpha1.CachePool, l location) (*v1alpha1.CacheEntry, location, error) {
	claimed, err := r.pools.claimants(ctx, pool, l.place(entry.Namespace), entry.Namespace)
	if err != nil {
		return nil, location{}, err
	}
	for _, c := range claimed {
		if c.UID == entry.UID && !entry.DeletionTimestamp.IsZero() {
			continue
		}
		if heir, there, err := r.claimant(ctx, c); err != nil || heir != nil {
			return heir, there, err
		}
	}
	return nil, location{}, nil
}

// claimant of a key; nil when the claim is out of date, or no pool serves the entry, which then declares nothing.
func (r *cacheEntryReconciler) claimant(ctx context.Context, c claims.Claim) (*v1alpha1.CacheEntry, location, error) {
	entry := &v1alpha1.CacheEntry{}
	if err := r.Get(ctx, c.Entry, entry); err != nil {
		return nil, location{}, client.IgnoreNotFound(err)
	}
	if entry.UID != c.UID || !entry.DeletionTimestamp.IsZero() || claimOf(entry).Place != c.Place {
		return nil, location{}, nil
	}
	pool, err := r.pools.pool(ctx, entry.Pool(), entry.Namespace)
	if err != nil || pool == nil {
		return nil, location{}, err
	}
	return entry, locationIn(pool, entry.Spec.Key), nil
}

// bequeath a key to the entry that declares it, by putting it on record there: should that go before it was ever looked at,
// it deletes the key as its predecessor would have. EnsurePresent takes what it finds for somebody else's.
func (r *cacheEntryReconciler) bequeath(ctx context.Context, heir *v1alpha1.CacheEntry, l location) error {
	if !recordable(heir) || heir.EffectivePolicy() == v1alpha1.PolicyEnsurePresent {
		return nil
	}
	recorded := recordOf(heir)
	if _, ok := l.among(recorded); !ok {
		recorded = append(recorded, l)
	}
	return r.setRecord(ctx, heir, recorded)
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
