// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// taken for a topology, whatever is at the address.
func taken(topology cache.Topology, master string) func(*cache.Options) {
	return func(o *cache.Options) { o.Topology, o.MasterName = topology, master }
}

func asSentinels(username, password string) func(*cache.Options) {
	return func(o *cache.Options) { o.SentinelUsername, o.SentinelPassword = username, password }
}

func TestAWrongTopologyIsNamed(t *testing.T) {
	t.Parallel()
	cluster, set := redistest.StartCluster(t, 3, false), redistest.StartSentinels(t, "down-after-milliseconds 60000")
	secured := redistest.StartSentinels(t, "down-after-milliseconds 60000", "* requirepass "+marker)
	server, empty := redistest.Start(t), redistest.Start(t, "--cluster-enabled", "yes")
	const mymaster = redistest.MasterName
	for name, tc := range map[string]struct {
		addr    string
		changes []func(*cache.Options)
		class   cache.Class
		reason  string
		message string
	}{
		"a cluster as Standalone":     {cluster.Masters[1].Addr, nil, cache.Refused, cache.ReasonWrongTopology, "The server runs in cluster mode, not as a standalone server"},
		"a sentinel as Standalone":    {set.Sentinels[0].Addr, nil, cache.Refused, cache.ReasonWrongTopology, "The server runs in sentinel mode, not as a standalone server"},
		"a replica as Standalone":     {set.Servers[1].Addr, nil, cache.Unavailable, cache.ReasonReadOnlyReplica, "The server is a read-only replica"},
		"a server as Cluster":         {server.Addr, []func(*cache.Options){taken(cache.Cluster, "")}, cache.Refused, cache.ReasonWrongTopology, "The server is not a node of a cluster"},
		"a sentinel as Cluster":       {set.Sentinels[0].Addr, []func(*cache.Options){taken(cache.Cluster, "")}, cache.Refused, cache.ReasonWrongTopology, "The addresses lead to no cluster"},
		"a node without slots":        {empty.Addr, []func(*cache.Options){taken(cache.Cluster, "")}, cache.Unavailable, cache.ReasonClusterDown, "No node of the cluster has any slots"},
		"a server as Sentinel":        {server.Addr, []func(*cache.Options){taken(cache.Sentinel, mymaster)}, cache.Refused, cache.ReasonWrongTopology, "The addresses lead to no sentinels"},
		"a cluster as Sentinel":       {cluster.Masters[0].Addr, []func(*cache.Options){taken(cache.Sentinel, mymaster)}, cache.Refused, cache.ReasonWrongTopology, "The addresses lead to no sentinels"},
		"another master":              {set.Address(), []func(*cache.Options){taken(cache.Sentinel, marker)}, cache.Refused, cache.ReasonWrongTopology, "The sentinels know no master of this name"},
		"sentinels without password":  {secured.Address(), nil, cache.Refused, cache.ReasonAuthenticationFailed, "The sentinels refuse the user name or password, or ask for one"},
		"sentinels, wrong password":   {secured.Address(), []func(*cache.Options){asSentinels("", marker+"x")}, cache.Refused, cache.ReasonAuthenticationFailed, "The sentinels refuse the user name or password, or ask for one"},
		"no sentinel there":           {"sentinel://127.0.0.1:1,127.0.0.1:2/" + mymaster, nil, cache.Unavailable, cache.ReasonConnectionFailed, "No sentinel answers: Connection refused"},
		"no node there":               {"cluster://127.0.0.1:1,127.0.0.1:2", nil, cache.Unavailable, cache.ReasonConnectionFailed, "Connection refused"},
		"no database of this number":  {set.Address(), []func(*cache.Options){func(o *cache.Options) { o.Database = 99 }}, cache.Refused, cache.ReasonWrongTopology, "The server has no database of this number"},
		"the right sentinel password": {secured.Address(), []func(*cache.Options){asSentinels("", marker)}, 0, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := open(t, tc.addr, append(tc.changes, within(3*time.Second))...)
			if tc.class == 0 {
				ok(t, check(t, p)())
				return
			}
			want := cache.Error{Class: tc.class, Reason: tc.reason, Message: tc.message}
			if e := failure(t, check(t, p)); e != want {
				t.Errorf("%+v, want %+v", e, want)
			}
		})
	}
}

func TestAClusterThatIsDown(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3, false)
	for _, s := range c.Masters {
		ok(t, s.Client(t).ConfigSet(t.Context(), "cluster-node-timeout", "500").Err())
	}
	p := open(t, c.Address(), within(3*time.Second))
	ok(t, check(t, p)())
	masters := inTurn(c)
	masters[1].Kill()
	down := func() bool {
		return strings.Contains(masters[0].Client(t).ClusterInfo(t.Context()).Val(), "cluster_state:fail") &&
			strings.Contains(masters[2].Client(t).ClusterInfo(t.Context()).Val(), "cluster_state:fail")
	}
	NewWithT(t).Eventually(down).WithTimeout(timeout).Should(BeTrue())
	want := cache.Error{Class: cache.Unavailable, Reason: cache.ReasonClusterDown, Message: "The cluster is down"}
	if e := failure(t, check(t, p)); e != want {
		t.Errorf("%+v, want %+v", e, want)
	}
	if got, err := p.NewScan(users, cache.ScanOptions{}).Run(t.Context(), cache.Checkpoint{}, never); !cache.ServerWide(err) || got.Checkpoint.Done {
		t.Errorf("%+v, %v", got, err)
	}
}

// All keys of such a prefix lie on one node; the others have none to tell of, and none to try commands on.
func TestAPrefixWithAHashTag(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3, false)
	p := open(t, c.Address(), under("{"+marker+"}:"))
	server := must[cache.Server](t)(p.Check(t.Context()))
	if server.Nodes != 3 {
		t.Errorf("%+v", server)
	}
	w := watch(t, p, cache.Tracking)
	client := c.Client(t)
	w.observe(t, "k")
	ok(t, p.PutForever(t.Context(), "k", "v"))
	w.want(t, client, "k")
	wantSum(t, 2, increment(t, p, 2, "run", 1))
	fill(t, c.Address(), p.Prefix(), 3000)
	fill(t, c.Address(), "other:", 100)
	if deleted := must[int64](t)(p.Flush(t.Context())); deleted < 3000 || len(keys(t, c.Address())) != 101 { // and the marker
		t.Errorf("deleted %d, %d are left", deleted, len(keys(t, c.Address())))
	}
}

// spread are n names without the prefix, of keys on all masters.
func spread(n int) []string {
	names := make([]string, n)
	for i := range n {
		names[i] = "k" + strconv.Itoa(i)
	}
	return names
}

func TestChangesOnAllMastersAreTold(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"cluster", "sentinel"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, _ := redistest.Servers[name](t)
			for how, p := range map[cache.Detection]*cache.Pool{cache.Tracking: open(t, addr), cache.Broadcast: open(t, addr, deafTo(t, addr))} {
				t.Run(string(how), func(t *testing.T) {
					names, c := spread(30), client(t, addr)
					w := watch(t, p, how)
					w.observe(t, names...)
					for _, k := range names {
						ok(t, c.Set(t.Context(), prefix+k, "v", 0).Err())
					}
					w.hears(t, names...)
					w.observe(t, names...)
					for _, k := range names {
						ok(t, c.Del(t.Context(), prefix+k).Err())
					}
					w.hears(t, names...)
					for _, k := range names {
						ok(t, c.Set(t.Context(), prefix+k, "v", time.Second).Err())
					}
					w.observe(t, names...)
					NewWithT(t).Eventually(func() int { return len(keys(t, addr)) }).WithTimeout(timeout).Should(BeZero())
					w.hears(t, names...)
					one := 0
					each(t, addr, func(m *redis.Client) error {
						one++
						if one > 1 {
							return nil
						}
						return m.FlushAll(t.Context()).Err()
					})
					w.hears(t, flushed)
				})
			}
		})
	}
}

// deafTo is a user who may not ask for the ID of its connection, on all masters.
func deafTo(t *testing.T, addr string) func(*cache.Options) {
	t.Helper()
	each(t, addr, func(c *redis.Client) error {
		return c.ACLSetUser(t.Context(), "deaf", "on", ">"+marker, "+@all", "-client|id", "~*").Err()
	})
	return as("deaf", marker)
}

// hears waits until these were told since the last call.
func (w *watcher) hears(t *testing.T, want ...string) {
	t.Helper()
	NewWithT(t).Eventually(func() (missing []string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, key := range want {
			if !slices.Contains(w.told, key) {
				missing = append(missing, key)
			}
		}
		return missing
	}).WithTimeout(timeout).Should(BeEmpty(), "not told")
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = nil
}
