// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"slices"

	"github.com/redis/go-redis/v9"
)

// ForgetNamed deletes or counts the given keys, by names without the prefix, in pipelines, until it is done or, if a limit
// makes it take longer, stop says so. It has no checkpoint: what was deleted is not found again, and what stays is
// counted by the call that comes to the end.
func (p *Pool) ForgetNamed(ctx context.Context, keys []string, o ScanOptions, stop func() bool) (ScanResult, error) {
	s := p.NewScan(Target{}, o)
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
	known := map[string]bool{}
	keys = slices.DeleteFunc(slices.Clone(keys), func(key string) bool {
		again := known[key]
		known[key] = true
		return again
	})
	asked := pipelines(ctx, p, keys, func(key string) int { return len(p.prefix) + len(key) }, func(ctx context.Context, key string) *redis.IntCmd {
		return redis.NewIntCmd(ctx, "exists", p.prefix+key)
	})
	var names []string
	for i, exists := range asked {
		if err := wrap("EXISTS", exists.Err()); err != nil {
			return nil, err
		}
		if exists.Val() > 0 {
			names = append(names, p.prefix+keys[i])
		}
	}
	return names, nil
}

// unlink queues the deletion of keys. Their memory is freed in the background, so that a huge collection holds up
// nobody.
func (p *Pool) unlink(ctx context.Context, pipe redis.Pipeliner, names []string) []*redis.IntCmd {
	most := maxUnlink
	if p.topology == Cluster {
		most = 1 // keys of one command must lie in one slot
	}
	var commands []*redis.IntCmd
	for some := range slices.Chunk(names, most) {
		args := append(make([]any, 0, 1+len(some)), "unlink")
		for i := range some {
			args = append(args, &some[i]) // a string would be copied to the heap, one for each of millions of keys
		}
		command := redis.NewIntCmd(ctx, args...)
		_ = pipe.Process(ctx, command) // queued; the error is the command's
		commands = append(commands, command)
	}
	return commands
}
