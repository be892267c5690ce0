// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Server is what answers at the address of a Pool. What the server does not tell is empty.
type Server struct {
	// Product is redis or valkey.
	Product string
	// Version of the product.
	Version string
	// Topology : Standalone, Sentinel or Cluster.
	Topology string
	// Nodes that have keys.
	Nodes int
	// ID of the server process, new with every restart; of a cluster, those of all nodes, with commas in between.
	ID string
	// Lacks names the ACL rules that the user lacks and that only some features need, and these.
	Lacks string
}

// Same says whether this may be the same server as another: the process is the same, or, in a cluster, one of the nodes.
func (s Server) Same(o Server) bool {
	ids := strings.Split(o.ID, ",")
	return s.ID != "" && slices.ContainsFunc(strings.Split(s.ID, ","), func(id string) bool { return slices.Contains(ids, id) })
}

// Check finds out whether the server can be used: reached, logged in, allowed to run the commands needed, and
// writable, on each node. It changes nothing: SET XX and UNLINK of a key that is not there pass all checks of the server
// (ACL, replica, memory) and do nothing. Rights that only some features need are missed in Server.
func (p *Pool) Check(ctx context.Context) (Server, error) {
	nodes, err := p.nodes(ctx)
	if err != nil {
		return Server{}, wrap("CLUSTER SLOTS", p.dialer.explain(ctx, err))
	}
	var server Server
	var failed error
	var missing lacks
	for i, n := range nodes {
		info, err := p.greet(ctx, n)
		if err == nil && i == 0 {
			server, err = p.describe(ctx, n, info)
			server.Nodes = len(nodes)
		}
		if err == nil {
			err = p.tryRights(ctx, n, &missing)
		}
		// That one node does not answer is told better by the others.
		if err != nil && (failed == nil || Is(err, ReasonClusterDown)) {
			failed = err
		}
	}
	if failed == nil {
		server.Lacks = missing.String()
	}
	if missing.denied() != nil {
		p.observer.Failed(Denied.String(), ReasonPermissionDenied) // once, however many rights it is
	}
	return server, failed
}

// describe the server by what one node tells.
func (p *Pool) describe(ctx context.Context, n node, info map[string]string) (Server, error) {
	server := Server{Product: "redis", Version: info["redis_version"], Topology: string(p.topology), ID: info["run_id"]}
	if v := info["valkey_version"]; v != "" {
		server.Product, server.Version = "valkey", v
	}
	// Valkey has server_mode instead of redis_mode.
	mode := cmp.Or(info["redis_mode"], info["server_mode"])
	switch {
	case p.topology == Cluster:
		members, err := p.members(ctx, n)
		server.ID = strings.Join(members.ids, ",")
		return server, err
	case mode == "cluster", mode == "sentinel":
		return Server{}, &Error{Class: Refused, Reason: ReasonWrongTopology, Message: "The server runs in " + mode + " mode, not as a standalone server"}
	default:
		return server, nil
	}
}

// greet a node. Connections that have died while nobody used them are found out by use where TLS hides it, and do
// not mean that the server is down.
func (p *Pool) greet(ctx context.Context, n node) (map[string]string, error) {
	idle := n.PoolStats().IdleConns
	info, err := p.info(ctx, n)
	for ; hungUp(err) && idle > 0; idle-- {
		info, err = p.info(ctx, n)
	}
	return info, wrap("INFO", p.dialer.explain(ctx, err))
}

// ignore an error that is expected.
func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

// identity of a node, as far as a cursor of SCAN depends on it: the server process, the database in it, and the slots
// that it serves.
type identity struct {
	node

	id string
	// place is what stays as long as a watch does: the slots that it serves, or, behind sentinels, the server.
	place string
	// moving : keys are on their way to or from it.
	moving bool
	// guest : it has no slots yet, but keys of one that is on its way.
	guest bool
}

// identify the nodes, those included that have no slots yet, but keys.
func (p *Pool) identify(ctx context.Context) ([]identity, error) {
	nodes, err := p.nodes(ctx)
	if err != nil {
		return nil, err
	}
	var found []identity
	var known []string
	coming := map[string]string{}
	for _, n := range nodes {
		i, m, err := p.identifyNode(ctx, n)
		if err != nil {
			return nil, err
		}
		found, known = append(found, i), append(known, m.self)
		for _, id := range m.to {
			coming[id] = m.addresses[id]
		}
	}
	for id, addr := range coming {
		if slices.Contains(known, id) {
			continue
		}
		n, err := p.joining(nodes[0], addr)
		if err != nil {
			return nil, err
		}
		i, _, err := p.identifyNode(ctx, n)
		if err != nil {
			return nil, err
		}
		i.guest = true
		found = append(found, i)
	}
	slices.SortFunc(found, func(a, b identity) int { return strings.Compare(a.name, b.name) })
	return found, nil
}

// identifyNode asks the node who it is. Behind sentinels, it asks them first who is the server now: one that was replaced
// may take commands for some seconds, though what is written there is lost. To dial is to ask, and makes the client hang
// up on the former one.
func (p *Pool) identifyNode(ctx context.Context, n node) (i identity, m members, err error) {
	i = identity{node: n}
	if p.topology == Sentinel {
		n.Client = p.newClient(n.single())
		defer func() { _ = n.Close() }()
	}
	info, err := p.info(ctx, n)
	if err != nil {
		return i, m, err
	}
	id := info["run_id"]
	if id == "" {
		id = fmt.Sprintf("connection %d of %s", p.dials.Load(), p.epoch)
	}
	switch i.id = fmt.Sprintf("%s/%d", id, p.database); p.topology {
	case Cluster:
		m, err = p.members(ctx, n)
		i.id, i.place, i.moving = id+"/"+m.own, m.slots, m.moving
	case Sentinel:
		i.place = info["run_id"]
	case Standalone:
	}
	return i, m, err
}

// places are the nodes to be watched: those that have slots. A single server is not asked: it is always the one.
func (p *Pool) places(ctx context.Context) ([]identity, error) {
	if p.topology != Standalone {
		nodes, err := p.identify(ctx)
		return slices.DeleteFunc(nodes, func(n identity) bool { return n.guest }), err
	}
	nodes, err := p.nodes(ctx)
	return []identity{{node: nodes[0]}}, err
}

// roundTrip is how long a command takes that hardly costs the server anything.
func (p *Pool) roundTrip(ctx context.Context, n node) (time.Duration, error) {
	start := time.Now()
	_, err := p.info(ctx, n)
	return time.Since(start), err
}

// info is the server section of INFO. It is empty when the server has none or the user may not see it: nothing
// but knowledge is lost then.
func (p *Pool) info(ctx context.Context, n node) (map[string]string, error) {
	ctx, cancel := p.deadline(tolerating(ctx))
	defer cancel()
	text, err := n.Info(ctx, "server").Result()
	if err := wrap("INFO", err); err != nil && !Is(err, ReasonPermissionDenied) && !Is(err, ReasonCommandFailed) {
		return nil, err
	}
	fields := map[string]string{}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok {
			fields[name] = value
		}
	}
	return fields, nil
}
