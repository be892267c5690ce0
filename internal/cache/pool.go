// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package cache works on the keys of one Redis or Valkey cache, fenced in by a key prefix. It has the eight
// primitives of the glimr_redis cache driver (get, put, put forever, forget, has, increment, flush, stop), with
// the same key layout, and what a controller needs on top: looks and writes in batches, a flush that can be
// stopped and resumed, a check of the server, and errors that say what they mean. It knows nothing of Kubernetes.
package cache

import (
	"context"
	"crypto/rand"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Options say where a cache is and how to reach it.
type Options struct {
	// Address of the server, host:port.
	Address string
	// Database is the number of the logical database.
	Database int
	// Username and Password; both may be empty.
	Username, Password string
	// TLS secures the connection; nil: plain text.
	TLS *TLS
	// Prefix stands in front of every key. It must not be empty.
	Prefix string
	// Timeout of one round trip, which may include dialing. It must not be 0.
	Timeout time.Duration
	// Dial replaces the network, for tests and local runs; nil means net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// silent takes the log of the client library, which writes to standard error and repeats what errors say.
type silent struct{}

// Printf does nothing.
func (silent) Printf(context.Context, string, ...any) {}

func init() { redis.SetLogger(silent{}) } //nolint:gochecknoinits // the library has one logger for the whole process

const (
	dialTimeout = 2 * time.Second
	// connections is enough for a keeper, a flush, a probe and a deletion at the same time.
	connections = 4
	idleTimeout = 5 * time.Minute
)

// Pool is the connection to one cache. Its methods take keys without the prefix, may be called by several
// goroutines, and return errors of type *Error.
type Pool struct {
	client  *redis.Client
	dialer  *dialer
	prefix  string
	address string
	// database is the number of the logical database.
	database int
	timeout  time.Duration
	// epoch stands in for the id of a server that does not tell its own. It changes with every connection that
	// is made, since any of them may lead to another process.
	epoch string
	dials atomic.Int64
	// reader is the connection whose reads the server remembers, while a watch runs.
	reader atomic.Pointer[reader]
	// watches that run: what ends them, by the channels that say so. nil once the pool is stopped.
	watches map[chan struct{}]context.CancelFunc
	mu      sync.Mutex
}

// Open makes a Pool. It does not dial: the first command does, and Check tells whether the server can be used.
func Open(o Options) *Pool {
	p := &Pool{dialer: newDialer(o), prefix: o.Prefix, address: o.Address, database: o.Database, timeout: o.Timeout, epoch: rand.Text(), watches: map[chan struct{}]context.CancelFunc{}}
	p.client = redis.NewClient(&redis.Options{
		Addr: o.Address, DB: o.Database, Username: o.Username, Password: o.Password, Dialer: p.dialer.dial,
		DialTimeout: dialTimeout, ReadTimeout: o.Timeout, WriteTimeout: o.Timeout,
		// Whoever calls is the retry loop: a command sent again by the client could count twice.
		MaxRetries: -1, DialerRetries: 1,
		// Without it a deadline is not seen while a command waits for its reply.
		ContextTimeoutEnabled: true,
		PoolSize:              connections, MaxActiveConns: connections, PipelinePoolSize: -1, ConnMaxIdleTime: idleTimeout,
		// Both send commands that a plain Redis answers with errors.
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		DisableIdentity:          true,
		OnConnect:                func(context.Context, *redis.Conn) error { p.dials.Add(1); return nil },
	})
	p.client.AddHook(unanswered{})
	return p
}

// Prefix is what stands in front of every key.
func (p *Pool) Prefix() string { return p.prefix }

// Stop closes every connection. Commands under way fail.
func (p *Pool) Stop() error {
	p.endWatches()
	return wrap("close", p.client.Close())
}

// Get returns the value of a key; ErrNotFound when it is not there.
func (p *Pool) Get(ctx context.Context, key string) (string, error) {
	ctx, cancel := p.deadline(ctx)
	defer cancel()
	value, err := p.client.Get(ctx, p.prefix+key).Result()
	return value, wrap("GET", err)
}

// Put stores value with a lifetime, in one atomic SET: there is no moment with the value but without the
// lifetime. The lifetime counts in milliseconds; less than one is an error.
func (p *Pool) Put(ctx context.Context, key, value string, ttl time.Duration) error {
	if ttl < time.Millisecond {
		return &Error{Class: Failed, Reason: "InvalidTTL", Message: "A lifetime must be at least 1ms"}
	}
	return p.set(ctx, Write{Key: key, Value: value, TTL: ttl})
}

// PutForever stores value without a lifetime; a lifetime that the key had is gone.
func (p *Pool) PutForever(ctx context.Context, key, value string) error {
	return p.set(ctx, Write{Key: key, Value: value})
}

func (p *Pool) set(ctx context.Context, w Write) error {
	ctx, cancel := p.deadline(ctx)
	defer cancel()
	return wrap("SET", p.client.Process(ctx, p.setCommand(ctx, w)))
}

// Forget deletes a key (UNLINK: its memory is freed in the background). It succeeds when the key was not there.
func (p *Pool) Forget(ctx context.Context, key string) error {
	ctx, cancel := p.deadline(ctx)
	defer cancel()
	return wrap("UNLINK", p.client.Unlink(ctx, p.prefix+key).Err())
}

// Has says whether a key is there, without transferring its value. A broken connection is an error, not "no".
func (p *Pool) Has(ctx context.Context, key string) (bool, error) {
	ctx, cancel := p.deadline(ctx)
	defer cancel()
	n, err := p.client.Exists(ctx, p.prefix+key).Result()
	return n > 0, wrap("EXISTS", err)
}

// Increment adds delta to the number that a key holds, 0 if it is not there, and returns the sum. It is atomic
// on the server and sent once: after an error of class Unavailable it may or may not have counted.
func (p *Pool) Increment(ctx context.Context, key string, delta int64) (int64, error) {
	ctx, cancel := p.deadline(ctx)
	defer cancel()
	sum, err := p.client.IncrBy(ctx, p.prefix+key, delta).Result()
	return sum, wrap("INCRBY", err)
}

// Flush deletes every key under the prefix that was there when it began, and says how many.
func (p *Pool) Flush(ctx context.Context) (deleted int64, err error) {
	scan, from := p.NewScan(All(), ScanOptions{}), Checkpoint{}
	for err == nil && !from.Done { // once, unless the server was restarted under the scan
		var result ScanResult
		result, err = scan.Run(ctx, from, func() bool { return false })
		from, deleted = result.Checkpoint, deleted+result.Deleted
	}
	return deleted, err
}

// setCommand is SET, with PX or without, which also clears a lifetime, and with NX if the key must be absent.
func (p *Pool) setCommand(ctx context.Context, w Write) *redis.StatusCmd {
	args := []any{"set", p.prefix + w.Key, w.Value}
	if w.TTL != 0 {
		args = append(args, "px", strconv.FormatInt(w.TTL.Milliseconds(), 10))
	}
	if w.IfAbsent {
		args = append(args, "nx")
	}
	return redis.NewStatusCmd(ctx, args...)
}

// deadline bounds one round trip: go-redis does not interrupt a command in flight when a context is canceled,
// only when its deadline passes.
func (p *Pool) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, p.timeout)
}
