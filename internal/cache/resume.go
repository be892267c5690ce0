// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
)

// again ends the ServerID of a node that is scanned a second time, since keys were on their way between nodes: one that
// went from a node not scanned yet to one that was scanned already may have been missed. It does not go back, and so is
// where it was going to during the whole second scan.
const again = "/again"

// Start of a scan of the same nodes.
func (c Checkpoint) Start() (start Checkpoint) {
	for _, n := range c.Nodes {
		start.Nodes = append(start.Nodes, NodeCheckpoint{Node: n.Node, ServerID: strings.TrimSuffix(n.ServerID, again)})
	}
	return start
}

// identify the nodes, and what is looked for on them: a pool that was deleted and created anew, while its flush waited, may
// have another prefix, whose keys nobody has looked for yet.
func (s *Scan) identify(ctx context.Context) ([]identity, error) {
	nodes, err := s.pool.identify(ctx)
	h := fnv.New32a()
	_, _ = h.Write([]byte(s.pattern)) // it never fails
	for i := range nodes {
		nodes[i].id += fmt.Sprintf("/%08x", h.Sum32())
	}
	return nodes, err
}

// resume where nodes were left, and say whether that is nowhere for some of them, since they are not what they were.
func resume(nodes []identity, from []NodeCheckpoint) (at []NodeCheckpoint, restarted bool) {
	for _, n := range nodes {
		i := slices.IndexFunc(from, n.left)
		if i >= 0 {
			at = append(at, from[i])
			continue
		}
		restarted = restarted || len(from) > 0
		at = append(at, NodeCheckpoint{Node: n.name, ServerID: n.id})
	}
	return at, restarted
}

// left says whether a checkpoint is where this very node was left.
func (n identity) left(c NodeCheckpoint) bool {
	return c.Node == n.name && strings.TrimSuffix(c.ServerID, again) == n.id
}

// review what was scanned, by what the nodes are now.
func (s *Scan) review(now []identity) {
	c := &s.result.Checkpoint
	var restarted bool
	c.Nodes, restarted = resume(now, c.Nodes)
	s.result.Restarted = s.result.Restarted || restarted
	if restarted {
		s.uncount()
		if s.options.DryRun {
			*c = Checkpoint{}
			return
		}
	}
	c.Done = !slices.ContainsFunc(c.Nodes, func(n NodeCheckpoint) bool { return !n.Done })
	moving := slices.ContainsFunc(now, func(n identity) bool { return n.moving })
	if c.Done && moving && !slices.ContainsFunc(c.Nodes, func(n NodeCheckpoint) bool { return strings.HasSuffix(n.ServerID, again) }) {
		c.Done = false
		for i := range c.Nodes {
			c.Nodes[i] = NodeCheckpoint{Node: c.Nodes[i].Node, ServerID: c.Nodes[i].ServerID + again}
		}
	}
}
