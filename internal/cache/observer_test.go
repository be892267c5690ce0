// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"context"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// observer remembers what it is told.
type observer struct {
	mu          sync.Mutex
	connections int
	trips       map[string]int
	failures    []string
}

func (o *observer) Connected(delta int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.connections += delta
}

func (o *observer) Took(command string, _ time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.trips[command]++
}

func (o *observer) Failed(class, reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failures = append(o.failures, class+"/"+reason)
}

func (o *observer) open() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.connections
}

// told since the last time: how many round trips, by command, and failures.
func (o *observer) told() (trips map[string]int, failures []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	trips, failures = o.trips, o.failures
	o.trips, o.failures = map[string]int{}, nil
	return trips, failures
}

func observing(t *testing.T, addr string, changes ...func(*cache.Options)) (*cache.Pool, *observer) {
	t.Helper()
	o := &observer{trips: map[string]int{}}
	return open(t, addr, append(changes, func(options *cache.Options) { options.Observer = o })...), o
}

func TestEachRoundTripIsToldByItsFirstCommand(t *testing.T) {
	g := NewWithT(t)
	server := redistest.Start(t)
	p, o := observing(t, server.Addr, func(o *cache.Options) { o.Database = 1 })
	many := make([]cache.Write, 400)
	for i := range many {
		many[i] = cache.Write{Key: marker, Value: marker}
	}
	_, _, names := numbered(1200)
	for _, step := range []struct {
		do   func(context.Context, *cache.Pool) error
		want map[string]int
	}{
		{operations["get"], map[string]int{"get": 1}}, // and not what a new connection begins with
		{operations["put"], map[string]int{"set": 1}},
		{operations["has"], map[string]int{"exists": 1}},
		{operations["observe"], map[string]int{"getrange": 1}},
		{func(ctx context.Context, p *cache.Pool) error { return p.PutAll(ctx, many)[0] }, map[string]int{"set": 1}},
		{operations["forget all"], map[string]int{"unlink": 1}},
		{operations["increment all"], map[string]int{"eval": 1}},
		{func(ctx context.Context, p *cache.Pool) error {
			_, err := p.ForgetNamed(ctx, names, cache.ScanOptions{}, never)
			return err
		}, map[string]int{"exists": 3}}, // each of a size that holds up nobody
		{operations["flush"], map[string]int{"info": 3, "scan": 1, "unlink": 1}},
	} {
		if err := step.do(t.Context(), p); !cache.Is(err, cache.ReasonNotFound) {
			g.Expect(err).NotTo(HaveOccurred())
		}
		trips, failures := o.told()
		g.Expect(trips).To(Equal(step.want))
		g.Expect(failures).To(BeEmpty(), "that there is no key is no failure")
	}
}

// What is told becomes a label, so that it must not depend on what is asked for.
func TestOnlyNamesOfCommandsAreTold(t *testing.T) {
	commands := []any{"get", "set", "unlink", "exists", "incrby", "scan", "info", "getrange", "eval", "cluster", "client", "ping", "asking"}
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, _ := start(t)
			p, o := observing(t, addr, within(time.Second))
			for what, do := range operations {
				if what != "watch" {
					_ = do(t.Context(), p)
				}
			}
			watching, stop := context.WithTimeout(t.Context(), time.Second)
			defer stop()
			_ = operations["watch"](watching, p)
			trips, _ := o.told()
			NewWithT(t).Expect(slices.Collect(maps.Keys(trips))).To(HaveEach(BeElementOf(commands...)))
		})
	}
}

func TestFailuresAreToldByClassAndReason(t *testing.T) {
	server, full, closed := redistest.Start(t), redistest.Start(t, "--maxmemory", "1"), redistest.Start(t, "--requirepass", "other")
	admin := server.Client(t)
	ok(t, admin.ACLSetUser(t.Context(), "reader", "on", ">"+marker, "+get", "+select", "~*").Err())
	ok(t, admin.LPush(t.Context(), prefix+"list", "v").Err())
	three := []cache.Write{{Key: "a", Value: "v"}, {Key: "b", Value: "v"}, {Key: "c", Value: "v"}}
	for name, tc := range map[string]struct {
		addr   string
		change func(*cache.Options)
		do     func(context.Context, *cache.Pool)
		want   []string
	}{
		"a key of another type": {server.Addr, as("", ""), func(ctx context.Context, p *cache.Pool) { _, _ = p.Get(ctx, "list") }, []string{"Key/WrongType"}},
		"each key of a pipeline": {server.Addr, as("", ""), func(ctx context.Context, p *cache.Pool) {
			p.Observe(ctx, []cache.Look{{Key: "list"}, {Key: "a"}, {Key: "list"}})
		}, []string{"Key/WrongType", "Key/WrongType"}},
		"a missing right":                    {server.Addr, as("reader", marker), func(ctx context.Context, p *cache.Pool) { _ = p.Forget(ctx, "k") }, []string{"Denied/PermissionDenied"}},
		"a wrong password":                   {closed.Addr, as("", marker), func(ctx context.Context, p *cache.Pool) { _, _ = p.Get(ctx, "k") }, []string{"Refused/AuthenticationFailed"}},
		"a wrong password, and many at once": {closed.Addr, as("", marker), func(ctx context.Context, p *cache.Pool) { p.PutAll(ctx, three) }, []string{"Refused/AuthenticationFailed"}},
		"no database of that number":         {server.Addr, func(o *cache.Options) { o.Database = 99 }, func(ctx context.Context, p *cache.Pool) { _, _ = p.Get(ctx, "k") }, []string{"Refused/WrongTopology"}},
		"no memory, for many at once":        {full.Addr, as("", ""), func(ctx context.Context, p *cache.Pool) { p.PutAll(ctx, three) }, []string{"Unavailable/OutOfMemory"}},
		"nobody there":                       {"127.0.0.1:1", as("", ""), func(ctx context.Context, p *cache.Pool) { p.PutAll(ctx, three) }, []string{"Unavailable/ConnectionFailed"}},
		"a key that is there already": {server.Addr, as("", ""), func(ctx context.Context, p *cache.Pool) {
			p.PutAll(ctx, []cache.Write{{Key: "list", Value: "v", IfAbsent: true}})
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p, o := observing(t, tc.addr, tc.change)
			tc.do(t.Context(), p)
			_, failures := o.told()
			NewWithT(t).Expect(failures).To(Equal(tc.want))
		})
	}
}

// The client of a cluster goes where a key is: that another node has sent it there is no failure.
func TestToBeSentToAnotherNodeIsNoFailure(t *testing.T) {
	c := redistest.StartCluster(t, 2, false)
	p, o := observing(t, c.Address())
	ok(t, p.PutForever(t.Context(), "k", "v"))
	slot := c.SlotOf(prefix + "k")
	from, to := c.Masters[0], c.Masters[1]
	if slot >= 8192 {
		from, to = to, from
	}
	c.Move(slot, from, to)
	ok(t, p.PutForever(t.Context(), "k", "v"))
	trips, failures := o.told()
	g := NewWithT(t)
	g.Expect(trips).To(HaveKeyWithValue("set", 3))
	g.Expect(failures).To(BeEmpty())
}

// Every connection is told, those of a watch too, as long as it is open.
func TestConnectionsAreToldWhileTheyAreOpen(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			addr, isReal := start(t)
			if !isReal {
				t.Skip("miniredis has no users, by whom connections are told apart")
			}
			each(t, addr, func(c *redis.Client) error {
				return c.ACLSetUser(t.Context(), "counted", "on", ">"+marker, "+@all", "~*", "&*").Err()
			})
			p, o := observing(t, addr, as("counted", marker))
			there := func() (n int) {
				each(t, addr, func(c *redis.Client) error {
					list, err := c.ClientList(t.Context()).Result()
					n += strings.Count(list, "user=counted")
					return err
				})
				return n
			}
			sentinels := 0 // the connections to them are not the user's
			count := func() int { return o.open() - sentinels }
			g.Expect(check(t, p)()).To(Succeed())
			sentinels = o.open() - there()
			watching, stop := context.WithCancel(t.Context())
			began, ended := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(ended)
				_ = p.Watch(watching, cache.Listener{Began: func(cache.Detection) { close(began) }, Changed: func([]string) {}, Flushed: func() {}})
			}()
			<-began
			g.Eventually(count).Should(BeNumerically(">=", 3), "the pool's, and two for the news")
			g.Eventually(func() int { return count() - there() }).Should(BeZero())
			stop()
			<-ended
			g.Eventually(func() int { return count() - there() }).Should(BeZero())
			ok(t, p.Stop())
			g.Eventually(o.open).Should(BeZero())
		})
	}
}

// The client library finds dead connections by the descriptor of their socket.
func TestConnectionsThatAreCountedCanBeSeenToBeDead(t *testing.T) {
	server := redistest.Start(t)
	p, _ := observing(t, server.Addr)
	ok(t, p.PutForever(t.Context(), "k", "v"))
	server.Restart()
	_, err := p.Get(t.Context(), "k")
	NewWithT(t).Expect(err).To(MatchError(cache.ErrNotFound), "it was dialed anew")
}

// What a connection is closed twice for, it is told once for.
func TestAConnectionIsClosedOnce(t *testing.T) {
	server := redistest.Start(t)
	var last net.Conn
	p, o := observing(t, server.Addr, func(o *cache.Options) {
		o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			var err error
			last, err = (&net.Dialer{}).DialContext(ctx, network, address)
			return last, err
		}
	})
	ok(t, p.PutForever(t.Context(), "k", "v"))
	g := NewWithT(t)
	g.Expect(o.open()).To(Equal(1))
	ok(t, last.Close()) // under the client, which closes it too
	_, _ = p.Get(t.Context(), "k")
	ok(t, p.Stop())
	g.Expect(o.open()).To(BeZero())
}
