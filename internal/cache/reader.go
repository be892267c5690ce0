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
	r := &reader{pool: p, client: redis.NewClient(n.single()), end: end}
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

// errMoved ends a watch: keys have gone from one node to another, where nobody tells of their changes yet.
var errMoved = &Error{Class: Unavailable, Reason: ReasonConnectionFailed, Message: "Slots have moved to another node of the cluster"}

// pipelined does a round trip. A broken connection ends the session, and so does a key that is on another node by now.
func (r *reader) pipelined(ctx context.Context, queue func(redis.Pipeliner) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() != nil { // so nothing would be sent, and nothing breaks
		return wrap("PING", ctx.Err())
	}
	ctx, cancel := r.pool.deadline(ctx)
	defer cancel()
	commands, _ := r.conn.Pipelined(ctx, queue)
	// What breaks in the middle is broken at the end.
	err := wrap("PING", commands[len(commands)-1].Err())
	switch {
	case Is(err, ReasonConnectionFailed):
	case slices.ContainsFunc(commands, func(c redis.Cmder) bool { return redirected(c.Err()) }):
		err = errMoved
	default:
		return nil
	}
	r.end(err)
	return err
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
			if r, ok := p.readers.Load(at); ok && r.(*reader).pipelined(ctx, all) == nil { //nolint:forcetypeassert,errcheck // nothing else is stored
				return
			}
			// Without a watch, or if it has just broken: the keys are read all the same.
			_, _ = p.client.Pipelined(ctx, all)
		})
	}
	reading.Wait()
}
