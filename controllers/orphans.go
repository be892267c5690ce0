// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/status"
)

// orphans are entries as they were when the API server removed them in spite of our finalizer: it looks at the finalizers
// of an object before it deletes it, and so does not see one that comes in between. Their keys are left to us all the same.
// See https://github.com/kubernetes/kubernetes/blob/v1.34.0/staging/src/k8s.io/apiserver/pkg/registry/generic/registry/store.go, Delete.
type orphans struct{ byName sync.Map }

// add an entry that is no more, if it is one of them: what is deleted in good order has a time of deletion.
func (o *orphans) add(last *v1alpha1.CacheEntry) bool {
	if !last.DeletionTimestamp.IsZero() || !controllerutil.ContainsFinalizer(last, finalizer) {
		return false
	}
	orphan := last.DeepCopy()
	orphan.DeletionTimestamp = new(metav1.Now())
	o.byName.Store(client.ObjectKeyFromObject(last), orphan)
	return true
}

// bury an entry that is no more: what it has on record is dealt with, if it is an orphan, and then it is forgotten.
func (r *cacheEntryReconciler) bury(ctx context.Context, name types.NamespacedName) (ctrl.Result, error) {
	found, _ := r.orphans.byName.Load(name)
	if orphan, ok := found.(*v1alpha1.CacheEntry); ok {
		verdict, err := r.delete(ctx, orphan)
		if v, ok := errors.AsType[*status.Verdict](err); ok {
			verdict, err = v, nil
		}
		switch {
		case err != nil:
			return ctrl.Result{}, err
		case len(recordOf(orphan)) > 0:
			return ctrl.Result{RequeueAfter: verdict.After}, nil
		}
		r.orphans.byName.Delete(name)
	}
	r.tellRivals(ctx, name, r.claims.Delete(name, ""))
	r.registry.Gone(name)
	r.unseen.forget(name)
	return ctrl.Result{}, nil
}
