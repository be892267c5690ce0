// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"net"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"
)

// reader is the connection whose reads a server remembers.
type reader struct {
	pool   *Pool
	client *redis.Client
	conn   *redis.Conn
	end    context.CancelCauseFunc
	// mu is held during a round trip: it is one connection.
	mu sync.Mutex
}

func (p *Pool) newReader(n node, end context.CancelCauseFunc) *reader {
	r := &reader{pool: p, client: p.newClient(n.single()), end: end}
	_ = r.client.RegisterPushNotificationHandler("tracking-redir-broken", handler(func([]any) { // no other handler has the name
		end(wrap("CLIENT TRACKING", net.ErrClosed))
	}), true)
	r.conn = r.client.EphemeralConn() // it never dials anew: a new connection would have nothing remembered
	return r
}

// track what is read from now on, and send the news to another connection.
func (r *reader) track(ctx context.Context, to int64) error {
	ctx, cancel := r.pool.deadline(ctx)
	defer cancel()
	return wrap("CLIENT TRACKING", r.conn.ClientTrackingOn(ctx, &redis.ClientTrackingOptions{Redirect: to}).Err())
}

// errMoved ends a watch: keys are on another server now, which does not tell of their changes yet.
var errMoved = &Error{Class: Unavailable, Reason: ReasonConnectionFailed, Message: "Another server has the keys"}

// pipelined does a round trip. A broken connection ends the session, and so does a key that is on another node by now.
func (r *reader) pipelined(ctx context.Context, queue func(redis.Pipeliner) error) ([]redis.Cmder, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() != nil { // so nothing would be sent, and nothing breaks
		return nil, wrap("PING", ctx.Err())
	}
	ctx, cancel := r.pool.deadline(ctx)
	defer cancel()
	commands, _ := r.conn.Pipelined(ctx, queue)
	// What breaks in the middle is broken at the end.
	err := wrap("PING", commands[len(commands)-1].Err())
	switch {
	case Is(err, ReasonConnectionFailed):
	case slices.ContainsFunc(commands, func(c redis.Cmder) bool { return redirected(c.Err()) && !asked(c.Err()) }):
		err = errMoved
	default:
		return commands, nil
	}
	r.end(err)
	return nil, err
}

// close the connection under whoever waits for an answer.
func (r *reader) close() {
	_ = r.client.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.conn.Close()
}

// single are the options of a client with one connection of its own.
func (n node) single() *redis.Options {
	o := *n.Options()
	o.OnConnect = nil
	o.PushNotificationProcessor = nil
	o.PoolSize, o.MaxActiveConns, o.ConnMaxIdleTime = 1, 1, -1
	return &o
}

// read keys by their full names, in one round trip to each node, and through the watch if there is one, so that the server
// remembers them. queue sends the commands for one of them, maybe more than once; the errors stand in the commands.
func (p *Pool) read(ctx context.Context, names []string, queue func(pipe redis.Pipeliner, i int)) {
	byNode := map[string][]int{}
	for i, name := range names {
		at, _ := p.nodeOf(ctx, name) // where that is not known, the client tries to find out, and fails
		byNode[at] = append(byNode[at], i)
	}
	var reading sync.WaitGroup
	for at, indices := range byNode {
		reading.Go(func() {
			all := func(pipe redis.Pipeliner) error {
				for _, i := range indices {
					queue(pipe, i)
				}
				return nil
			}
			if r, ok := p.readers.Load(at); ok {
				commands, err := r.(*reader).pipelined(ctx, all) //nolint:forcetypeassert,errcheck // nothing else is stored
				if err == nil {
					indices = away(indices, commands)
				}
			}
			// Without a watch, or if it has just broken, or for keys whose slot is on its way: they are read all the same. Of
			// changes of the latter nothing is told until the slot has moved, which ends the watch.
			if len(indices) > 0 {
				_, _ = p.client.Pipelined(ctx, all)
			}
		})
	}
	reading.Wait()
}

// away are those of the keys that are not on the node that was asked for all. Each is asked for with as many commands.
func away(indices []int, commands []redis.Cmder) (away []int) {
	each := len(commands) / len(indices)
	for n, i := range indices {
		if slices.ContainsFunc(commands[n*each:(n+1)*each], func(c redis.Cmder) bool { return asked(c.Err()) }) {
			away = append(away, i)
		}
	}
	return away
}
