// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/push"
	"golang.org/x/sync/errgroup"
)

// Detection is how a server tells of changes: see
// https://redis.io/docs/latest/develop/reference/client-side-caching/.
type Detection string

const (
	// Tracking : it remembers which keys Observe has read, and tells of these.
	Tracking Detection = "Tracking"
	// Broadcast : it tells of all keys under the prefix, for example since it cannot send the news of one connection
	// to another.
	Broadcast Detection = "Broadcast"
)

// Listener is told what Watch sees. Its functions must not block.
type Listener struct {
	// Began : from now on changes are told. What happened before may have gone unseen.
	Began func(Detection)
	// Changed : these keys, by names without the prefix, were written or deleted, maybe by this Pool, or ran out. The
	// server tells this once, until Observe reads the key again.
	Changed func(keys []string)
	// Flushed : the server has dropped all keys, of this database or another. It forgot what Observe has read.
	Flushed func()
}

// ErrUnwatchable is the error of Watch on a server that tells of no changes, or not this user.
var ErrUnwatchable = &Error{Class: Failed, Reason: "Unwatchable", Message: "The server does not tell of changes"}

const (
	// heartbeat is the time between two signs of life that are asked of each connection of a watch, and maxSilence how
	// long a watch goes on without one. Without them a connection that a network has silently dropped is never noticed.
	heartbeat  = 2 * time.Second
	maxSilence = 3 * heartbeat
	// probeTimeout is how long the news of a probe's own change may take. On a healthy server it is under a
	// millisecond.
	probeTimeout = time.Second
)

// Watch tells the listener of changes, until the context ends, a connection breaks, slots of the cluster move, or sentinels
// name another server. While it runs, Observe reads through it. It uses two connections of its own to each node. How the
// server is able to tell is found out by trying, since servers differ in this more than their versions say.
func (p *Pool) Watch(ctx context.Context, l Listener) error {
	ctx, done, err := p.beginWatch(ctx)
	if err != nil {
		return err
	}
	defer done()
	for _, how := range []Detection{Tracking, Broadcast} {
		err := p.watchNodes(ctx, l, how)
		if e, ok := errors.AsType[*Error](err); !ok || e.Class != Denied && e.Class != Failed {
			return err
		}
	}
	return ErrUnwatchable
}

// watchNodes until the first session ends, and say why it did.
func (p *Pool) watchNodes(ctx context.Context, l Listener, how Detection) error {
	nodes, err := p.places(ctx)
	if err != nil {
		return err
	}
	waiting := atomic.Int64{}
	waiting.Store(int64(len(nodes)))
	each := l
	each.Began = func(how Detection) {
		if waiting.Add(-1) == 0 {
			l.Began(how)
		}
	}
	sessions, ctx := errgroup.WithContext(ctx)
	for _, n := range nodes {
		sessions.Go(func() error { return p.watchNode(ctx, n.node, each, how) })
	}
	if p.topology != Standalone {
		sessions.Go(func() error { return p.watchPlaces(ctx, nodes) })
	}
	return sessions.Wait()
}

// watchPlaces until slots move, or sentinels name another server, or the context ends.
func (p *Pool) watchPlaces(ctx context.Context, before []identity) error {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		now, err := p.places(ctx)
		if err != nil {
			return err
		}
		if !slices.EqualFunc(before, now, func(a, b identity) bool { return a.name == b.name && a.place == b.place }) {
			return errMoved
		}
	}
}

// beginWatch gives a context that ends when the Pool is stopped, and what is to be called when the watch has ended.
func (p *Pool) beginWatch(ctx context.Context) (watching context.Context, done func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watches == nil {
		return nil, nil, wrap("CLIENT TRACKING", net.ErrClosed)
	}
	watching, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	p.watches[ended] = cancel
	return watching, func() {
		cancel()
		close(ended)
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watches, ended)
	}, nil
}

// endWatches for good, and wait until their connections are closed.
func (p *Pool) endWatches() {
	p.mu.Lock()
	watches := p.watches
	p.watches = nil
	p.mu.Unlock()
	for ended, cancel := range watches {
		cancel()
		<-ended
	}
}

// watch is a session with one node: a sink that the server sends its news to, and for Tracking a reader whose reads it remembers.
type watch struct {
	pool     *Pool
	node     node
	listener Listener
	how      Detection
	// end the session, and say why.
	end    context.CancelCauseFunc
	sink   *redis.Client
	news   *redis.PubSub
	sinkID atomic.Int64
	reader *reader
	// probe is the name of the key that the session tries itself with; heard is closed once its change was told.
	probe string
	heard chan struct{}
	once  sync.Once
	// pong is when the sink last answered.
	pong      atomic.Pointer[time.Time]
	receiving sync.WaitGroup
}

// watchNode until the session ends, and say why it did: the first error is the reason, and others come of it.
func (p *Pool) watchNode(ctx context.Context, n node, l Listener, how Detection) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	probe, err := p.nameOn(ctx, n, "cachewright-probe-"+rand.Text())
	if errors.Is(err, errElsewhere) { // there is nothing to tell of
		l.Began(how)
		<-ctx.Done()
		return wrap("CLIENT TRACKING", context.Cause(ctx))
	}
	if err != nil {
		return err
	}
	w := &watch{pool: p, node: n, listener: l, how: how, end: end, probe: probe, heard: make(chan struct{})}
	w.open(ctx)
	defer w.close()
	end(w.run(ctx))
	return wrap("CLIENT TRACKING", context.Cause(ctx))
}

func (w *watch) run(ctx context.Context) error {
	deadline, cancel := w.pool.deadline(ctx)
	defer cancel()
	if err := w.news.Ping(deadline); err != nil { // it dials, and nobody else: whoever did so later might not be closed
		return wrap("CLIENT TRACKING", err)
	}
	w.receiving.Go(func() { w.receive(ctx) })
	if w.how == Tracking {
		w.reader = w.pool.newReader(w.node, w.end)
		if err := w.reader.track(ctx, w.sinkID.Load()); err != nil {
			return err
		}
	}
	if err := w.try(ctx); err != nil {
		return err
	}
	if w.reader != nil {
		if _, another := w.pool.readers.LoadOrStore(w.node.name, w.reader); !another {
			defer w.pool.readers.Delete(w.node.name)
		}
	}
	w.listener.Began(w.how)
	return w.beat(ctx)
}

// open the sink: a subscription to nothing, which does nothing but read what the server pushes.
func (w *watch) open(ctx context.Context) {
	o := w.node.single()
	o.OnConnect = func(ctx context.Context, conn *redis.Conn) error {
		if w.sinkID.Load() != 0 {
			return net.ErrClosed // a session ends with its connection: one made anew without a word would miss changes
		}
		if w.how == Broadcast {
			w.sinkID.Store(-1)
			return conn.ClientTrackingOn(ctx, &redis.ClientTrackingOptions{Bcast: true, Prefixes: []string{w.pool.prefix}}).Err()
		}
		id, err := conn.ClientID(ctx).Result()
		w.sinkID.Store(id)
		return err
	}
	w.sink = redis.NewClient(o)
	_ = w.sink.RegisterPushNotificationHandler("invalidate", handler(w.invalidate), true) // no other handler has the name
	w.news = w.sink.Subscribe(ctx)
	w.pong.Store(new(time.Now()))
}

func (w *watch) close() {
	if w.reader != nil {
		w.reader.close()
	}
	_ = w.sink.Close()
	w.receiving.Wait()
	_ = w.news.Close()
}

// receive what the server pushes; the library hands it to invalidate.
func (w *watch) receive(ctx context.Context) {
	for {
		message, err := w.news.Receive(ctx)
		if err != nil {
			w.end(wrap("CLIENT TRACKING", err))
			return
		}
		if _, ok := message.(*redis.Pong); ok {
			w.pong.Store(new(time.Now()))
		}
	}
}

// handler of pushes.
type handler func(push []any)

// HandlePushNotification calls the handler.
func (h handler) HandlePushNotification(_ context.Context, _ push.NotificationHandlerContext, push []any) error {
	h(push)
	return nil
}

// invalidate is what the server pushes: the names of keys, or nil when it has dropped all. An application may use the
// server's other databases, or keys next to ours: names alone do not say.
func (w *watch) invalidate(push []any) {
	if len(push) < 2 || push[1] == nil {
		w.listener.Flushed()
		return
	}
	names, _ := push[1].([]any)
	keys := make([]string, 0, len(names))
	for _, n := range names {
		name, _ := n.(string)
		if name == w.probe {
			w.once.Do(func() { close(w.heard) })
		} else if key, ok := strings.CutPrefix(name, w.pool.prefix); ok {
			keys = append(keys, key)
		}
	}
	if len(keys) > 0 {
		w.listener.Changed(keys)
	}
}

// try whether a change is told.
func (w *watch) try(ctx context.Context) error {
	if w.reader != nil {
		commands, err := w.reader.pipelined(ctx, func(pipe redis.Pipeliner) error { return pipe.Exists(ctx, w.probe).Err() })
		switch {
		case err != nil:
			return err
		case asked(commands[0].Err()):
			return errMoved
		}
	}
	deadline, cancel := w.pool.deadline(ctx)
	defer cancel()
	if err := w.pool.client.Set(deadline, w.probe, "", 5*probeTimeout).Err(); err != nil {
		return wrap("SET", err)
	}
	defer w.pool.client.Unlink(context.WithoutCancel(deadline), w.probe)
	timeout := time.NewTimer(probeTimeout)
	defer timeout.Stop()
	select {
	case <-w.heard:
		return nil
	case <-timeout.C:
		return ErrUnwatchable
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// beat asks both connections for a sign of life until one has none, and says why the session ends.
func (w *watch) beat(ctx context.Context) error {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		if time.Since(*w.pong.Load()) > maxSilence {
			return wrap("PING", os.ErrDeadlineExceeded)
		}
		if err := w.news.Ping(ctx); err != nil {
			return wrap("PING", err)
		}
		if w.reader == nil {
			continue
		}
		if _, err := w.reader.pipelined(ctx, func(pipe redis.Pipeliner) error { return pipe.Ping(ctx).Err() }); err != nil {
			return err
		}
	}
}
