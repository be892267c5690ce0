// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/claims"
	"github.com/cachewright/cachewright/internal/keeper"
	"github.com/cachewright/cachewright/internal/metrics"
	"github.com/cachewright/cachewright/internal/status"
)

// poolRetry is the wait for a pool that broke during a slice, should nothing else tell that it is back.
const poolRetry = 10 * time.Second

// slice does about a second of the work, and says how far it came. When the operator is stopped it ends early, but in
// good order.
func (r *cacheFlushReconciler) slice(ctx context.Context, flush *v1alpha1.CacheFlush, pool *livePool) (*status.Verdict, error) {
	near, err := r.neighbors(ctx, flush, pool)
	if err != nil {
		return nil, err
	}
	if most, whose := maxKeys(flush, pool); most > 0 && !r.counted(flush) {
		return r.count(ctx, flush, pool, near, most, whose)
	}
	sieve := r.sieve(ctx, flush, pool, near)
	result, err := r.scan(ctx, flush, pool, sieve.into(limits(flush, pool)), checkpoint(flush))
	sieve.finish()
	v, err := r.end(ctx, flush, conclude(flush, result, err), err, func() { account(flush, result) })
	if err == nil {
		measure(flush, pool, result)
	}
	return v, err
}

// measure a slice that counts.
func measure(flush *v1alpha1.CacheFlush, pool *livePool, result cache.ScanResult) {
	metrics.FlushKeys(pool.name, metrics.Deleted, result.Deleted)
	metrics.FlushKeys(pool.name, metrics.Preserved, result.Preserved)
	if dryRun(flush) {
		metrics.FlushKeys(pool.name, metrics.Counted, result.Matched-result.Preserved)
	}
	if flush.Scans() {
		metrics.FlushProgress(pool.name, flush.Status.Progress.Percent)
	}
}

// neighbors of the flush's pool, once enough is known of them to tell what is declared.
func (r *cacheFlushReconciler) neighbors(ctx context.Context, flush *v1alpha1.CacheFlush, pool *livePool) ([]neighbor, error) {
	if unknown, err := r.pools.unknown(ctx, pool.CachePool); err != nil || unknown {
		return nil, cmp.Or(err, error(status.Silent(startupDelay)))
	}
	near, err := r.pools.neighbors(ctx, pool.CachePool)
	if err != nil {
		return nil, err
	}
	if flush.Spec.DeclaredEntries == v1alpha1.DeclaredRewrite && r.runs.of(flush).patient(r.clock.Now()) {
		var names []types.NamespacedName
		for _, n := range near {
			if live, _ := r.registry.Get(n.name); live.Gate == keeper.Open {
				names = append(names, n.name)
			}
		}
		if r.claims.Undecided(names) { // or else keys would stay that could be written again
			return nil, status.Silent(startupDelay)
		}
	}
	return near, nil
}

// end a slice: its verdict is written with what it came to.
func (r *cacheFlushReconciler) end(ctx context.Context, flush *v1alpha1.CacheFlush, v *status.Verdict, err error, account func()) (*status.Verdict, error) {
	if left, ok := r.deadline(flush); ok && left <= 0 && v.Terminal == "" {
		v = r.exceeded(flush)
	}
	v.Update = func() {
		account()
		if failure(err) {
			r.runs.of(flush).hold(flush, r.clock.Now().Add(retryAfter(flush.Status.Failures)))
			flush.Status.Failures++
		}
		if v.Terminal != "" {
			flush.Status.CompletionTime = new(metav1.NewTime(r.clock.Now()))
		}
	}
	if err := r.save(context.WithoutCancel(ctx), flush, v); err != nil {
		return nil, err
	}
	v.Update = nil
	return v, nil
}

// limits of a flush: its own, and those of its pool.
func limits(flush *v1alpha1.CacheFlush, pool *livePool) cache.ScanOptions {
	o := cache.ScanOptions{DryRun: dryRun(flush), Sample: len(flush.Status.Sample)}
	if own := flush.Spec.MaxKeysPerSecond; own != nil {
		o.MaxKeysPerSecond = *own
	}
	l := pool.Spec.FlushLimits
	if l == nil {
		return o
	}
	if l.LatencyBudget != nil {
		o.LatencyBudget = l.LatencyBudget.Duration
	}
	if most := l.MaxKeysPerSecond; most != nil && (o.MaxKeysPerSecond == 0 || *most < o.MaxKeysPerSecond) {
		o.MaxKeysPerSecond = *most
	}
	return o
}

// length of a slice: long enough to delete something. Named keys have no checkpoint to save.
func length(flush *v1alpha1.CacheFlush, o cache.ScanOptions, from cache.Checkpoint) time.Duration {
	d := sliceLength
	if flush.Scans() && len(from.Nodes) == 0 {
		d = firstSliceLength
	}
	if o.MaxKeysPerSecond > 0 {
		d = max(d, 2*time.Second/time.Duration(o.MaxKeysPerSecond))
	}
	return d
}

// saveAttempts is how often a slice's end is written anew, should people change the object again and again.
const saveAttempts = 5

// save what a slice came to. Where only the spec or metadata of the flush have changed meanwhile, it is written to what
// the flush is now: what was deleted shall count. Where its status has changed, another operator is at work, and nothing
// is written; nor when a new run is to begin, of which a Complete would be said.
func (r *cacheFlushReconciler) save(ctx context.Context, flush *v1alpha1.CacheFlush, v *status.Verdict) error {
	began := flush.Status.DeepCopy()
	var err error
	for range saveAttempts {
		if err = r.write(ctx, flush, v); !apierrors.IsConflict(err) {
			return err
		}
		live := &v1alpha1.CacheFlush{}
		if getErr := r.reader.Get(ctx, client.ObjectKeyFromObject(flush), live); getErr != nil {
			return getErr
		}
		if !equality.Semantic.DeepEqual(live.Status, *began) || live.Spec.RunID != live.Status.RunID {
			return err
		}
		*flush = *live
	}
	return err
}

// scan the keys of a flush from a checkpoint on, until the slice is over. A failure of the server is told to its pool.
func (r *cacheFlushReconciler) scan(ctx context.Context, flush *v1alpha1.CacheFlush, pool *livePool, o cache.ScanOptions, from cache.Checkpoint) (result cache.ScanResult, err error) {
	deadline := r.clock.Now().Add(length(flush, o, from))
	stop := func() bool { return ctx.Err() != nil || !r.clock.Now().Before(deadline) }
	working, fence := context.WithoutCancel(ctx), claims.Fence(pool.name, flush.Namespace)
	if flush.Scans() {
		result, err = pool.Cache.NewScan(scanned(&flush.Spec).Under(fence), o).Run(working, from, stop)
	} else {
		result, err = pool.Cache.ForgetNamed(working, under(fence, flush.Spec.Keys), o, stop)
	}
	if cache.ServerWide(err) {
		r.registry.Failed(ctx, pool.name, pool.Cache, err)
	}
	return result, err
}

// under a fence stand the keys that a flush names.
func under(fence string, keys []string) []string {
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = fence + key
	}
	return names
}

// scanned is what a flush that scans looks for.
func scanned(spec *v1alpha1.CacheFlushSpec) cache.Target {
	switch {
	case spec.Prefix != "":
		return cache.Prefixed(spec.Prefix)
	case spec.Match != "":
		return cache.Matching(spec.Match)
	default:
		return cache.All()
	}
}

// conclude a slice.
func conclude(flush *v1alpha1.CacheFlush, result cache.ScanResult, err error) *status.Verdict {
	switch {
	case err == nil && result.Checkpoint.Done:
		return complete(flush)
	case err == nil:
		return working(flush, result).In(time.Millisecond)
	case cache.ServerWide(err):
		return working(flush, result).In(poolRetry)
	default:
		return retried(flush, err)
	}
}

// retried is the verdict on a failure that is not the server's as a whole: it is tried again, unless that was done often
// enough or is hopeless.
func retried(flush *v1alpha1.CacheFlush, err error) *status.Verdict {
	e, _ := errors.AsType[*cache.Error](err)
	switch {
	case e != nil && e.Class == cache.Denied:
		return fail(v1alpha1.ReasonPermissionDenied, e.Message)
	case flush.Status.Failures >= flush.EffectiveBackoffLimit():
		return fail(v1alpha1.ReasonBackoffLimitExceeded, err.Error())
	default:
		return status.Waiting(v1alpha1.ReasonFlushFailed, "%s", err.Error()).In(retryAfter(flush.Status.Failures))
	}
}

// failure says whether an error counts against the limit. Waiting for a pool does not.
func failure(err error) bool { return err != nil && !cache.ServerWide(err) }

// working is the verdict on a flush that goes on. That it had to start again is said as long as it does: the slice that
// found it out lasts a second.
func working(flush *v1alpha1.CacheFlush, result cache.ScanResult) *status.Verdict {
	again := status.Working(v1alpha1.ReasonRunning, "Keys are being %s, again from the start, since the server was restarted or replaced", doing(flush))
	if ready := apimeta.FindStatusCondition(flush.Status.Conditions, v1alpha1.ConditionReady); result.Restarted || ready != nil && ready.Message == again.Message {
		return again
	}
	return status.Working(v1alpha1.ReasonRunning, "Keys are being %s", doing(flush))
}

func complete(flush *v1alpha1.CacheFlush) *status.Verdict {
	v := status.Ready(v1alpha1.ReasonKeysFlushed, "Every matching key that was there at the start is gone, unless it is declared or protected")
	if dryRun(flush) {
		v = status.Ready(v1alpha1.ReasonKeysCounted, "The matching keys have been counted, and nothing was deleted")
	}
	v.Terminal = v1alpha1.ConditionComplete
	return v
}

func fail(reason, message string) *status.Verdict {
	v := status.Stalled(reason, "%s", message)
	v.Terminal = v1alpha1.ConditionFailed
	return v
}

// account for a slice in the status.
func account(flush *v1alpha1.CacheFlush, result cache.ScanResult) {
	if flush.Status.Progress == nil { // removed by hand
		flush.Status.Progress = &v1alpha1.FlushProgress{}
	}
	p := flush.Status.Progress
	if result.Restarted {
		p.Preserved = 0 // they are counted again
		if dryRun(flush) {
			p.Matched, flush.Status.Sample = 0, nil
		}
	}
	p.Matched += result.Matched
	p.Deleted += result.Deleted
	p.Preserved += result.Preserved
	p.Percent = result.Checkpoint.Percent()
	fence := claims.Fence(flush.Pool(), flush.Namespace)
	for _, name := range result.Sample {
		flush.Status.Sample = append(flush.Status.Sample, shorten(strings.TrimPrefix(name, fence), maxSampled))
	}
	saveCheckpoint(flush, result.Checkpoint)
}

func saveCheckpoint(flush *v1alpha1.CacheFlush, c cache.Checkpoint) {
	flush.Status.Checkpoints = nil
	for _, n := range c.Nodes {
		flush.Status.Checkpoints = append(flush.Status.Checkpoints, v1alpha1.FlushCheckpoint{
			Node: n.Node, ServerID: n.ServerID, Cursor: strconv.FormatUint(n.Cursor, 10), Done: n.Done,
		})
	}
}

// checkpoint to go on from. A node whose cursor was edited beyond recognition is left out: it is scanned from the start,
// which is always safe.
func checkpoint(flush *v1alpha1.CacheFlush) (from cache.Checkpoint) {
	for _, c := range flush.Status.Checkpoints {
		if cursor, err := strconv.ParseUint(c.Cursor, 10, 64); err == nil {
			from.Nodes = append(from.Nodes, cache.NodeCheckpoint{Node: c.Node, ServerID: c.ServerID, Cursor: cursor, Done: c.Done})
		}
	}
	return from
}

// Lengths, in characters, of what is quoted in the status in full: a key or pattern of the target, and a sampled key.
const maxTarget, maxSampled = 80, 2048

// target says in words what a flush takes.
func target(spec *v1alpha1.CacheFlushSpec) string {
	switch {
	case spec.Prefix != "":
		return "prefix " + quote(spec.Prefix)
	case spec.Match != "":
		return "match " + quote(spec.Match)
	case len(spec.Keys) == 1:
		return "key " + quote(spec.Keys[0])
	case len(spec.Keys) > 1:
		return fmt.Sprintf("%d keys", len(spec.Keys))
	default:
		return "all"
	}
}

func quote(text string) string { return `"` + shorten(text, maxTarget) + `"` }

func shorten(text string, length int) string {
	if runes := []rune(text); len(runes) > length {
		return string(runes[:length-1]) + "…"
	}
	return text
}
