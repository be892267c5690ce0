// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"
	"strings"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/claims"
	"github.com/cachewright/cachewright/internal/keeper"
	"github.com/cachewright/cachewright/internal/pools"
	"github.com/cachewright/cachewright/internal/status"
)

const (
	// poolGrace is how long a pool may be away before those who are content with it change their status, and
	// poolSpread the time over which they then do: a failover must not cost a write for every entry.
	poolGrace, poolSpread = 60 * time.Second, 60 * time.Second
	// startupDelay is the wait for what an operator that has just started does not know yet.
	startupDelay = 500 * time.Millisecond
)

// poolFinder finds the pool of an entry or a flush, and those that share its server.
type poolFinder struct {
	client   client.Reader
	registry *pools.Registry
	claims   *claims.Index
	synced   func() bool
	clock    clock.PassiveClock
	// namespaces that the operator works in; none: all.
	namespaces []string
	conflicts  conflicts
}

// livePool is a CachePool and its connection.
type livePool struct {
	*v1alpha1.CachePool
	pools.Pool

	name types.NamespacedName
}

// serving finds the pool that an object names, if it may be used as far as the gate says; otherwise the verdict on
// the object.
func (f *poolFinder) serving(ctx context.Context, obj user, gate keeper.Gate) (*livePool, error) {
	name := obj.Pool()
	pool, err := f.pool(ctx, name, obj.GetNamespace())
	switch {
	case err != nil:
		return nil, err
	case pool == nil:
		return nil, status.Waiting(v1alpha1.ReasonPoolNotFound, "No CachePool %q serves this namespace", spoken(name, obj.GetNamespace()))
	case pool.Spec.Suspend:
		return nil, status.Suspended(v1alpha1.ReasonPoolSuspended, "CachePool %q is suspended", spoken(name, obj.GetNamespace()))
	}
	live, ok := f.registry.Get(name)
	switch {
	case !f.synced():
		return nil, status.Silent(startupDelay)
	case ok && live.For(pool.UID) && live.Gate >= gate:
		return &livePool{CachePool: pool, Pool: live, name: name}, nil
	default:
		return nil, f.notReady(obj, pool)
	}
}

// notReady is the verdict on an object whose pool does not serve: none for a while if the object was content, since
// most pools come back soon.
func (f *poolFinder) notReady(obj status.Object, pool *v1alpha1.CachePool) error {
	ready := apimeta.FindStatusCondition(pool.Status.Conditions, v1alpha1.ConditionReady)
	if ready != nil && ready.Status == metav1.ConditionTrue {
		return status.Silent(startupDelay) // the operator has just started, or the pool's failure is about to be written
	}
	if ready != nil && well(obj) {
		if left := poolGrace - f.clock.Since(ready.LastTransitionTime.Time); left > 0 {
			return status.Silent(wait.Jitter(left, float64(poolSpread)/float64(poolGrace)))
		}
	}
	return status.Waiting(v1alpha1.ReasonPoolNotReady, "CachePool %q is not ready", spoken(client.ObjectKeyFromObject(pool), obj.GetNamespace()))
}

// well says whether an object was well, in its present generation, when it was last looked at.
func well(obj status.Object) bool {
	ready := apimeta.FindStatusCondition(*obj.Conditions(), v1alpha1.ConditionReady)
	return ready != nil && ready.ObservedGeneration == obj.GetGeneration() &&
		(ready.Status == metav1.ConditionTrue || ready.Reason == v1alpha1.ReasonRunning)
}

// readyReason is what the Ready condition says.
func readyReason(obj status.Object) string {
	if ready := apimeta.FindStatusCondition(*obj.Conditions(), v1alpha1.ConditionReady); ready != nil {
		return ready.Reason
	}
	return ""
}

// neighbor is a pool on the same server and database.
type neighbor struct {
	pool   *v1alpha1.CachePool
	name   types.NamespacedName
	prefix string
}

// neighbors of a pool, itself included, but for those that do nothing.
func (f *poolFinder) neighbors(ctx context.Context, pool *v1alpha1.CachePool) ([]neighbor, error) {
	var list v1alpha1.CachePoolList
	if err := f.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	var found []neighbor
	for i := range list.Items {
		p := &list.Items[i]
		if name := client.ObjectKeyFromObject(p); f.sameServer(pool, p) && !f.conflicts.has(name) {
			found = append(found, neighbor{pool: p, name: name, prefix: p.EffectiveKeyPrefix()})
		}
	}
	return found, nil
}

// unknown says whether another pool may turn out to be on the server of this one: it was connected once, and that was
// not tried yet since the operator has started.
func (f *poolFinder) unknown(ctx context.Context, pool *v1alpha1.CachePool) (bool, error) {
	var list v1alpha1.CachePoolList
	if err := f.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return false, err
	}
	return slices.ContainsFunc(list.Items, func(p v1alpha1.CachePool) bool {
		return !p.Spec.Suspend && p.Status.Server != nil && database(&p) == database(pool) && !f.sameServer(pool, &p) && !f.registry.WasAttempted(client.ObjectKeyFromObject(&p))
	}), nil
}

// equivalents of a place are the names of the same key in all pools of its server.
func (f *poolFinder) equivalents(ctx context.Context, place claims.Place) []claims.Place {
	pool := &v1alpha1.CachePool{}
	if err := f.client.Get(ctx, place.Pool, pool); err != nil {
		return []claims.Place{place} // no such pool, so no server that others could share
	}
	near, err := f.neighbors(ctx, pool)
	if err != nil {
		return []claims.Place{place}
	}
	return places(near, fullName(pool, place))
}

// sameServer compares where the servers are, and what they say of themselves. What one says may be out of date:
// after a restart it gives itself a new id, which its pools notice one after the other.
func (f *poolFinder) sameServer(a, b *v1alpha1.CachePool) bool {
	nameA, nameB := client.ObjectKeyFromObject(a), client.ObjectKeyFromObject(b)
	if nameA == nameB {
		return true
	}
	liveA, _ := f.registry.Get(nameA)
	liveB, _ := f.registry.Get(nameB)
	atA, okA := endpoint(a, liveA)
	atB, okB := endpoint(b, liveB)
	return okA && okB && (atA == atB || atA.Database == atB.Database && liveA.Server.Same(liveB.Server))
}

// endpoint of a pool: where its connection leads, or else where the spec says; false when only a Secret would tell.
func endpoint(p *v1alpha1.CachePool, live pools.Pool) (pools.Endpoint, bool) {
	at, ok := live.Endpoint()
	if ok = ok && live.For(p.UID); ok || len(p.Spec.Addresses) == 0 {
		return at, ok
	}
	return pools.EndpointOf(destination(p)), true
}

// fullName of a key in Redis.
func fullName(pool *v1alpha1.CachePool, at claims.Place) string {
	return pool.EffectiveKeyPrefix() + at.Key
}

// places gives the names that a key, given by its full name, has in the pools.
func places(in []neighbor, fullName string) []claims.Place { return appendPlaces(nil, in, fullName) }

func appendPlaces(found []claims.Place, in []neighbor, fullName string) []claims.Place {
	for _, n := range in {
		if key, ok := strings.CutPrefix(fullName, n.prefix); ok {
			found = append(found, claims.Place{Pool: n.name, Key: key})
		}
	}
	return found
}

// database of a pool.
func database(p *v1alpha1.CachePool) int {
	if p.Spec.Database == nil {
		return 0
	}
	return int(*p.Spec.Database)
}
