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
	"k8s.io/apimachinery/pkg/types"
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
	r.tellRivals(ctx, name, r.claims.Delete(name))
	if !controllerutil.ContainsFinalizer(entry, finalizer) {
		r.registry.Drop(name)
		return status.Silent(0), nil
	}
	recorded := recordOf(entry)
	if len(recorded) == 0 { // somebody has removed the record; the spec is the next best
		recorded = []location{{Pool: locationPool{Namespace: entry.Namespace, Name: entry.Spec.PoolRef.Name}, Key: entry.Spec.Key}}
	}
	waiting, err := r.releaseAll(ctx, entry, recorded)
	switch {
	case err != nil:
		return nil, err
	case waiting != nil:
		return waiting, nil
	}
	r.registry.Drop(name)
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
	notes := map[location]string{}
	for _, l := range locations {
		note, err := r.release(ctx, entry, l)
		verdict, ok := errors.AsType[*status.Verdict](err)
		switch {
		case ok:
			waiting = verdict
		case err != nil:
			return nil, err
		default:
			notes[l] = note
			recorded = slices.DeleteFunc(slices.Clone(recorded), func(o location) bool { return o == l })
		}
	}
	if err := r.setRecord(ctx, entry, recorded); err != nil {
		return nil, err
	}
	r.tellLeft(ctx, entry, notes)
	return waiting, nil
}

// abandonAll gives up every deletion that was asked for: the keys are to stay.
func (r *cacheEntryReconciler) abandonAll(entry *v1alpha1.CacheEntry) {
	for _, l := range recordOf(entry) {
		r.registry.Abandon(types.NamespacedName{Namespace: l.Pool.Namespace, Name: l.Pool.Name}, client.ObjectKeyFromObject(entry), l.Key)
	}
}

// release one location: its key is deleted, or it stays for a reason. A note says so when somebody should know.
func (r *cacheEntryReconciler) release(ctx context.Context, entry *v1alpha1.CacheEntry, l location) (note string, err error) {
	name, id := types.NamespacedName{Namespace: l.Pool.Namespace, Name: l.Pool.Name}, client.ObjectKeyFromObject(entry)
	pool := &v1alpha1.CachePool{}
	err = r.Get(ctx, name, pool)
	gone := apierrors.IsNotFound(err) || pool.Namespace != entry.Namespace || l.Pool.UID != "" && l.Pool.UID != pool.UID
	fullName := pool.EffectiveKeyPrefix() + l.Key
	if client.IgnoreNotFound(err) != nil {
		return "", err
	}
	if !r.pools.synced() {
		return "", status.Silent(startupDelay)
	}
	f := keeper.Forgetting{Key: l.Key, KeepKey: retains(entry) || r.declaredElsewhere(ctx, entry, claims.Place{Pool: name, Key: l.Key})}
	if entry.Spec.Counter != nil {
		f.Counter = string(entry.UID)
	}
	switch {
	case f.KeepKey && f.Counter == "":
	case gone:
		note = fmt.Sprintf("Key %q stays in Redis, since CachePool %q is gone", l.Key, l.Pool.Name)
	case entry.Spec.Suspend:
		note = fmt.Sprintf("Key %q stays in Redis, since the entry is suspended", fullName)
	case pool.Spec.Suspend:
		note = fmt.Sprintf("Key %q stays in Redis, since CachePool %q is suspended", fullName, pool.Name)
	default:
		return r.deleteKey(ctx, entry, pool, l, f)
	}
	r.registry.Abandon(name, id, l.Key) // a deletion that was asked for before
	return note, nil
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
	if entry.Status.Pool == l.Pool.Namespace+"/"+l.Pool.Name && entry.Status.Key == pool.EffectiveKeyPrefix()+l.Key {
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

// declaredElsewhere says whether a key, by whatever name, is declared by another entry, or by this one where it is now.
func (r *cacheEntryReconciler) declaredElsewhere(ctx context.Context, entry *v1alpha1.CacheEntry, p claims.Place) bool {
	return slices.ContainsFunc(r.claims.At(r.pools.equivalents(ctx, p)...), func(c claims.Claim) bool {
		return c.UID != entry.UID || entry.DeletionTimestamp.IsZero() && c.Place == claimOf(entry).Place
	})
}

// deleteKey through the keeper. It gives up on a pool that cannot serve after a while, or at once when that is being
// deleted too, so that no deletion hangs.
func (r *cacheEntryReconciler) deleteKey(ctx context.Context, entry *v1alpha1.CacheEntry, pool *v1alpha1.CachePool, l location, f keeper.Forgetting) (note string, err error) {
	name, id := client.ObjectKeyFromObject(pool), client.ObjectKeyFromObject(entry)
	fullName := pool.EffectiveKeyPrefix() + l.Key
	if f.OnlyDigests, err = r.digests(ctx, entry, pool, l); err != nil {
		return "", err
	}
	waiting := status.Waiting(v1alpha1.ReasonPoolNotReady, "The key cannot be deleted yet, since CachePool %q does not serve", pool.Name)
	live, ok := r.registry.Get(name)
	serves := ok && live.Gate >= keeper.DeletionsOnly
	if serves {
		outcome, done := live.Keeper.Forget(ctx, id, f)
		switch {
		case done && outcome.Err == nil:
			return "", nil
		case done && errors.Is(outcome.Err, cache.ErrChanged):
			return fmt.Sprintf("Key %q stays in Redis, since it does not hold what the entry is known to have written last", fullName), nil
		case done:
			waiting = status.Waiting(v1alpha1.ReasonWriteFailed, "The key cannot be deleted yet: %s", refusal(outcome.Err).Message)
		default:
			waiting = status.Progressing("The key is being deleted")
		}
	} else { // once it serves, this is decided anew
		r.registry.Abandon(name, id, l.Key)
	}
	if !r.hopeless(entry, pool, serves) {
		return "", waiting.In(deletionRetry)
	}
	r.registry.Abandon(name, id, l.Key)
	return fmt.Sprintf("Key %q stays in Redis, since CachePool %q cannot serve", fullName, pool.Name), nil
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
func (r *cacheEntryReconciler) tellLeft(ctx context.Context, entry *v1alpha1.CacheEntry, notes map[location]string) {
	for l, note := range notes {
		if note != "" {
			metrics.Left(types.NamespacedName{Namespace: l.Pool.Namespace, Name: l.Pool.Name})
			ctrl.LoggerFrom(ctx).Info(note)
			r.recorder.Eventf(entry, nil, corev1.EventTypeWarning, v1alpha1.ReasonReleased, "Delete", "%s", note)
		}
	}
}
