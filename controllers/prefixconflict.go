// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/pools"
	"github.com/cachewright/cachewright/internal/status"
)

// conflicts are the pools that do nothing, by the older ones of other namespaces that have their keys.
type conflicts struct {
	mu    sync.RWMutex
	older map[types.NamespacedName]types.NamespacedName
}

// with which pool one is in conflict.
func (c *conflicts) with(name types.NamespacedName) (older types.NamespacedName, conflict bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	older, conflict = c.older[name]
	return older, conflict
}

func (c *conflicts) has(name types.NamespacedName) bool {
	_, conflict := c.with(name)
	return conflict
}

// set with which pool one is in conflict; nil: with none. It returns whether it is in conflict now and was not, or the reverse.
func (c *conflicts) set(name types.NamespacedName, older *v1alpha1.CachePool) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, was := c.older[name]
	if older == nil {
		delete(c.older, name)
		return was
	}
	if c.older == nil {
		c.older = map[types.NamespacedName]types.NamespacedName{}
	}
	c.older[name] = client.ObjectKeyFromObject(older)
	return !was
}

// vet a pool that is about to be used on a server: the verdict on it when an older one of another namespace has its keys
// there.
func (s *system) vet(ctx context.Context, name types.NamespacedName, at pools.Endpoint, server cache.Server) error {
	pool := &v1alpha1.CachePool{}
	if err := s.mgr.GetClient().Get(ctx, name, pool); err != nil {
		return err
	}
	older, err := s.finder.conflict(ctx, pool, at, server)
	if err != nil {
		return err
	}
	if s.finder.conflicts.set(name, older) {
		s.openNeighbors(ctx, pool) // entries of this pool held keys until now, or will
	}
	if older != nil {
		return status.Stalled(v1alpha1.ReasonPrefixConflict, "An older CachePool of another namespace has an overlapping key prefix on the same server and database, and does not admit this namespace")
	}
	return nil
}

// conflict finds an older pool of another namespace, which does not admit that of this one, with keys in common on a server;
// nil if there is none.
func (f *poolFinder) conflict(ctx context.Context, pool *v1alpha1.CachePool, at pools.Endpoint, server cache.Server) (*v1alpha1.CachePool, error) {
	var list v1alpha1.CachePoolList
	if err := f.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	var elsewhere []*v1alpha1.CachePool
	for i := range list.Items {
		older := &list.Items[i]
		if !overlap(pool, older) || !precedes(older, pool) {
			continue
		}
		if admitted, err := f.admits(ctx, older, pool.Namespace); err != nil {
			return nil, err
		} else if admitted {
			continue
		}
		switch f.encounter(older, at, server) {
		case met:
			return older, nil
		case unmet:
			elsewhere = append(elsewhere, older)
		case apart:
		}
	}
	for _, older := range elsewhere {
		if f.lingers(ctx, pool, older, server) {
			return older, nil
		}
	}
	return nil, nil //nolint:nilnil // no pool is an answer
}

// encounter of two pools: on one server and database, on different ones as far as is known, or in different databases,
// wherever.
type encounter int

const (
	unmet encounter = iota
	met
	apart
)

func (f *poolFinder) encounter(older *v1alpha1.CachePool, at pools.Endpoint, server cache.Server) encounter {
	live, _ := f.registry.Get(client.ObjectKeyFromObject(older))
	where, known := endpoint(older, live)
	switch {
	case known && where.Database != at.Database:
		return apart
	case known && where == at, server.Same(live.Server):
		return met
	default:
		return unmet
	}
}

// lingers says whether a conflict is not known to be over, though the older pool was last seen on another server: that may be
// the same one, which was restarted and so calls itself otherwise, or this operator has not seen the pool yet.
func (f *poolFinder) lingers(ctx context.Context, pool, older *v1alpha1.CachePool, server cache.Server) bool {
	name := client.ObjectKeyFromObject(older)
	live, _ := f.registry.Get(name)
	if live.Cache == nil {
		return inConflict(pool) && !older.Spec.Suspend && !f.registry.WasAttempted(name)
	}
	if with, _ := f.conflicts.with(client.ObjectKeyFromObject(pool)); with != name {
		return false
	}
	now, err := live.Cache.Check(ctx)
	return err != nil || now.Same(server)
}

// overlap says whether two pools of different namespaces would have keys in common, were they on the same server.
func overlap(a, b *v1alpha1.CachePool) bool {
	x, y := a.EffectiveKeyPrefix(), b.EffectiveKeyPrefix()
	return a.Namespace != b.Namespace && (strings.HasPrefix(x, y) || strings.HasPrefix(y, x))
}

func inConflict(pool *v1alpha1.CachePool) bool {
	return readyReason(pool) == v1alpha1.ReasonPrefixConflict
}

// rivals of a pool, which may be in conflict with it now, or no more.
func (s *system) rivals(ctx context.Context, o client.Object) []reconcile.Request {
	pool, ok := o.(*v1alpha1.CachePool)
	if !ok {
		return nil
	}
	var list v1alpha1.CachePoolList
	if err := s.mgr.GetClient().List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Pools could not be listed")
		return nil
	}
	var found []reconcile.Request
	for i := range list.Items {
		if p := &list.Items[i]; overlap(pool, p) && (inConflict(p) || s.finder.sameServer(pool, p)) {
			found = append(found, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(p)})
		}
	}
	return found
}

// residents maps a Namespace to its pools: those of others may admit it now, or no more.
func residents(mgr ctrl.Manager) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		return find(ctx, mgr, &v1alpha1.CachePoolList{}, client.InNamespace(o.GetName()))
	})
}
