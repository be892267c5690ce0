// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gleak"
	"github.com/redis/go-redis/v9"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

const (
	// atOnce is less than the two seconds between two heartbeats, beats more, and silence more than it takes to notice
	// that there are none.
	atOnce  = 1500 * time.Millisecond
	beats   = 5 * time.Second
	silence = 12 * time.Second
)

// connections of a watch, by the IDs that the server gave them; 0 means none.
type connections struct{ sink, reader int64 }

// watching finds the connections of the only watch of a server.
func watching(t *testing.T, server redis.UniversalClient) connections {
	t.Helper()
	var found connections
	for lines := bufio.NewScanner(strings.NewReader(server.ClientList(t.Context()).Val())); lines.Scan(); {
		fields := map[string]string{}
		for field := range strings.FieldsSeq(lines.Text()) {
			name, value, _ := strings.Cut(field, "=")
			fields[name] = value
		}
		id, _ := strconv.ParseInt(fields["id"], 10, 64)
		redirect, _ := strconv.ParseInt(fields["redir"], 10, 64)
		switch flags := fields["flags"]; {
		case strings.Contains(flags, "B"):
			found.sink = id
		case strings.Contains(flags, "t"):
			found.reader, found.sink = id, redirect
		}
	}
	return found
}

// clients of the server, or of all masters, other than the one that asks, replicas and sentinels.
func clients(t *testing.T, server redis.UniversalClient) int {
	t.Helper()
	n := 0
	ok(t, redistest.Each(t.Context(), server, func(c *redis.Client) error {
		id := c.ClientID(t.Context()).Val()
		for line := range strings.Lines(c.ClientList(t.Context()).Val()) {
			if !strings.HasPrefix(line, "id="+strconv.FormatInt(id, 10)+" ") && !strings.Contains(line, " flags=S ") && !strings.Contains(line, " name=sentinel-") {
				n++
			}
		}
		return nil
	}))
	return n
}

// broken is what Watch says when its connection has.
func broken(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, cache.ErrUnwatchable) {
		t.Fatal("a broken connection is no reason to watch no more")
	}
	e := failure(t, func() error { return err })
	if e.Class != cache.Unavailable || e.Reason != cache.ReasonConnectionFailed || e.Message == "Interrupted" {
		t.Errorf("%+v", e)
	}
}

// answers checks that Observe does, right now, and again.
func answers(t *testing.T, p *cache.Pool, want string) {
	t.Helper()
	for range 20 {
		if o := p.Observe(t.Context(), []cache.Look{{Key: "k", Size: 10}})[0]; o.Err != nil || o.Value != want {
			t.Fatalf("%+v", o)
		}
	}
}

func TestAKilledConnectionEndsTheSession(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		how    cache.Detection
		kill   func(connections) []int64
		look   bool
		within time.Duration
	}{
		"the sink, at once":                    {cache.Tracking, func(c connections) []int64 { return []int64{c.sink} }, false, atOnce},
		"the sink, and Observe answers":        {cache.Tracking, func(c connections) []int64 { return []int64{c.sink} }, true, atOnce},
		"the reader, when Observe reads":       {cache.Tracking, func(c connections) []int64 { return []int64{c.reader} }, true, atOnce},
		"the reader, at the next heartbeat":    {cache.Tracking, func(c connections) []int64 { return []int64{c.reader} }, false, beats},
		"both":                                 {cache.Tracking, func(c connections) []int64 { return []int64{c.reader, c.sink} }, true, atOnce},
		"the only one of a broadcast, at once": {cache.Broadcast, func(c connections) []int64 { return []int64{c.sink} }, true, atOnce},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := redistest.Start(t).Addr
			server, ctx, p := client(t, addr), t.Context(), open(t, addr)
			if tc.how == cache.Broadcast {
				p = broadcasting(t, addr)
			}
			ok(t, server.Set(ctx, prefix+"k", "v", 0).Err())
			w := watch(t, p, tc.how)
			w.observe(t, "k")
			for _, id := range tc.kill(watching(t, server)) {
				if n := must[int64](t)(server.ClientKillByFilter(ctx, "id", strconv.FormatInt(id, 10)).Result()); n != 1 {
					t.Fatalf("%d connections killed", n)
				}
			}
			if tc.look {
				answers(t, p, "v")
			}
			broken(t, w.end(t, tc.within))
			answers(t, p, "v")
			if left := watching(t, server); left != (connections{}) {
				t.Errorf("connections left: %+v", left)
			}
			// The next session knows nothing of what this one has read, and tells of what it reads itself.
			w = watch(t, p, tc.how)
			w.news(t, server)
			w.observe(t, "k")
			ok(t, server.Set(ctx, prefix+"k", "v", 0).Err())
			w.want(t, server, "k")
		})
	}
}

func TestAServerThatGoesEndsTheSession(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*redistest.Server){
		"killed": (*redistest.Server).Kill, "stopped": (*redistest.Server).Stop, "restarted": (*redistest.Server).Restart,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			redisServer := redistest.Start(t)
			p := open(t, redisServer.Addr)
			w := watch(t, p, cache.Tracking)
			w.observe(t, "k")
			end(redisServer)
			broken(t, w.end(t, atOnce))
			redisServer.Restart()
			w = watch(t, p, cache.Tracking)
			w.observe(t, "k")
			server := redisServer.Client(t)
			ok(t, server.Set(t.Context(), prefix+"k", "v", 0).Err())
			w.want(t, server, "k")
		})
	}
}

func TestNothingOfAWatchIsLeft(t *testing.T) {
	addr := redistest.Start(t).Addr
	server := client(t, addr)
	end := map[string]func(*watcher) error{
		"canceled":      func(w *watcher) error { w.cancel(); return nil },
		"pool stopped":  func(w *watcher) error { return w.pool.Stop() },
		"server's word": func(*watcher) error { return server.ClientKillByFilter(t.Context(), "skipme", "yes").Err() },
	}
	for how, as := range map[cache.Detection]func(*cache.Options){cache.Tracking: func(*cache.Options) {}, cache.Broadcast: broadcaster(t, addr)} {
		for name, end := range end {
			t.Run(string(how)+" "+name, func(t *testing.T) {
				ok(t, server.Ping(t.Context()).Err())
				running := gleak.Goroutines()
				wire := newWire()
				p := open(t, addr, as, over(wire))
				w := watch(t, p, how)
				w.observe(t, "k")
				if watching(t, server).sink == 0 {
					t.Fatal("no connection to begin with")
				}
				ok(t, end(w))
				if n := wire.open(); name == "pool stopped" && n != 0 {
					t.Errorf("%d connections are open after Stop", n)
				}
				err := w.end(t, atOnce)
				if canceled := errors.Is(err, context.Canceled); canceled != (name != "server's word") || err == nil {
					t.Errorf("%v", err)
				}
				NewWithT(t).Eventually(watching).WithArguments(t, server).Should(Equal(connections{}))
				_ = p.Stop()
				if n := wire.open(); n != 0 {
					t.Errorf("%d connections are open", n)
				}
				NewWithT(t).Eventually(clients).WithArguments(t, server).Should(BeZero())
				NewWithT(t).Eventually(gleak.Goroutines).ShouldNot(gleak.HaveLeaked(running))
			})
		}
	}
	t.Run("nor begun with a pool that was stopped", func(t *testing.T) {
		wire := newWire()
		p := open(t, addr, over(wire))
		ok(t, p.Stop())
		broken(t, listen(t, p).end(t, atOnce))
		if n := len(wire.conns); n != 0 {
			t.Errorf("%d connections were opened", n)
		}
	})
	t.Run("nor with a context that has ended", func(t *testing.T) {
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		if err := open(t, addr).Watch(canceled, cache.Listener{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		NewWithT(t).Eventually(clients).WithArguments(t, server).Should(BeZero())
	})
}

func TestAPoolStoppedWhileAWatchBegins(t *testing.T) {
	t.Parallel()
	addr := redistest.Start(t).Addr
	for i := range 20 {
		wire := newWire()
		p := open(t, addr, over(wire))
		w := listen(t, p)
		NewWithT(t).Eventually(func() int { // as far as it takes so many connections
			wire.mu.Lock()
			defer wire.mu.Unlock()
			return len(wire.conns)
		}).WithPolling(time.Millisecond).Should(BeNumerically(">=", i%4))
		ok(t, p.Stop())
		// The library may still be dialing for a command that was given up; it hangs up then.
		NewWithT(t).Eventually(wire.open).Should(BeZero())
		if err := w.end(t, atOnce); err == nil || errors.Is(err, cache.ErrUnwatchable) {
			t.Errorf("%v", err)
		}
	}
}

// deaf is a network on which nobody notices that the other side has hung up.
func deaf(o *cache.Options) {
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return &deafConn{Conn: conn, closed: make(chan struct{})}, err
	}
}

type deafConn struct {
	net.Conn

	once   sync.Once
	closed chan struct{}
}

func (c *deafConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		<-c.closed
	}
	return n, err
}

func (c *deafConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func TestAReaderThatIsToldOfItsBrokenSinkEndsTheSession(t *testing.T) {
	t.Parallel()
	addr := redistest.Start(t).Addr
	p, server, ctx := open(t, addr, deaf), client(t, addr), t.Context()
	w := watch(t, p, cache.Tracking)
	w.observe(t, "k")
	ok(t, server.ClientKillByFilter(ctx, "id", strconv.FormatInt(watching(t, server).sink, 10)).Err())
	ok(t, server.Set(ctx, prefix+"k", "v", 0).Err())
	answers(t, p, "v")
	broken(t, w.end(t, atOnce))
}

// A network that drops everything without a word: neither side ever learns of it.
func TestASilentNetworkEndsTheSession(t *testing.T) {
	t.Parallel()
	addr := redistest.Start(t).Addr
	server := client(t, addr)
	const patience = 500 * time.Millisecond
	// All at the same time, and the quickest first: one that is late is late for the next too.
	rows := []struct {
		name   string
		how    cache.Detection
		end    func(*watcher)
		within time.Duration
		proxy  *redistest.Proxy
		w      *watcher
	}{
		{name: "canceled", how: cache.Tracking, end: func(w *watcher) { w.cancel() }, within: atOnce},
		{name: "canceled", how: cache.Broadcast, end: func(w *watcher) { w.cancel() }, within: atOnce},
		{name: "stopped", how: cache.Tracking, end: func(w *watcher) { _ = w.pool.Stop() }, within: atOnce},
		{name: "stopped", how: cache.Broadcast, end: func(w *watcher) { _ = w.pool.Stop() }, within: atOnce},
		{name: "observed", how: cache.Tracking, end: func(w *watcher) { w.pool.Observe(t.Context(), make([]cache.Look, 1)) }, within: atOnce},
		{name: "left alone", how: cache.Tracking, end: func(*watcher) {}, within: beats},
		{name: "left alone", how: cache.Broadcast, end: func(*watcher) {}, within: silence},
	}
	lively := []*watcher{watch(t, open(t, addr), cache.Tracking), watch(t, broadcasting(t, addr), cache.Broadcast)}
	for i := range rows {
		row := &rows[i]
		row.proxy = redistest.NewProxy(t, addr, 0)
		pool := map[cache.Detection]func(*testing.T, string, ...func(*cache.Options)) *cache.Pool{cache.Tracking: open, cache.Broadcast: broadcasting}
		row.w = watch(t, pool[row.how](t, row.proxy.Addr, within(patience)), row.how)
	}
	start := time.Now()
	var ends sync.WaitGroup
	for _, row := range rows {
		row.proxy.Freeze()
		ends.Go(func() { row.end(row.w) })
	}
	for _, row := range rows {
		if err := row.w.end(t, row.within-time.Since(start)); !errors.Is(err, context.Canceled) {
			broken(t, err)
		}
	}
	ends.Wait()
	for _, w := range lively {
		w.news(t, server) // it goes on
	}
	for _, row := range rows {
		row.proxy.Thaw()
		if row.name != "stopped" {
			watch(t, row.w.pool, row.how)
		}
	}
}

func TestAWatchThatCannotBeginSaysSo(t *testing.T) {
	t.Parallel()
	proxy := redistest.NewProxy(t, redistest.Start(t).Addr, 0)
	proxy.Freeze()
	broken(t, listen(t, open(t, proxy.Addr, within(shortTimeout))).end(t, atOnce))
}

// An answer that comes after its question was given up is never taken for another's.
func TestALookThatIsGivenUp(t *testing.T) {
	addr := redistest.Start(t).Addr
	server := client(t, addr)
	ok(t, server.MSet(t.Context(), prefix+"a", "1", prefix+"b", "2").Err())
	proxy := redistest.NewProxy(t, addr, 0)
	p := open(t, proxy.Addr)
	w := watch(t, p, cache.Tracking)

	t.Run("before it was sent, it leaves the session alone", func(t *testing.T) {
		late, cancel := context.WithTimeout(t.Context(), -time.Second)
		defer cancel()
		for range 3 {
			if o := p.Observe(late, []cache.Look{{Key: "a", Size: 1}})[0]; !cache.Is(o.Err, cache.ReasonConnectionFailed) {
				t.Errorf("%+v", o)
			}
		}
		w.observe(t, "a")
		ok(t, server.Set(t.Context(), prefix+"a", "1", 0).Err())
		w.want(t, server, "a")
	})
	t.Run("afterwards, it ends the session", func(t *testing.T) {
		proxy.Freeze()
		impatient, cancel := context.WithTimeout(t.Context(), 4*shortTimeout)
		defer cancel()
		if o := p.Observe(impatient, []cache.Look{{Key: "a", Size: 1}})[0]; !cache.Is(o.Err, cache.ReasonConnectionFailed) {
			t.Errorf("%+v", o)
		}
		proxy.Thaw()
		if o := p.Observe(t.Context(), []cache.Look{{Key: "b", Size: 1}})[0]; o.Err != nil || o.Value != "2" {
			t.Errorf("%+v", o)
		}
		broken(t, w.end(t, atOnce))
	})
}

// A session that begins while others read must not be missed by them, nor they by it.
func TestSessionsComeAndGoUnderObserve(t *testing.T) {
	t.Parallel()
	addr := redistest.Start(t).Addr
	p, server, ctx := open(t, addr), client(t, addr), t.Context()
	ok(t, server.Set(ctx, prefix+"k", "v", 0).Err())
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for !stop.Load() {
				if o := p.Observe(ctx, []cache.Look{{Key: "k", Size: 1}})[0]; o.Err != nil || o.Value != "v" {
					t.Errorf("%+v", o)
					return
				}
			}
		})
	}
	for i := range 6 {
		w := watch(t, p, cache.Tracking)
		if found := watching(t, server); i%2 == 0 {
			w.cancel()
		} else {
			ok(t, server.ClientKillByFilter(ctx, "id", strconv.FormatInt(found.reader, 10)).Err())
		}
		_ = w.end(t, timeout)
	}
	stop.Store(true)
	readers.Wait()
}
