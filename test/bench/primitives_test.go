// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// many keys are what the primitives for many work on, and flushed is what a flush deletes.
const many, flushed = 100, 10_000

// primitive is one operation, by this repository's cache and by go-redis alone.
type primitive struct {
	name string
	// prepare what it does away with, before each time.
	prepare func(c *clients)
	ours    func(c *clients) error
	bare    func(ctx context.Context, c *clients) error
}

// clients of one server.
type clients struct {
	*testing.B

	addr string
	pool *cache.Pool
	bare *redis.Client
}

// BenchmarkPrimitives compares with go-redis doing the same: one call with a deadline each, over a connection that is
// there, unless the primitive is to end it. benchstat tells whether they differ.
func BenchmarkPrimitives(b *testing.B) {
	server := redistest.Start(b)
	direct := connect(b, server.Addr)
	network := redistest.NewProxy(b, server.Addr, 0)
	counted := connect(b, network.Addr)
	for _, p := range primitives() {
		for name, do := range map[string]func(c *clients) error{
			"cachewright": p.ours,
			"go-redis": func(c *clients) error {
				ctx, cancel := context.WithTimeout(c.Context(), patience)
				defer cancel()
				return p.bare(ctx, c)
			},
		} {
			b.Run("op="+p.name+"/client="+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if p.prepare != nil {
						b.StopTimer()
						p.prepare(direct)
						b.StartTimer()
					}
					must(b, do(direct))
				}
				b.StopTimer()
				const times = 10
				trips := 0
				for range times {
					if p.prepare != nil {
						p.prepare(direct)
					}
					before := network.Trips()
					must(b, do(counted))
					trips += network.Trips() - before
				}
				b.ReportMetric(float64(trips)/times, "trips/op")
			})
		}
	}
}

func connect(b *testing.B, addr string) *clients {
	b.Helper()
	c := &clients{B: b, addr: addr, pool: open(addr), bare: redis.NewClient(options(addr))}
	b.Cleanup(func() { _, _ = c.pool.Stop(), c.bare.Close() })
	must(b, c.bare.Set(b.Context(), prefix+"key", value, 0).Err())
	_, err := c.pool.Get(b.Context(), "key") // both are connected now
	must(b, err)
	return c
}

func open(addr string) *cache.Pool {
	return cache.Open(cache.Options{Addresses: []string{addr}, Prefix: prefix, Timeout: patience})
}

// options that make go-redis do the same as this repository's cache: nothing twice, and nothing for ever.
func options(addr string) *redis.Options {
	return &redis.Options{
		Addr: addr, MaxRetries: -1, ContextTimeoutEnabled: true, PoolSize: 4, PipelinePoolSize: -1, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func primitives() []primitive {
	const k, name = "key", prefix + "key"
	return append([]primitive{
		{
			"get", nil, func(c *clients) error { _, err := c.pool.Get(c.Context(), k); return err },
			func(ctx context.Context, c *clients) error { return c.bare.Get(ctx, name).Err() },
		},
		{
			"put", nil, func(c *clients) error { return c.pool.Put(c.Context(), k, value, time.Hour) },
			func(ctx context.Context, c *clients) error { return c.bare.Set(ctx, name, value, time.Hour).Err() },
		},
		{
			"putForever", nil, func(c *clients) error { return c.pool.PutForever(c.Context(), k, value) },
			func(ctx context.Context, c *clients) error { return c.bare.Set(ctx, name, value, 0).Err() },
		},
		{
			"forget", nil, func(c *clients) error { return c.pool.Forget(c.Context(), k) },
			func(ctx context.Context, c *clients) error { return c.bare.Unlink(ctx, name).Err() },
		},
		{
			"has", nil, func(c *clients) error { _, err := c.pool.Has(c.Context(), k); return err },
			func(ctx context.Context, c *clients) error { return c.bare.Exists(ctx, name).Err() },
		},
		{
			"increment", nil, func(c *clients) error { _, err := c.pool.Increment(c.Context(), "counter", 1); return err },
			func(ctx context.Context, c *clients) error { return c.bare.IncrBy(ctx, prefix+"counter", 1).Err() },
		},
		{"flush", fill, func(c *clients) error { _, err := c.pool.Flush(c.Context()); return err }, bareFlush},
		{"stop", nil, func(c *clients) error {
			pool := open(c.addr)
			_, err := pool.Has(c.Context(), k)
			must(c.B, err)
			return pool.Stop()
		}, func(ctx context.Context, c *clients) error {
			client := redis.NewClient(options(c.addr))
			must(c.B, client.Exists(ctx, name).Err())
			return client.Close()
		}},
	}, primitivesForMany()...)
}

// primitivesForMany are what the operator looks and writes with.
func primitivesForMany() []primitive {
	looks, writes := make([]cache.Look, many), make([]cache.Write, many)
	for i := range many {
		looks[i] = cache.Look{Key: key(i), Size: len(value)}
		writes[i] = cache.Write{Key: key(i), Value: value, TTL: time.Hour}
	}
	each := func(ctx context.Context, c *clients, command func(p redis.Pipeliner, name string)) error {
		_, err := c.bare.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i := range many {
				command(p, prefix+key(i))
			}
			return nil
		})
		return err
	}
	return []primitive{
		{
			"observe100", nil, func(c *clients) error { return c.pool.Observe(c.Context(), looks)[0].Err },
			func(ctx context.Context, c *clients) error {
				return each(ctx, c, func(p redis.Pipeliner, name string) {
					p.GetRange(ctx, name, 0, int64(len(value)))
					p.PTTL(ctx, name)
				})
			},
		},
		{
			"putAll100", nil, func(c *clients) error { return c.pool.PutAll(c.Context(), writes)[0] },
			func(ctx context.Context, c *clients) error {
				return each(ctx, c, func(p redis.Pipeliner, name string) { p.Set(ctx, name, value, time.Hour) })
			},
		},
	}
}

// fill the cache with what a flush deletes.
func fill(c *clients) {
	c.Helper()
	_, err := c.bare.Pipelined(c.Context(), func(p redis.Pipeliner) error {
		for i := range flushed {
			p.Set(c.Context(), prefix+key(i), value, 0)
		}
		return nil
	})
	must(c.B, err)
}

// bareFlush is the best that takes no thought: large pages, each deleted before the next one is asked for.
func bareFlush(ctx context.Context, c *clients) error {
	for cursor, first := uint64(0), true; first || cursor != 0; first = false {
		page, next, err := c.bare.Scan(ctx, cursor, prefix+"*", batch).Result()
		if err != nil {
			return err
		}
		if cursor = next; len(page) > 0 {
			if err := c.bare.Unlink(ctx, page...).Err(); err != nil {
				return err
			}
		}
	}
	return nil
}
