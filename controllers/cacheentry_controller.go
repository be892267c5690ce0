// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/claims"
	"github.com/cachewright/cachewright/internal/keeper"
	"github.com/cachewright/cachewright/internal/pools"
	"github.com/cachewright/cachewright/internal/status"
)

// cacheEntryReconciler hands the keys of CacheEntries to the keepers of their pools, and tells what came of it.
type cacheEntryReconciler struct {
	client.Client
	finisher

	// reader reads ConfigMaps and Secrets from the API server: the operator keeps no copy of them.
	reader   client.Reader
	pools    *poolFinder
	registry *pools.Registry
	claims   *claims.Index
	// tell an entry to look again, and tellRivals of one that claims on keys have come or gone.
	tell       func(ctx context.Context, entry types.NamespacedName)
	tellRivals func(ctx context.Context, entry types.NamespacedName, changed []claims.Place)
}

// +kubebuilder:rbac:groups=cachewright.dev,resources=cacheentries,verbs=list;watch;patch
// +kubebuilder:rbac:groups=cachewright.dev,resources=cacheentries/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=configmaps;secrets,verbs=get;list;watch

// Reconcile one entry.
func (r *cacheEntryReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	entry := &v1alpha1.CacheEntry{}
	if err := r.Get(ctx, req.NamespacedName, entry); err != nil {
		if apierrors.IsNotFound(err) {
			r.forgetAbout(ctx, req.NamespacedName)
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, err
	}
	if r.unseen.hides(entry) {
		return ctrl.Result{}, nil
	}
	reconcile := r.reconcile
	if !entry.DeletionTimestamp.IsZero() {
		reconcile = r.delete
	}
	verdict, err := reconcile(ctx, entry)
	if v, ok := errors.AsType[*status.Verdict](err); err == nil || ok && !v.Silent {
		r.claims.Decide(req.NamespacedName, entry.UID)
	}
	return r.finish(ctx, entry, verdict, err)
}

func (r *cacheEntryReconciler) reconcile(ctx context.Context, entry *v1alpha1.CacheEntry) (*status.Verdict, error) {
	name, claim := client.ObjectKeyFromObject(entry), claimOf(entry)
	r.tellRivals(ctx, name, r.claims.Set(claim))
	if entry.Spec.Suspend {
		r.registry.Drop(name)
		r.abandonAll(entry)
		return status.Suspended(v1alpha1.ReasonSuspended, "The entry is suspended"), nil
	}
	pool, err := r.pools.serving(ctx, entry, keeper.Open)
	if lacks := lacksPool(err); lacks != notFound(entry) { // so it declares the key no more, or again
		r.tellRivals(ctx, name, []claims.Place{claim.Place})
	}
	if err != nil {
		r.rest(entry, err)
		return nil, err
	}
	content := content{}
	if err = r.holds(ctx, entry, pool); err == nil {
		content, err = r.content(ctx, entry)
	}
	if err != nil {
		r.dropOn(name, err)
		return nil, err
	}
	task := r.task(entry, pool, content)
	former, err := r.record(ctx, task)
	if err != nil {
		return nil, err
	}
	verdict, err := r.keep(ctx, task)
	if err != nil {
		return nil, err
	}
	return r.leave(ctx, entry, former, verdict)
}

// rest while the pool does not serve. What is kept is left to the keeper as far as the entry is known to declare it still.
func (r *cacheEntryReconciler) rest(entry *v1alpha1.CacheEntry, err error) {
	name := client.ObjectKeyFromObject(entry)
	if lacksPool(err) {
		r.registry.Drop(name)
		return
	}
	r.registry.Settle(entry.Pool(), name)
	r.registry.Doubt(name, entry.Generation)
}

// dropOn stops keeping a key whose entry no longer says what is to be kept, or must not keep it. Where the API
// server did not answer, nothing is known, and what was kept is kept on.
func (r *cacheEntryReconciler) dropOn(name types.NamespacedName, err error) {
	if _, ok := errors.AsType[*status.Verdict](err); ok {
		r.registry.Drop(name)
	}
}

// holds is nil when the entry is the one that holds its key, or only observes it: of several that declare it, the oldest
// holds it.
func (r *cacheEntryReconciler) holds(ctx context.Context, entry *v1alpha1.CacheEntry, pool *livePool) error {
	if entry.EffectivePolicy() == v1alpha1.PolicyObserve {
		return nil
	}
	near, err := r.pools.neighbors(ctx, pool.CachePool)
	if err != nil {
		return err
	}
	all := r.claims.At(places(near, fullName(pool.CachePool, claimOf(entry).Place))...)
	claimed := r.pools.admitted(ctx, near, slices.Clone(all))
	again := wait.Jitter(pool.Spec.ResyncPeriod.Duration, jitter) // should nobody tell that the other's pool has moved away
	switch {
	case len(claimed) == 0:
		return nil
	case claimed[0].UID == entry.UID:
		r.takeOver(ctx, entry, all)
		return nil
	case claimed[0].Entry.Namespace == entry.Namespace:
		return status.Stalled(v1alpha1.ReasonKeyConflict, "CacheEntry %q is older and declares the same key", claimed[0].Entry.Name).In(again)
	default:
		return status.Stalled(v1alpha1.ReasonKeyConflict, "An older CacheEntry of another namespace declares the same key").In(again)
	}
}

// takeOver a key from the others who claim it. One of them may have held it until now, and not know yet; or it holds it
// already, or another key by now, and it is this look that is out of date: whoever was at work looks again.
func (r *cacheEntryReconciler) takeOver(ctx context.Context, entry *v1alpha1.CacheEntry, all []claims.Claim) {
	for _, other := range all {
		if other.UID != entry.UID && r.registry.Drop(other.Entry) {
			r.tell(ctx, other.Entry)
		}
	}
}

// forgetAbout an entry that is no more.
func (r *cacheEntryReconciler) forgetAbout(ctx context.Context, name types.NamespacedName) {
	r.tellRivals(ctx, name, r.claims.Delete(name, ""))
	r.registry.Gone(name)
	r.unseen.forget(name)
}

// claimOf an entry.
func claimOf(entry *v1alpha1.CacheEntry) claims.Claim {
	return claims.Claim{
		Place:      claims.PlaceOf(entry.Pool(), entry.Namespace, entry.Spec.Key),
		Entry:      client.ObjectKeyFromObject(entry),
		UID:        entry.UID,
		Created:    entry.CreationTimestamp.Time,
		Generation: entry.Generation,
		Observes:   entry.EffectivePolicy() == v1alpha1.PolicyObserve,
	}
}
