// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"slices"
	"time"
)

// share is how many of the pending keys are deleted next.
func (s *Scan) share() int {
	if s.options.MaxKeysPerSecond == 0 {
		return len(s.pending)
	}
	return int(min(int64(len(s.pending)), max(1, s.options.MaxKeysPerSecond/shares)))
}

// await the time when the next share may be deleted, if there is a limit. It is false when that would be too late. A first
// share that is due already is never too late: with a slow server nothing would ever be done.
func (s *Scan) await(ctx context.Context, stop func() bool) bool {
	if s.options.MaxKeysPerSecond == 0 || len(s.pending) == 0 {
		return true
	}
	sum := s.result.Deleted + int64(s.share())
	due := s.began.Add(time.Duration(float64(sum) / float64(s.options.MaxKeysPerSecond) * float64(time.Second)))
	if s.result.Deleted == 0 && time.Until(due) <= 0 {
		return true
	}
	for !stop() {
		left := time.Until(due)
		if left <= 0 {
			return true
		}
		if !pause(ctx, min(left, time.Second/shares)) {
			return false
		}
	}
	return false
}

// pause for a while; false when the context has ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// resize the next page after one that took so long: to the latency budget and, if there is a limit, to what can soon be
// deleted.
func (s *Scan) resize(took time.Duration) {
	scanned := s.count
	s.count = adapt(scanned, s.costs.best(took, scanned), s.options.LatencyBudget)
	if limit := s.options.MaxKeysPerSecond; limit > 0 && len(s.pending) > 0 {
		soon := float64(scanned) * float64(max(1, limit/shares)) / float64(len(s.pending))
		s.count = max(1, int64(min(float64(s.count), soon)))
	}
}

// costs of the last pages, in nanoseconds a bucket.
type costs []float64

// remembered is how many pages are remembered. A network adds delays of its own to some of them, never the opposite:
// the cheapest one is nearest to what the server needs.
const remembered = 8

// best is how long a page of this COUNT takes the server, by the cheapest of the last pages; took is what this one took.
func (c *costs) best(took time.Duration, count int64) time.Duration {
	*c = append(*c, float64(took)/float64(count))
	*c = (*c)[max(0, len(*c)-remembered):]
	return time.Duration(slices.Min(*c) * float64(count))
}

// adapt brings COUNT to what the server does within the latency budget, at most halving or doubling it, so that
// one slow page by chance changes little.
func adapt(count int64, took, budget time.Duration) int64 {
	factor := 2.0
	if took > 0 {
		factor = min(2, max(0.5, float64(budget)/float64(took)))
	}
	return min(maxCount, max(minCount, int64(float64(count)*factor)))
}
