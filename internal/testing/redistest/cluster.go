// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package redistest

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// slots of a cluster.
const slots = 16384

// patience bounds every wait for servers to agree.
const patience = 60 * time.Second

// Cluster is a cluster of real servers on the loopback interface.
type Cluster struct {
	// Masters share the slots in equal parts, at first.
	Masters []*Server
	// Replicas of the masters, one for each, in the same order; or none.
	Replicas []*Server

	tb testing.TB
	// authority of the certificates, if the cluster speaks TLS.
	authority *Authority
}

// StartCluster runs a cluster of masters until the end of the test, maybe with a replica for each, that takes over a
// second and a half after the master was lost.
func StartCluster(tb testing.TB, masters int, replicas bool) *Cluster {
	tb.Helper()
	c := &Cluster{tb: tb}
	c.start(masters, replicas)
	return c
}

// StartClusterTLS runs a cluster of masters that speak TLS, as StartTLS has it, until the end of the test.
func StartClusterTLS(tb testing.TB, by *Authority, masters int) *Cluster {
	tb.Helper()
	c := &Cluster{tb: tb, authority: by}
	c.start(masters, false)
	return c
}

func (c *Cluster) start(masters int, replicas bool) {
	c.tb.Helper()
	for range masters {
		c.Masters = append(c.Masters, c.node(replicas))
	}
	for i, s := range c.Masters {
		c.ok(s.ask("cluster", "addslotsrange", i*slots/masters, (i+1)*slots/masters-1).Err())
		c.ok(s.ask("cluster", "set-config-epoch", i+1).Err())
	}
	if replicas {
		for range masters {
			c.Replicas = append(c.Replicas, c.node(true))
		}
	}
	c.meet()
	for i, s := range c.Replicas {
		id := c.ID(c.Masters[i])
		c.eventually("the replica follows", func() bool { return s.ask("cluster", "replicate", id).Err() == nil })
	}
	c.WaitUntilOK()
	for _, s := range c.Replicas {
		c.eventually("the replica is in sync", func() bool { return s.says("master_link_status:up", "info", "replication") })
	}
}

// Join adds a master without slots.
func (c *Cluster) Join() *Server {
	c.tb.Helper()
	s := c.node(false)
	c.Masters = append(c.Masters, s)
	c.meet()
	c.WaitUntilOK()
	return s
}

// node that belongs to no cluster yet.
func (c *Cluster) node(failover bool) *Server {
	c.tb.Helper()
	args := []string{"--cluster-enabled", "yes", "--cluster-allow-replica-migration", "no", "--repl-diskless-sync-delay", "0"}
	if failover {
		args = append(args, "--cluster-node-timeout", "1500", "--cluster-replica-validity-factor", "0")
	}
	if c.authority != nil {
		return StartTLS(c.tb, c.authority, append(args, "--tls-cluster", "yes")...)
	}
	return Start(c.tb, args...)
}

// meet makes all nodes know each other.
func (c *Cluster) meet() {
	c.tb.Helper()
	for _, s := range c.nodes() {
		for _, other := range c.nodes() {
			host, port, _ := net.SplitHostPort(other.Address())
			if other != s {
				c.ok(s.ask("cluster", "meet", host, port).Err())
			}
		}
	}
	for _, s := range c.nodes() {
		c.eventually("all nodes are known", func() bool {
			nodes, _ := s.ask("cluster", "nodes").Text()
			return strings.Count(nodes, " connected") == len(c.nodes()) && !strings.Contains(nodes, "handshake")
		})
	}
}

func (c *Cluster) nodes() []*Server { return slices.Concat(c.Masters, c.Replicas) }

// WaitUntilOK waits until every node that runs says that the cluster is, and which node has which slot.
func (c *Cluster) WaitUntilOK() {
	c.tb.Helper()
	for _, s := range c.nodes() {
		if s.isRunning() {
			c.eventually("the cluster is up", func() bool {
				return s.says("cluster_state:ok", "cluster", "info") && s.says("cluster_slots_ok:16384", "cluster", "info")
			})
		}
	}
}

// Address is the cluster's, for Options.
func (c *Cluster) Address() string {
	var addrs []string
	for _, s := range c.Masters {
		addrs = append(addrs, s.Address())
	}
	return "cluster://" + strings.Join(addrs, ",")
}

// Client is a plain client for preparations and assertions, closed at the end of the test; not for one that speaks TLS.
func (c *Cluster) Client(tb testing.TB) *redis.ClusterClient {
	tb.Helper()
	client := redis.NewClusterClient(Options(c.Address()).Cluster())
	tb.Cleanup(func() { _ = client.Close() })
	return client
}

// ID of a node.
func (c *Cluster) ID(s *Server) string {
	c.tb.Helper()
	id, err := s.ask("cluster", "myid").Text()
	c.ok(err)
	return id
}

// SlotOf a key.
func (c *Cluster) SlotOf(key string) int {
	c.tb.Helper()
	slot, err := c.Masters[0].ask("cluster", "keyslot", key).Int()
	c.ok(err)
	return slot
}

// FailOver makes the replica of a master take its place in good order.
func (c *Cluster) FailOver(i int) {
	c.tb.Helper()
	c.ok(c.Replicas[i].ask("cluster", "failover").Err())
	c.promoted(i)
}

// Lose kills a master and waits until its replica has taken its place.
func (c *Cluster) Lose(i int) {
	c.tb.Helper()
	c.Masters[i].Kill()
	c.promoted(i)
}

func (c *Cluster) promoted(i int) {
	c.tb.Helper()
	c.eventually("the replica is a master", func() bool { return c.Replicas[i].says("role:master", "info", "replication") })
	c.WaitUntilOK()
}

func (c *Cluster) ok(err error) {
	c.tb.Helper()
	if err != nil {
		c.tb.Fatal(err)
	}
}

func (c *Cluster) eventually(what string, is func() bool) {
	c.tb.Helper()
	eventually(c.tb, what, is)
}

// eventually waits until something is so.
func eventually(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	ticker := time.NewTicker(10 * poll)
	defer ticker.Stop()
	for end := time.Now().Add(patience); !is(); <-ticker.C {
		if time.Now().After(end) {
			tb.Fatalf("in vain waited until %s", what)
		}
	}
}

// Migration of a slot from one master of a cluster to another, step by step.
type Migration struct {
	cluster  *Cluster
	slot     int
	from, to *Server
}

// Migrate begins to move a slot: new keys go to the other master from now on.
func (c *Cluster) Migrate(slot int, from, to *Server) *Migration {
	c.tb.Helper()
	c.ok(to.ask("cluster", "setslot", slot, "importing", c.ID(from)).Err())
	c.ok(from.ask("cluster", "setslot", slot, "migrating", c.ID(to)).Err())
	return &Migration{cluster: c, slot: slot, from: from, to: to}
}

// Carry takes so many keys of the slot to the other master, or all if there are not so many, and says how many.
func (m *Migration) Carry(keys int) int {
	m.cluster.tb.Helper()
	names, err := m.from.ask("cluster", "getkeysinslot", m.slot, keys).StringSlice()
	m.cluster.ok(err)
	if len(names) == 0 {
		return 0
	}
	host, port, _ := net.SplitHostPort(m.to.Address())
	args := []any{"migrate", host, port, "", 0, 10_000, "keys"}
	for _, name := range names {
		args = append(args, name)
	}
	m.cluster.ok(m.from.ask(args...).Err())
	return len(names)
}

// Finish takes the keys that are left, and gives the slot to the other master.
func (m *Migration) Finish() {
	m.cluster.tb.Helper()
	for m.Carry(1000) > 0 {
	}
	id := m.cluster.ID(m.to)
	m.cluster.ok(m.to.ask("cluster", "setslot", m.slot, "node", id).Err())
	for _, s := range m.cluster.Masters {
		m.cluster.ok(s.ask("cluster", "setslot", m.slot, "node", id).Err())
	}
}

// Move a slot and its keys at once.
func (c *Cluster) Move(slot int, from, to *Server) {
	c.tb.Helper()
	c.Migrate(slot, from, to).Finish()
}
