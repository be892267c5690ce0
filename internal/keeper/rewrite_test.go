// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package keeper_test

import (
	"testing"

	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/internal/keeper"
	"github.com/cachewright/cachewright/internal/plan"
)

// A flush may delete only what comes back at once.
func TestOnlyKeysThatAreWrittenAgainCanBeRewritten(t *testing.T) {
	t.Parallel()
	counter := func(d *keeper.Declaration) {
		*d = keeper.Declaration{Key: "k", Counter: &keeper.Counter{ID: "id", By: 1, RunID: "r", Generation: 1}}
	}
	for name, c := range map[string]struct {
		policy plan.Policy
		change func(*keeper.Declaration)
		known  *keeper.Outcome
		before func(*bench)
		after  func(*bench)
		want   bool
	}{
		"Enforce":                        {policy: plan.Enforce, want: true},
		"Enforce, known from the status": {policy: plan.Enforce, known: &keeper.Outcome{State: plan.Warm}, want: true},
		"Enforce, a list":                {policy: plan.Enforce, before: func(b *bench) { _, _ = b.redis.Push(prefix+"k", "x") }},
		"Enforce, refused by the server": {policy: plan.Enforce, before: func(b *bench) { b.refusing("set", "ERR no") }},
		"Enforce, another key":           {policy: plan.Enforce, change: func(d *keeper.Declaration) { d.Key = "other" }},
		"Enforce, dropped":               {policy: plan.Enforce, after: func(b *bench) { b.Drop(id("k")) }},
		"Enforce, out of date":           {policy: plan.Enforce, after: func(b *bench) { b.Doubt(id("k"), 2) }},
		"EnsurePresent":                  {policy: plan.EnsurePresent, want: true},
		"EnsurePresent, a foreign value": {policy: plan.EnsurePresent, before: func(b *bench) { _ = b.redis.Set(prefix+"k", "theirs") }, want: true},
		"EnsurePresent, not on record":   {policy: plan.EnsurePresent, change: func(d *keeper.Declaration) { d.History.Recorded = false }},
		"WriteOnChange":                  {policy: plan.WriteOnChange},
		"Observe":                        {policy: plan.Observe},
		"a counter":                      {change: counter},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if c.before != nil {
				c.before(b)
			}
			d := declaring("k", c.policy)
			if c.change != nil {
				c.change(&d)
			}
			_, done := b.Keep(t.Context(), id("k"), d, c.known)
			b.Expect(done).To(BeTrue())
			if c.after != nil {
				c.after(b)
			}
			b.Expect(b.CanRewrite(id("k"), "k", 0)).To(Equal(c.want))
			b.Expect(b.ExpectDeletion(id("k"), "k", 0)).To(Equal(c.want))
		})
	}
}

// Neither can those of a pool that does not take writes.
func TestNothingCanBeRewrittenThroughAGateThatIsNotOpen(t *testing.T) {
	t.Parallel()
	for name, gate := range map[string]keeper.Gate{"closed": keeper.Closed, "deletions only": keeper.DeletionsOnly} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.Keep(t.Context(), id("k"), declaring("k", plan.Enforce), nil)
			b.Use(b.pool, gate, false)
			b.Expect(b.CanRewrite(id("k"), "k", 0)).To(BeFalse())
			b.Expect(b.ExpectDeletion(id("k"), "k", 0)).To(BeFalse())
		})
	}
}

// However often flushes of ours delete a key, it is back at once, and that is no contest.
func TestOurOwnFlushIsNoSecondWriter(t *testing.T) {
	measured(t)
	b := newBench(t)
	d := declaring("k", plan.Enforce)
	b.Keep(t.Context(), id("k"), d, nil)
	const flushes = 5
	for range flushes {
		b.Expect(b.ExpectDeletion(id("k"), "k", 0)).To(BeTrue())
		b.redis.Del(prefix + "k")
		b.Rewrite(id("k"), "k")
		b.holds("k")
	}
	b.Expect(b.told()).To(BeEmpty())
	b.Expect(metric(t, "repairs_total", "flushed")).To(Equal(float64(flushes)))
	b.Expect(metric(t, "contested_keys", "")).To(BeZero())

	// Nor when a look finds the key gone before the flush has said that it is.
	b.Expect(b.ExpectDeletion(id("k"), "k", 0)).To(BeTrue())
	b.redis.Del(prefix + "k")
	b.Verify()
	b.holds("k")
	b.Rewrite(id("k"), "k")
	b.looked(1)
	b.looked(1)
	b.Expect(metric(t, "repairs_total", "flushed")).To(Equal(flushes + 1.0))

	// A second writer is still one: the first change is undone at once, the second not.
	b.redis.Del(prefix + "k")
	b.Verify()
	b.holds("k")
	b.redis.Del(prefix + "k")
	b.Verify()
	b.tells(d, plan.Contested)
}

// A flush that was about to delete a key, and did not, leaves nothing behind.
func TestADeletionThatDoesNotComeIsNotExpectedForEver(t *testing.T) {
	measured(t)
	b := newBench(t)
	d := declaring("k", plan.Enforce)
	b.Keep(t.Context(), id("k"), d, nil)
	b.Expect(b.ExpectDeletion(id("k"), "k", 0)).To(BeTrue())
	b.Rewrite(id("k"), "k")
	b.looked(1)
	for range 2 {
		b.redis.Del(prefix + "k")
		b.Verify()
	}
	b.Eventually(func() float64 { return metric(t, "repairs_total", "missing") }).Should(Equal(1.0))
	b.Expect(metric(t, "repairs_total", "flushed")).To(BeZero())
}

// Keys that nobody keeps are nobody's to write again.
func TestRewritingAKeyThatNobodyKeepsDoesNothing(t *testing.T) {
	b := newBench(t)
	b.Rewrite(id("k"), "k")
	b.Keep(t.Context(), id("k"), declaring("other", plan.Enforce), nil)
	b.Rewrite(id("k"), "k")
	b.Consistently(func() bool { return b.redis.Exists(prefix + "k") }, "50ms").Should(BeFalse())
}
