// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"
	"slices"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// find the objects of a list's kind.
func find(ctx context.Context, mgr ctrl.Manager, kind client.ObjectList, which ...client.ListOption) []reconcile.Request {
	list, ok := kind.DeepCopyObject().(client.ObjectList)
	if !ok {
		return nil
	}
	if err := mgr.GetClient().List(ctx, list, append(which, client.UnsafeDisableDeepCopy)...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Objects that depend on another could not be listed", "kind", fmt.Sprintf("%T", kind))
		return nil
	}
	var found []reconcile.Request
	_ = apimeta.EachListItem(list, func(o runtime.Object) error { // the function never fails
		if object, ok := o.(client.Object); ok {
			found = append(found, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(object)})
		}
		return nil
	})
	return found
}

// requests maps an object to those of its namespace that name it.
func requests(mgr ctrl.Manager, kind client.ObjectList, index string) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		return find(ctx, mgr, kind, client.InNamespace(o.GetNamespace()), client.MatchingFields{index: o.GetName()})
	})
}

// dependents maps the name of a pool to those who work in it.
func dependents(mgr ctrl.Manager, kind client.ObjectList) handler.TypedEventHandler[types.NamespacedName, reconcile.Request] {
	return handler.TypedEnqueueRequestsFromMapFunc(func(ctx context.Context, pool types.NamespacedName) []reconcile.Request {
		return find(ctx, mgr, kind, client.MatchingFields{poolIndex: pool.String()})
	})
}

// users maps a pool to those who work in it.
func users(mgr ctrl.Manager, kind client.ObjectList) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, pool client.Object) []reconcile.Request {
		return find(ctx, mgr, kind, client.MatchingFields{poolIndex: client.ObjectKeyFromObject(pool).String()})
	})
}

// enqueue a name as it is.
func enqueue() handler.TypedEventHandler[types.NamespacedName, reconcile.Request] {
	return handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, name types.NamespacedName) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: name}}
	})
}

// poolOf maps an entry or a flush to its pools, as far as they are of its namespace: others do not mind it.
func poolOf() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		var found []reconcile.Request
		for _, name := range poolsOf(o) {
			if name.Namespace == o.GetNamespace() {
				found = append(found, reconcile.Request{NamespacedName: name})
			}
		}
		return found
	})
}

// gone lets through what may set a pool free that is being deleted: the end of an entry or a flush, or that one has left
// the pool.
func gone() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			switch was := e.ObjectOld.(type) {
			case *v1alpha1.CacheEntry:
				is, ok := e.ObjectNew.(*v1alpha1.CacheEntry)
				return ok && !slices.Equal(poolsOf(was), poolsOf(is))
			case *v1alpha1.CacheFlush:
				is, ok := e.ObjectNew.(*v1alpha1.CacheFlush)
				return ok && running(was) && (!running(is) || !is.DeletionTimestamp.IsZero() || was.Pool() != is.Pool())
			}
			return false
		},
	}
}

// readinessChanged lets through what those who work in a pool must know: its Ready condition, its spec, its end.
func readinessChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		was, ok := e.ObjectOld.(*v1alpha1.CachePool)
		is, ok2 := e.ObjectNew.(*v1alpha1.CachePool)
		if !ok || !ok2 {
			return false
		}
		return was.Generation != is.Generation || ready(was) != ready(is)
	}}
}

// ready is the status of a pool's Ready condition.
func ready(pool *v1alpha1.CachePool) string {
	if c := apimeta.FindStatusCondition(pool.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		return string(c.Status)
	}
	return ""
}
