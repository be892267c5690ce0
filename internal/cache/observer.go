// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// Observer is told what a Pool does. Its methods are called by several goroutines and must be quick.
type Observer interface {
	// Connected : so many connections more are open, or fewer.
	Connected(delta int)
	// Took : a round trip, dialing included, by the name of its command, or of the first of those sent together.
	Took(command string, d time.Duration)
	// Failed : a command, by class and reason of its Error. Where all of a round trip fail for a reason of the server's,
	// it is told once. A key that is not there is no failure.
	Failed(class, reason string)
}

// nobody observes.
type nobody struct{}

// Connected does nothing.
func (nobody) Connected(int) {}

// Took does nothing.
func (nobody) Took(string, time.Duration) {}

// Failed does nothing.
func (nobody) Failed(string, string) {}

// observed is a hook of the client of one server that tells an Observer.
type observed struct {
	Observer

	// redirects : another server may be asked next, so that being sent there is no failure.
	redirects bool
}

// handshake are the commands that begin a connection. Their time is a part of the time of the command that needs the
// connection, and so is their failure.
var handshake = []string{"hello", "auth", "select"}

// DialHook does nothing.
func (observed) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook is for single commands.
func (o observed) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, c redis.Cmder) error {
		if slices.Contains(handshake, c.Name()) {
			return next(ctx, c)
		}
		began := time.Now()
		err := next(ctx, c)
		o.Took(c.Name(), time.Since(began))
		o.failed(ctx, err)
		return err
	}
}

// ProcessPipelineHook is for several.
func (o observed) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		if slices.Contains(handshake, commands[0].Name()) {
			return next(ctx, commands)
		}
		began := time.Now()
		err := next(ctx, commands)
		o.Took(commands[0].Name(), time.Since(began))
		for _, c := range commands {
			if o.failed(ctx, c.Err()) {
				break
			}
		}
		return err
	}
}

// tolerated marks the context of commands that are sent to see whether they fail.
type tolerated struct{}

// tolerating failures: only those of the server count.
func tolerating(ctx context.Context) context.Context {
	return context.WithValue(ctx, tolerated{}, true)
}

// failed tells of an error, and says whether it concerns the whole server.
func (o observed) failed(ctx context.Context, err error) bool {
	if err == nil || errors.Is(err, redis.Nil) || o.redirects && redirected(err) {
		return false
	}
	e, _ := errors.AsType[*Error](wrap("", err))
	if ctx.Value(tolerated{}) != nil && !ServerWide(e) {
		return false
	}
	o.Failed(e.Class.String(), e.Reason)
	return ServerWide(e)
}

// counted tells the observer of a connection, and when it is closed.
func counted(conn net.Conn, observer Observer) net.Conn {
	observer.Connected(1)
	c := &closing{Conn: conn, closed: sync.OnceFunc(func() { observer.Connected(-1) })}
	if raw, ok := conn.(syscall.Conn); ok { // by which the client library sees whether a connection is still alive
		return struct {
			*closing
			syscall.Conn
		}{c, raw}
	}
	return c
}

// closing is a connection that tells when it is closed.
type closing struct {
	net.Conn

	closed func()
}

// Close the connection.
func (c *closing) Close() error {
	c.closed()
	return c.Conn.Close()
}
