// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// orphans are entries as they were when the API server removed them in spite of our finalizer: it looks at the finalizers
// of an object before it deletes it, and so does not see one that comes in between. Their keys are left to us all the same,
// as long as this operator lives.
// See https://github.com/kubernetes/kubernetes/blob/v1.34.0/staging/src/k8s.io/apiserver/pkg/registry/generic/registry/store.go, Delete.
type orphans struct {
	*cacheEntryReconciler

	byName sync.Map
	// found are their names, with the UID in place of the name: another entry may have that by now.
	found names
}

// orphan is such an entry, and what is left to do.
type orphan struct {
	entry *v1alpha1.CacheEntry
	left  []location
}

// add an entry that is no more, if it is one of them: what is deleted in good order has a time of deletion.
func (o *orphans) add(ctx context.Context, last *v1alpha1.CacheEntry) {
	if !last.DeletionTimestamp.IsZero() || !controllerutil.ContainsFinalizer(last, finalizer) {
		return
	}
	entry := last.DeepCopy()
	entry.DeletionTimestamp = new(metav1.Now())
	name := types.NamespacedName{Namespace: last.Namespace, Name: string(last.UID)}
	o.byName.Store(name, &orphan{entry: entry, left: recordOf(entry)})
	o.found.tell(ctx, name)
}

// Reconcile one of them: what it has on record is released, as for any entry that is being deleted.
func (o *orphans) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	found, _ := o.byName.Load(req.NamespacedName)
	lost, ok := found.(*orphan)
	if !ok {
		return ctrl.Result{}, nil
	}
	released, notes, waiting, err := o.releaseEach(ctx, lost.entry, lost.left)
	if err != nil {
		return ctrl.Result{}, err
	}
	o.tellLeft(ctx, lost.entry, notes)
	if waiting == nil {
		o.byName.Delete(req.NamespacedName)
		return ctrl.Result{}, nil
	}
	lost.left = slices.DeleteFunc(lost.left, func(l location) bool { return slices.Contains(released, l) })
	return ctrl.Result{RequeueAfter: waiting.After}, nil
}
