// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/status"
)

// conflictDelay is the wait for the cache to catch up with a write that another one overtook.
const conflictDelay = 50 * time.Millisecond

// finisher is the one way out of every reconcile: it alone writes status, and says in events what has become of Ready.
type finisher struct {
	client   client.Client
	recorder events.EventRecorder
	clock    clock.PassiveClock
	unseen   unseen
}

// finish writes what a reconcile came to, if that is new, and then says it in an event.
func (f *finisher) finish(ctx context.Context, obj status.Object, v *status.Verdict, err error) (ctrl.Result, error) {
	if verdict, ok := errors.AsType[*status.Verdict](err); ok {
		v, err = verdict, nil
	}
	if err == nil {
		err = f.write(ctx, obj, v)
	}
	switch {
	case apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	case apierrors.IsNotFound(err): // deleted meanwhile
		return ctrl.Result{}, nil
	case err != nil:
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: v.After}, nil
}

// write the status if the verdict changes it. It fails when the object has changed since it was read: the cache may
// not have seen our last write yet.
func (f *finisher) write(ctx context.Context, obj status.Object, v *status.Verdict) error {
	before, ok := obj.DeepCopyObject().(status.Object)
	if !ok {
		return fmt.Errorf("%T is not a status.Object", obj)
	}
	status.Set(obj, v, f.clock.Now())
	if equality.Semantic.DeepEqual(before, obj) {
		v.Written = true
		return nil
	}
	if err := f.client.Status().Patch(ctx, obj, since(before)); err != nil {
		return err
	}
	f.unseen.wrote(obj)
	v.Written = true
	f.tell(before, obj, v.Warning)
	return nil
}

// patch what is new in an object but for its status.
func (f *finisher) patch(ctx context.Context, obj, before client.Object) error {
	if err := f.client.Patch(ctx, obj, since(before)); err != nil {
		return err
	}
	f.unseen.wrote(obj)
	return nil
}

// since an object was read, what we have changed in it. The API server refuses it when somebody else has, too.
func since(before client.Object) client.Patch {
	return client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
}

// tell in an event that Ready has become another. That work is under way is no event, nor that an object is well from
// the start: ten thousand new entries shall not cost ten thousand events.
func (f *finisher) tell(before, after status.Object, warn bool) {
	was := apimeta.FindStatusCondition(*before.Conditions(), v1alpha1.ConditionReady)
	is := apimeta.FindStatusCondition(*after.Conditions(), v1alpha1.ConditionReady)
	switch {
	case is == nil, is.Status == metav1.ConditionUnknown:
		return
	case was == nil && is.Status == metav1.ConditionTrue:
		return
	case was != nil && was.Status == is.Status && was.Reason == is.Reason && was.Message == is.Message:
		return
	}
	kind := corev1.EventTypeNormal
	if is.Status == metav1.ConditionFalse || warn {
		kind = corev1.EventTypeWarning
	}
	f.recorder.Eventf(after, nil, kind, is.Reason, "Reconcile", "%s", is.Message)
}
