// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"math/bits"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// COUNT of SCAN: the number of buckets that the server looks at in one go, during which it serves nobody else.
const (
	minCount   = 100
	startCount = 500
	maxCount   = 5000
	// defaultBudget is how long one pipeline may keep the server from others.
	defaultBudget = 2 * time.Millisecond
	// shares a second are the deletions spread over that are limited to so many a second.
	shares = 20
	// maxUnlink keys are named by one UNLINK.
	maxUnlink = 1000
	// maxSample keys are kept by a dry run.
	maxSample = 10
)

// ScanOptions say what to do with the keys that match.
type ScanOptions struct {
	// DryRun counts and samples, and deletes nothing.
	DryRun bool
	// Preserve says of a key, by its full name, that it must stay. nil: no key must.
	Preserve func(name string) bool
	// Ignore, if it is set, says of a key, by its full name, that it stays and does not count.
	Ignore func(name string) bool
	// Release, if it is set, is asked right before keys are deleted, by their full names, which of them may go now.
	Release func(names []string) []string
	// Deleted, if it is set, is told the full names of keys that have just been deleted.
	Deleted func(names []string)
	// Sample is how many keys a dry run has sampled already.
	Sample int
	// LatencyBudget is how long other clients may have to wait for one page; 0 means 2ms.
	LatencyBudget time.Duration
	// MaxKeysPerSecond that are deleted; 0 means no limit.
	MaxKeysPerSecond int64
}

// Checkpoint is where a scan goes on. Everything before it is done. The zero value is the start.
type Checkpoint struct {
	Nodes []NodeCheckpoint
	// Done : all nodes are, and nothing has moved between them meanwhile.
	Done bool
}

// NodeCheckpoint is where the scan of one node goes on.
type NodeCheckpoint struct {
	// Node is the name of the node.
	Node string
	// ServerID identifies the server process, the database, in a cluster the slots, and the pattern: a cursor means nothing
	// to another one.
	ServerID string
	Cursor   uint64
	Done     bool
}

// Percent of the keys that lie before the checkpoint.
func (c Checkpoint) Percent() int32 {
	if c.Done {
		return 100
	}
	var sum int32
	for _, n := range c.Nodes {
		sum += n.percent()
	}
	return sum / int32(max(1, len(c.Nodes))) //nolint:gosec // a cluster has at most 16384 masters
}

// percent of the node. SCAN counts from the high bits of the bucket number down, so the reversed cursor is the part of
// the table that has been seen.
// See https://github.com/redis/redis/blob/7.0/src/dict.c, dictScan.
func (c NodeCheckpoint) percent() int32 {
	switch {
	case c.Done:
		return 100
	case strings.HasSuffix(c.ServerID, again):
		return 99 // all keys were seen once
	}
	return int32(bits.Reverse64(c.Cursor) >> 32 * 100 >> 32)
}

// ScanResult is what one Run did.
type ScanResult struct {
	// Checkpoint to go on from.
	Checkpoint Checkpoint
	// Restarted says that the given checkpoint was another server's, and the scan began anew. What was counted before, but
	// for deletions, is counted again.
	Restarted bool
	// Matched keys; a key that the server reports twice counts twice.
	Matched int64
	// Deleted keys.
	Deleted int64
	// Preserved keys: they match, and stay.
	Preserved int64
	// Sample of keys that match and would go, in a dry run, by names without the prefix.
	Sample []string
}

// Scan deletes or counts the keys that match a target, a page at a time, so that the server serves others in
// between: page n is deleted in the same round trip that fetches page n+1. The nodes of a cluster come one after the other.
type Scan struct {
	pool    *Pool
	pattern string
	// fence is what every key of the target begins with.
	fence   string
	options ScanOptions
	began   time.Time
	result  ScanResult
	// on is where commands are sent: to the node under way.
	on    pipeliner
	count int64
	costs costs
	// pending keys of the last page, not deleted yet.
	pending []string
	// kept is how many keys of the last page stay.
	kept int64
	// next is the cursor of the next page, and Done after the last; saved is behind the last page that is dealt with.
	next  NodeCheckpoint
	saved *NodeCheckpoint
}

// pipeliner is a client of one server, or of a cluster.
type pipeliner interface {
	Pipelined(ctx context.Context, queue func(redis.Pipeliner) error) ([]redis.Cmder, error)
}

// NewScan prepares a scan.
func (p *Pool) NewScan(t Target, o ScanOptions) *Scan {
	if o.LatencyBudget == 0 {
		o.LatencyBudget = defaultBudget
	}
	return &Scan{pool: p, on: p.client, pattern: t.pattern(p.prefix), fence: p.prefix + t.literal, options: o, began: time.Now(), saved: &NodeCheckpoint{}}
}

// Run scans from a checkpoint until the end, or until stop says so between two pages. Whatever it returns, an
// error included, the result counts what was done, and its checkpoint is a safe place to go on from.
func (s *Scan) Run(ctx context.Context, from Checkpoint, stop func() bool) (ScanResult, error) {
	s.result, s.began = ScanResult{Checkpoint: from}, time.Now()
	nodes, err := s.identify(ctx)
	if err != nil {
		return s.result, err
	}
	s.result.Checkpoint.Nodes, s.result.Restarted = resume(nodes, from.Nodes)
	if s.result.Restarted && s.options.DryRun { // or else a count would be of nodes at different times
		s.result.Checkpoint.Nodes, _ = resume(nodes, nil)
		s.options.Sample = 0
	}
	for i, n := range nodes {
		if s.saved = &s.result.Checkpoint.Nodes[i]; s.saved.Done {
			continue
		}
		if err := s.scan(ctx, n, stop); err != nil {
			return s.result, err
		}
		if !s.saved.Done {
			break
		}
	}
	// The client dials anew without a word. If what answers now is another process, cursors of the two were mixed; if
	// nobody answers, nothing is known of it.
	after, err := s.identify(ctx)
	if err != nil {
		s.result.Checkpoint = from
		s.uncount()
		return s.result, err
	}
	s.review(after)
	return s.result, nil
}

// scan one node.
func (s *Scan) scan(ctx context.Context, n identity, stop func() bool) error {
	roundTrip, err := s.pool.roundTrip(ctx, n.node) // on the connection that INFO has warmed up
	if err != nil {
		return err
	}
	s.on, s.count, s.costs, s.next = n, startCount, nil, *s.saved
	defer s.forgo()
	for first := true; !s.saved.Done; first = false {
		if !s.await(ctx, stop) {
			return nil
		}
		if err := s.step(ctx, roundTrip, !first && stop()); err != nil {
			return err
		}
		if len(s.pending) == 0 && stop() {
			return nil
		}
	}
	return nil
}

// uncount what the next scan of the same keys counts again: all but deletions.
func (s *Scan) uncount() {
	s.result.Matched, s.result.Preserved, s.result.Sample = s.result.Deleted, 0, nil
}

// forgo what is left of a page: the next Run finds it again, with the keys of the page that stay.
func (s *Scan) forgo() {
	if len(s.pending) == 0 {
		return
	}
	s.result.Matched -= int64(len(s.pending)) + s.kept
	s.result.Preserved -= s.kept
	s.pending, s.kept = nil, 0
}

// step is one round trip: it deletes a share of the pending keys and, if that is the rest of them, and unless it is the
// last step, fetches the next page.
func (s *Scan) step(ctx context.Context, roundTrip time.Duration, last bool) error {
	ctx, cancel := s.pool.deadline(ctx)
	defer cancel()
	var unlinks []*redis.IntCmd
	var scan *redis.ScanCmd
	now, later := s.release()
	before := s.result.Deleted
	start := time.Now()
	_, _ = s.on.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		unlinks = s.pool.unlink(ctx, pipe, now)
		if !last && !s.next.Done && len(later) == 0 {
			scan = pipe.Scan(ctx, s.next.Cursor, s.pattern, s.count)
		}
		return nil
	})
	took := time.Since(start) - roundTrip
	if err := s.gone(ctx, now, unlinks); err != nil {
		s.result.Matched += s.result.Deleted - before // the next Run does not find these again
		return err
	}
	kept := int64(len(s.pending) - len(now) - len(later))
	s.kept, s.result.Preserved = s.kept+kept, s.result.Preserved+kept
	if s.pending = later; len(later) == 0 {
		*s.saved = s.next
	}
	if scan == nil {
		return nil
	}
	keys, cursor, err := scan.Result()
	if err != nil {
		return wrap("SCAN", err)
	}
	s.take(keys)
	s.resize(took)
	s.next.Cursor, s.next.Done = cursor, cursor == 0
	if len(s.pending) == 0 {
		*s.saved = s.next
	}
	return nil
}

// release the share of the pending keys that is deleted next. Some of them may have to stay by now.
func (s *Scan) release() (now, later []string) {
	share := s.share()
	now, later = s.pending[:share], s.pending[share:]
	if s.options.Release != nil && share > 0 {
		now = s.options.Release(now)
	}
	return now, later
}

// gone counts keys that were to be deleted, and tells of them unless that failed. Those that are on another node by now
// are deleted there.
func (s *Scan) gone(ctx context.Context, names []string, unlinks []*redis.IntCmd) error {
	var elsewhere []string
	var failed error
	for i, u := range unlinks {
		switch {
		case redirected(u.Err()): // in a cluster, each names one key
			elsewhere = append(elsewhere, names[i])
		case failed == nil:
			failed = wrap("UNLINK", u.Err())
		}
		s.result.Deleted += u.Val()
	}
	if len(elsewhere) > 0 {
		var again []*redis.IntCmd
		_, _ = s.pool.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			again = s.pool.unlink(ctx, pipe, elsewhere)
			return nil
		})
		for _, u := range again {
			if failed == nil {
				failed = wrap("UNLINK", u.Err())
			}
			s.result.Deleted += u.Val()
		}
	}
	if failed == nil && len(names) > 0 && s.options.Deleted != nil {
		s.options.Deleted(names)
	}
	return failed
}

// take sorts the keys of a page into those that go and those that stay. The page is sorted in place: of
// millions of keys, a copy is much garbage.
func (s *Scan) take(keys []string) {
	s.kept, s.pending = 0, keys[:0]
	for _, name := range keys {
		switch {
		case !strings.HasPrefix(name, s.fence):
			// No pattern of ours matches such a key. Should a server see it otherwise, the key is not ours to delete.
			continue
		case s.options.Ignore != nil && s.options.Ignore(name):
			continue
		case s.options.Preserve != nil && s.options.Preserve(name):
			s.result.Preserved++
			s.kept++
		case s.options.DryRun:
			if s.options.Sample+len(s.result.Sample) < maxSample {
				s.result.Sample = append(s.result.Sample, strings.TrimPrefix(name, s.pool.prefix))
			}
		default:
			s.pending = append(s.pending, name)
		}
		s.result.Matched++
	}
}
