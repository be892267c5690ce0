// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/claims"
	"github.com/cachewright/cachewright/internal/status"
)

// +kubebuilder:rbac:groups="",resources=namespaces,verbs=list;watch

// user of a pool: an entry or a flush.
type user interface {
	status.Object
	// Pool that it names.
	Pool() types.NamespacedName
}

// pool of this name, if there is one and it admits a namespace; otherwise nil, which does not tell the one from the other.
func (f *poolFinder) pool(ctx context.Context, name types.NamespacedName, namespace string) (*v1alpha1.CachePool, error) {
	if len(f.namespaces) > 0 && !slices.Contains(f.namespaces, name.Namespace) {
		return nil, nil //nolint:nilnil // no pool is an answer
	}
	pool := &v1alpha1.CachePool{}
	if err := f.client.Get(ctx, name, pool); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	admitted, err := f.admits(ctx, pool, namespace)
	if err != nil || !admitted {
		return nil, err
	}
	return pool, nil
}

// admits says whether a pool serves the entries and flushes of a namespace.
func (f *poolFinder) admits(ctx context.Context, pool *v1alpha1.CachePool, namespace string) (bool, error) {
	allowed := pool.Spec.AllowedNamespaces
	switch {
	case pool.Namespace == namespace:
		return true, nil
	case allowed == nil:
		return false, nil
	case allowed.From != v1alpha1.FromSelector:
		return allowed.From == v1alpha1.FromAll, nil
	}
	selector, err := f.selector(pool)
	if err != nil {
		return false, nil //nolint:nilerr // the pool says so
	}
	object, err := f.namespace(ctx, namespace)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil && selector.Matches(labels.Set(object.Labels)), err
}

// namespace has the name, the labels and the deletion of one. The right to read it is missing with --namespaces.
func (f *poolFinder) namespace(ctx context.Context, name string) (*metav1.PartialObjectMetadata, error) {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	return object, f.client.Get(ctx, types.NamespacedName{Name: name}, object)
}

// selector of the namespaces that a pool admits, or the verdict on a pool whose selector cannot be used.
func (f *poolFinder) selector(pool *v1alpha1.CachePool) (labels.Selector, error) {
	allowed := pool.Spec.AllowedNamespaces
	if allowed == nil || allowed.From != v1alpha1.FromSelector {
		return labels.Nothing(), nil
	}
	if len(f.namespaces) > 0 {
		return nil, status.Stalled(v1alpha1.ReasonInvalidSelector, "Only this namespace is served: the operator works with --namespaces, and so may not read the labels that the selector of allowedNamespaces is for")
	}
	selector, err := metav1.LabelSelectorAsSelector(allowed.Selector)
	if err != nil {
		return nil, status.Stalled(v1alpha1.ReasonInvalidSelector, "Only this namespace is served: the selector of allowedNamespaces is invalid: %v", err)
	}
	return selector, nil
}

// admitted leaves those claims out whose entries are not admitted by the pool that they name: they declare nothing. The
// pools are among the neighbors.
func (f *poolFinder) admitted(ctx context.Context, near []neighbor, claimed []claims.Claim) []claims.Claim {
	return slices.DeleteFunc(claimed, func(c claims.Claim) bool {
		i := slices.IndexFunc(near, func(n neighbor) bool { return n.name == c.Pool })
		if i < 0 {
			return true
		}
		admits, err := f.admits(ctx, near[i].pool, c.Entry.Namespace)
		return err == nil && !admits // in doubt they do
	})
}

// claimants of a key, by its place: the holder first. Where no pool serves the namespace, nobody else's are told.
func (f *poolFinder) claimants(ctx context.Context, pool *v1alpha1.CachePool, at claims.Place, namespace string) ([]claims.Claim, error) {
	if pool == nil {
		others := func(c claims.Claim) bool { return c.Entry.Namespace != namespace }
		return slices.DeleteFunc(f.claims.At(at), others), nil
	}
	near, err := f.neighbors(ctx, pool)
	if err != nil {
		return nil, err
	}
	return f.admitted(ctx, near, f.claims.At(places(near, fullName(pool, at))...)), nil
}

// spoken name of a pool, in a namespace.
func spoken(pool types.NamespacedName, namespace string) string {
	if pool.Namespace == namespace {
		return pool.Name
	}
	return pool.String()
}

// notFound says whether an object says that no pool serves it.
func notFound(o status.Object) bool { return readyReason(o) == v1alpha1.ReasonPoolNotFound }

// lacksPool says whether a verdict is that no pool serves an object.
func lacksPool(err error) bool {
	v, ok := errors.AsType[*status.Verdict](err)
	return ok && v.Reason == v1alpha1.ReasonPoolNotFound
}

// guests maps a Namespace to its objects that name pools of others.
func guests(mgr ctrl.Manager, kind client.ObjectList) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		return find(ctx, mgr, kind, client.InNamespace(o.GetName()), client.MatchingFields{guestIndex: isGuest})
	})
}
