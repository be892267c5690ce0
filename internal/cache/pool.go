// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package cache works on the keys of one Redis or Valkey cache, fenced in by a key prefix. It has the eight
// primitives of the glimr_redis cache driver (get, put, put forever, forget, has, increment, flush, stop), with
// the same key layout, and what a controller needs on top: looks and writes in batches, a flush that can be
// stopped and resumed, a check of the server, and errors that say what they mean. It knows nothing of Kubernetes.
package cache

import (
	"cmp"
	"context"
	"crypto/rand"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// Options say where a cache is and how to reach it.
type Options struct {
	// Topology of what is there.
	Topology Topology
	// Addresses, host:port: of the server, of sentinels, or of some nodes of the cluster.
	Addresses []string
	// MasterName is what the sentinels call the server, and SentinelUsername and SentinelPassword are for them.
	MasterName, SentinelUsername, SentinelPassword string
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
	// Observer, if it is set, is told what the Pool does.
	Observer Observer
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
	client redis.UniversalClient
	dialer *dialer
	// newClient makes the client of one more server.
	newClient func(*redis.Options) *redis.Client
	topology  Topology
	prefix    string
	// name of the only server, for a topology that has one.
	name string
	// database is the number of the logical database.
	database int
	timeout  time.Duration
	observer Observer
	// username to ask the server about, unless it has refused that.
	username  string
	noDryRuns atomic.Bool
	// epoch stands in for the id of a server that does not tell its own. It changes with every connection that
	// is made, since any of them may lead to another process.
	epoch string
	dials atomic.Int64
	// readers are the connections whose reads the servers remember, by the names of nodes, while a watch runs.
	readers sync.Map
	// watches that run: what ends them, by the channels that say so. nil once the pool is stopped.
	watches map[chan struct{}]context.CancelFunc
	// guests are the clients of nodes that the client of the cluster does not know yet, by address.
	guests map[string]*redis.Client
	mu     sync.Mutex
}

// Open makes a Pool. It does not dial: the first command does, and Check tells whether the server can be used.
func Open(o Options) *Pool {
	if o.Observer == nil {
		o.Observer = nobody{}
	}
	p := &Pool{
		dialer: newDialer(o), newClient: o.newClient, topology: cmp.Or(o.Topology, Standalone), prefix: o.Prefix, name: o.Addresses[0], database: o.Database, timeout: o.Timeout,
		observer: o.Observer, username: cmp.Or(o.Username, "default"),
		epoch: rand.Text(), watches: map[chan struct{}]context.CancelFunc{}, guests: map[string]*redis.Client{},
	}
	if o.Topology == Sentinel {
		p.name = o.MasterName
	}
	o.Dial = p.dialer.dial
	p.client = o.client(func(context.Context, *redis.Conn) error { p.dials.Add(1); return nil })
	return p
}

// Prefix is what stands in front of every key.
func (p *Pool) Prefix() string { return p.prefix }

// Stop closes every connection. Commands under way fail.
func (p *Pool) Stop() error {
	p.endWatches()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, guest := range p.guests {
		_ = guest.Close()
	}
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
	c := once{redis.NewIntCmd(ctx, "incrby", p.prefix+key, delta)}
	_ = p.client.Process(ctx, c) // the error stands in the command
	return c.Val(), wrap("INCRBY", c.Err())
}

// once is a command that no client sends again.
type once struct{ *redis.IntCmd }

// NoRetry is true: a command whose reply did not come may have counted.
func (once) NoRetry() bool { return true }

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
