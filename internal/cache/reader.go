// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"net"
	"sync"

	"github.com/redis/go-redis/v9"
)

// reader is the connection whose reads the server remembers.
type reader struct {
	pool   *Pool
	client *redis.Client
	conn   *redis.Conn
	end    context.CancelCauseFunc
	// mu is held during a round trip: it is one connection.
	mu sync.Mutex
}

func (p *Pool) newReader(end context.CancelCauseFunc) *reader {
	r := &reader{pool: p, client: redis.NewClient(p.single()), end: end}
	r.client.AddHook(unanswered{})
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

// pipelined does a round trip. A broken connection ends the session.
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
	if !Is(err, ReasonConnectionFailed) {
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
func (p *Pool) single() *redis.Options {
	o := *p.client.Options()
	o.OnConnect = nil
	o.PushNotificationProcessor = nil
	o.PoolSize, o.MaxActiveConns, o.ConnMaxIdleTime = 1, 1, -1
	return &o
}

// read does a round trip through the watch, if there is one, so that the server remembers the keys.
func (p *Pool) read(ctx context.Context, queue func(redis.Pipeliner) error) {
	if r := p.reader.Load(); r != nil && r.pipelined(ctx, queue) == nil {
		return
	}
	// Without one, or if it has just broken: the keys are read all the same. The errors stand in the commands; what
	// Pipelined returns is the first of them.
	_, _ = p.client.Pipelined(ctx, queue)
}
