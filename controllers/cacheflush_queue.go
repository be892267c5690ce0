// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"strings"
	"sync"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/metrics"
	"github.com/cachewright/cachewright/internal/status"
)

// turns remembers which flush of a pool is at work, from its claim until its conditions say something else than
// Running. The conditions of all flushes tell the order, but the operator's copy of them lags.
type turns struct {
	mu    sync.Mutex
	taken map[types.NamespacedName]string
}

// take the turn of a pool, or say which flush has it.
func (t *turns) take(flush *v1alpha1.CacheFlush) (by string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	pool := flush.Pool()
	if by, ok := t.taken[pool]; ok && by != flush.Name {
		return by
	}
	if t.taken == nil {
		t.taken = map[types.NamespacedName]string{}
	}
	t.taken[pool] = flush.Name
	return ""
}

// end the turn of a flush, if it has one.
func (t *turns) end(flush types.NamespacedName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for pool, by := range t.taken {
		if pool.Namespace == flush.Namespace && by == flush.Name {
			delete(t.taken, pool)
			metrics.FlushPaused(pool)
		}
	}
}

// turn is nil when it is the flush's turn. Flushes of named keys do not queue.
func (r *cacheFlushReconciler) turn(ctx context.Context, flush *v1alpha1.CacheFlush) error {
	if !flush.Scans() {
		return nil
	}
	var list v1alpha1.CacheFlushList
	if err := r.List(ctx, &list, client.InNamespace(flush.Namespace), client.MatchingFields{poolIndex: flush.Spec.PoolRef.Name}); err != nil {
		return err
	}
	if first := firstInQueue(flush, list.Items); first.UID != flush.UID {
		return queued(first.Name)
	}
	if by := r.turns.take(flush); by != "" {
		return queued(by).In(conflictDelay) // it is about to give it up, and may have said so already
	}
	return nil
}

func queued(behind string) *status.Verdict {
	return status.Working(v1alpha1.ReasonQueued, "Waiting for CacheFlush %q", behind)
}

// behind a flush are the others of its pool, which may have their turn when it changes.
func (r *cacheFlushReconciler) behind(ctx context.Context, o client.Object) []reconcile.Request {
	flush, ok := o.(*v1alpha1.CacheFlush)
	if !ok {
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

// freesTurn lets through what may give others their turn: a flush ran, or stood in the queue, and does not any more,
// or has gone to another pool.
func freesTurn() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			was, ok := e.ObjectOld.(*v1alpha1.CacheFlush)
			is, ok2 := e.ObjectNew.(*v1alpha1.CacheFlush)
			return ok && ok2 && (running(was) && !running(is) || queues(was) && !queues(is) || was.Spec.PoolRef != is.Spec.PoolRef)
		},
	}
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
