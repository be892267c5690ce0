// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"context"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/cachewright/cachewright/internal/cache"
)

// Detection is how changes by others are noticed, in the words of the API.
type Detection string

// Polling : the server does not tell; sweeps find out. The other ways are those of package cache.
const Polling Detection = "Polling"

const (
	// watchPause is the wait before a watch that broke is begun again, and its limit.
	watchPause, maxWatchPause = 50 * time.Millisecond, 30 * time.Second
	// steady is how long a watch must have lasted for its end to count as the first.
	steady = 10 * time.Second
	// pollingTime is how long a server that does not tell of changes is left in peace, and noisyTime one that makes them
	// up.
	pollingTime, noisyTime = 5 * time.Minute, time.Hour
	// maxAttempts to begin a watch fail before it is said that there is none.
	maxAttempts = 3
	// idlePeriod is the time in which a watch may tell of idleBase changes that are none, and of idleFactor for each
	// key, a third of what bursts let through. A server that may remember too few keys (tracking-table-max-keys) makes up
	// changes to forget others.
	idlePeriod           = time.Minute
	idleBase, idleFactor = 1000, 20
)

// errNoisy ends a watch that tells of nothing but changes that are none.
var errNoisy = errors.New("the server tells of changes that are none")

// watch is what a keeper needs to be told of changes.
type watch struct {
	// end the session that runs.
	end context.CancelCauseFunc
	// used is poked when another pool is used.
	used     chan struct{}
	detects  Detection
	idle     int
	idleFrom time.Time
	// flushes that the server tells of, of any database.
	flushes burst
	// attempts to begin that have failed in a row.
	attempts int
}

func newWatch() watch { return watch{used: make(chan struct{}, 1), end: func(error) {}} }

func (w *watch) poke() {
	select {
	case w.used <- struct{}{}:
	default:
	}
}

// watchServer has the server tell of changes while the gate is open, and begins again whenever a session ends.
func (k *Keeper) watchServer(ctx context.Context) {
	for pause := watchPause; ctx.Err() == nil; {
		session, end, pool := k.beginSession(ctx)
		if pool == nil {
			k.pause(ctx, 0)
			continue
		}
		began := k.clock.Now()
		err := pool.Watch(session, cache.Listener{Began: k.began, Changed: k.roused, Flushed: k.flushed})
		stopped := session.Err() != nil
		noisy := errors.Is(context.Cause(session), errNoisy)
		end(nil)
		switch {
		case noisy:
			k.detect(Polling)
			k.pause(ctx, wait.Jitter(noisyTime, 0.1))
		case errors.Is(err, cache.ErrUnwatchable):
			k.detect(Polling)
			k.pause(ctx, wait.Jitter(pollingTime, 0.1))
		case stopped: // another pool is used, or none
		default:
			k.broke()
			if pause = min(2*pause, maxWatchPause); k.clock.Since(began) >= steady {
				pause = watchPause
			}
			k.pause(ctx, wait.Jitter(pause, 1))
		}
	}
}

// beginSession gives the context of a session, what ends it, and the pool to watch; nil when there is none.
func (k *Keeper) beginSession(ctx context.Context) (context.Context, context.CancelCauseFunc, *cache.Pool) {
	session, end := context.WithCancelCause(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.watch.end = end
	select {
	case <-k.watch.used: // it is used from now on
	default:
	}
	if k.gate != Open {
		end(nil)
		return session, end, nil
	}
	return session, end, k.pool
}

// pause until another pool is used, or for a time unless that is 0.
func (k *Keeper) pause(ctx context.Context, d time.Duration) {
	var timeout <-chan time.Time
	if d > 0 {
		timer := k.clock.NewTimer(d)
		defer timer.Stop()
		timeout = timer.C()
	}
	select {
	case <-ctx.Done():
	case <-k.watch.used:
	case <-timeout:
	}
}

// began : what changed before went unseen.
func (k *Keeper) began(how cache.Detection) {
	k.detect(Detection(how))
	k.mu.Lock()
	k.watch.idle, k.watch.idleFrom, k.watch.attempts = 0, k.clock.Now(), 0
	k.mu.Unlock()
	k.Rewarm()
}

// broke : the watch ended. The owner finds out whether the server is there at all.
func (k *Keeper) broke() {
	k.mu.Lock()
	k.watch.attempts++
	none := k.watch.attempts > maxAttempts
	k.mu.Unlock()
	if none {
		k.detect(Polling)
	} else {
		k.detect("")
	}
}

// flushed : the server has dropped all keys, or those of another database. One flush after the other must not keep the
// keeper busy.
func (k *Keeper) flushed() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sweepLocked(lost, k.watch.flushes.delay(k.clock.Now()))
}

func (k *Keeper) detect(how Detection) {
	k.mu.Lock()
	changed := k.watch.detects != how
	k.watch.detects = how
	k.mu.Unlock()
	if changed {
		k.owner.Detects(how)
	}
}

// roused by a change of keys.
func (k *Keeper) roused(keys []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.clock.Now()
	for _, key := range keys {
		for _, it := range k.byKey[key] {
			if _, once := it.once(); once || it.decl.Counter != nil {
				continue
			}
			it.event = true
			if delay := it.burst.delay(now); delay > 0 {
				k.schedule(it, now.Add(delay))
			} else {
				k.schedule(it, urgent)
			}
		}
	}
}

// burst tells changes of a key that come one after the other from single ones.
type burst struct {
	last  time.Time
	count int
}

const (
	// burstGap is the time without a change that ends a burst.
	burstGap = time.Second
	// atOnce is how many changes of a burst are looked at without delay: one by somebody, and one of our own that
	// puts it right, some times over.
	atOnce = 8
)

// delay of the look at a key that has just changed: none at first, then twice as long each time, up to a second. An
// application that writes a key all the time must not keep the keeper busy.
func (b *burst) delay(now time.Time) time.Duration {
	if now.Sub(b.last) > burstGap {
		b.count = 0
	}
	b.last = now
	b.count++
	if b.count <= atOnce {
		return 0
	}
	return min(burstGap, time.Millisecond<<min(b.count-atOnce, 10))
}

// idle notes that the server told of a change of a key that is as it should be. Too many of these end the watch.
func (k *Keeper) idle(now time.Time) {
	w := &k.watch
	if now.Sub(w.idleFrom) > idlePeriod {
		w.idle, w.idleFrom = 0, now
	}
	w.idle++
	if w.idle > idleBase+idleFactor*len(k.items) {
		w.end(errNoisy)
	}
}

// sweep is a look at all keys.
type sweep struct {
	began time.Time
	left  int
}

// Verify makes the keeper look at all keys.
func (k *Keeper) Verify() { k.sweepAll(0) }

// Rewarm makes the keeper look at all keys at once: the server may have lost them, or changed them unseen.
func (k *Keeper) Rewarm() { k.sweepAll(lost) }

func (k *Keeper) sweepAll(why because) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sweepLocked(why, 0)
}

func (k *Keeper) sweepLocked(why because, delay time.Duration) {
	now := k.clock.Now()
	k.sweep = sweep{began: now}
	for _, it := range k.items {
		if _, once := it.once(); once || it.forget != "" || it.outdated {
			continue
		}
		it.because = max(it.because, why)
		it.unverified = true
		k.sweep.left++
		k.schedule(it, now.Add(delay))
	}
	k.verifiedAll()
}

// verified notes that a key was looked at, or need not be.
func (k *Keeper) verified(it *item) {
	if it.unverified {
		it.unverified = false
		k.sweep.left--
		k.verifiedAll()
	}
}

func (k *Keeper) verifiedAll() {
	if k.sweep.left == 0 {
		k.metrics.Verified(k.sweep.began)
	}
}
