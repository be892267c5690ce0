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
	// Node is the address of the server.
	Node string
	// ServerID identifies the server process and the database: a cursor means nothing to another one.
	ServerID string
	Cursor   uint64
	Done     bool
}

// Percent of the keys that lie before the checkpoint. SCAN counts from the high bits of the bucket number down,
// so the reversed cursor is the part of the table that has been seen.
// See https://github.com/redis/redis/blob/7.0/src/dict.c, dictScan.
func (c Checkpoint) Percent() int32 {
	if c.Done {
		return 100
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
// between: page n is deleted in the same round trip that fetches page n+1.
type Scan struct {
	pool    *Pool
	pattern string
	// fence is what every key of the target begins with.
	fence   string
	options ScanOptions
	count   int64
	recent  costs
	began   time.Time
	// pending keys of the last page, not deleted yet.
	pending []string
	// kept is how many keys of the last page stay.
	kept int64
	// next is the cursor of the next page, and Done after the last.
	next   Checkpoint
	result ScanResult
}

// NewScan prepares a scan.
func (p *Pool) NewScan(t Target, o ScanOptions) *Scan {
	if o.LatencyBudget == 0 {
		o.LatencyBudget = defaultBudget
	}
	return &Scan{pool: p, pattern: t.pattern(p.prefix), fence: p.prefix + t.literal, options: o, count: startCount}
}

// Run scans from a checkpoint until the end, or until stop says so between two pages. Whatever it returns, an
// error included, the result counts what was done, and its checkpoint is a safe place to go on from.
func (s *Scan) Run(ctx context.Context, from Checkpoint, stop func() bool) (ScanResult, error) {
	s.pending, s.kept, s.result, s.began = nil, 0, ScanResult{Checkpoint: from}, time.Now()
	id, err := s.pool.scanID(ctx)
	if err != nil {
		return s.result, err
	}
	roundTrip, err := s.pool.roundTrip(ctx) // on the connection that INFO has warmed up
	if err != nil {
		return s.result, err
	}
	start := from
	if from.ServerID != id {
		s.result.Restarted = from.ServerID != ""
		start = Checkpoint{Node: s.pool.address, ServerID: id}
	}
	s.result.Checkpoint, s.next = start, start
	err = s.scan(ctx, roundTrip, stop)
	s.forgo()
	if err != nil {
		return s.result, err
	}
	// The client dials anew without a word. If what answers now is another process, cursors of the two were mixed; if
	// nobody answers, nothing is known of it.
	after, err := s.pool.scanID(ctx)
	if err != nil {
		s.result.Checkpoint = from
		return s.result, err
	}
	if after != id {
		s.result.Checkpoint, s.result.Restarted = Checkpoint{}, true
		s.uncount()
	}
	return s.result, nil
}

// scan until the end, or until stop says so.
func (s *Scan) scan(ctx context.Context, roundTrip time.Duration, stop func() bool) error {
	for first := true; !s.result.Checkpoint.Done; first = false {
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

// uncount what the scan of the next server counts again: all but deletions.
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
	start := time.Now()
	_, _ = s.pool.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		unlinks = unlink(ctx, pipe, now)
		if !last && !s.next.Done && len(later) == 0 {
			scan = pipe.Scan(ctx, s.next.Cursor, s.pattern, s.count)
		}
		return nil
	})
	took := time.Since(start) - roundTrip
	if err := s.gone(now, unlinks); err != nil {
		return err
	}
	if s.pending = later; len(later) == 0 {
		s.result.Checkpoint = s.next
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
		s.result.Checkpoint = s.next
	}
	return nil
}

// release the share of the pending keys that is deleted next. Some of them may have to stay by now.
func (s *Scan) release() (now, later []string) {
	share := s.share()
	now, later = s.pending[:share], s.pending[share:]
	if s.options.Release != nil && share > 0 {
		now = s.options.Release(now)
		kept := int64(share - len(now))
		s.kept, s.result.Preserved = s.kept+kept, s.result.Preserved+kept
	}
	return now, later
}

// gone counts keys that were to be deleted, and tells of them unless that failed.
func (s *Scan) gone(names []string, unlinks []*redis.IntCmd) error {
	var failed error
	for _, u := range unlinks {
		s.result.Deleted += u.Val()
		if failed == nil {
			failed = wrap("UNLINK", u.Err())
		}
	}
	if failed == nil && len(names) > 0 && s.options.Deleted != nil {
		s.options.Deleted(names)
	}
	return failed
}

// take sorts the keys of a page into those that go and those that stay.
func (s *Scan) take(keys []string) {
	s.kept = 0
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

// ForgetNamed deletes or counts the given keys, by names without the prefix, in pipelines, until it is done or, if a limit
// makes it take longer, stop says so. It has no checkpoint: what was deleted is not found again, and what stays is
// counted by the call that comes to the end.
func (p *Pool) ForgetNamed(ctx context.Context, keys []string, o ScanOptions, stop func() bool) (ScanResult, error) {
	s := p.NewScan(Target{}, o)
	s.began = time.Now()
	names, err := p.existing(ctx, keys)
	if err != nil {
		return s.result, err
	}
	s.take(names)
	for {
		if !s.await(ctx, stop) {
			s.forgo()
			return s.result, nil
		}
		if err := s.step(ctx, 0, true); err != nil {
			s.forgo()
			return s.result, err
		}
		if len(s.pending) == 0 {
			s.result.Checkpoint.Done = true
			return s.result, nil
		}
	}
}

// existing gives the full names of those keys that are there, each once.
func (p *Pool) existing(ctx context.Context, keys []string) ([]string, error) {
	ctx, cancel := p.deadline(ctx)
	defer cancel()
	asked := make(map[string]*redis.IntCmd, len(keys))
	_, _ = p.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, key := range keys {
			if asked[key] == nil {
				asked[key] = pipe.Exists(ctx, p.prefix+key)
			}
		}
		return nil
	})
	var names []string
	for _, key := range keys {
		exists := asked[key]
		if exists == nil {
			continue
		}
		delete(asked, key)
		if err := wrap("EXISTS", exists.Err()); err != nil {
			return nil, err
		}
		if exists.Val() > 0 {
			names = append(names, p.prefix+key)
		}
	}
	return names, nil
}

// unlink queues the deletion of keys. Their memory is freed in the background, so that a huge collection holds up
// nobody.
func unlink(ctx context.Context, pipe redis.Pipeliner, names []string) []*redis.IntCmd {
	var commands []*redis.IntCmd
	for len(names) > 0 {
		n := min(len(names), maxUnlink)
		commands, names = append(commands, pipe.Unlink(ctx, names[:n]...)), names[n:]
	}
	return commands
}
