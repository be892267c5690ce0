// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/claims"
	"github.com/cachewright/cachewright/internal/keeper"
	"github.com/cachewright/cachewright/internal/metrics"
	"github.com/cachewright/cachewright/internal/pools"
	"github.com/cachewright/cachewright/internal/status"
)

// sliceLength is how long a flush works before it saves where it is. The first slice is short, so that a flush soon
// tells how far it is and never loses much.
const sliceLength, firstSliceLength = time.Second, 100 * time.Millisecond

// cacheFlushReconciler runs CacheFlushes, a slice at a time.
type cacheFlushReconciler struct {
	client.Client
	finisher

	// reader reads the flush from the API server before each slice: a cache that lags must not delete keys twice.
	reader   client.Reader
	pools    *poolFinder
	registry *pools.Registry
	claims   *claims.Index
	runs     runs
	turns    turns
	// tellEnd tells a pool of a run that has finished.
	tellEnd func(ctx context.Context, pool types.NamespacedName, record v1alpha1.RecentFlush)
}

// +kubebuilder:rbac:groups=cachewright.dev,resources=cacheflushes,verbs=get;list;watch;delete
// +kubebuilder:rbac:groups=cachewright.dev,resources=cacheflushes/status,verbs=patch

// Reconcile runs one slice of a flush, or finds out why it must wait.
func (r *cacheFlushReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	flush := &v1alpha1.CacheFlush{}
	if err := r.Get(ctx, req.NamespacedName, flush); err != nil {
		r.runs.forget(req.NamespacedName)
		r.turns.end(req.NamespacedName)
		r.unseen.forget(req.NamespacedName)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	over := finished(flush)
	verdict, err := r.reconcile(ctx, flush)
	if v, ok := errors.AsType[*status.Verdict](err); ok {
		verdict, err = v, nil
	}
	if err == nil && !finished(flush) {
		suspended := verdict.Suspended != ""
		verdict = r.bounded(flush, verdict).Also(func() {
			flush.Status.Target = target(&flush.Spec)
			if suspended { // as for a Job: its time begins anew
				flush.Status.StartTime = nil
			}
		})
	}
	result, err := r.finish(context.WithoutCancel(ctx), flush, verdict, err) // also when the operator is stopped
	if verdict != nil && verdict.Written {
		r.written(ctx, flush, over)
	}
	return result, err
}

// written : others know now what has become of the flush. over says that it was finished before.
func (r *cacheFlushReconciler) written(ctx context.Context, flush *v1alpha1.CacheFlush, over bool) {
	name, pool := client.ObjectKeyFromObject(flush), flush.Pool()
	if !running(flush) || !flush.DeletionTimestamp.IsZero() {
		r.turns.end(name)
	}
	if !finished(flush) {
		return
	}
	r.runs.forget(name)
	if over || r.Get(ctx, pool, &v1alpha1.CachePool{}) != nil { // or else there is nobody whom to tell
		return
	}
	record := recordOfFlush(flush)
	metrics.FlushFinished(pool, string(record.Result))
	if !dryRun(flush) && pool.Namespace == flush.Namespace {
		r.tellEnd(ctx, pool, record)
	}
}

func (r *cacheFlushReconciler) reconcile(ctx context.Context, flush *v1alpha1.CacheFlush) (*status.Verdict, error) {
	if !flush.DeletionTimestamp.IsZero() {
		return status.Silent(0), nil
	}
	if flush.Spec.RunID != flush.Status.RunID {
		return r.begin(flush), nil
	}
	if finished(flush) {
		return r.expire(ctx, flush)
	}
	if flush.Spec.Suspend {
		return suspended(v1alpha1.ReasonSuspended, "The flush is suspended"), nil
	}
	pool, err := r.pool(ctx, flush)
	if err != nil {
		return nil, err
	}
	if left := r.runs.of(flush).left(flush, r.clock.Now()); left > 0 {
		return backingOff(flush).In(left), nil
	}
	if err := r.turn(ctx, flush, pool); err != nil {
		return nil, err
	}
	if err := r.claim(ctx, flush, pool); err != nil {
		return nil, err
	}
	return r.slice(ctx, flush, pool)
}

// pool of a flush, if that serves, and the flush still has time. The time stands still while the pool is suspended.
func (r *cacheFlushReconciler) pool(ctx context.Context, flush *v1alpha1.CacheFlush) (*livePool, error) {
	pool, err := r.pools.serving(ctx, flush, keeper.DeletionsOnly)
	if v, ok := errors.AsType[*status.Verdict](err); ok && v.Suspended != "" {
		return nil, asFlush(err)
	}
	if left, ok := r.deadline(flush); ok && left <= 0 {
		return nil, r.exceeded(flush)
	}
	if err != nil {
		return nil, asFlush(err)
	}
	return pool, nil
}

// begin a new run: what is known of the last one is cleared, in one write.
func (r *cacheFlushReconciler) begin(flush *v1alpha1.CacheFlush) *status.Verdict {
	name := client.ObjectKeyFromObject(flush)
	r.runs.forget(name)
	r.turns.end(name)
	return status.Working(v1alpha1.ReasonQueued, "Run %q is about to begin", flush.Spec.RunID).In(time.Millisecond).
		Also(func() { flush.Status = v1alpha1.CacheFlushStatus{RunID: flush.Spec.RunID} })
}

// deadline is how long the flush may still take; false when it may take as long as it likes, or has not started.
func (r *cacheFlushReconciler) deadline(flush *v1alpha1.CacheFlush) (left time.Duration, ok bool) {
	limit := flush.Spec.ActiveDeadlineSeconds
	if limit == nil || flush.Status.StartTime == nil || *limit > int64(math.MaxInt64/time.Second) {
		return 0, false
	}
	return time.Duration(*limit)*time.Second - r.clock.Since(flush.Status.StartTime.Time), true
}

// bounded has a flush looked at again when its deadline passes, whatever it waits for.
func (r *cacheFlushReconciler) bounded(flush *v1alpha1.CacheFlush, v *status.Verdict) *status.Verdict {
	left, ok := r.deadline(flush)
	if !ok || v.Terminal != "" || v.Suspended != "" || !flush.DeletionTimestamp.IsZero() {
		return v
	}
	if left = max(left, time.Millisecond); v.After == 0 || left < v.After {
		v.After = left
	}
	return v
}

// exceeded is the verdict on a flush that has taken too long.
func (r *cacheFlushReconciler) exceeded(flush *v1alpha1.CacheFlush) *status.Verdict {
	v := fail(v1alpha1.ReasonDeadlineExceeded, fmt.Sprintf("The flush took longer than %d seconds", *flush.Spec.ActiveDeadlineSeconds))
	return v.Also(func() { flush.Status.CompletionTime = new(metav1.NewTime(r.clock.Now())) })
}

// claim the run: read the flush anew, and have it say Running before the first key is deleted. If anything has
// changed since the cache was filled, another look is due first.
func (r *cacheFlushReconciler) claim(ctx context.Context, flush *v1alpha1.CacheFlush, pool *livePool) error {
	live := &v1alpha1.CacheFlush{}
	if err := r.reader.Get(ctx, client.ObjectKeyFromObject(flush), live); err != nil {
		return err
	}
	changed := live.UID != flush.UID || live.Generation != flush.Generation || !live.DeletionTimestamp.IsZero()
	if changed || finished(live) || live.Spec.RunID != live.Status.RunID {
		return status.Silent(conflictDelay)
	}
	*flush = *live
	if running(flush) && flush.Status.ObservedGeneration == flush.Generation && flush.Status.StartTime != nil {
		return nil
	}
	r.runs.of(flush).count = count{} // it may be long ago
	v := r.working(flush, pool)
	v.Update = func() {
		flush.Status.Target = target(&flush.Spec)
		if flush.Status.StartTime == nil {
			flush.Status.StartTime = new(metav1.NewTime(r.clock.Now()))
		}
		if flush.Status.Progress == nil {
			flush.Status.Progress = &v1alpha1.FlushProgress{}
		}
	}
	return r.write(ctx, flush, v)
}

// working is the verdict on a flush that begins to work, or goes on.
func (r *cacheFlushReconciler) working(flush *v1alpha1.CacheFlush, pool *livePool) *status.Verdict {
	if most, _ := maxKeys(flush, pool); most > 0 && !r.counted(flush) {
		return counting(most)
	}
	return status.Working(v1alpha1.ReasonRunning, "Keys are being %s", doing(flush))
}

// backingOff is the verdict on a flush that waits after a failure. It says so still after a suspension or the absence of
// its pool has changed what it said.
func backingOff(flush *v1alpha1.CacheFlush) *status.Verdict {
	if c := apimeta.FindStatusCondition(flush.Status.Conditions, v1alpha1.ConditionReconciling); c != nil && c.Reason == v1alpha1.ReasonProgressingWithRetry && c.ObservedGeneration == flush.Generation {
		return status.Silent(0)
	}
	return status.Waiting(v1alpha1.ReasonFlushFailed, "The flush has failed and is tried again")
}

// doing is what a flush does to keys.
func doing(flush *v1alpha1.CacheFlush) string {
	if dryRun(flush) {
		return "counted"
	}
	return "deleted"
}

func dryRun(flush *v1alpha1.CacheFlush) bool { return flush.Spec.Mode == v1alpha1.FlushDryRun }

// expire deletes a finished flush when its time has come.
func (r *cacheFlushReconciler) expire(ctx context.Context, flush *v1alpha1.CacheFlush) (*status.Verdict, error) {
	v := acknowledge(flush)
	ttl := flush.Spec.TTLSecondsAfterFinished
	if ttl == nil || flush.Status.CompletionTime == nil {
		return v, nil
	}
	left := time.Duration(*ttl)*time.Second - r.clock.Since(flush.Status.CompletionTime.Time)
	if left > 0 {
		return v.In(left), nil
	}
	err := r.Delete(ctx, flush, client.Preconditions{UID: &flush.UID, ResourceVersion: &flush.ResourceVersion})
	return v, err
}

// acknowledge a new generation of a finished flush, which changes nothing about it.
func acknowledge(flush *v1alpha1.CacheFlush) *status.Verdict {
	v := &status.Verdict{Ready: metav1.ConditionTrue, Terminal: v1alpha1.ConditionComplete}
	if failed(flush) {
		v.Ready, v.Terminal, v.Stalled = metav1.ConditionFalse, v1alpha1.ConditionFailed, true
	}
	end := apimeta.FindStatusCondition(flush.Status.Conditions, v.Terminal)
	v.Reason, v.Message = end.Reason, end.Message
	return v
}

// finished says whether a flush has come to its end.
func finished(flush *v1alpha1.CacheFlush) bool {
	return failed(flush) || apimeta.IsStatusConditionTrue(flush.Status.Conditions, v1alpha1.ConditionComplete)
}

func failed(flush *v1alpha1.CacheFlush) bool {
	return apimeta.IsStatusConditionTrue(flush.Status.Conditions, v1alpha1.ConditionFailed)
}

// suspended : Ready is Unknown, since a flush that stands still is neither done nor failed.
func suspended(reason, message string) *status.Verdict {
	v := status.Suspended(reason, "%s", message)
	v.Ready = metav1.ConditionUnknown
	return v
}

// asFlush puts what stands in the way of any object into the words of a flush: while it waits for its pool, the
// reason of Reconciling is that of Ready.
func asFlush(err error) error {
	v, ok := errors.AsType[*status.Verdict](err)
	switch {
	case !ok || v.Silent:
		return err
	case v.Suspended != "":
		return suspended(v.Suspended, v.Message)
	default:
		waiting := *v
		waiting.Reconciling = v.Reason
		return &waiting
	}
}
