// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// An operator that has just started does not know yet which entries can write. A flush that rewrites what they declare
// waits until it does: it says that every matching key is gone.
func TestARewriteRightAfterAStartReachesEveryEntry(t *testing.T) {
	const keys = 1000
	w := warmUp(t, keys, time.Hour)
	w.manager.kill()
	f := flushIn(w.space, "rewrite")
	f.Spec.All, f.Spec.DeclaredEntries = new(true), v1alpha1.DeclaredRewrite
	w.Expect(k8s.Create(t.Context(), f)).To(Succeed())
	w.start()
	becomes(t, w.WithT, f, v1alpha1.ConditionComplete)
	w.Expect(*f.Status.Progress).To(Equal(v1alpha1.FlushProgress{Percent: 100, Matched: keys, Deleted: keys}))
	w.Eventually(func() (int64, error) { return w.redis.DBSize(t.Context()).Result() }).Should(BeNumerically(">=", keys))
	w.Expect(w.ready()).To(Equal(keys))
}

// Nor does it know which pools are on one server, when their addresses differ, until it has connected to all of them.
func TestAFlushRightAfterAStartPreservesWhatASlowPoolOfItsServerDeclares(t *testing.T) {
	server := redistest.Start(t)
	w := &warmed{WithT: expectations(t), t: t, redis: server.Client(t), proxy: redistest.NewProxy(t, server.Addr, 0), space: namespace(t, "alias")}
	direct, alias := poolIn(w.space, server.Addr), poolIn(w.space, w.proxy.Addr)
	direct.Spec.KeyPrefix = "app:"
	alias.Name, alias.Spec.KeyPrefix = "alias", "app:users:"
	for _, pool := range []*v1alpha1.CachePool{direct, alias} {
		w.Expect(k8s.Create(t.Context(), pool)).To(Succeed())
	}
	w.start()
	e := entryIn(w.space, "once")
	e.Spec.PoolRef.Name, e.Spec.Policy = "alias", v1alpha1.PolicyWriteOnChange
	w.Expect(k8s.Create(t.Context(), e)).To(Succeed())
	becomes(t, w.WithT, e, v1alpha1.ConditionReady)
	w.manager.kill()
	w.proxy.Slow(300 * time.Millisecond)
	f := flushIn(w.space, "flush")
	f.Spec.PoolRef.Name, f.Spec.All = direct.Name, new(true)
	w.Expect(k8s.Create(t.Context(), f)).To(Succeed())
	w.start()
	becomes(t, w.WithT, f, v1alpha1.ConditionComplete)
	w.Expect(f.Status.Progress.Preserved).To(BeEquivalentTo(1))
	w.Expect(w.redis.Get(t.Context(), "app:users:"+e.Spec.Key).Result()).To(Equal(*e.Spec.Value))
}
