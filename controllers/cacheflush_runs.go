// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/cache"
)

const (
	// maxDoublings of the wait after a failed slice.
	maxDoublings = 6
	// firstRetry and maxRetry bound the wait after a failed slice, as for a Job.
	firstRetry, maxRetry = 10 * time.Second, 6 * time.Minute
)

// startupPatience is how long a run waits at most for entries that were not looked at since the operator's start. Ten
// thousand take three seconds.
const startupPatience = 30 * time.Second

// run is what the operator knows of a flush's run besides its status. An operator that starts anew has forgotten: it
// tries at once what has failed, counts anew, and may have a declared key written a second time.
type run struct {
	uid   types.UID
	runID string
	// until is when the run may go on that has failed, unless a look is requested anew.
	until     time.Time
	requested string
	// began is when the run first had its turn here.
	began time.Time
	// count of the keys that would go.
	count count
	// rewritten keys, by their full names: they are back, and stay.
	rewritten map[string]bool
}

// count of keys, as far as it has come.
type count struct {
	from cache.Checkpoint
	keys int64
	done bool
}

// runs of all flushes. One worker at a time works on a flush, and so on its run.
type runs struct {
	mu     sync.Mutex
	byName map[types.NamespacedName]*run
}

// of a flush.
func (r *runs) of(flush *v1alpha1.CacheFlush) *run {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := client.ObjectKeyFromObject(flush)
	known := r.byName[name]
	if known == nil || known.uid != flush.UID || known.runID != flush.Status.RunID {
		known = &run{uid: flush.UID, runID: flush.Status.RunID, rewritten: map[string]bool{}}
		if r.byName == nil {
			r.byName = map[types.NamespacedName]*run{}
		}
		r.byName[name] = known
	}
	return known
}

// forget a flush that has come to its end.
func (r *runs) forget(name types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byName, name)
}

// retryAfter is how long a flush waits that has failed so many times before.
func retryAfter(failures int32) time.Duration {
	return min(maxRetry, firstRetry<<min(failures, maxDoublings))
}

// patient says whether the run waits for what an operator that has just started does not know yet.
func (r *run) patient(now time.Time) bool {
	if r.began.IsZero() {
		r.began = now
	}
	return now.Sub(r.began) < startupPatience
}

// hold the run back until a time, whatever wakes it before.
func (r *run) hold(flush *v1alpha1.CacheFlush, until time.Time) {
	r.until, r.requested = until, requestedAt(flush)
}

// left is how long the run must still wait.
func (r *run) left(flush *v1alpha1.CacheFlush, now time.Time) time.Duration {
	if r.requested != requestedAt(flush) {
		return 0
	}
	return r.until.Sub(now)
}
