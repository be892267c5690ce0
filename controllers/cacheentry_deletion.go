// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/claims"
	"github.com/cachewright/cachewright/internal/keeper"
	"github.com/cachewright/cachewright/internal/status"
)

const (
	// recordAnnotation lists where the entry has written or is about to. It is there before the first write, so
	// that no crash leaves a key that nobody knows of.
	recordAnnotation = "cachewright.dev/written"
	// deletionPatience is how long a deletion waits for a pool that cannot serve.
	deletionPatience = 5 * time.Minute
	// deletionRetry is the time between two attempts to delete a key.
	deletionRetry = 5 * time.Second
)

// location is a key that an entry may have written. The full name is not recorded: it is computed from the live
// pool, so that nobody can have foreign keys deleted by editing the annotation.
type location struct {
	Pool locationPool `json:"pool"`
	Key  string       `json:"key"`
}

type locationPool struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	UID       types.UID `json:"uid"`
}

// record sees to it that the finalizer and the record are there before the first write, or gone when the key is to
// be retained. It returns the other locations on record: those that the entry has moved away from.
func (r *cacheEntryReconciler) record(ctx context.Context, entry *v1alpha1.CacheEntry, pool *livePool) ([]location, error) {
	if entry.EffectiveDeletionPolicy() == v1alpha1.DeletionRetain {
		r.abandonAll(entry)
		return nil, r.setRecord(ctx, entry, nil)
	}
	here := location{Pool: locationPool{Namespace: pool.Namespace, Name: pool.CachePool.Name, UID: pool.UID}, Key: entry.Spec.Key}
	recorded := recordOf(entry)
	former := slices.DeleteFunc(slices.Clone(recorded), func(l location) bool { return l == here })
	if len(former) == len(recorded) {
		recorded = append(recorded, here)
	}
	return former, r.setRecord(ctx, entry, recorded)
}

// recordOf an entry.
func recordOf(entry *v1alpha1.CacheEntry) []location {
	var recorded []location
	if err := json.Unmarshal([]byte(entry.Annotations[recordAnnotation]), &recorded); err != nil {
		return nil // not there, or edited beyond recognition
	}
	return slices.DeleteFunc(recorded, func(l location) bool { return l.Key == "" })
}

// setRecord and the finalizer in one patch, or remove both when nothing is on record. It writes only a change.
func (r *cacheEntryReconciler) setRecord(ctx context.Context, entry *v1alpha1.CacheEntry, recorded []location) error {
	before := entry.DeepCopy()
	held, changed := len(recorded) > 0, !slices.Equal(recorded, recordOf(before))
	if held == controllerutil.ContainsFinalizer(before, finalizer) && !changed {
		return nil
	}
	text, err := json.Marshal(recorded)
	if err != nil {
		return err
	}
	if held {
		controllerutil.AddFinalizer(entry, finalizer)
		metav1.SetMetaDataAnnotation(&entry.ObjectMeta, recordAnnotation, string(text))
	} else {
		controllerutil.RemoveFinalizer(entry, finalizer)
		delete(entry.Annotations, recordAnnotation)
	}
	return r.Patch(ctx, entry, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
}

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
	switch {
	case client.IgnoreNotFound(err) != nil:
		return "", err
	case !r.pools.synced():
		return "", status.Silent(startupDelay)
	case entry.EffectiveDeletionPolicy() == v1alpha1.DeletionRetain:
	case r.declaredElsewhere(ctx, entry, claims.Place{Pool: name, Key: l.Key}):
	case gone:
		note = fmt.Sprintf("Key %q stays in Redis, since CachePool %q is gone", l.Key, l.Pool.Name)
	case entry.Spec.Suspend:
		note = fmt.Sprintf("Key %q stays in Redis, since the entry is suspended", fullName)
	case pool.Spec.Suspend:
		note = fmt.Sprintf("Key %q stays in Redis, since CachePool %q is suspended", fullName, pool.Name)
	default:
		return r.deleteKey(ctx, entry, pool, l.Key)
	}
	r.registry.Abandon(name, id, l.Key) // a deletion that was asked for before
	return note, nil
}

// declaredElsewhere says whether a key, by whatever name, is declared by another entry, or by this one where it is now.
func (r *cacheEntryReconciler) declaredElsewhere(ctx context.Context, entry *v1alpha1.CacheEntry, p claims.Place) bool {
	return slices.ContainsFunc(r.claims.At(r.pools.equivalents(ctx, p)...), func(c claims.Claim) bool {
		return c.UID != entry.UID || entry.DeletionTimestamp.IsZero() && c.Place == claimOf(entry).Place
	})
}

// deleteKey through the keeper. It gives up on a pool that cannot serve after a while, or at once when that is being
// deleted too, so that no deletion hangs.
func (r *cacheEntryReconciler) deleteKey(ctx context.Context, entry *v1alpha1.CacheEntry, pool *v1alpha1.CachePool, key string) (note string, err error) {
	name, id := client.ObjectKeyFromObject(pool), client.ObjectKeyFromObject(entry)
	waiting := status.Waiting(v1alpha1.ReasonPoolNotReady, "The key cannot be deleted yet, since CachePool %q does not serve", pool.Name)
	live, ok := r.registry.Get(name)
	if ok && live.Gate >= keeper.DeletionsOnly {
		outcome, done := live.Keeper.Forget(ctx, id, key)
		switch {
		case done && outcome.Err == nil:
			return "", nil
		case done:
			waiting = status.Waiting(v1alpha1.ReasonWriteFailed, "The key cannot be deleted yet: %s", refusal(outcome.Err).Message)
		default:
			waiting = status.Progressing("The key is being deleted")
		}
	}
	if !r.hopeless(entry, pool, ok && live.Gate >= keeper.DeletionsOnly) {
		return "", waiting.In(deletionRetry)
	}
	r.registry.Abandon(name, id, key)
	return fmt.Sprintf("Key %q stays in Redis, since CachePool %q cannot serve", pool.EffectiveKeyPrefix()+key, pool.Name), nil
}

// hopeless says whether to give up on a key: after a while, or at once when the pool does not serve and is being deleted
// too.
func (r *cacheEntryReconciler) hopeless(entry *v1alpha1.CacheEntry, pool *v1alpha1.CachePool, serves bool) bool {
	if !serves && !pool.DeletionTimestamp.IsZero() && r.registry.WasAttempted(client.ObjectKeyFromObject(pool)) {
		return true
	}
	return !entry.DeletionTimestamp.IsZero() && r.clock.Since(entry.DeletionTimestamp.Time) >= deletionPatience
}

// tellLeft says in the log and in events which keys stay.
func (r *cacheEntryReconciler) tellLeft(ctx context.Context, entry *v1alpha1.CacheEntry, notes []string) {
	for _, note := range notes {
		if note != "" {
			ctrl.LoggerFrom(ctx).Info(note)
			r.recorder.Eventf(entry, nil, corev1.EventTypeWarning, v1alpha1.ReasonReleased, "Delete", "%s", note)
		}
	}
}
