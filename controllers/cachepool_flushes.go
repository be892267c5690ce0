// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// maxRecent flushes are listed in the status of their pool.
const maxRecent = 10

// recentFlushes of a pool: those that its status tells of already, whose objects may be gone, and those that have
// finished since.
func (r *cachePoolReconciler) recentFlushes(ctx context.Context, pool *v1alpha1.CachePool) ([]v1alpha1.RecentFlush, error) {
	var list v1alpha1.CacheFlushList
	if err := r.List(ctx, &list, client.InNamespace(pool.Namespace), client.MatchingFields{poolIndex: client.ObjectKeyFromObject(pool).String()}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	recent := slices.Clone(pool.Status.RecentFlushes)
	for i := range list.Items {
		flush := &list.Items[i]
		if !finished(flush) || dryRun(flush) || flush.Status.CompletionTime == nil {
			continue
		}
		record := recordOfFlush(flush)
		if !slices.ContainsFunc(recent, func(o v1alpha1.RecentFlush) bool { return sameRun(o, record) }) {
			recent = slices.Insert(recent, 0, record)
		}
	}
	slices.SortStableFunc(recent, func(a, b v1alpha1.RecentFlush) int { return b.CompletionTime.Compare(a.CompletionTime.Time) })
	return recent[:min(maxRecent, len(recent))], nil
}

func recordOfFlush(flush *v1alpha1.CacheFlush) v1alpha1.RecentFlush {
	record := v1alpha1.RecentFlush{
		Name: flush.Name, Namespace: flush.Namespace, Target: flush.Status.Target, RunID: flush.Status.RunID,
		Result: v1alpha1.ConditionComplete, CompletionTime: flush.Status.CompletionTime.Rfc3339Copy(),
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
	return a.Name == b.Name && a.Namespace == b.Namespace && a.RunID == b.RunID && a.CompletionTime.Equal(&b.CompletionTime)
}
