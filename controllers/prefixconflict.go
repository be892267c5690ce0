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
	"github.com/cachewright/cachewright/internal/status"
)

// conflicts are the pools that do nothing, since older ones of other namespaces have their keys.
type conflicts struct {
	mu    sync.RWMutex
	names map[types.NamespacedName]bool
}

func (c *conflicts) has(name types.NamespacedName) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.names[name]
}

// set whether a pool is in conflict. It returns whether that is new.
func (c *conflicts) set(name types.NamespacedName, conflict bool) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed = c.names[name] != conflict
	switch {
	case !conflict:
		delete(c.names, name)
	case c.names == nil:
		c.names = map[types.NamespacedName]bool{name: true}
	default:
		c.names[name] = true
	}
	return changed
}

// vet a pool that is about to be used on a server: the verdict on it when an older one of another namespace has its keys
// there.
func (s *system) vet(ctx context.Context, name types.NamespacedName, server cache.Server) error {
	pool := &v1alpha1.CachePool{}
	if err := s.mgr.GetClient().Get(ctx, name, pool); err != nil {
		return err
	}
	conflict, err := s.finder.conflict(ctx, pool, server)
	if err != nil {
		return err
	}
	if s.finder.conflicts.set(name, conflict) {
		s.openNeighbors(ctx, pool) // entries of this pool held keys until now, or will
	}
	if conflict {
		return status.Stalled(v1alpha1.ReasonPrefixConflict, "An older CachePool of another namespace has an overlapping key prefix on the same server and database, and does not admit this namespace")
	}
	return nil
}

// conflict says whether an older pool of another namespace, which does not admit that of this one, has keys in common with
// it on a server.
func (f *poolFinder) conflict(ctx context.Context, pool *v1alpha1.CachePool, server cache.Server) (bool, error) {
	var list v1alpha1.CachePoolList
	if err := f.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return false, err
	}
	var elsewhere []*v1alpha1.CachePool
	for i := range list.Items {
		older := &list.Items[i]
		if !overlap(pool, older) || !precedes(older, pool) || database(pool) != database(older) {
			continue
		}
		if admitted, err := f.admits(ctx, older, pool.Namespace); err != nil {
			return false, err
		} else if admitted {
			continue
		}
		live, _ := f.registry.Get(client.ObjectKeyFromObject(older))
		if sameAddress(pool, older) || sameID(server, live.Server) {
			return true, nil
		}
		elsewhere = append(elsewhere, older)
	}
	if f.conflicts.has(client.ObjectKeyFromObject(pool)) || inConflict(pool) {
		for _, older := range elsewhere {
			if f.hides(ctx, older, server) {
				return true, nil
			}
		}
	}
	return false, nil
}

// hides says whether a pool that was not seen on a server may be there nevertheless: since the operator has not connected it
// yet, or since the server was restarted, and calls itself otherwise now.
func (f *poolFinder) hides(ctx context.Context, pool *v1alpha1.CachePool, server cache.Server) bool {
	name := client.ObjectKeyFromObject(pool)
	live, _ := f.registry.Get(name)
	if live.Cache == nil {
		return !pool.Spec.Suspend && !f.registry.WasAttempted(name)
	}
	now, err := live.Cache.Check(ctx)
	return err != nil || sameID(now, server)
}

// overlap says whether two pools of different namespaces would have keys in common, were they on the same server.
func overlap(a, b *v1alpha1.CachePool) bool {
	x, y := a.EffectiveKeyPrefix(), b.EffectiveKeyPrefix()
	return a.Namespace != b.Namespace && (strings.HasPrefix(x, y) || strings.HasPrefix(y, x))
}

// precedes says whether a is older than b.
func precedes(a, b *v1alpha1.CachePool) bool {
	if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
		return c < 0
	}
	if c := strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name); c != 0 {
		return c < 0
	}
	return a.UID < b.UID
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
		var list v1alpha1.CachePoolList
		if err := mgr.GetClient().List(ctx, &list, client.InNamespace(o.GetName()), client.UnsafeDisableDeepCopy); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Pools could not be listed")
			return nil
		}
		var found []reconcile.Request
		for i := range list.Items {
			found = append(found, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
		return found
	})
}
