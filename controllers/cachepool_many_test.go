// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// pools creates n of them.
func (w *world) pools(n int, change func(i int, p *v1alpha1.CachePool)) []*v1alpha1.CachePool {
	w.t.Helper()
	created := make([]*v1alpha1.CachePool, n)
	for i := range created {
		created[i] = w.pool(func(p *v1alpha1.CachePool) { p.Name = fmt.Sprintf("pool-%03d", i); change(i, p) })
		w.create(created[i])
	}
	return created
}

// clients of a server but for the test's.
func (w *world) clients() int {
	w.t.Helper()
	lines, err := w.redis.ClientList(w.t.Context()).Result()
	w.Expect(err).NotTo(HaveOccurred())
	return strings.Count(lines, "\n") - 1
}

// The bound is in docs/cachepools.md: 4 connections, and 2 by which the pool hears of changes.
func TestManyPoolsOfOneServer(t *testing.T) {
	w, _ := newRealWorld(t)
	const many = 200
	pools := w.pools(many, func(_ int, p *v1alpha1.CachePool) { p.Spec.KeyPrefix = p.Name + ":" })
	entries := make([]*v1alpha1.CacheEntry, many)
	for i, p := range pools {
		entries[i] = w.entry(p.Name, keyed("k"), in(p.Name))
		w.create(entries[i])
	}
	for i, p := range pools {
		w.becomes(p, connected)
		w.watched(p)
		w.becomes(entries[i], isWarm)
	}
	w.Expect(w.clients()).To(And(BeNumerically(">=", 2*many), BeNumerically("<=", 6*many)))
	w.Expect(w.redis.Del(t.Context(), pools[many-1].Name+":k").Err()).To(Succeed())
	w.holds(pools[many-1].Name+":k", "value of "+pools[many-1].Name)
	for _, kind := range []client.Object{&v1alpha1.CachePool{}, &v1alpha1.CacheEntry{}} {
		w.Expect(k8s.DeleteAllOf(t.Context(), kind, client.InNamespace(w.namespace))).To(Succeed())
	}
	w.Eventually(w.clients).Should(BeZero())
	w.Expect(w.keys("*")).To(BeEmpty())
}

// Servers that let their pools wait for as long as these do, make nobody else wait.
func TestSlowPoolsDelayNoOther(t *testing.T) {
	w, _ := newRealWorld(t)
	hole := blackHole(t)
	slow := w.pools(100, func(_ int, p *v1alpha1.CachePool) {
		p.Spec.Addresses = []string{hole.Addr().String()}
		p.Spec.Timeout = &metav1.Duration{Duration: time.Minute}
	})
	w.ready()
	e := w.entry("flags")
	w.create(e)
	w.becomes(e, isWarm)
	w.run("flush", prefixed("other"))
	w.Expect(w.redis.Del(t.Context(), mainPrefix+"flags").Err()).To(Succeed())
	w.holds(mainPrefix+"flags", "value of flags")
	for _, p := range slow {
		w.reload(p)
		w.Expect(summary(p)).NotTo(ContainSubstring("Ready=False/ConnectionFailed"), "it waits still")
	}
}

// dead answers at an address by closing every connection at once, and counts them.
func dead(t *testing.T, addr string) (net.Listener, *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	dials := &atomic.Int64{}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			dials.Add(1)
			_ = conn.Close()
		}
	}()
	return l, dials
}

// Entries wait for their pool, and none of them tries the server itself. When the pool finds it again, all are served in
// a few round trips, and nothing is written to the API server.
func TestAThousandEntriesOfADeadPoolCostNoMoreThanOne(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	p := w.ready(unwatched)
	w.watched(p)
	const n = 1000
	entries := make([]*v1alpha1.CacheEntry, n)
	for i := range entries {
		entries[i] = w.entry("e" + strconv.Itoa(i))
		w.create(entries[i])
	}
	for _, e := range entries {
		w.becomes(e, isWarm)
	}
	seen := w.follow()
	proxy.Cut()
	l, dials := dead(t, proxy.Addr)
	w.becomes(p, waits("ConnectionFailed"))
	before := dials.Load()
	w.Consistently(dials.Load, 5*time.Second).Should(BeNumerically("<=", before+6), "a second lies between the first probes, then two")

	w.Expect(w.redis.FlushAll(t.Context()).Err()).To(Succeed())
	w.Expect(l.Close()).To(Succeed())
	trips := proxy.Trips()
	proxy.Mend()
	w.Eventually(func() []string { return w.keys(mainPrefix + "*") }).Should(HaveLen(n))
	w.Expect(proxy.Trips() - trips).To(BeNumerically("<", n/10))
	w.Expect(seen()).To(HaveLen(n), "as they were")
}
