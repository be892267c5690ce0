// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"
	"strings"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/claims"
	"github.com/cachewright/cachewright/internal/keeper"
)

// sieve tells the keys of a flush that stay from those that go. It serves one slice.
type sieve struct {
	reconciler *cacheFlushReconciler
	pool       *livePool
	// prefixes in effect for the flush and for the pool: what the owner protects in the keys of a tenant is kept from that, too.
	prefixes [2]string
	// claimed gives the claims on a key, by its full name.
	claimed func(name string) []claims.Claim
	// rewrites says that declared keys may go, if they come back; done has those that did in this run, by their full names.
	rewrites bool
	done     map[string]bool
	// counts says that nothing is deleted in this slice.
	counts bool
	// expected are the claims on declared keys that are about to go, by their full names.
	expected map[string]claims.Claim
}

func (r *cacheFlushReconciler) sieve(ctx context.Context, flush *v1alpha1.CacheFlush, pool *livePool, near []neighbor, counts bool) *sieve {
	return &sieve{
		reconciler: r, pool: pool, counts: counts,
		prefixes: [2]string{fullName(pool.CachePool, claims.PlaceOf(pool.name, flush.Namespace, "")), pool.EffectiveKeyPrefix()},
		claimed: func(name string) []claims.Claim {
			return r.pools.admitted(ctx, near, r.claims.All(places(near, name)...))
		},
		rewrites: flush.Spec.DeclaredEntries == v1alpha1.DeclaredRewrite,
		done:     r.runs.of(flush).rewritten, expected: map[string]claims.Claim{},
	}
}

// keeps says whether a key stays, by its full name.
func (s *sieve) keeps(name string) bool {
	if s.protected(name) {
		return true
	}
	claimed := s.claimed(name)
	switch {
	case len(claimed) == 0:
		return false
	case !s.rewrites, s.done[name], slices.ContainsFunc(claimed, func(c claims.Claim) bool { return c.Observes }):
		return true
	default:
		return !s.rewritten(name, claimed[0])
	}
}

// rewritten says whether a key would be written again by the entry that holds it, and unless keys are only counted, has
// its keeper expect that.
func (s *sieve) rewritten(name string, holder claims.Claim) bool {
	k := s.keeper(holder)
	switch {
	case k == nil:
		return false
	case s.counts:
		return k.CanRewrite(holder.Entry, holder.Key)
	case k.ExpectDeletion(holder.Entry, holder.Key):
		s.expected[name] = holder
		return true
	default:
		return false
	}
}

// deleted has those keys written again that are declared.
func (s *sieve) deleted(names []string) {
	for _, name := range names {
		if holder, ok := s.expected[name]; ok {
			s.done[name] = true
			s.rewrite(name, holder)
		}
	}
}

// finish the slice: what has not gone is not expected to any more.
func (s *sieve) finish() {
	for name, holder := range s.expected {
		s.rewrite(name, holder)
	}
}

func (s *sieve) rewrite(name string, holder claims.Claim) {
	delete(s.expected, name)
	if k := s.keeper(holder); k != nil {
		k.Rewrite(holder.Entry, holder.Key)
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
