// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"encoding/json"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/claims"
)

// recordAnnotation lists where the entry has written or is about to, and what has passed on to it. It is there before the
// first write, so that no crash leaves a key that nobody knows of.
const recordAnnotation = "cachewright.dev/written"

// location is a key that an entry may have written. The full name is not recorded: it is computed from the live
// pool, so that nobody can have foreign keys deleted by editing the annotation.
type location struct {
	Pool locationPool `json:"pool"`
	Key  string       `json:"key"`
	// Digest of the value that the entry may have written last, where only that may be deleted. Never a Secret's.
	Digest string `json:"digest,omitempty"`
	// Compare : only that value may be deleted, whatever the policy. The key has passed on from an entry that compares.
	Compare bool `json:"compare,omitempty"`
	// Lost : what was to be written once was written before the pool moved to another server.
	Lost bool `json:"lost,omitempty"`
}

type locationPool struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	UID       types.UID `json:"uid"`
}

func (l location) pool() types.NamespacedName {
	return types.NamespacedName{Namespace: l.Pool.Namespace, Name: l.Pool.Name}
}

// place of the key. The record is of an entry of this namespace.
func (l location) place(namespace string) claims.Place {
	return claims.PlaceOf(l.pool(), namespace, l.Key)
}

// locationIn a pool, of a key of a spec.
func locationIn(pool *v1alpha1.CachePool, key string) location {
	return location{Pool: locationPool{Namespace: pool.Namespace, Name: pool.Name, UID: pool.UID}, Key: key}
}

// here is where the entry keeps its key now, and what it may write there.
func (t *task) here() location {
	l := locationIn(t.pool.CachePool, t.entry.Spec.Key)
	l.Lost = t.lost
	if !t.content.secret && compares(t.entry) {
		l.Digest = t.content.identity
	}
	return l
}

// among finds the same place in a record.
func (l location) among(recorded []location) (location, bool) {
	i := slices.IndexFunc(recorded, l.sameKey)
	if i < 0 {
		return location{}, false
	}
	return recorded[i], true
}

func (l location) sameKey(o location) bool { return l.Pool == o.Pool && l.Key == o.Key }

// record sees to it that the finalizer and the record are there before the first write, or gone when the key is to
// be retained. It returns the other locations on record: those that the entry has moved away from. EnsurePresent may
// never write, and so is put on record only when it is about to.
func (r *cacheEntryReconciler) record(ctx context.Context, t *task) ([]location, error) {
	if !recordable(t.entry) {
		r.abandonAll(t.entry)
		return nil, r.setRecord(ctx, t.entry, nil)
	}
	if t.entry.EffectivePolicy() != v1alpha1.PolicyEnsurePresent || t.wroteHere() {
		if err := r.recordHere(ctx, t); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(recordOf(t.entry), t.here().sameKey), nil
}

// recordable says whether an entry has something to delete when it goes: its key, or the marker of a counter.
func recordable(entry *v1alpha1.CacheEntry) bool { return !retains(entry) || entry.Spec.Counter != nil }

// wroteHere says whether the status tells of something that the entry has written to this key, which is not on record:
// until now it was to be retained.
func (t *task) wroteHere() bool {
	s := &t.entry.Status
	if _, ok := t.here().among(recordOf(t.entry)); ok || s.Key != t.fullName || s.Pool != t.pool.name.String() {
		return false
	}
	return s.WrittenDigest != "" || s.SourceResourceVersion != ""
}

// recordHere that the content may be written.
func (r *cacheEntryReconciler) recordHere(ctx context.Context, t *task) error {
	here := t.here()
	recorded := append(slices.DeleteFunc(recordOf(t.entry), here.sameKey), here)
	t.recorded = true
	return r.setRecord(ctx, t.entry, recorded)
}

// recordOf an entry.
func recordOf(entry client.Object) []location {
	var recorded []location
	if err := json.Unmarshal([]byte(entry.GetAnnotations()[recordAnnotation]), &recorded); err != nil {
		return nil // not there, or edited beyond recognition
	}
	return slices.DeleteFunc(recorded, func(l location) bool { return l.Key == "" })
}

// setRecord and the finalizer in one patch, or remove both when nothing is on record. It writes only a change.
func (r *cacheEntryReconciler) setRecord(ctx context.Context, entry *v1alpha1.CacheEntry, recorded []location) error {
	held, changed := len(recorded) > 0, !slices.Equal(recorded, recordOf(entry))
	if held == controllerutil.ContainsFinalizer(entry, finalizer) && !changed {
		return nil
	}
	before := entry.DeepCopy()
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
	return r.patch(ctx, entry, before)
}
