// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// warmed are a thousand keys that are as declared.
type warmed struct {
	*WithT

	t       *testing.T
	redis   *redis.Client
	proxy   *redistest.Proxy
	space   string
	keys    int
	manager *manager
}

func warmUp(t *testing.T, keys int, resync time.Duration) *warmed {
	t.Helper()
	server := redistest.Start(t)
	w := &warmed{
		WithT: expectations(t), t: t, redis: server.Client(t), proxy: redistest.NewProxy(t, server.Addr, 0),
		space: namespace(t, "restart"), keys: keys,
	}
	pool := poolIn(w.space, w.proxy.Addr)
	pool.Spec.ResyncPeriod = &metav1.Duration{Duration: resync}
	w.Expect(k8s.Create(t.Context(), pool)).To(Succeed())
	w.start()
	all(keys, func(i int) {
		e := entryIn(w.space, fmt.Sprintf("entry-%d", i))
		e.Spec.Value = new(fmt.Sprintf("%-100d", i))
		if i%2 == 0 {
			e.Spec.Forever, e.Spec.TTL = nil, &metav1.Duration{Duration: time.Hour}
		}
		if err := k8s.Create(t.Context(), e); err != nil {
			t.Error(err)
		}
	})
	w.Eventually(w.ready).Should(Equal(keys))
	return w
}

func (w *warmed) start() { w.manager = run(w.t, kubeconfig, "--namespaces="+w.space) }

// ready entries.
func (w *warmed) ready() int {
	n := 0
	for _, e := range entriesIn(w.t, w, w.space) {
		if isReady(&e) {
			n++
		}
	}
	return n
}

// looks at keys that the server has served.
func (w *warmed) looks() int { return calls(w.t, w.redis, "getrange") }

// traffic of the server so far: commands, and how often it has read from a connection, which is once for a round trip
// or somewhat more often.
func (w *warmed) traffic() (commands, reads int) {
	w.t.Helper()
	for name, n := range map[string]*int{"total_commands_processed": &commands, "total_reads_processed": &reads} {
		var err error
		*n, err = strconv.Atoi(w.redis.InfoMap(w.t.Context(), "stats").Item("Stats", name))
		w.Expect(err).NotTo(HaveOccurred())
	}
	return commands, reads
}

// verified waits until all keys have been looked at some times since, and says how long that took.
func (w *warmed) verified(since, times int) time.Duration {
	w.t.Helper()
	began := time.Now()
	w.Eventually(w.looks).WithPolling(50 * time.Millisecond).WithTimeout(patience + time.Duration(times)*15*time.Second).
		Should(BeNumerically(">=", since+times*w.keys))
	return time.Since(began).Round(time.Millisecond)
}

// away is what happens to the server for five seconds; what the operator then writes must not concern entries.
func (w *warmed) away(how string, begin, end func()) (written []string) {
	w.t.Helper()
	noted, since := auditFromNow(w.t), w.looks()
	begin()
	pause(w.t, 5*time.Second)
	w.Expect(w.redis.Del(w.t.Context(), "glimr:cache:main:entry-1").Err()).To(Succeed())
	end()
	took := w.verified(since, 1)
	w.Eventually(func() int64 { return w.redis.Exists(w.t.Context(), "glimr:cache:main:entry-1").Val() }).Should(BeEquivalentTo(1))
	written = noted.writes(w.space)
	w.t.Logf("a Redis %s for 5 s, all verified %v later: the operator wrote %q", how, took, written)
	for _, write := range written {
		w.Expect(strings.Contains(write, "cacheentries")).To(BeFalse(), write)
	}
	w.Expect(len(written)).To(BeNumerically("<", 10))
	return written
}

func TestAThousandWarmKeysCostNothingToTheAPIServer(t *testing.T) {
	t.Parallel()
	const keys, resync = 1000, 10 * time.Second
	w := warmUp(t, keys, resync)

	// A restart.
	w.manager.stop()
	noted, since := auditFromNow(t), w.looks()
	commands, reads := w.traffic()
	w.start()
	took := w.verified(since, 1)
	commandsThen, readsThen := w.traffic()
	polls := int(took/(50*time.Millisecond)) + 3 // of the test's own
	t.Logf("restart: %d keys verified after %v, in %d commands, for which Redis read %d times (about %d of each are the test's)",
		keys, took, commandsThen-commands, readsThen-reads, polls)
	w.Expect(readsThen-reads-polls).To(BeNumerically("<", 250), "keys are read in batches")
	w.Expect(commandsThen - commands - polls).To(BeNumerically("<", 5*keys))

	// Three resyncs.
	since = w.looks()
	t.Logf("three resyncs took %v", w.verified(since, 3))
	w.Expect(noted.writes(w.space)).To(BeEmpty())

	// A Redis that is away.
	w.Expect(w.away("that refuses connections", w.proxy.Cut, w.proxy.Mend)).To(ContainElement("patch cachepools/status main"))
	w.away("that does not answer", w.proxy.Freeze, w.proxy.Thaw)
	w.Expect(w.ready()).To(Equal(keys))

	// It still works.
	for _, e := range entriesIn(t, w, w.space)[:10] {
		before := e.DeepCopy()
		e.Spec.Value = new("another")
		w.Expect(k8s.Patch(t.Context(), &e, client.MergeFrom(before))).To(Succeed())
		w.Eventually(func() string { return w.redis.Get(t.Context(), "glimr:cache:main:"+e.Name).Val() }).Should(Equal("another"))
	}
}
