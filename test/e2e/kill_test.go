// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

const (
	matchingKeys = 300_000
	otherKeys    = 10_000
	// batch is about the most that one UNLINK and SCAN deal with.
	batch = 5_500
	users = "glimr:cache:main:user:"
)

// halfway is a flush in the middle of 300,000 keys, with the operator that runs it.
type halfway struct {
	*WithT

	t       *testing.T
	manager *manager
	redis   *redis.Client
	proxy   *redistest.Proxy
	flush   *v1alpha1.CacheFlush
}

func startHalfway(t *testing.T, change ...func(*v1alpha1.CacheFlush)) *halfway {
	t.Helper()
	server := redistest.Start(t)
	h := &halfway{WithT: expectations(t), t: t, redis: server.Client(t), proxy: redistest.NewProxy(t, server.Addr, 0)}
	h.fill(users, matchingKeys)
	h.fill("glimr:cache:main:other:", otherKeys)
	h.fill("foreign:", otherKeys)
	space := namespace(t, "kill")
	h.manager = run(t, kubeconfig)
	pool := poolIn(space, h.proxy.Addr)
	h.Expect(k8s.Create(t.Context(), pool)).To(Succeed())
	becomes(h.t, h.WithT, pool, v1alpha1.ConditionReady)
	h.proxy.Slow(50 * time.Millisecond)
	h.flush = flushIn(space, "flush")
	h.flush.Spec.Prefix = "user:"
	for _, c := range change {
		c(h.flush)
	}
	h.Expect(k8s.Create(t.Context(), h.flush)).To(Succeed())
	h.Eventually(func(g Gomega) {
		h.reload()
		g.Expect(h.flush.Status.Progress).NotTo(BeNil())
		g.Expect(h.flush.Status.Progress.Percent).To(BeNumerically(">", 10))
	}).Should(Succeed())
	// Not right after a save: some work is to be lost.
	done := h.scans() + 5
	h.Eventually(h.scans).Should(BeNumerically(">=", done))
	return h
}

func (h *halfway) fill(prefix string, n int) {
	h.t.Helper()
	const portion = 10_000
	script := `for i = ARGV[2], ARGV[3] do redis.call('set', ARGV[1] .. i, 'v') end return 0`
	for i := 1; i <= n; i += portion {
		h.Expect(h.redis.Eval(h.t.Context(), script, []string{prefix}, prefix, i, min(n, i+portion-1)).Err()).To(Succeed())
	}
}

// scans that the server has done.
func (h *halfway) scans() int {
	n := 0
	stats := h.redis.InfoMap(h.t.Context(), "commandstats").Item("Commandstats", "cmdstat_scan")
	if _, err := fmt.Sscanf(stats, "calls=%d", &n); err != nil {
		h.t.Error(err)
	}
	return n
}

func (h *halfway) reload() {
	h.t.Helper()
	h.Expect(k8s.Get(h.t.Context(), client.ObjectKeyFromObject(h.flush), h.flush)).To(Succeed())
}

// goOn with another operator, whose commands the server notes, to the end. It says what the first one left behind: the
// status it had saved, and how many keys it had deleted.
func (h *halfway) goOn() (saved *v1alpha1.CacheFlushStatus, gone int) {
	h.t.Helper()
	gone = matchingKeys - h.count(users)
	h.reload()
	saved = h.flush.Status.DeepCopy()
	h.Expect(apimeta.FindStatusCondition(h.flush.Status.Conditions, v1alpha1.ConditionReady).Reason).To(Equal(v1alpha1.ReasonRunning), "it has already finished: make it slower")
	for setting, value := range map[string]string{"slowlog-max-len": "1000000", "slowlog-log-slower-than": "0"} {
		h.Expect(h.redis.ConfigSet(h.t.Context(), setting, value).Err()).To(Succeed())
	}
	h.Expect(h.redis.Do(h.t.Context(), "slowlog", "reset").Err()).To(Succeed())
	h.proxy.Slow(0)
	h.manager = run(h.t, kubeconfig)
	becomes(h.t, h.WithT, h.flush, v1alpha1.ConditionComplete)
	return saved, gone
}

// cursors of the flush's scans that the server has noted, in order.
func (h *halfway) cursors() []string {
	h.t.Helper()
	log, err := h.redis.SlowLogGet(h.t.Context(), -1).Result()
	h.Expect(err).NotTo(HaveOccurred())
	var cursors []string
	for _, command := range log { // the latest first
		if len(command.Args) > 3 && strings.EqualFold(command.Args[0], "scan") && command.Args[3] == users+"*" {
			cursors = append([]string{command.Args[1]}, cursors...)
		}
	}
	return cursors
}

func (h *halfway) count(prefix string) int {
	h.t.Helper()
	keys, err := h.redis.Keys(h.t.Context(), prefix+"*").Result()
	h.Expect(err).NotTo(HaveOccurred())
	return len(keys)
}

func TestAFlushWhoseOperatorIsKilledGoesOnWhereItStopped(t *testing.T) {
	h := startHalfway(t)
	h.manager.kill()
	saved, gone := h.goOn()

	h.Expect(h.count(users)).To(BeZero())
	h.Expect(h.count("glimr:cache:main:other:")).To(Equal(otherKeys))
	h.Expect(h.count("foreign:")).To(Equal(otherKeys))
	h.Expect(h.flush.Status.StartTime).To(Equal(saved.StartTime))
	h.Expect(h.flush.Status.Failures).To(BeZero())
	cursors := h.cursors()
	h.Expect(cursors).NotTo(BeEmpty())
	h.Expect(cursors[0]).To(Equal(saved.Checkpoints[0].Cursor), "the checkpoint's cursor is used")
	h.Expect(cursors).NotTo(ContainElement("0"), "it does not start over")
	// What was deleted since the last save went uncounted with the operator, and nothing else did.
	uncounted := int64(gone) - saved.Progress.Deleted
	h.Expect(h.flush.Status.Progress.Deleted).To(And(
		BeNumerically("<=", matchingKeys), BeNumerically(">=", matchingKeys-uncounted-batch)))
	h.Expect(h.flush.Status.Progress.Percent).To(BeEquivalentTo(100))

	// A finished flush is finished for every operator to come.
	h.Expect(h.redis.Set(t.Context(), users+"later", "v", 0).Err()).To(Succeed())
	h.manager.kill()
	h.manager = run(t, kubeconfig)
	next := flushIn(h.flush.Namespace, "next")
	next.Spec.Prefix = "none"
	h.Expect(k8s.Create(t.Context(), next)).To(Succeed())
	becomes(h.t, h.WithT, next, v1alpha1.ConditionComplete)
	h.Expect(h.count(users)).To(Equal(1))
}

func TestACountWhoseOperatorIsKilledIsExact(t *testing.T) {
	h := startHalfway(t, func(f *v1alpha1.CacheFlush) { f.Spec.Mode = v1alpha1.FlushDryRun })
	h.manager.kill()
	h.goOn()
	h.Expect(h.cursors()).NotTo(ContainElement("0"), "it does not start over")
	h.Expect(h.flush.Status.Progress.Matched).To(BeEquivalentTo(matchingKeys))
	h.Expect(h.count(users)).To(Equal(matchingKeys))
}

// The connections close while the slice ends, so the reply to the last batch may be lost.
func TestAFlushWhoseOperatorIsStoppedCountsEveryKeyButForABatch(t *testing.T) {
	h := startHalfway(t)
	h.manager.stop()
	h.goOn()
	h.Expect(h.cursors()).NotTo(ContainElement("0"), "it does not start over")
	h.Expect(h.flush.Status.Progress.Deleted).To(And(BeNumerically("<=", matchingKeys), BeNumerically(">=", matchingKeys-batch)))
	h.Expect(h.count(users)).To(BeZero())
}
