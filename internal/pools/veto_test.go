// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package pools_test

import (
	"context"
	"errors"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/keeper"
	"github.com/cachewright/cachewright/internal/pools"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// What may not be used is never opened, not for a moment.
func TestAVetoKeepsThePoolShut(t *testing.T) {
	b := newBench(t)
	veto := errors.New("no")
	b.Vet = func(context.Context, types.NamespacedName, pools.Endpoint, cache.Server) error { return veto }
	server := redistest.Miniredis(t)
	b.Expect(b.try(identity(1), at(server))).To(MatchError(veto))
	_, ok := b.Get(name("main"))
	b.Expect(ok).To(BeFalse())
	b.Expect(b.heard()).To(BeEmpty())
	b.Eventually(server.CurrentConnectionCount).Should(BeZero())

	b.Vet = nil
	b.connect(1, at(server))
	b.Vet = func(context.Context, types.NamespacedName, pools.Endpoint, cache.Server) error { return veto }
	b.Expect(b.Check(t.Context(), name("main"))).To(MatchError(veto))
	live, _ := b.Get(name("main"))
	b.Expect(live.Gate).To(Equal(keeper.Closed))
}
