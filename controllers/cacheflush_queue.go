// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"strings"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// queue names the flush of the same pool that comes first; empty: it is this one's turn. Flushes of named keys do
// not queue.
func (r *cacheFlushReconciler) queue(ctx context.Context, flush *v1alpha1.CacheFlush) (ahead string, err error) {
	if !flush.Scans() {
		return "", nil
	}
	var list v1alpha1.CacheFlushList
	if err := r.List(ctx, &list, client.InNamespace(flush.Namespace), client.MatchingFields{poolIndex: flush.Spec.PoolRef.Name}); err != nil {
		return "", err
	}
	if first := firstInQueue(flush, list.Items); first.UID != flush.UID {
		return first.Name, nil
	}
	return "", nil
}

// behind a flush are the others of its pool, which may have their turn when it changes.
func (r *cacheFlushReconciler) behind(ctx context.Context, o client.Object) []reconcile.Request {
	flush, ok := o.(*v1alpha1.CacheFlush)
	if !ok || running(flush) {
		return nil
	}
	var list v1alpha1.CacheFlushList
	if err := r.List(ctx, &list, client.InNamespace(flush.Namespace), client.MatchingFields{poolIndex: flush.Spec.PoolRef.Name}); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Flushes of a pool could not be listed")
		return nil
	}
	var found []reconcile.Request
	for i := range list.Items {
		if other := &list.Items[i]; other.UID != flush.UID && queues(other) {
			found = append(found, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(other)})
		}
	}
	return found
}

// firstInQueue is the flush whose turn it is: one that runs, or else the oldest that could.
func firstInQueue(flush *v1alpha1.CacheFlush, others []v1alpha1.CacheFlush) *v1alpha1.CacheFlush {
	first := flush
	for i := range others {
		if o := &others[i]; o.UID != flush.UID && queues(o) && before(o, first) {
			first = o
		}
	}
	return first
}

// queues says whether a flush takes part in the queue. One that backs off has given up its turn.
func queues(f *v1alpha1.CacheFlush) bool {
	retrying := false
	if c := apimeta.FindStatusCondition(f.Status.Conditions, v1alpha1.ConditionReconciling); c != nil {
		retrying = c.Reason == v1alpha1.ReasonProgressingWithRetry
	}
	return f.Scans() && !finished(f) && !f.Spec.Suspend && f.DeletionTimestamp.IsZero() && !retrying
}

// before says whether a goes before b: running flushes first, then by age, namespace/name and UID.
func before(a, b *v1alpha1.CacheFlush) bool {
	if running(a) != running(b) {
		return running(a)
	}
	if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
		return c < 0
	}
	if c := strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name); c != 0 {
		return c < 0
	}
	return a.UID < b.UID
}
