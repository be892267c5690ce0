// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package controllers reconciles CachePools, CacheEntries and CacheFlushes.
package controllers

import (
	"context"
	"errors"
	"net"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/claims"
	"github.com/cachewright/cachewright/internal/metrics"
	"github.com/cachewright/cachewright/internal/pools"
)

// Options of the controllers.
type Options struct {
	// Clock is the real one when it is nil.
	Clock clock.Clock
	// Dial replaces the network towards Redis, for tests and local runs; nil means the network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Namespaces that the operator works in, without the right to read Namespaces; none: it works in all, and has it.
	Namespaces []string
}

// How many objects of a kind are worked on at the same time. Entries mostly wait for the API server, flushes for their
// pool, and pools for servers that do not answer: hundreds of those must not keep others waiting.
const (
	entryWorkers = 16
	poolWorkers  = 256
	flushWorkers = 8
)

// channelSize is how many names may be on their way to a controller before those who tell must wait.
const channelSize = 1024

// names of objects on their way to a controller.
type names chan event.TypedGenericEvent[types.NamespacedName]

// tell a name. It gives up only when the context ends.
func (n names) tell(ctx context.Context, name types.NamespacedName) {
	select {
	case n <- event.TypedGenericEvent[types.NamespacedName]{Object: name}:
	case <-ctx.Done():
	}
}

// system is what the controllers share.
type system struct {
	mgr      ctrl.Manager
	options  Options
	registry *pools.Registry
	claims   *claims.Index
	finder   *poolFinder
	endings  endings
	orphans  orphans
	counts   *metrics.Entries

	// entries and pools to look at, and pools that opened, for entries and for flushes.
	entries, pools, openedForEntries, openedForFlushes names
}

func (s *system) finisher() finisher {
	return finisher{client: s.mgr.GetClient(), recorder: s.mgr.GetEventRecorder("cachewright"), clock: s.options.Clock}
}

// Setup adds the controllers to a manager.
func Setup(ctx context.Context, mgr ctrl.Manager, o Options) error {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	s := &system{
		mgr: mgr, options: o, claims: claims.NewIndex(), counts: metrics.NewEntries(),
		entries: make(names, channelSize), pools: make(names, channelSize),
		openedForEntries: make(names, channelSize), openedForFlushes: make(names, channelSize),
		orphans: orphans{found: make(names, channelSize)},
	}
	s.registry = pools.NewRegistry(o.Clock, pools.Listeners{
		Entry:  s.entries.tell,
		Pool:   s.pools.tell,
		Opened: s.opened,
	})
	s.claims.Left, s.registry.Vet = func(entry types.NamespacedName) { s.registry.Drop(entry) }, s.vet
	s.finder = &poolFinder{client: mgr.GetClient(), registry: s.registry, claims: s.claims, clock: o.Clock, namespaces: o.Namespaces}
	for _, step := range []func(context.Context) error{s.index, s.watchClaims, s.setupPools, s.setupEntries, s.setupFlushes} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return errors.Join(mgr.Add(s.registry), mgr.Add(s.counts))
}

// opened tells those who work in a pool that it serves, and the pools of the same server and their entries: which of them
// holds a key may have become clear now.
func (s *system) opened(ctx context.Context, name types.NamespacedName) {
	s.openedForFlushes.tell(ctx, name)
	s.openedForEntries.tell(ctx, name)
	pool := &v1alpha1.CachePool{}
	if err := s.mgr.GetClient().Get(ctx, name, pool); err != nil {
		return // it is gone, and so shares no server
	}
	for _, rival := range s.rivals(ctx, pool) {
		s.pools.tell(ctx, rival.NamespacedName)
	}
	s.openNeighbors(ctx, pool)
}

// openNeighbors has the entries of the other pools on the same server looked at.
func (s *system) openNeighbors(ctx context.Context, pool *v1alpha1.CachePool) {
	near, err := s.finder.neighbors(ctx, pool)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Pools could not be listed")
	}
	for _, n := range near {
		if n.name != client.ObjectKeyFromObject(pool) {
			s.openedForEntries.tell(ctx, n.name)
		}
	}
}

// watchClaims keeps the index of claims and the count of entries, and has those looked at whose key is claimed or given up by another.
func (s *system) watchClaims(ctx context.Context) error {
	informer, err := s.mgr.GetCache().GetInformer(ctx, &v1alpha1.CacheEntry{})
	if err != nil {
		return err
	}
	claim := func(object any) {
		entry, ok := object.(*v1alpha1.CacheEntry)
		if !ok {
			return
		}
		name := client.ObjectKeyFromObject(entry)
		s.counts.Set(name, stateOf(entry))
		if entry.DeletionTimestamp.IsZero() {
			s.tellRivals(ctx, name, s.claims.Set(claimOf(entry)))
		} else {
			s.tellRivals(ctx, name, s.claims.Delete(name, entry.UID))
		}
	}
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    claim,
		UpdateFunc: func(_, object any) { claim(object) },
		DeleteFunc: func(object any) {
			if last, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
				object = last.Obj
			}
			if entry, ok := object.(*v1alpha1.CacheEntry); ok {
				name := client.ObjectKeyFromObject(entry)
				s.counts.Delete(name)
				s.tellRivals(ctx, name, s.claims.Delete(name, entry.UID))
				if s.elected() {
					s.orphans.add(ctx, entry)
				}
			}
		},
	})
	if err != nil {
		return err
	}
	s.finder.synced = registration.HasSynced
	return nil
}

// stateOf an entry, for the metrics.
func stateOf(entry *v1alpha1.CacheEntry) metrics.EntryState {
	state := metrics.EntryState{Pool: entry.Pool(), Ready: "unknown", Reason: v1alpha1.ReasonProgressing} // as long as nobody has looked
	if ready := apimeta.FindStatusCondition(entry.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		state.Ready, state.Reason = strings.ToLower(string(ready.Status)), ready.Reason
	}
	return state
}

// elected says whether this operator works.
func (s *system) elected() bool {
	select {
	case <-s.mgr.Elected():
		return true
	default:
		return false
	}
}

// tellRivals has every other entry looked at that claims one of these keys, by any pool of the server.
func (s *system) tellRivals(ctx context.Context, entry types.NamespacedName, changed []claims.Place) {
	if !s.elected() {
		return // nobody reads the channel yet; when that begins, every entry is looked at anyway
	}
	for _, place := range changed {
		for _, c := range s.claims.At(s.finder.equivalents(ctx, place)...) {
			if c.Entry != entry {
				s.entries.tell(ctx, c.Entry)
			}
		}
	}
}

func (s *system) setupPools(context.Context) error {
	r := &cachePoolReconciler{
		Client: s.mgr.GetClient(), finisher: s.finisher(), reader: s.mgr.GetAPIReader(),
		pools: s.finder, registry: s.registry, dial: s.options.Dial, backoff: newProbeBackoff(), endings: &s.endings,
	}
	b := ctrl.NewControllerManagedBy(s.mgr).For(&v1alpha1.CachePool{}).
		Watches(&v1alpha1.CachePool{}, handler.EnqueueRequestsFromMapFunc(s.rivals), builder.WithPredicates(predicate.GenerationChangedPredicate{}))
	if len(s.options.Namespaces) == 0 {
		b = b.WatchesMetadata(&corev1.Namespace{}, residents(s.mgr), builder.WithPredicates(predicate.LabelChangedPredicate{}))
	}
	return b.
		WatchesMetadata(&corev1.Secret{}, requests(s.mgr, &v1alpha1.CachePoolList{}, secretIndex)).
		WatchesMetadata(&corev1.ConfigMap{}, requests(s.mgr, &v1alpha1.CachePoolList{}, configMapIndex)).
		Watches(&v1alpha1.CacheEntry{}, poolOf(), builder.WithPredicates(gone())).
		Watches(&v1alpha1.CacheFlush{}, poolOf(), builder.WithPredicates(gone())).
		WatchesRawSource(source.TypedChannel(s.pools, enqueue())).
		WithOptions(controller.Options{MaxConcurrentReconciles: poolWorkers}).
		Complete(r)
}

// build a controller of those who work in pools.
func (s *system) build(kind client.ObjectList) *builder.Builder {
	b := ctrl.NewControllerManagedBy(s.mgr).
		Watches(&v1alpha1.CachePool{}, users(s.mgr, kind), builder.WithPredicates(readinessChanged()))
	if len(s.options.Namespaces) == 0 {
		b = b.WatchesMetadata(&corev1.Namespace{}, guests(s.mgr, kind), builder.WithPredicates(predicate.LabelChangedPredicate{}))
	}
	return b
}

func (s *system) setupEntries(context.Context) error {
	r := &cacheEntryReconciler{
		Client: s.mgr.GetClient(), finisher: s.finisher(), reader: s.mgr.GetAPIReader(),
		pools: s.finder, registry: s.registry, claims: s.claims, tell: s.entries.tell, tellRivals: s.tellRivals,
	}
	s.orphans.cacheEntryReconciler = r
	if err := ctrl.NewControllerManagedBy(s.mgr).Named("orphan").WatchesRawSource(source.TypedChannel(s.orphans.found, enqueue())).Complete(&s.orphans); err != nil {
		return err
	}
	return s.build(&v1alpha1.CacheEntryList{}).
		For(&v1alpha1.CacheEntry{}).
		WatchesMetadata(&corev1.ConfigMap{}, requests(s.mgr, &v1alpha1.CacheEntryList{}, configMapIndex)).
		WatchesMetadata(&corev1.Secret{}, requests(s.mgr, &v1alpha1.CacheEntryList{}, secretIndex)).
		WatchesRawSource(source.TypedChannel(s.entries, enqueue())).
		WatchesRawSource(source.TypedChannel(s.openedForEntries, dependents(s.mgr, &v1alpha1.CacheEntryList{}))).
		WithOptions(controller.Options{MaxConcurrentReconciles: entryWorkers}).
		Complete(r)
}

// ended tells a pool of a flush that has finished.
func (s *system) ended(ctx context.Context, pool types.NamespacedName, record v1alpha1.RecentFlush) {
	s.endings.add(pool, record)
	s.pools.tell(ctx, pool)
}

func (s *system) setupFlushes(context.Context) error {
	r := &cacheFlushReconciler{
		Client: s.mgr.GetClient(), finisher: s.finisher(), reader: s.mgr.GetAPIReader(),
		pools: s.finder, registry: s.registry, claims: s.claims, tellEnd: s.ended,
	}
	return s.build(&v1alpha1.CacheFlushList{}).
		For(&v1alpha1.CacheFlush{}).
		Watches(&v1alpha1.CacheFlush{}, handler.EnqueueRequestsFromMapFunc(r.behind), builder.WithPredicates(freesTurn())).
		WatchesRawSource(source.TypedChannel(s.openedForFlushes, dependents(s.mgr, &v1alpha1.CacheFlushList{}))).
		WithOptions(controller.Options{MaxConcurrentReconciles: flushWorkers}).
		Complete(r)
}
