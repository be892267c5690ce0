// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"
	"time"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/status"
)

// maxKeys that a flush may delete, and whose limit that is; 0: as many as there are.
func maxKeys(flush *v1alpha1.CacheFlush, pool *livePool) (most int64, whose string) {
	if dryRun(flush) {
		return 0, ""
	}
	if own := flush.Spec.MaxKeys; own != nil {
		most, whose = *own, "maxKeys"
	}
	l := pool.Spec.FlushLimits
	if l != nil && l.MaxKeys != nil && (most == 0 || *l.MaxKeys < most) {
		most, whose = *l.MaxKeys, fmt.Sprintf("flushLimits.maxKeys of CachePool %q", spoken(pool.name, flush.Namespace))
	}
	return most, whose
}

// counted says whether the keys need not be counted any more: that was done, or the deletion has begun.
func (r *cacheFlushReconciler) counted(flush *v1alpha1.CacheFlush) bool {
	s := &flush.Status
	return r.runs.of(flush).count.done || len(s.Checkpoints) > 0 || s.Progress != nil && s.Progress.Deleted > 0
}

// count the keys that would go, a slice at a time; too many are the end of the flush. Nothing is saved before the end: what
// is counted anew by another operator, or since the scan was disturbed, costs nobody a key.
func (r *cacheFlushReconciler) count(ctx context.Context, flush *v1alpha1.CacheFlush, pool *livePool, near []neighbor, most int64, whose string) (*status.Verdict, error) {
	c := &r.runs.of(flush).count
	sieve := r.sieve(ctx, flush, pool, near)
	result, err := r.scan(ctx, flush, pool, cache.ScanOptions{DryRun: true, LatencyBudget: limits(flush, pool).LatencyBudget, Preserve: sieve.keeps, Ignore: sieve.ignores}, c.from)
	c.from, c.keys, c.done = result.Checkpoint, c.keys+result.Matched-result.Preserved, result.Checkpoint.Done
	if err != nil || result.Restarted {
		*c = count{}
	}
	var v *status.Verdict
	switch {
	case c.keys > most:
		v = fail(v1alpha1.ReasonTooManyKeys, fmt.Sprintf("More keys would be deleted than the %d that %s allows; none was deleted", most, whose))
	case cache.ServerWide(err):
		v = counting(most).In(poolRetry)
	case err != nil:
		v = retried(flush, err)
	case c.done:
		v = working(flush, result).In(time.Millisecond)
	default:
		v = counting(most).In(time.Millisecond)
	}
	return r.end(ctx, flush, v, err, func() {
		if c.done && v.Terminal == "" { // it is on record from now on that the deletion may begin
			saveCheckpoint(flush, result.Checkpoint.Start())
		}
	})
}

func counting(most int64) *status.Verdict {
	return status.Working(v1alpha1.ReasonRunning, "Keys are being counted first, since at most %d may be deleted", most)
}
