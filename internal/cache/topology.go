// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"hash/fnv"
	"net"
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
		return o.hooked(redis.NewFailoverClient(u.Failover()))
	case Cluster:
		c := u.Cluster()
		c.DisableRoutingPolicies = true // they would ask the server what it knows of each command, for commands that we do not use
		c.NewClient = o.newClient
		client := redis.NewClusterClient(c)
		client.AddHook(lost{})
		return client
	case Standalone:
	}
	return o.newClient(u.Simple())
}

// newClient of one server.
func (o Options) newClient(server *redis.Options) *redis.Client {
	return o.hooked(redis.NewClient(server))
}

func (o Options) hooked(client *redis.Client) *redis.Client {
	client.AddHook(observed{Observer: o.Observer, redirects: o.Topology == Cluster})
	client.AddHook(unanswered{})
	return client
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
	switch {
	case err != nil && strings.Contains(err.Error(), "unknown command"):
		return nil, &Error{Class: Refused, Reason: ReasonWrongTopology, Message: "The addresses lead to no cluster", cause: err}
	case err == nil && len(nodes) == 0:
		return nil, &Error{Class: Unavailable, Reason: ReasonClusterDown, Message: "No node of the cluster has any slots"}
	}
	return nodes, wrap("CLUSTER SLOTS", err)
}

// joining is a node that slots are on their way to, but that has none yet, and so is unknown to the client of the cluster.
func (p *Pool) joining(like node, addr string) (node, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watches == nil {
		return node{}, wrap("CLUSTER NODES", net.ErrClosed)
	}
	if p.guests[addr] == nil {
		o := *like.Options()
		o.Addr = addr
		p.guests[addr] = p.newClient(&o)
	}
	return node{p.guests[addr], addr}, nil
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
	tries := maxTries
	if first := p.prefix + text; hashTag(first+"0") == hashTag(first+"1") { // the prefix decides on the slot
		tries = 0
	}
	for i := 0; ; i++ {
		name := p.prefix + text + strconv.Itoa(i)
		at, err := p.nodeOf(ctx, name)
		switch {
		case err != nil:
			return "", err
		case at == n.name:
			return name, nil
		case i == tries:
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
	// ids of all nodes, replicas too, sorted, and addresses by them.
	ids       []string
	addresses map[string]string
	// self is the ID of the asked node, slots are those that it serves, and own says so too, and since when, and which are
	// on their way.
	self, slots, own string
	// moving says that one of them is on its way to or from another node, and to are the IDs of those that it goes to.
	moving bool
	to     []string
}

// parseMembers reads the answer to CLUSTER NODES: a line for each node, with its ID, address, flags, master, ping, pong,
// epoch, link, and slots. See https://redis.io/docs/latest/commands/cluster-nodes/.
func parseMembers(text string) members {
	const address, flags, epoch, slots = 1, 2, 6, 8
	m := members{addresses: map[string]string{}}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < slots {
			continue
		}
		m.ids = append(m.ids, fields[0])
		m.addresses[fields[0]], _, _ = strings.Cut(fields[address], "@")
		if !strings.Contains(fields[flags], "myself") {
			continue
		}
		m.self = fields[0]
		ranges := slices.DeleteFunc(slices.Clone(fields[slots:]), func(field string) bool { return strings.HasPrefix(field, "[") })
		m.slots, m.moving = strings.Join(ranges, " "), len(ranges) < len(fields[slots:])
		h := fnv.New64a()
		for _, field := range append(fields[slots:], fields[epoch]) {
			_, _ = h.Write([]byte(field + " ")) // it never fails
			if _, to, ok := strings.Cut(field, "->-"); ok {
				m.to = append(m.to, strings.TrimSuffix(to, "]"))
			}
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
	return moved || asked(err)
}

// asked says whether a node has answered that a key may be where its slot is on the way to.
func asked(err error) bool {
	_, ask := redis.IsAskError(err)
	return ask || redis.IsTryAgainError(err)
}

// errLost is the error of a command that the client of the cluster has sent from node to node without finding the key.
// From a single server, the same answer means that it is none.
var errLost = &Error{Class: Failed, Reason: ReasonCommandFailed, Message: "The key's slot is on its way to another node of the cluster"}

// lost is a hook that says so.
type lost struct{}

// DialHook does nothing.
func (lost) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook is for single commands.
func (lost) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, c redis.Cmder) error {
		err := next(ctx, c)
		if redirected(err) {
			return errLost
		}
		return err
	}
}

// ProcessPipelineHook is for several.
func (lost) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		err := next(ctx, commands)
		for _, c := range commands {
			if redirected(c.Err()) {
				c.SetErr(errLost)
			}
		}
		return err
	}
}
