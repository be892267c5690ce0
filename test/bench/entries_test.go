// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/controlplane"
)

// auditPolicy has every request told, without its content, when it ends.
const auditPolicy = `{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived", "ResponseStarted"], "rules": [{"level": "Metadata"}]}`

// kept are entries that an operator keeps warm.
type kept struct {
	*bench
	*report

	// auditLog is where the API server notes all requests.
	auditLog string
	// used is how much memory the server used a moment ago.
	used int
}

// newKept makes entries with a value, which no operator keeps yet.
func newKept(b *testing.B, report, value string) *kept {
	b.Helper()
	dir := b.TempDir()
	policy, log := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "audit.log")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		b.Fatal(err)
	}
	k := &kept{
		report: newReport(b, report), auditLog: log,
		bench: newBench(b, controlplane.WithFlag("audit-policy-file", policy), controlplane.WithFlag("audit-log-path", log)),
	}
	k.value = value
	k.createPool(k.network.Addr)
	k.stamp(0, *entries)
	return k
}

// BenchmarkEntries keeps entries warm, and measures one thing after the other.
func BenchmarkEntries(b *testing.B) {
	k := newKept(b, "entries", value)
	k.restarts()
	k.repairs()
	k.idle()
	k.stopOperator()
	k.end()
}

// restarts measure what an operator that starts anew under warm entries costs, against a client that lists the entries and
// reads their keys.
func (k *kept) restarts() {
	k.Helper()
	var ours, starts, floors, trips, writes []float64
	for i := range *repeats {
		tripped, read, asked := k.network.Trips(), k.reads(), k.requests().writes
		k.startOperator("--zap-log-level", "info")
		profiled := k.operator.profile("restart", 4)
		synced := k.operator.synced()
		k.awaitReads(read + *entries)
		ours, starts = append(ours, milliseconds(time.Since(synced))), append(starts, milliseconds(time.Since(k.operator.started)))
		trips = append(trips, float64(k.network.Trips()-tripped))
		profiled()
		pause(k.Context(), 2*time.Second) // whatever else it might do
		writes = append(writes, float64(k.requests().writes-asked))
		if i < *repeats-1 {
			k.stopOperator()
		}
		began := time.Now()
		k.must(k.client.List(k.Context(), &v1alpha1.CacheEntryList{}, client.InNamespace(namespace)))
		k.pipelined(*entries, prefix, func(p redis.Pipeliner, name string, _ int) {
			p.GetRange(k.Context(), name, 0, int64(len(k.value)))
			p.PTTL(k.Context(), name)
		})
		floors = append(floors, milliseconds(time.Since(began)))
	}
	k.add("restart", "restart: entries in the cache until all keys are verified", "ms", new(2000.), ours...)
	k.add("restart-start", "restart: start of the process until all keys are verified", "ms", nil, starts...)
	k.add("restart-floor", "restart: start of the process until all keys are verified / floor", "", nil, ratios(starts, floors)...)
	k.add("restart-writes", "restart: writes to the API server", "", new(0.), writes...)
	k.add("restart-trips", "restart: round trips to Redis", "", new(100.), trips...)
}

// reads of keys that the server has served.
func (b *bench) reads() int {
	b.Helper()
	text := b.redis.InfoMap(b.Context(), "commandstats").Item("Commandstats", "cmdstat_getrange")
	calls, _, _ := strings.Cut(strings.TrimPrefix(text, "calls="), ",")
	n, _ := strconv.Atoi(calls)
	return n
}

// idle measures what entries cost when nothing happens, over some resyncs.
func (k *kept) idle() {
	k.Helper()
	k.operator.heap("idle")
	before, cpu, began := k.requests(), k.operator.cpu(), time.Now()
	pause(k.Context(), 3**calm)
	busy, after, minutes := k.operator.cpu()-cpu, k.requests(), time.Since(began).Minutes()
	k.add("idle-cpu", fmt.Sprintf("idle, with a look at all keys every %s: CPU", resyncPeriod), "% of a core", new(1.), 100*busy/minutes/60)
	k.add("idle-writes", "idle: writes to the API server", "a minute", new(0.), float64(after.writes-before.writes)/minutes)
	k.add("idle-requests", "idle: requests to the API server", "a minute", nil, float64(after.all-before.all)/minutes)
}

// requests of the operator: all of them, those that write, and those that write entries.
type requests struct{ all, writes, ofEntries int }

// requests that the API server has noted so far.
func (k *kept) requests() (seen requests) {
	k.Helper()
	file, err := os.Open(k.auditLog)
	k.must(err)
	defer func() { _ = file.Close() }()
	for lines := bufio.NewReader(file); ; {
		text, err := lines.ReadBytes('\n')
		if err != nil { // the last line is still being written
			return seen
		}
		var e struct {
			Verb      string `json:"verb"`
			UserAgent string `json:"userAgent"`
			Object    struct {
				Resource string `json:"resource"`
			} `json:"objectRef"`
		}
		k.must(json.Unmarshal(text, &e))
		if !strings.HasPrefix(e.UserAgent, filepath.Base(k.operator.Path)+"/") {
			continue
		}
		seen.all++
		if !slices.Contains([]string{"get", "list", "watch"}, e.Verb) {
			seen.writes++
			if e.Object.Resource == "cacheentries" {
				seen.ofEntries++
			}
		}
	}
}
