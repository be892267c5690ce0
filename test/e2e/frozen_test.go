// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// replicas are two operators of which one leads, on ways of their own to one server.
type replicas struct {
	*counters

	leader, standby *manager
	// way of the leader to the server, and another one.
	way, other *redistest.Proxy
	pool       *v1alpha1.CachePool
	// flag is an entry whose value changes while the leader is frozen, for longer than the flag lives.
	flag *v1alpha1.CacheEntry
}

const flagKey = "glimr:cache:main:flag"

// flagLife is how long the flag lives without a renewal.
const flagLife = 15 * time.Second

func startReplicas(t *testing.T, n, runs int) *replicas {
	t.Helper()
	server := redistest.Start(t)
	space := namespace(t, "frozen")
	r := &replicas{way: redistest.NewProxy(t, server.Addr, 0), other: redistest.NewProxy(t, server.Addr, 0)}
	r.pool = poolIn(space, r.way.Addr)
	if err := k8s.Create(t.Context(), r.pool); err != nil {
		t.Fatal(err)
	}
	r.counters = newCounters(t, server.Client(t), space, n, runs)
	r.flag = entryIn(space, "flag")
	r.flag.Spec.Value, r.flag.Spec.Forever, r.flag.Spec.TTL = new("0"), nil, &metav1.Duration{Duration: flagLife}
	r.Expect(k8s.Create(t.Context(), r.flag)).To(Succeed())
	r.leader = r.replica()
	r.shown()
	r.standby = r.replica()
	return r
}

func (r *replicas) replica() *manager {
	return run(r.t, kubeconfig, "--leader-elect", "--leader-election-namespace="+r.space, "--namespaces="+r.space)
}

// scripts that the server has run.
func (r *replicas) scripts() int { return calls(r.t, r.redis, "eval") }

// freezeLeader and have the other take over, which gets to the server by the other way.
func (r *replicas) freezeLeader() {
	r.t.Helper()
	r.leader.freeze()
	before := r.pool.DeepCopy()
	r.pool.Spec.Addresses = []string{r.other.Addr}
	r.Expect(k8s.Patch(r.t.Context(), r.pool, client.MergeFrom(before))).To(Succeed())
	began := time.Now()
	r.shown()
	r.t.Logf("the other one had taken over and done what was left after %v", time.Since(began).Round(time.Second))
	r.allow(3 * len(r.increments))
	r.shown()
	becomes(r.t, r.WithT, r.flag, v1alpha1.ConditionReady)
	changed := r.flag.DeepCopy()
	changed.Spec.Value = new(*r.flag.Spec.Value + "0")
	r.Expect(k8s.Patch(r.t.Context(), changed, client.MergeFrom(r.flag))).To(Succeed())
	r.flag = changed
	r.Eventually(r.flagHolds).Should(Equal(*r.flag.Spec.Value))
}

func (r *replicas) flagHolds() string {
	return r.redis.Get(r.t.Context(), flagKey).Val()
}

// thawLeader must end it, since it leads no more. The other one leads now, and there is a new standby.
func (r *replicas) thawLeader() {
	r.t.Helper()
	before := r.counted()
	began := time.Now()
	r.leader.thaw()
	var last time.Time
	old := 0
	r.Eventually(func() <-chan struct{} {
		if r.flagHolds() != *r.flag.Spec.Value {
			old, last = old+1, time.Now()
		}
		return r.leader.exited
	}).WithPolling(time.Millisecond).Should(BeClosed(), "it has lost the lease")
	r.t.Logf("the frozen one ended itself %v after it was woken", time.Since(began).Round(time.Millisecond))
	if old > 0 {
		r.t.Logf("a key held the value from before the freeze %d times, the last time %v after it was woken", old, last.Sub(began))
	}
	r.Eventually(r.flagHolds).Should(Equal(*r.flag.Spec.Value))
	r.Expect(r.leader.logged()).To(ContainSubstring("leader election lost"))
	r.Expect(r.counted()).To(Equal(before))
	r.exact()
	r.leader, r.standby = r.standby, r.replica()
	r.way, r.other = r.other, r.way
}

// calls of a command that the server has served.
func calls(t *testing.T, r *redis.Client, command string) int {
	t.Helper()
	stats := r.InfoMap(t.Context(), "commandstats").Item("Commandstats", "cmdstat_"+command)
	n := 0
	if stats == "" {
		return n
	}
	if _, err := fmt.Sscanf(stats, "calls=%d", &n); err != nil {
		t.Error(err)
	}
	return n
}

// burden the leader with a run of each counter at once, when something has happened to its way to the server.
func (r *replicas) burden(way func()) {
	r.t.Helper()
	// Nothing else is due meanwhile, that would be sent before the increments.
	r.Eventually(func() time.Duration { return r.redis.PTTL(r.t.Context(), flagKey).Val() }).Should(BeNumerically(">", flagLife*2/3))
	r.leader.freeze() // for much less than the lease
	r.allow(len(r.increments))
	r.Eventually(r.asked.Load).Should(Equal(r.allowed.Load()))
	way()
	r.leader.thaw()
}

func TestCountersAreExactThoughTheLeaderIsFrozenPastItsLeaseAndWakes(t *testing.T) {
	t.Parallel()
	const n, runs = 20, 12
	r := startReplicas(t, n, runs)
	defer r.keepAsking()()
	r.allow(3 * n)
	r.shown()

	// Its last increments get to the server long after the other one has done them, and others after them.
	done := r.scripts()
	r.burden(r.way.Freeze)
	pause(t, 500*time.Millisecond) // it is about to wait for the server
	r.Expect(r.scripts()).To(Equal(done))
	r.freezeLeader()
	done = r.scripts()
	r.way.Thaw()
	r.Eventually(r.scripts).Should(BeNumerically(">", done), "increments of the frozen one come late")
	t.Logf("%d increments of the frozen one came late", r.scripts()-done)
	r.thawLeader()

	// The server has done its last increments, and the answers get lost.
	done = r.scripts()
	r.burden(func() { r.way.Slow(time.Minute) })
	r.Eventually(r.scripts).WithPolling(time.Millisecond).Should(BeNumerically(">", done))
	r.leader.freeze()
	t.Logf("%d increments of the frozen one were done without its knowing", r.unshown())
	r.freezeLeader()
	r.way.Slow(0)
	r.thawLeader()

	for i, counted := range r.counted() {
		r.Expect(counted).To(Equal(runs), r.name(i))
	}
}
