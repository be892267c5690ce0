// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"
	"strings"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/claims"
	"github.com/cachewright/cachewright/internal/keeper"
)

// sieve tells the keys of a flush that stay from those that go. It serves one slice.
type sieve struct {
	reconciler *cacheFlushReconciler
	pool       *livePool
	// prefixes in effect for the flush and for the pool: what the owner protects in the keys of a tenant is kept from that, too.
	prefixes [2]string
	near     []neighbor
	// admitted leaves out the claims that pools do not admit.
	admitted func([]claims.Claim) []claims.Claim
	// rewrites says that declared keys may go, if they come back; done has those that did in this run, by their full names.
	rewrites bool
	done     map[string]bool
	// version of the claims at the start of the slice.
	version int64
	// declared keys that may go, by their full names, and of these the ones that their keepers expect to.
	declared, expected map[string]claims.Claim
	// places is used for one key after the other: there may be millions.
	places []claims.Place
}

func (r *cacheFlushReconciler) sieve(ctx context.Context, flush *v1alpha1.CacheFlush, pool *livePool, near []neighbor) *sieve {
	return &sieve{
		reconciler: r, pool: pool, near: near, version: r.claims.Version(),
		admitted: func(claimed []claims.Claim) []claims.Claim { return r.pools.admitted(ctx, near, claimed) },
		prefixes: [2]string{fullName(pool.CachePool, claims.PlaceOf(pool.name, flush.Namespace, "")), pool.EffectiveKeyPrefix()},
		rewrites: flush.Spec.DeclaredEntries == v1alpha1.DeclaredRewrite, done: r.runs.of(flush).rewritten,
		declared: map[string]claims.Claim{}, expected: map[string]claims.Claim{},
	}
}

// into the options of a scan.
func (s *sieve) into(o cache.ScanOptions) cache.ScanOptions {
	o.Preserve, o.Ignore, o.Release, o.Deleted = s.keeps, s.ignores, s.release, s.deleted
	return o
}

// ignores a key that has gone in this run, and is back.
func (s *sieve) ignores(name string) bool { return s.done[name] }

// keeps says whether a key stays, by its full name.
func (s *sieve) keeps(name string) bool {
	delete(s.declared, name)
	if s.protected(name) {
		return true
	}
	claimed := s.claimed(name)
	switch {
	case len(claimed) == 0:
		return false
	case !s.rewrites, slices.ContainsFunc(claimed, func(c claims.Claim) bool { return c.Observes }):
		return true
	}
	holder := claimed[0]
	if k := s.keeper(holder); k == nil || !k.CanRewrite(holder.Entry, holder.Key, holder.Generation) {
		return true
	}
	s.declared[name] = holder
	return false
}

// claimed are the claims on a key, by its full name, in all pools of the server.
func (s *sieve) claimed(name string) []claims.Claim {
	s.places = appendPlaces(s.places[:0], s.near, name)
	return s.admitted(s.reconciler.claims.All(s.places...))
}

// release the keys that still may go, right before they do: entries may have come since they were found. The keepers
// of those that are declared are to expect it.
func (s *sieve) release(names []string) []string {
	changed := s.reconciler.claims.Version() != s.version
	if !changed && len(s.declared) == 0 {
		return names
	}
	var now []string
	for _, name := range names {
		if changed && s.keeps(name) {
			continue
		}
		if holder, ok := s.declared[name]; ok {
			if k := s.keeper(holder); k == nil || !k.ExpectDeletion(holder.Entry, holder.Key, holder.Generation) {
				continue
			}
			s.expected[name] = holder
		}
		now = append(now, name)
	}
	return now
}

// deleted has those keys written again that are declared, or are by now.
func (s *sieve) deleted(names []string) {
	changed := s.reconciler.claims.Version() != s.version
	for _, name := range names {
		if holder, ok := s.expected[name]; ok {
			s.done[name] = true
			s.rewrite(holder)
			delete(s.expected, name)
		} else if changed {
			for _, c := range s.claimed(name) {
				s.rewrite(c)
			}
		}
	}
}

// finish the slice: what has not gone is not expected to any more.
func (s *sieve) finish() {
	for _, holder := range s.expected {
		s.rewrite(holder)
	}
}

func (s *sieve) rewrite(c claims.Claim) {
	if k := s.keeper(c); k != nil {
		k.Rewrite(c.Entry, c.Key)
	}
}

// keeper of the key that an entry claims; nil when its pool is gone.
func (s *sieve) keeper(c claims.Claim) *keeper.Keeper {
	live, _ := s.reconciler.registry.Get(c.Pool)
	return live.Keeper
}

// protected says whether the pool has a key, by its full name, kept from all flushes.
func (s *sieve) protected(name string) bool {
	if s.pool.Spec.FlushLimits == nil {
		return false
	}
	return slices.ContainsFunc(s.pool.Spec.FlushLimits.ProtectedPrefixes, func(p string) bool {
		return strings.HasPrefix(name, s.prefixes[0]+p) || strings.HasPrefix(name, s.prefixes[1]+p)
	})
}
