// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/status"
	"github.com/cachewright/cachewright/internal/testing/gitops"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// What the conditions of flushes read before the end.
const (
	isRunning    = "Ready=Unknown/Running Reconciling=True/Running"
	isQueued     = "Ready=Unknown/Queued Reconciling=True/Queued"
	counted      = "Ready=True/KeysCounted Complete=True/KeysCounted"
	retrying     = "Ready=False/FlushFailed Reconciling=True/ProgressingWithRetry"
	isSuspended  = "Ready=Unknown/Suspended Suspended=True/Suspended"
	poolIsDown   = "Ready=False/PoolNotReady Reconciling=True/PoolNotReady"
	mainPrefix   = "glimr:cache:main:"
	slowAnswer   = 50 * time.Millisecond
	manyKeys     = 300_000
	longInterval = time.Hour
	tookTooLong  = "Ready=False/DeadlineExceeded Failed=True/DeadlineExceeded Stalled=True/DeadlineExceeded"
	failedOften  = "Ready=False/BackoffLimitExceeded Failed=True/BackoffLimitExceeded Stalled=True/BackoffLimitExceeded"
)

func all(f *v1alpha1.CacheFlush) { f.Spec.All = new(true) }

func dryRun(f *v1alpha1.CacheFlush) { f.Spec.Mode = v1alpha1.FlushDryRun }

func prefixed(prefix string) func(*v1alpha1.CacheFlush) {
	return func(f *v1alpha1.CacheFlush) { f.Spec.Prefix = prefix }
}

func matching(glob string) func(*v1alpha1.CacheFlush) {
	return func(f *v1alpha1.CacheFlush) { f.Spec.Match = glob }
}

func named(keys ...string) func(*v1alpha1.CacheFlush) {
	return func(f *v1alpha1.CacheFlush) { f.Spec.Keys = keys }
}

// run1, run2 and run3 set the runID of a flush.
func run1(f *v1alpha1.CacheFlush) { f.Spec.RunID = "v1" }
func run2(f *v1alpha1.CacheFlush) { f.Spec.RunID = "v2" }
func run3(f *v1alpha1.CacheFlush) { f.Spec.RunID = "v3" }

// atMost limits a flush to so many keys a second.
func atMost(keys int64) func(*v1alpha1.CacheFlush) {
	return func(f *v1alpha1.CacheFlush) { f.Spec.MaxKeysPerSecond = &keys }
}

// atMostLong gives a flush a deadline.
func atMostLong(seconds int64) func(*v1alpha1.CacheFlush) {
	return func(f *v1alpha1.CacheFlush) { f.Spec.ActiveDeadlineSeconds = &seconds }
}

func suspend(f *v1alpha1.CacheFlush) { f.Spec.Suspend = true }

func resume(f *v1alpha1.CacheFlush) { f.Spec.Suspend = false }

// under gives a pool a prefix, and a name if it is not main.
func under(prefix string) func(*v1alpha1.CachePool) {
	return func(p *v1alpha1.CachePool) { p.Spec.KeyPrefix = prefix }
}

// unwatched keeps the operator from checking a pool during the test, unless something tells it to.
func unwatched(p *v1alpha1.CachePool) { p.Spec.ResyncPeriod.Duration = longInterval }

// newProxiedWorld runs on a redis-server behind a network whose answers are late, so that a flush takes a while.
func newProxiedWorld(t *testing.T) (*world, *redistest.Server, *redistest.Proxy) {
	t.Helper()
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.NewProxy(t, server.Addr, 0)
	w := worldAt(t, server.Addr)
	w.addr = proxy.Addr
	return w, server, proxy
}

// run a flush to its end.
func (w *world) run(name string, change ...func(*v1alpha1.CacheFlush)) *v1alpha1.CacheFlush {
	w.t.Helper()
	f := w.flush(name, change...)
	w.create(f)
	w.becomes(f, flushed)
	return f
}

// fill stores n keys <prefix>1, <prefix>2, … in portions that keep the server from nothing else for long.
func (w *world) fill(prefix string, n int) {
	w.t.Helper()
	const portion = 10_000
	script := `for i = tonumber(ARGV[2]), tonumber(ARGV[3]) do redis.call('set', ARGV[1] .. i, 'v') end return 0`
	for i := 1; i <= n; i += portion {
		w.Expect(w.redis.Eval(w.t.Context(), script, []string{prefix}, prefix, i, min(n, i+portion-1)).Err()).To(Succeed())
	}
}

// count the keys that begin with a prefix; it must not hold glob characters.
func (w *world) count(prefix string) int {
	w.t.Helper()
	return len(w.keys(prefix + "*"))
}

// keys that match a glob, sorted, but for those by which a pool tries whether its server reports changes.
func (w *world) keys(glob string) []string {
	w.t.Helper()
	found, err := w.redis.Keys(w.t.Context(), glob).Result()
	w.Expect(err).NotTo(HaveOccurred())
	found = slices.DeleteFunc(found, func(key string) bool { return strings.Contains(key, "cachewright-probe-") })
	slices.Sort(found)
	return found
}

// calls of a command that a real server has counted.
func (w *world) calls(command string) int {
	w.t.Helper()
	text, err := w.redis.Info(w.t.Context(), "commandstats").Result()
	w.Expect(err).NotTo(HaveOccurred())
	n := 0
	if _, rest, ok := strings.Cut(text, "cmdstat_"+command+":calls="); ok {
		_, err := fmt.Sscanf(rest, "%d", &n)
		w.Expect(err).NotTo(HaveOccurred())
	}
	return n
}

// reads waits until an object is as check wants it.
func reads[T client.Object](w *world, o T, check func(Gomega, T)) {
	w.t.Helper()
	w.Eventually(func(g Gomega) {
		g.Expect(k8s.Get(w.t.Context(), client.ObjectKeyFromObject(o), o)).To(Succeed())
		check(g, o)
	}).Should(Succeed())
}

// midway waits until a flush has saved a checkpoint in the middle.
func (w *world) midway(f *v1alpha1.CacheFlush) {
	w.t.Helper()
	reads(w, f, func(g Gomega, f *v1alpha1.CacheFlush) {
		g.Expect(f.Status.Checkpoints).NotTo(BeEmpty())
		g.Expect(f.Status.Progress.Percent).To(BeNumerically(">", 0))
	})
	w.Expect(summary(f)).To(Equal(isRunning), "it has already finished: make it slower")
}

// begun waits until a flush that is limited has deleted something, in its present run.
func (w *world) begun(f *v1alpha1.CacheFlush) {
	w.t.Helper()
	reads(w, f, func(g Gomega, f *v1alpha1.CacheFlush) {
		g.Expect(f.Status.Progress).NotTo(BeNil())
		g.Expect(f.Status.Progress.Deleted).To(BeNumerically(">", 0))
		g.Expect(summary(f)).To(Equal(isRunning))
	})
}

// progress of a flush in a line: percent matched deleted preserved.
func progress(f *v1alpha1.CacheFlush) string {
	p := f.Status.Progress
	if p == nil {
		return "none"
	}
	return fmt.Sprintf("%d%% matched %d deleted %d preserved %d", p.Percent, p.Matched, p.Deleted, p.Preserved)
}

// kstatusOf an object, as Flux and Helm compute it.
func kstatusOf(t *testing.T, o status.Object) string {
	t.Helper()
	return gitops.Kstatus(t, o).String()
}

// history of the flushes of a namespace, in the order of the API server's writes.
type history struct {
	mu     sync.Mutex
	states []state
}

// state of the flushes of a namespace at one time.
type state map[string]*v1alpha1.CacheFlush

// record what becomes of the flushes of the test's namespace, every write of it.
func (w *world) record() *history {
	w.t.Helper()
	h := &history{}
	seen := state{}
	ctx, stop := context.WithCancel(w.t.Context())
	watcher, err := k8s.Watch(ctx, &v1alpha1.CacheFlushList{}, client.InNamespace(w.namespace))
	w.Expect(err).NotTo(HaveOccurred())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range watcher.ResultChan() {
			flush, ok := e.Object.(*v1alpha1.CacheFlush)
			if !ok {
				continue
			}
			seen[flush.Name] = flush
			if e.Type == watch.Deleted {
				delete(seen, flush.Name)
			}
			h.mu.Lock()
			h.states = append(h.states, maps.Clone(seen))
			h.mu.Unlock()
		}
	}()
	w.t.Cleanup(func() { stop(); watcher.Stop(); <-done })
	return h
}

// all states so far.
func (h *history) all() []state {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.states)
}

// of the flush named flush, each distinct thing that tell says of it.
func (h *history) of(tell func(status.Object) string) []string {
	var told []string
	for _, s := range h.all() {
		if f := s["flush"]; f != nil {
			told = append(told, tell(f))
		}
	}
	return slices.Compact(told)
}

// together is the largest number of flushes that were Running at the same time.
func (h *history) together() int {
	most := 0
	for _, s := range h.all() {
		n := 0
		for f := range maps.Values(s) {
			if isReconciling(f, v1alpha1.ReasonRunning) {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

// ended lists the flushes in the order in which they completed.
func (h *history) ended() []string {
	var order []string
	for _, s := range h.all() {
		for name, f := range s {
			if apimeta.IsStatusConditionTrue(f.Status.Conditions, v1alpha1.ConditionComplete) && !slices.Contains(order, name) {
				order = append(order, name)
			}
		}
	}
	return order
}

func isReconciling(f *v1alpha1.CacheFlush, reason string) bool {
	c := apimeta.FindStatusCondition(f.Status.Conditions, v1alpha1.ConditionReconciling)
	return c != nil && c.Reason == reason
}

// request a look at an object, which changes nothing about it.
func (w *world) request(o client.Object, value string) {
	w.t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"cachewright.dev/requestedAt":%q}}}`, value)
	w.Expect(k8s.Patch(w.t.Context(), o, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
}
