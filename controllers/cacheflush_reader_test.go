// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"context"
	"fmt"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// The promise of Preserve, to those who read: a flush of the whole pool goes on around them.
func TestAReaderOfDeclaredKeysMissesNoneUnderAFlushOfThePool(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready(limited(v1alpha1.FlushLimits{ProtectedPrefixes: []string{"session:"}}))
	w.watched(p)
	const declared, sessions = 100, 1000
	entries := make([]*v1alpha1.CacheEntry, declared)
	names := make([]string, declared)
	for i := range entries {
		entries[i] = w.entry(fmt.Sprintf("e%d", i))
		names[i] = mainPrefix + entries[i].Name
		w.create(entries[i])
	}
	for _, e := range entries {
		w.becomes(e, isWarm)
	}
	w.fill(mainPrefix+"session:", sessions)
	w.fill(mainPrefix+"page:", manyKeys)

	ctx, stop := context.WithCancel(t.Context())
	rounds, misses := 0, 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			values, err := w.redis.MGet(ctx, names...).Result()
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			for i, v := range values {
				if v != *entries[i].Spec.Value {
					misses++
				}
			}
			rounds++
		}
	}()
	f := w.run("flush", all)
	stop()
	<-done
	w.Expect(misses).To(BeZero())
	w.Expect(rounds).To(BeNumerically(">", 10))
	w.Expect(f.Status.Progress.Deleted).To(BeEquivalentTo(manyKeys))
	w.Expect(f.Status.Progress.Preserved).To(BeNumerically("~", sessions+declared, declared), "SCAN may find a key twice")
	w.Expect(w.count(mainPrefix + "session:")).To(Equal(sessions))
	for _, e := range entries {
		w.reload(e)
		w.Expect(summary(e)).To(Equal(isWarm))
	}
}
