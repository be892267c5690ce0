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
	return recorded
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
	recorded := recordOf(entry)
	var left []string
	for _, l := range former {
		note, err := r.release(ctx, entry, l)
		if _, waiting := errors.AsType[*status.Verdict](err); waiting {
			v = v.In(deletionRetry)
			continue
		} else if err != nil {
			return nil, err
		}
		recorded = slices.DeleteFunc(recorded, func(o location) bool { return o == l })
		left = append(left, note)
	}
	if err := r.setRecord(ctx, entry, recorded); err != nil {
		return nil, err
	}
	r.tellLeft(entry, left)
	return v, nil
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
	var left []string
	for _, l := range recorded {
		note, err := r.release(ctx, entry, l)
		if err != nil {
			return nil, err
		}
		left = append(left, note)
	}
	r.registry.Drop(name)
	if err := r.setRecord(ctx, entry, nil); err != nil {
		return nil, err
	}
	r.tellLeft(entry, left)
	return status.Silent(0), nil
}

// release one location: its key is deleted, or it stays for a reason. A note says so when somebody should know.
func (r *cacheEntryReconciler) release(ctx context.Context, entry *v1alpha1.CacheEntry, l location) (note string, err error) {
	if entry.EffectiveDeletionPolicy() == v1alpha1.DeletionRetain {
		return "", nil
	}
	name := types.NamespacedName{Namespace: l.Pool.Namespace, Name: l.Pool.Name}
	pool := &v1alpha1.CachePool{}
	err = r.Get(ctx, name, pool)
	gone := apierrors.IsNotFound(err)
	if err != nil && !gone {
		return "", err
	}
	fullName := pool.EffectiveKeyPrefix() + l.Key
	same := l.Pool.UID == "" || l.Pool.UID == pool.UID
	switch {
	case gone || pool.Namespace != entry.Namespace:
		return fmt.Sprintf("Key %q stays in Redis, since CachePool %q is gone", l.Key, l.Pool.Name), nil
	case !r.pools.synced():
		return "", status.Silent(startupDelay)
	case len(r.claims.At(r.pools.equivalents(ctx, claims.Place{Pool: name, Key: l.Key})...)) > 0:
		return "", nil // it belongs to another entry now, or to this one by another pool
	case !same:
		return fmt.Sprintf("Key %q stays in Redis, since CachePool %q is gone", l.Key, l.Pool.Name), nil
	case entry.Spec.Suspend:
		return fmt.Sprintf("Key %q stays in Redis, since the entry is suspended", fullName), nil
	case pool.Spec.Suspend:
		return fmt.Sprintf("Key %q stays in Redis, since CachePool %q is suspended", fullName, pool.Name), nil
	}
	return r.deleteKey(ctx, entry, pool, l.Key)
}

// deleteKey through the keeper. It gives up on a pool that cannot serve after a while, or at once when that is being
// deleted too, so that no deletion hangs.
func (r *cacheEntryReconciler) deleteKey(ctx context.Context, entry *v1alpha1.CacheEntry, pool *v1alpha1.CachePool, key string) (note string, err error) {
	name, id := client.ObjectKeyFromObject(pool), client.ObjectKeyFromObject(entry)
	live, ok := r.registry.Get(name)
	if ok && live.Gate >= keeper.DeletionsOnly {
		outcome, done := live.Keeper.Forget(ctx, id, key)
		if done && outcome.Err == nil {
			return "", nil
		}
	}
	expired := !entry.DeletionTimestamp.IsZero() && r.clock.Since(entry.DeletionTimestamp.Time) >= deletionPatience
	doomed := !pool.DeletionTimestamp.IsZero() && r.registry.WasAttempted(name) && (!ok || live.Gate == keeper.Closed)
	if expired || doomed {
		if ok {
			live.Keeper.Abandon(id, key)
		}
		return fmt.Sprintf("Key %q stays in Redis, since CachePool %q cannot serve", pool.EffectiveKeyPrefix()+key, pool.Name), nil
	}
	return "", status.Waiting(v1alpha1.ReasonPoolNotReady, "The key cannot be deleted yet, since CachePool %q does not serve", pool.Name).In(deletionRetry)
}

// tellLeft says in events which keys stay.
func (r *cacheEntryReconciler) tellLeft(entry *v1alpha1.CacheEntry, notes []string) {
	for _, note := range notes {
		if note != "" {
			r.recorder.Eventf(entry, nil, corev1.EventTypeWarning, v1alpha1.ReasonReleased, "Delete", "%s", note)
		}
	}
}
