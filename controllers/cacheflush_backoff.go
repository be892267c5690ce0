// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

const (
	// maxDoublings of the wait after a failed slice.
	maxDoublings = 6
	// firstRetry and maxRetry bound the wait after a failed slice, as for a Job.
	firstRetry, maxRetry = 10 * time.Second, 6 * time.Minute
)

// backoff remembers when flushes that have failed may go on, whatever wakes them before. An operator that starts
// anew has forgotten, and tries at once.
type backoff struct {
	mu    sync.Mutex
	until map[types.NamespacedName]hold
}

// hold is until when the flush with this UID must wait, unless a look is requested anew.
type hold struct {
	uid       types.UID
	until     time.Time
	requested string
}

// retryAfter is how long a flush waits that has failed so many times before.
func retryAfter(failures int32) time.Duration {
	return min(maxRetry, firstRetry<<min(failures, maxDoublings))
}

// hold a flush back.
func (b *backoff) hold(flush *v1alpha1.CacheFlush, until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.until == nil {
		b.until = map[types.NamespacedName]hold{}
	}
	b.until[client.ObjectKeyFromObject(flush)] = hold{uid: flush.UID, until: until, requested: requestedAt(flush)}
}

// left is how long a flush must still wait.
func (b *backoff) left(flush *v1alpha1.CacheFlush, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h := b.until[client.ObjectKeyFromObject(flush)]; h.uid == flush.UID && h.requested == requestedAt(flush) {
		return h.until.Sub(now)
	}
	return 0
}

// forget a flush that is no more.
func (b *backoff) forget(name types.NamespacedName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.until, name)
}
