// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"
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
	taken map[types.NamespacedName]types.NamespacedName
}

// take the turn of a pool, or say which flush has it.
func (t *turns) take(flush *v1alpha1.CacheFlush) (by types.NamespacedName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	pool, name := flush.Pool(), client.ObjectKeyFromObject(flush)
	if by, ok := t.taken[pool]; ok {
		return by
	}
	if t.taken == nil {
		t.taken = map[types.NamespacedName]types.NamespacedName{}
	}
	t.taken[pool] = name
	return name
}

// end the turn of a flush, if it has one.
func (t *turns) end(flush types.NamespacedName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for pool, by := range t.taken {
		if by == flush {
			delete(t.taken, pool)
			metrics.FlushPaused(pool)
		}
	}
}

// turn is nil when it is the flush's turn. Flushes of named keys do not queue.
func (r *cacheFlushReconciler) turn(ctx context.Context, flush *v1alpha1.CacheFlush, pool *livePool) error {
	if !flush.Scans() {
		return nil
	}
	var list v1alpha1.CacheFlushList
	if err := r.List(ctx, &list, client.MatchingFields{poolIndex: pool.name.String()}, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	served := slices.DeleteFunc(list.Items, func(f v1alpha1.CacheFlush) bool {
		admitted, err := r.pools.admits(ctx, pool.CachePool, f.Namespace)
		return err == nil && !admitted
	})
	if first := firstInQueue(flush, served); first.UID != flush.UID {
		return queued(flush, client.ObjectKeyFromObject(first))
	}
	if by := r.turns.take(flush); by != client.ObjectKeyFromObject(flush) {
		return queued(flush, by).In(conflictDelay) // it is about to give it up, and may have said so already
	}
	return nil
}

func queued(flush *v1alpha1.CacheFlush, behind types.NamespacedName) *status.Verdict {
	if behind.Namespace != flush.Namespace {
		return status.Working(v1alpha1.ReasonQueued, "Waiting for a CacheFlush of another namespace")
	}
	return status.Working(v1alpha1.ReasonQueued, "Waiting for CacheFlush %q", behind.Name)
}

// behind a flush are the others of its pool, which may have their turn when it changes.
func (r *cacheFlushReconciler) behind(ctx context.Context, o client.Object) []reconcile.Request {
	flush, ok := o.(*v1alpha1.CacheFlush)
	if !ok {
		return nil
	}
	var list v1alpha1.CacheFlushList
	if err := r.List(ctx, &list, client.MatchingFields{poolIndex: flush.Pool().String()}, client.UnsafeDisableDeepCopy); err != nil {
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

// freesTurn lets through what may give others their turn: a flush ran, or stood in the queue, and does not any more, or
// has gone to another pool or is not served by it.
func freesTurn() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			was, ok := e.ObjectOld.(*v1alpha1.CacheFlush)
			is, ok2 := e.ObjectNew.(*v1alpha1.CacheFlush)
			return ok && ok2 && (running(was) && !running(is) || queues(was) && !queues(is) ||
				was.Pool() != is.Pool() || !notFound(was) && notFound(is))
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
	return precedes(a, b)
}
