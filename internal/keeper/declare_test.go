// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package keeper_test

import (
	"math"
	"strconv"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/keeper"
	"github.com/cachewright/cachewright/internal/plan"
)

// What is to be deleted was asked for in one way, and then, before it was done, in another.
func TestTheLastWordOnADeletionCounts(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		first, last keeper.Forgetting
		stays       bool
	}{
		"only a value": {keeper.Forgetting{Key: "a"}, keeper.Forgetting{Key: "a", OnlyDigests: []string{keeper.Digest("w")}}, true},
		"no value":     {keeper.Forgetting{Key: "a"}, keeper.Forgetting{Key: "a", OnlyDigests: []string{}}, true},
		"whatever":     {keeper.Forgetting{Key: "a", OnlyDigests: []string{}}, keeper.Forgetting{Key: "a"}, false},
		"keep it":      {keeper.Forgetting{Key: "a"}, keeper.Forgetting{Key: "a", KeepKey: true, Counter: "c"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.Expect(b.redis.Set(prefix+"a", "v")).To(Succeed())
			b.Use(b.pool, keeper.Closed, false)
			for _, f := range []keeper.Forgetting{test.first, test.last} {
				_, done := b.Forget(t.Context(), id("a"), f)
				b.Expect(done).To(BeFalse())
			}
			b.Use(b.pool, keeper.Open, false)
			b.Eventually(func() bool { _, done := b.Forget(t.Context(), id("a"), test.last); return done }).Should(BeTrue())
			b.Expect(b.redis.Exists(prefix + "a")).To(Equal(test.stays))
		})
	}
}

func run(by int64, ttl time.Duration, written plan.History) keeper.Declaration {
	return keeper.Declaration{
		Key: "c", Digest: "run:r", TTL: ttl, History: written,
		Counter: &keeper.Counter{ID: "uid", By: by, RunID: "r", Generation: 1, Sum: 7},
	}
}

// The owner may have to be told again, since his write of the status failed.
func TestTheSumOfARunIsToldHoweverTheCounterIsDeclaredThen(t *testing.T) {
	b := newBench(t)
	for i, ttl := range []time.Duration{0, 0, time.Hour, time.Minute} {
		outcome, done := b.Keep(t.Context(), id("c"), run(5, ttl, plan.History{}), nil)
		b.Expect(done).To(BeTrue())
		b.Expect(outcome.State).To(Equal(plan.Applied), "step %d", i)
		b.Expect(outcome.Sum).To(BeEquivalentTo(5))
	}
	b.Drop(id("c"))
	outcome, done := b.Keep(t.Context(), id("c"), run(5, 0, plan.History{Written: true}), nil)
	b.Expect(done).To(BeTrue())
	b.Expect(outcome.Sum).To(BeEquivalentTo(7), "as the owner has it")
}

// An increment that is not done yet is done by as much as is declared then.
func TestAnotherIncrementMendsARunThatCouldNotBeDone(t *testing.T) {
	b := newBench(t)
	b.Expect(b.redis.Set(prefix+"c", strconv.Itoa(math.MaxInt64))).To(Succeed())
	outcome, _ := b.Keep(t.Context(), id("c"), run(1, 0, plan.History{}), nil)
	b.Expect(cache.Is(outcome.Err, cache.ReasonOverflow)).To(BeTrue(), "%v", outcome.Err)
	outcome, done := b.Keep(t.Context(), id("c"), run(-1, 0, plan.History{}), nil)
	b.Expect(done).To(BeTrue())
	b.Expect(outcome.Err).NotTo(HaveOccurred())
	b.Expect(outcome.Sum).To(BeEquivalentTo(math.MaxInt64 - 1))
}
