// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Topology says how servers work together.
type Topology string

// Topologies; the zero value is Standalone.
const (
	// Standalone : one server.
	Standalone Topology = "Standalone"
	// Sentinel : one server at a time; sentinels say which.
	Sentinel Topology = "Sentinel"
	// Cluster : each master has a part of the keys.
	Cluster Topology = "Cluster"
)

// client for a topology.
func (o Options) client(onConnect func(context.Context, *redis.Conn) error) redis.UniversalClient {
	u := &redis.UniversalOptions{
		Addrs: o.Addresses, DB: o.Database, Username: o.Username, Password: o.Password, Dialer: o.Dial,
		MasterName: o.MasterName, SentinelUsername: o.SentinelUsername, SentinelPassword: o.SentinelPassword,
		DialTimeout: dialTimeout, ReadTimeout: o.Timeout, WriteTimeout: o.Timeout,
		// Whoever calls is the retry loop: a command sent again by the client could count twice.
		MaxRetries: -1, DialerRetries: 1,
		// Without it a deadline is not seen while a command waits for its reply.
		ContextTimeoutEnabled: true,
		PoolSize:              connections, MaxActiveConns: connections, PipelinePoolSize: -1, ConnMaxIdleTime: idleTimeout,
		// Both send commands that a plain Redis answers with errors.
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		DisableIdentity:          true,
		OnConnect:                onConnect,
	}
	switch o.Topology {
	case Sentinel:
		return redis.NewFailoverClient(u.Failover())
	case Cluster:
		c := u.Cluster()
		c.DisableRoutingPolicies = true // they would ask the server what it knows of each command, for commands that we do not use
		return redis.NewClusterClient(c)
	case Standalone:
	}
	return redis.NewClient(u.Simple())
}

// node is a server that has keys: the only one, or a master of a cluster.
type node struct {
	*redis.Client

	name string
}

// cluster is the client of a cluster; nil when it is none.
func (p *Pool) cluster() *redis.ClusterClient {
	c, _ := p.client.(*redis.ClusterClient)
	return c
}

// nodes of the pool, in the order of their names.
func (p *Pool) nodes(ctx context.Context) ([]node, error) {
	if single, ok := p.client.(*redis.Client); ok {
		return []node{{single, p.name}}, nil
	}
	ctx, cancel := p.deadline(ctx)
	defer cancel()
	var mu sync.Mutex
	var nodes []node
	err := p.cluster().ForEachMaster(ctx, func(_ context.Context, c *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, node{c, c.Options().Addr})
		return nil
	})
	slices.SortFunc(nodes, func(a, b node) int { return strings.Compare(a.name, b.name) })
	return nodes, wrap("CLUSTER SLOTS", err)
}

// nodeOf a key, by its full name, as far as the client knows.
func (p *Pool) nodeOf(ctx context.Context, name string) (string, error) {
	cluster := p.cluster()
	if cluster == nil {
		return p.name, nil
	}
	master, err := cluster.MasterForKey(ctx, name)
	if err != nil {
		return "", wrap("CLUSTER SLOTS", err)
	}
	return master.Options().Addr, nil
}

// nameOn a node: the full name of a key that begins with the prefix and a text, and lies there.
func (p *Pool) nameOn(ctx context.Context, n node, text string) (string, error) {
	for i := 0; ; i++ {
		name := p.prefix + text + strconv.Itoa(i)
		at, err := p.nodeOf(ctx, name)
		switch {
		case err != nil:
			return "", err
		case at == n.name:
			return name, nil
		case i == maxTries:
			return "", errElsewhere
		}
	}
}

// maxTries to find a key of a node that has one slot: that many are missed once in a million times.
const maxTries = 14 * slots

// errElsewhere : a node has no keys of ours, since the prefix has a hash tag.
var errElsewhere = &Error{Class: Failed, Reason: "Elsewhere", Message: "No key under the prefix lies on this node"}

// members of a cluster as one of them sees it.
type members struct {
	// ids of all nodes, replicas too, sorted.
	ids []string
	// own says which slots the asked node serves, and since when.
	own string
	// moving says that one of them is on its way to or from another node.
	moving bool
}

// parseMembers reads the answer to CLUSTER NODES: a line for each node, with its ID, address, flags, master, ping, pong,
// epoch, link, and slots. See https://redis.io/docs/latest/commands/cluster-nodes/.
func parseMembers(text string) members {
	const flags, epoch, slots = 2, 6, 8
	var m members
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < slots {
			continue
		}
		m.ids = append(m.ids, fields[0])
		if !strings.Contains(fields[flags], "myself") {
			continue
		}
		h := fnv.New64a()
		for _, field := range append(fields[slots:], fields[epoch]) {
			_, _ = h.Write([]byte(field + " ")) // it never fails
			m.moving = m.moving || strings.HasPrefix(field, "[")
		}
		m.own = strconv.FormatUint(h.Sum64(), 36)
	}
	slices.Sort(m.ids)
	return m
}

// members as a node of a cluster sees them.
func (p *Pool) members(ctx context.Context, n node) (members, error) {
	ctx, cancel := p.deadline(ctx)
	defer cancel()
	text, err := n.ClusterNodes(ctx).Result()
	return parseMembers(text), wrap("CLUSTER NODES", err)
}

// redirected says whether a node of a cluster has answered that a key is not there, or not for sure.
func redirected(err error) bool {
	if err == nil {
		return false
	}
	_, moved := redis.IsMovedError(err)
	_, ask := redis.IsAskError(err)
	return moved || ask || redis.IsTryAgainError(err)
}
