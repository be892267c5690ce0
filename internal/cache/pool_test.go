// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2/server"
	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

func TestEachPrimitiveIsOneCommand(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, _ := start(t)
			primitives := map[string]struct {
				call func(context.Context, *cache.Pool) error
				sent string
			}{
				"get": {func(ctx context.Context, p *cache.Pool) error { _, err := p.Get(ctx, "k"); return err }, "get p:k"},
				"put": {func(ctx context.Context, p *cache.Pool) error { return p.Put(ctx, "k", "1", 90*time.Second) }, "set p:k 1 px 90000"},
				"put for less than a second": {
					func(ctx context.Context, p *cache.Pool) error { return p.Put(ctx, "k", "1", 1500*time.Microsecond) }, "set p:k 1 px 1",
				},
				"put forever": {func(ctx context.Context, p *cache.Pool) error { return p.PutForever(ctx, "k", "1") }, "set p:k 1"},
				"forget":      {func(ctx context.Context, p *cache.Pool) error { return p.Forget(ctx, "k") }, "unlink p:k"},
				"has":         {func(ctx context.Context, p *cache.Pool) error { _, err := p.Has(ctx, "k"); return err }, "exists p:k"},
				"increment":   {func(ctx context.Context, p *cache.Pool) error { _, err := p.Increment(ctx, "k", -7); return err }, "incrby p:k -7"},
			}
			for name, tc := range primitives {
				t.Run(name, func(t *testing.T) {
					w := newWire()
					p := open(t, addr, over(w), under("p:"))
					ok(t, p.PutForever(t.Context(), "k", "1"))
					w.commands(t)
					ok(t, tc.call(t.Context(), p))
					if diff := cmp.Diff([]string{tc.sent}, w.commands(t)); diff != "" {
						t.Errorf("commands sent (-want +got):\n%s", diff)
					}
				})
			}
		})
	}
}

func TestGetAndPut(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, _ := start(t)
			p, server := open(t, addr), client(t, addr)
			ctx := t.Context()

			t.Run("what was put is got, whatever its bytes", func(t *testing.T) {
				for _, value := range []string{"", "on", "\x00\xff\r\n", strings.Repeat("x", 1<<20)} {
					ok(t, p.Put(ctx, "k", value, time.Minute))
					if got := must[string](t)(p.Get(ctx, "k")); got != value {
						t.Errorf("got %.20q of %d bytes, want %.20q of %d", got, len(got), value, len(value))
					}
				}
			})
			t.Run("the key in Redis is the prefix and the key", func(t *testing.T) {
				ok(t, p.Put(ctx, "a:b", "v", time.Minute))
				if got := must[string](t)(server.Get(ctx, prefix+"a:b").Result()); got != "v" {
					t.Errorf("%q", got)
				}
			})
			t.Run("put sets the lifetime", func(t *testing.T) {
				ok(t, p.Put(ctx, "k", "v", time.Minute))
				if left := server.PTTL(ctx, prefix+"k").Val(); left <= 0 || left > time.Minute {
					t.Errorf("PTTL %v", left)
				}
			})
			t.Run("put forever clears a lifetime", func(t *testing.T) {
				ok(t, p.Put(ctx, "k", "v", time.Minute))
				ok(t, p.PutForever(ctx, "k", "v"))
				if left := server.PTTL(ctx, prefix+"k").Val(); left != -1 {
					t.Errorf("PTTL %v, want -1", left)
				}
			})
			t.Run("put without a lifetime is refused, and leaves the key", func(t *testing.T) {
				ok(t, p.PutForever(ctx, "k", "before"))
				for _, ttl := range []time.Duration{0, -1, -time.Minute, time.Microsecond} {
					wantFailure(t, cache.Failed, "InvalidTTL", func() error { return p.Put(ctx, "k", marker, ttl) })
				}
				if got := must[string](t)(p.Get(ctx, "k")); got != "before" {
					t.Errorf("%q", got)
				}
			})
			t.Run("a missing key is ErrNotFound, and concerns no other", func(t *testing.T) {
				_, err := p.Get(ctx, "missing")
				if !errors.Is(err, cache.ErrNotFound) || cache.ServerWide(err) {
					t.Errorf("%v", err)
				}
			})
			t.Run("get of a hash is ErrWrongType", func(t *testing.T) {
				ok(t, server.HSet(ctx, prefix+marker, "f", marker).Err())
				wantFailure(t, cache.Key, cache.ReasonWrongType, func() error { _, err := p.Get(ctx, marker); return err })
				if _, err := p.Get(ctx, marker); !errors.Is(err, cache.ErrWrongType) || errors.Is(err, cache.ErrNotFound) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

func TestForgetAndHas(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, _ := start(t)
			p, ctx := open(t, addr), t.Context()
			kinds := map[string]func(redis.Cmdable, string) error{
				"string":     func(c redis.Cmdable, k string) error { return c.Set(ctx, k, "v", 0).Err() },
				"hash":       func(c redis.Cmdable, k string) error { return c.HSet(ctx, k, "f", "v").Err() },
				"list":       func(c redis.Cmdable, k string) error { return c.RPush(ctx, k, "v").Err() },
				"set":        func(c redis.Cmdable, k string) error { return c.SAdd(ctx, k, "v").Err() },
				"sorted set": func(c redis.Cmdable, k string) error { return c.ZAdd(ctx, k, redis.Z{Member: "v"}).Err() },
			}
			forgets := map[string]func(string) error{
				"forget":     func(k string) error { return p.Forget(ctx, k) },
				"forget all": func(k string) error { return p.ForgetAll(ctx, deletions(k))[0] },
				"forget named": func(k string) error {
					_, err := p.ForgetNamed(ctx, []string{k}, cache.ScanOptions{}, never)
					return err
				},
				"flush": func(string) error { _, err := p.Flush(ctx); return err },
			}
			for kind, create := range kinds {
				for forget, call := range forgets {
					t.Run(forget+" deletes a "+kind, func(t *testing.T) {
						ok(t, create(client(t, addr), prefix+"k"))
						if !must[bool](t)(p.Has(ctx, "k")) {
							t.Error("has says no")
						}
						ok(t, call("k"))
						if must[bool](t)(p.Has(ctx, "k")) {
							t.Error("has says yes")
						}
					})
				}
			}
			for name, call := range forgets {
				t.Run(name+" of a missing key succeeds", func(t *testing.T) { ok(t, call("missing")) })
			}
		})
	}
}

func TestIncrement(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, isReal := start(t)
			p, server, ctx := open(t, addr), client(t, addr), t.Context()

			t.Run("it is exact beyond what a float holds, and keeps the lifetime", func(t *testing.T) {
				ok(t, p.Put(ctx, "k", "9007199254740992", time.Minute))
				if sum := must[int64](t)(p.Increment(ctx, "k", 1)); sum != 9007199254740993 {
					t.Errorf("%d", sum)
				}
				if left := server.PTTL(ctx, prefix+"k").Val(); left <= 0 {
					t.Errorf("PTTL %v", left)
				}
			})
			t.Run("a missing key counts from 0, without a lifetime", func(t *testing.T) {
				if sum := must[int64](t)(p.Increment(ctx, "new", -5)); sum != -5 {
					t.Errorf("%d", sum)
				}
				if left := server.PTTL(ctx, prefix+"new").Val(); left != -1 {
					t.Errorf("PTTL %v", left)
				}
			})
			t.Run("many at once count each", func(t *testing.T) {
				var all sync.WaitGroup
				for range 4 {
					all.Go(func() {
						for range 50 {
							if _, err := p.Increment(ctx, "many", 3); err != nil {
								t.Error(err)
							}
						}
					})
				}
				all.Wait()
				if got := must[string](t)(p.Get(ctx, "many")); got != "600" {
					t.Errorf("%s, want 600", got)
				}
			})
			for name, tc := range map[string]struct{ value, reason string }{
				"text is NotAnInteger":       {marker, cache.ReasonNotAnInteger},
				"beyond 64 bits is Overflow": {"9223372036854775807", cache.ReasonOverflow},
			} {
				t.Run(name+", and the value stays", func(t *testing.T) {
					if tc.reason == cache.ReasonOverflow && !isReal {
						t.Skip("miniredis wraps around") // what Redis says is tested on Redis
					}
					ok(t, p.PutForever(ctx, marker, tc.value))
					wantFailure(t, cache.Key, tc.reason, func() error { _, err := p.Increment(ctx, marker, 1); return err })
					if got := must[string](t)(p.Get(ctx, marker)); got != tc.value {
						t.Errorf("%q", got)
					}
				})
			}
			t.Run("of a hash is ErrWrongType", func(t *testing.T) {
				ok(t, server.HSet(ctx, prefix+"hash", "f", "1").Err())
				wantFailure(t, cache.Key, cache.ReasonWrongType, func() error { _, err := p.Increment(ctx, "hash", 1); return err })
			})
		})
	}
}

func TestIncrementIsSentOnceToAServerThatStalls(t *testing.T) {
	server, w := redistest.Start(t), newWire()
	p, admin, ctx := open(t, server.Addr, over(w), within(time.Hour)), server.Client(t), t.Context()
	warm(t, p)
	w.commands(t)
	ok(t, admin.Do(ctx, "client", "pause", 60_000, "write").Err())
	impatient, cancel := context.WithTimeout(ctx, 8*shortTimeout)
	defer cancel()
	answer := make(chan error, 1)
	go func() {
		_, err := p.Increment(impatient, "k", 1)
		answer <- err
	}()
	var err error
	NewWithT(t).Eventually(answer).WithTimeout(timeout).Should(Receive(&err), "the caller's deadline is not kept")
	if !cache.Is(err, cache.ReasonConnectionFailed) || !cache.ServerWide(err) {
		t.Errorf("%v", err)
	}
	ok(t, admin.ClientUnpause(ctx).Err())
	if diff := cmp.Diff([]string{"incrby " + prefix + "k 1"}, w.commands(t)); diff != "" {
		t.Errorf("commands sent (-want +got):\n%s", diff)
	}
	if n := calls(t, server.Addr, "incrby"); n > 1 {
		t.Errorf("the server counted %d times", n)
	}
}

func TestIncrementIsSentOnceToAServerThatHangsUp(t *testing.T) {
	mini := redistest.Miniredis(t)
	var counted atomic.Int32
	p := open(t, mini.Addr())
	warm(t, p)
	mini.Server().SetPreHook(func(c *server.Peer, command string, _ ...string) bool {
		if command != "INCRBY" {
			return false
		}
		counted.Add(1)
		c.Close()
		return true
	})
	if _, err := p.Increment(t.Context(), "k", 1); !cache.Is(err, cache.ReasonConnectionFailed) || counted.Load() != 1 {
		t.Errorf("%v; it counted %d times", err, counted.Load())
	}
}

// warm makes the pool dial all its connections: a client that tries again would find them ready.
func warm(t *testing.T, p *cache.Pool) {
	t.Helper()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { _, _ = p.Has(t.Context(), "k") })
	}
	all.Wait()
}

func TestFlushTakesOnlyWhatIsUnderThePrefix(t *testing.T) {
	for prefix, outside := range map[string][]string{
		"app:":        {"app", "App:k", "xapp:k", "ap:k", "app;k"},
		"*":           {"k", "a*"},
		"a?":          {"ab", "abk", "a", "ak?"},
		"a[b]":        {"ab", "abk", "a[b", "a[bk"},
		"a[^b]":       {"ac", "ack", "a^"},
		`a\`:          {"a", "ak", "a*"},
		`a\*`:         {"a*", "a*k", `a\k`, "ak"},
		`a[b]*?\`:     {"ab", "abxyz", "a[b]", "a[b]*?", "a[b]x?k", `abxy\k`},
		`glimr:{t}-]`: {"glimr:t", "glimr:{t}-"},
		"ü:":          {"u:k", "ü"},
	} {
		t.Run(prefix, func(t *testing.T) {
			for name, start := range redistest.Servers {
				t.Run(name, func(t *testing.T) {
					addr, isReal := start(t)
					server, w := client(t, addr), newWire()
					inside := []string{prefix, prefix + "k", prefix + prefix, prefix + "*", prefix + `\`, prefix + "\n"}
					for _, key := range slices.Concat(inside, outside) {
						ok(t, server.Set(t.Context(), key, "v", 0).Err())
					}
					all := len(keys(t, addr))
					deleted, err := open(t, addr, over(w), under(prefix)).Flush(t.Context())
					ok(t, err)
					if want := all - len(outside); deleted != int64(want) {
						t.Errorf("deleted %d, want %d", deleted, want)
					}
					slices.Sort(outside)
					if diff := cmp.Diff(outside, keys(t, addr)); diff != "" {
						t.Errorf("keys left (-want +got):\n%s", diff)
					}
					for _, command := range w.commands(t) {
						switch name, _, _ := strings.Cut(command, " "); name {
						case "info", "scan", "unlink":
						default:
							t.Errorf("sent %s", name)
						}
					}
					for _, command := range []string{"flushdb", "flushall", "del"} {
						if isReal && calls(t, addr, command) > 0 {
							t.Errorf("the server ran %s", command)
						}
					}
				})
			}
		})
	}
}

func TestStopLeavesNoConnection(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, isReal := start(t)
			w, server := newWire(), client(t, addr)
			p := open(t, addr, over(w))
			warm(t, p)
			if w.open() == 0 {
				t.Fatal("no connection to begin with")
			}
			ok(t, p.Stop())
			if n := w.open(); n != 0 {
				t.Errorf("%d connections are open", n)
			}
			if isReal {
				NewWithT(t).Eventually(clients).WithArguments(t, server).Should(BeZero())
			}
			for name, call := range operations {
				t.Run("then "+name+" fails", func(t *testing.T) {
					wantFailure(t, cache.Unavailable, cache.ReasonConnectionFailed, func() error { return call(t.Context(), p) })
				})
			}
			if n := w.open(); n != 0 {
				t.Errorf("%d connections were opened after Stop", n)
			}
		})
	}
}

// A server that is not there is never taken for a key that is not there.
func TestOperationsOnABrokenConnection(t *testing.T) {
	server := redistest.Start(t)
	server.Stop()
	silent := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { _ = silent.Close() })
	mini := redistest.Miniredis(t)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()

	for name, tc := range map[string]struct {
		ctx     context.Context
		pool    *cache.Pool
		message string
	}{
		"stopped server":            {t.Context(), open(t, server.Addr), "Connection refused"},
		"server that never answers": {t.Context(), open(t, silent.Addr().String(), within(shortTimeout)), "Connection timed out"},
		"network that never answers": {t.Context(), open(t, mini.Addr(), within(shortTimeout), func(o *cache.Options) {
			o.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
		}), "Connection timed out"},
		"server that hangs up": {t.Context(), open(t, hangUp(t)), "Connection closed"},
		"name that does not resolve": {t.Context(), open(t, mini.Addr(), func(o *cache.Options) {
			o.Dial = func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: marker, Server: "127.0.0.1:53"}}
			}
		}), "The server's name cannot be resolved"},
		"caller that gave up": {canceled, open(t, mini.Addr()), "Interrupted"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, operation := range slices.Sorted(maps.Keys(operations)) {
				e := failure(t, func() error { return operations[operation](tc.ctx, tc.pool) })
				want := cache.Error{Class: cache.Unavailable, Reason: cache.ReasonConnectionFailed, Message: tc.message}
				if e != want {
					t.Errorf("%s: %+v, want %+v", operation, e, want)
				}
			}
		})
	}
}

// hangUp is a listener that closes every connection.
func hangUp(t *testing.T) string {
	t.Helper()
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	return l.Addr().String()
}

func TestAPoolSurvivesTheRestartOfItsServer(t *testing.T) {
	server := redistest.Start(t)
	p := open(t, server.Addr)
	warm(t, p)
	server.Restart()
	NewWithT(t).Eventually(func() error { return p.PutForever(t.Context(), "k", "v") }).Should(Succeed())
}
