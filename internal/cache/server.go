// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Server is what answers at the address of a Pool. What the server does not tell is empty.
type Server struct {
	// Product is redis or valkey.
	Product string
	// Version of the product.
	Version string
	// Topology : Standalone.
	Topology string
	// Nodes that hold keys.
	Nodes int
	// ID of the server process, new with every restart.
	ID string
}

// Check finds out whether the server can be used: reached, logged in, allowed to run the commands needed, and
// writable. It changes nothing: SET XX and UNLINK of a key that is not there pass all checks of the server (ACL,
// replica, memory) and do nothing.
func (p *Pool) Check(ctx context.Context) (Server, error) {
	info, err := p.greet(ctx)
	if err != nil {
		return Server{}, err
	}
	// Valkey has server_mode instead of redis_mode.
	if mode := cmp.Or(info["redis_mode"], info["server_mode"]); mode == "cluster" || mode == "sentinel" {
		return Server{}, &Error{Class: Refused, Reason: ReasonWrongTopology, Message: "The server runs in " + mode + " mode, not as a standalone server"}
	}
	server := Server{Product: "redis", Version: info["redis_version"], Topology: "Standalone", Nodes: 1, ID: info["run_id"]}
	if v := info["valkey_version"]; v != "" {
		server.Product, server.Version = "valkey", v
	}
	return server, p.tryCommands(ctx)
}

// greet the server. Connections that have died while nobody used them are found out by use where TLS hides it, and do
// not mean that the server is down.
func (p *Pool) greet(ctx context.Context) (map[string]string, error) {
	idle := p.client.PoolStats().IdleConns
	info, err := p.info(ctx)
	for ; hungUp(err) && idle > 0; idle-- {
		info, err = p.info(ctx)
	}
	return info, wrap("INFO", p.dialer.explain(ctx, err))
}

// tryCommands runs every command of this package on a key that nobody has.
func (p *Pool) tryCommands(ctx context.Context) error {
	ctx, cancel := p.deadline(ctx)
	defer cancel()
	key := p.prefix + "cachewright-check-" + rand.Text()
	commands := []redis.Cmder{
		redis.NewIntCmd(ctx, "exists", key),
		redis.NewDurationCmd(ctx, time.Millisecond, "pttl", key),
		redis.NewStringCmd(ctx, "getrange", key, 0, 0),
		redis.NewScanCmd(ctx, nil, "scan", 0, "match", key, "count", 1),
		redis.NewIntCmd(ctx, "unlink", key),
		// Last, since it is the only one that a server without memory refuses.
		redis.NewStatusCmd(ctx, "set", key, "", "px", 1000, "xx"),
	}
	_, _ = p.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, c := range commands {
			_ = pipe.Process(ctx, c) // queues; it cannot fail
		}
		return nil
	})
	for _, c := range commands {
		err := wrap(strings.ToUpper(c.Name()), c.Err())
		if e, ok := errors.AsType[*Error](err); ok && e.Class == Denied {
			e.Message = strings.Replace(e.Message, onThisKey, " on keys under the pool's prefix", 1)
		}
		if err != nil && !Is(err, ReasonNotFound) {
			return err
		}
	}
	return nil
}

// scanID identifies what a cursor of SCAN is good for: the server process, and the database in it.
func (p *Pool) scanID(ctx context.Context) (string, error) {
	info, err := p.info(ctx)
	if err != nil {
		return "", err
	}
	id := info["run_id"]
	if id == "" {
		id = fmt.Sprintf("connection %d of %s", p.dials.Load(), p.epoch)
	}
	return fmt.Sprintf("%s/%d", id, p.database), nil
}

// roundTrip is how long a command takes that hardly costs the server anything.
func (p *Pool) roundTrip(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	_, err := p.info(ctx)
	return time.Since(start), err
}

// info is the server section of INFO. It is empty when the server has none or the user may not see it: nothing
// but knowledge is lost then.
func (p *Pool) info(ctx context.Context) (map[string]string, error) {
	ctx, cancel := p.deadline(ctx)
	defer cancel()
	text, err := p.client.Info(ctx, "server").Result()
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
