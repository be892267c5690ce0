// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// maxRecent flushes are listed in the status of their pool.
const maxRecent = 10

// endings are the last flushes of each pool that have finished since the operator's start: their objects may go, or begin
// a new run, before the status of the pool tells of them.
type endings struct {
	mu     sync.Mutex
	byPool map[types.NamespacedName][]v1alpha1.RecentFlush
}

// add a flush to those of its pool.
func (e *endings) add(pool types.NamespacedName, record v1alpha1.RecentFlush) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.byPool == nil {
		e.byPool = map[types.NamespacedName][]v1alpha1.RecentFlush{}
	}
	e.byPool[pool] = latest(append(e.byPool[pool], record))
}

// of a pool.
func (e *endings) of(pool types.NamespacedName) []v1alpha1.RecentFlush {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.byPool[pool])
}

// forget a pool that is no more.
func (e *endings) forget(pool types.NamespacedName) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.byPool, pool)
}

// recentFlushes of a pool: those that its status tells of already, whose objects may be gone, and those that have
// finished since. A flush whose spec asks for another run may speak of another pool by now.
func (r *cachePoolReconciler) recentFlushes(ctx context.Context, pool *v1alpha1.CachePool) ([]v1alpha1.RecentFlush, error) {
	var list v1alpha1.CacheFlushList
	if err := r.List(ctx, &list, client.InNamespace(pool.Namespace), client.MatchingFields{poolIndex: client.ObjectKeyFromObject(pool).String()}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	recent := slices.Concat(pool.Status.RecentFlushes, r.endings.of(client.ObjectKeyFromObject(pool)))
	for i := range list.Items {
		flush := &list.Items[i]
		if finished(flush) && !dryRun(flush) && flush.Status.CompletionTime != nil && flush.Spec.RunID == flush.Status.RunID {
			recent = append(recent, recordOfFlush(flush))
		}
	}
	return latest(recent), nil
}

// latest runs, the last one first, each once. Runs of one second are in the order of their names.
func latest(runs []v1alpha1.RecentFlush) []v1alpha1.RecentFlush {
	slices.SortFunc(runs, func(a, b v1alpha1.RecentFlush) int {
		return cmp.Or(b.CompletionTime.Compare(a.CompletionTime.Time), strings.Compare(a.Name, b.Name), strings.Compare(a.RunID, b.RunID))
	})
	runs = slices.CompactFunc(runs, sameRun)
	return runs[:min(maxRecent, len(runs))]
}

func recordOfFlush(flush *v1alpha1.CacheFlush) v1alpha1.RecentFlush {
	record := v1alpha1.RecentFlush{
		Name: flush.Name, Namespace: flush.Namespace, Target: flush.Status.Target, RunID: flush.Status.RunID,
		Result: v1alpha1.ConditionComplete,
	}
	if at := flush.Status.CompletionTime; at != nil {
		record.CompletionTime = at.Rfc3339Copy()
	}
	if failed(flush) {
		record.Result = v1alpha1.ConditionFailed
	}
	if flush.Status.Progress != nil {
		record.Deleted = flush.Status.Progress.Deleted
	}
	return record
}

// sameRun says whether two records tell of one run.
func sameRun(a, b v1alpha1.RecentFlush) bool {
	return a.Name == b.Name && a.RunID == b.RunID && a.CompletionTime.Equal(&b.CompletionTime)
}
