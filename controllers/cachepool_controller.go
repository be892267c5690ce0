// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/metrics"
	"github.com/cachewright/cachewright/internal/pools"
	"github.com/cachewright/cachewright/internal/status"
)

// finalizer holds a pool until its entries' keys are dealt with, and an entry until its key is.
const finalizer = "cachewright.dev/keys"

// jitter keeps periods that began together from ending together.
const jitter = 0.1

// cachePoolReconciler connects CachePools and keeps checking them.
type cachePoolReconciler struct {
	client.Client
	finisher

	// reader reads Secrets and ConfigMaps from the API server: the operator keeps no copy of them.
	reader   client.Reader
	pools    *poolFinder
	registry *pools.Registry
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
	// backoff between the probes of a pool that fails.
	backoff  workqueue.TypedRateLimiter[reconcile.Request]
	requests requestLog
	endings  *endings
}

// +kubebuilder:rbac:groups=cachewright.dev,resources=cachepools,verbs=list;watch;patch
// +kubebuilder:rbac:groups=cachewright.dev,resources=cachepools/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=secrets;configmaps,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Reconcile connects or checks one pool.
func (r *cachePoolReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	pool := &v1alpha1.CachePool{}
	if err := r.Get(ctx, req.NamespacedName, pool); err != nil {
		if apierrors.IsNotFound(err) {
			r.backoff.Forget(req)
			r.unseen.forget(req.NamespacedName)
			r.requests.forget(req.NamespacedName)
			r.endings.forget(req.NamespacedName)
			r.pools.conflicts.set(req.NamespacedName, nil)
			return ctrl.Result{}, r.registry.Remove(req.NamespacedName)
		}
		return ctrl.Result{}, err
	}
	if r.unseen.hides(pool) {
		return ctrl.Result{}, nil
	}
	verdict, err := r.reconcile(ctx, pool)
	return r.finish(ctx, pool, verdict, err)
}

func (r *cachePoolReconciler) reconcile(ctx context.Context, pool *v1alpha1.CachePool) (*status.Verdict, error) {
	if !pool.DeletionTimestamp.IsZero() {
		inUse, err := r.inUse(ctx, pool)
		if err != nil {
			return nil, err
		}
		if !inUse {
			return status.Silent(0), r.release(ctx, pool)
		}
	} else if err := r.hold(ctx, pool); err != nil {
		return nil, err
	}
	recent, err := r.recentFlushes(ctx, pool)
	if err != nil {
		return nil, err
	}
	return r.serve(ctx, pool).Also(func() { pool.Status.RecentFlushes = recent }), nil
}

// serve the pool, as far as it is to be used.
func (r *cachePoolReconciler) serve(ctx context.Context, pool *v1alpha1.CachePool) *status.Verdict {
	if pool.Spec.Suspend {
		r.registry.Close(client.ObjectKeyFromObject(pool))
		metrics.Of(client.ObjectKeyFromObject(pool)).Suspended()
		return status.Suspended(v1alpha1.ReasonSuspended, "The pool is suspended")
	}
	verdict := r.connect(ctx, pool)
	if _, err := r.pools.selector(pool); err != nil && verdict.Ready == metav1.ConditionTrue {
		stalled := explain(err).In(verdict.After)
		stalled.Update, verdict = verdict.Update, stalled
	}
	if !pool.DeletionTimestamp.IsZero() {
		return status.Waiting(v1alpha1.ReasonInUse, "CacheEntries or running CacheFlushes of this namespace still use the pool").In(verdict.After)
	}
	return verdict
}

// connect or check, and say how it went.
func (r *cachePoolReconciler) connect(ctx context.Context, pool *v1alpha1.CachePool) *status.Verdict {
	name, period := client.ObjectKeyFromObject(pool), pool.Spec.ResyncPeriod.Duration
	request := reconcile.Request{NamespacedName: name}
	id := pools.Identity{Name: name, UID: pool.UID, Generation: pool.Generation}
	options, secretVersion, err := r.options(ctx, pool)
	if r.requests.isNew(pool) {
		r.registry.Unpause(name)
		period = 0 // all keys are looked at now
	}
	live, _ := r.registry.Get(name)
	pause, failure := r.registry.Pause(name)
	if pause > 0 && live.Uses(options) {
		return explain(failure).In(pause)
	}
	moved := false
	if err == nil {
		moved, err = r.registry.Connect(ctx, id, options)
	}
	r.registry.Attempted(name)
	if moved {
		r.recorder.Eventf(pool, nil, corev1.EventTypeNormal, v1alpha1.ReasonServerChanged, "Connect",
			"Entries are written to %s; keys on the former server or database stay there", place(pool, options))
	}
	live, _ = r.registry.Get(name)
	switch {
	case err == nil:
		r.backoff.Forget(request)
		r.registry.Verify(name, period)
		return serves(live.Server).In(wait.Jitter(pool.Spec.ResyncPeriod.Duration, jitter)).Also(func() { publish(pool, live, secretVersion) })
	case live.Outlives(id, options) && pause == 0 && r.stillServes(ctx, name):
		// What worked goes on working. Where the spec is the same, it is a Secret or ConfigMap that has changed for the worse.
		r.registry.Verify(name, period)
		verdict := explain(err)
		if live.Serves(id) {
			verdict = status.Ready(v1alpha1.ReasonConnected, "Connected with the previous settings, since the new ones do not work: %s", verdict.Message).Warn()
		}
		return verdict.In(r.backoff.When(request))
	default:
		return explain(err).In(r.backoff.When(request))
	}
}

// serves is the verdict on a pool that does.
func serves(server cache.Server) *status.Verdict {
	if server.Lacks != "" {
		return status.Ready(v1alpha1.ReasonConnected, "Connected; the Redis user lacks %s", server.Lacks).Warn()
	}
	return status.Ready(v1alpha1.ReasonConnected, "Connected")
}

// stillServes says whether the connection of before does; that of a pool in conflict must not.
func (r *cachePoolReconciler) stillServes(ctx context.Context, name types.NamespacedName) bool {
	if r.pools.conflicts.has(name) {
		r.registry.Close(name)
		return false
	}
	return r.registry.Check(ctx, name) == nil
}

// publish what is known of the server. How it tells of changes is found out once entries can be kept; until then, what
// the status says is the best guess.
func publish(pool *v1alpha1.CachePool, live pools.Pool, secretVersion string) {
	known := live.Server
	server := &v1alpha1.ServerStatus{Product: known.Product, Version: known.Version, Topology: known.Topology, Nodes: int32(known.Nodes)} //nolint:gosec // a handful of nodes
	if server.ChangeDetection = v1alpha1.ChangeDetection(live.Detects); live.Detects == "" && pool.Status.Server != nil {
		server.ChangeDetection = pool.Status.Server.ChangeDetection
	}
	pool.Status.KeyPrefix = pool.EffectiveKeyPrefix()
	pool.Status.CredentialsResourceVersion = secretVersion
	pool.Status.Server = server
}

// explain turns an error of connecting into the verdict on the pool.
func explain(err error) *status.Verdict {
	if v, ok := errors.AsType[*status.Verdict](err); ok {
		return v
	}
	e, ok := errors.AsType[*cache.Error](err)
	switch {
	case !ok: // the API server, on the way to a Secret
		return status.Waiting(v1alpha1.ReasonConnectionFailed, "%v", err)
	case e.Class == cache.Unavailable:
		return status.Waiting(e.Reason, "%s", e.Message)
	case e.Class == cache.Failed:
		return status.Waiting(v1alpha1.ReasonConnectionFailed, "%s", e.Message)
	default:
		return status.Stalled(e.Reason, "%s", e.Message)
	}
}

// inUse says whether entries or running flushes of the pool's namespace need it still.
func (r *cachePoolReconciler) inUse(ctx context.Context, pool *v1alpha1.CachePool) (bool, error) {
	name := client.ObjectKeyFromObject(pool)
	var entries v1alpha1.CacheEntryList
	if err := r.List(ctx, &entries, client.InNamespace(pool.Namespace), client.MatchingFields{poolIndex: name.String()}, client.UnsafeDisableDeepCopy); err != nil {
		return false, err
	}
	if slices.ContainsFunc(entries.Items, func(e v1alpha1.CacheEntry) bool {
		// A suspended entry does not delete what it has left behind in a pool.
		return e.Pool() == name || !e.Spec.Suspend
	}) {
		return true, nil
	}
	var flushes v1alpha1.CacheFlushList
	if err := r.List(ctx, &flushes, client.InNamespace(pool.Namespace), client.MatchingFields{poolIndex: name.String()}, client.UnsafeDisableDeepCopy); err != nil {
		return false, err
	}
	return slices.ContainsFunc(flushes.Items, func(f v1alpha1.CacheFlush) bool { return running(&f) && f.DeletionTimestamp.IsZero() }), nil
}

// hold the pool by a finalizer.
func (r *cachePoolReconciler) hold(ctx context.Context, pool *v1alpha1.CachePool) error {
	before := pool.DeepCopy()
	if !controllerutil.AddFinalizer(pool, finalizer) {
		return nil
	}
	return r.patch(ctx, pool, before)
}

// release the pool: nobody needs it any more.
func (r *cachePoolReconciler) release(ctx context.Context, pool *v1alpha1.CachePool) error {
	before := pool.DeepCopy()
	if !controllerutil.RemoveFinalizer(pool, finalizer) {
		return nil
	}
	err := r.patch(ctx, pool, before)
	return errors.Join(err, r.registry.Remove(client.ObjectKeyFromObject(pool)))
}

// running says whether a flush is at work.
func running(f *v1alpha1.CacheFlush) bool {
	c := apimeta.FindStatusCondition(f.Status.Conditions, v1alpha1.ConditionReconciling)
	return c != nil && c.Reason == v1alpha1.ReasonRunning
}

// newProbeBackoff starts at a second; its limit is in the contract.
func newProbeBackoff() workqueue.TypedRateLimiter[reconcile.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](time.Second, 30*time.Second)
}
