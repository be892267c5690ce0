// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// marker is part of every prefix, and of keys, values, users and passwords wherever something fails: no error may
// show it.
const marker = "hunter2"

// prefix of the pools that open makes.
const prefix = marker + ":"

const (
	timeout      = 10 * time.Second
	shortTimeout = 25 * time.Millisecond
)

func open(t *testing.T, addr string, changes ...func(*cache.Options)) *cache.Pool {
	t.Helper()
	o := at(addr)
	for _, change := range changes {
		change(&o)
	}
	p := cache.Open(o)
	t.Cleanup(func() { _ = p.Stop() })
	return p
}

// at an address, as redistest.Servers give it.
func at(addr string) cache.Options {
	u := redistest.Options(addr)
	o := cache.Options{Addresses: u.Addrs, MasterName: u.MasterName, Prefix: prefix, Timeout: timeout}
	switch {
	case u.IsClusterMode:
		o.Topology = cache.Cluster
	case u.MasterName != "":
		o.Topology = cache.Sentinel
	}
	return o
}

// isCluster says whether it is one that is at an address.
func isCluster(addr string) bool { return at(addr).Topology == cache.Cluster }

func within(d time.Duration) func(*cache.Options) {
	return func(o *cache.Options) { o.Timeout = d }
}

func as(username, password string) func(*cache.Options) {
	return func(o *cache.Options) { o.Username, o.Password = username, password }
}

func under(prefix string) func(*cache.Options) {
	return func(o *cache.Options) { o.Prefix = prefix }
}

func over(w *wire) func(*cache.Options) {
	return func(o *cache.Options) { o.Dial = w.dial }
}

// operations are all that can be asked of a Pool.
var operations = map[string]func(context.Context, *cache.Pool) error{
	"get":         func(ctx context.Context, p *cache.Pool) error { _, err := p.Get(ctx, marker); return err },
	"put":         func(ctx context.Context, p *cache.Pool) error { return p.Put(ctx, marker, marker, time.Minute) },
	"put forever": func(ctx context.Context, p *cache.Pool) error { return p.PutForever(ctx, marker, marker) },
	"forget":      func(ctx context.Context, p *cache.Pool) error { return p.Forget(ctx, marker) },
	"has":         func(ctx context.Context, p *cache.Pool) error { _, err := p.Has(ctx, marker); return err },
	"increment":   func(ctx context.Context, p *cache.Pool) error { _, err := p.Increment(ctx, marker, 1); return err },
	"flush":       func(ctx context.Context, p *cache.Pool) error { _, err := p.Flush(ctx); return err },
	"check":       func(ctx context.Context, p *cache.Pool) error { _, err := p.Check(ctx); return err },
	"observe": func(ctx context.Context, p *cache.Pool) error {
		return p.Observe(ctx, []cache.Look{{Key: marker}})[0].Err
	},
	"put all": func(ctx context.Context, p *cache.Pool) error {
		return p.PutAll(ctx, []cache.Write{{Key: marker, Value: marker}})[0]
	},
	"put if absent": func(ctx context.Context, p *cache.Pool) error {
		return p.PutAll(ctx, []cache.Write{{Key: marker, Value: marker, IfAbsent: true}})[0]
	},
	"forget all": func(ctx context.Context, p *cache.Pool) error { return p.ForgetAll(ctx, deletions(marker))[0] },
	"forget a value": func(ctx context.Context, p *cache.Pool) error {
		return p.ForgetAll(ctx, []cache.Deletion{{Key: marker, Value: new(marker)}})[0]
	},
	"forget a marker": func(ctx context.Context, p *cache.Pool) error {
		return p.ForgetAll(ctx, []cache.Deletion{{Key: marker, Counter: marker}})[0]
	},
	"increment all": func(ctx context.Context, p *cache.Pool) error {
		return p.IncrementAll(ctx, []cache.Increment{{Key: marker, ID: marker, By: 1, RunID: marker}})[0].Err
	},
	"watch": func(ctx context.Context, p *cache.Pool) error {
		return p.Watch(ctx, cache.Listener{Began: func(cache.Detection) {}, Changed: func([]string) {}, Flushed: func() {}})
	},
	"forget named": func(ctx context.Context, p *cache.Pool) error {
		_, err := p.ForgetNamed(ctx, []string{marker}, cache.ScanOptions{}, never)
		return err
	},
	"scan": func(ctx context.Context, p *cache.Pool) error {
		_, err := p.NewScan(cache.Prefixed(marker), cache.ScanOptions{}).Run(ctx, cache.Checkpoint{}, never)
		return err
	},
}

// never and soon are reasons to stop a scan: never, and after its first page.
func never() bool { return false }

func soon() func() bool {
	asked := 0
	return func() bool { asked++; return asked > 1 }
}

// failure checks what holds for every error, in two attempts: it is an *Error, always says the same, and shows
// neither marker nor address.
func failure(t *testing.T, attempt func() error) cache.Error {
	t.Helper()
	var first *cache.Error
	for range 2 {
		err := attempt()
		e, ok := errors.AsType[*cache.Error](err)
		if !ok {
			t.Fatalf("error %T %v, want a *cache.Error", err, err)
		}
		if text := e.Error(); strings.Contains(text, marker) || strings.Contains(text, "127.0.0.1") {
			t.Errorf("error %q shows what it must not", text)
		}
		if first != nil && (e.Class != first.Class || e.Reason != first.Reason || e.Message != first.Message) {
			t.Errorf("the second error is %q, the first was %q", e, first)
		}
		first = e
	}
	return cache.Error{Class: first.Class, Reason: first.Reason, Message: first.Message}
}

func wantFailure(t *testing.T, class cache.Class, reason string, attempt func() error) {
	t.Helper()
	if e := failure(t, attempt); e.Class != class || e.Reason != reason {
		t.Errorf("error of class %d, reason %s: %q; want %d, %s", e.Class, e.Reason, e.Message, class, reason)
	}
}

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// keys of the server, or of all masters, sorted.
func keys(t *testing.T, addr string) []string {
	t.Helper()
	var found []string
	each(t, addr, func(c *redis.Client) error {
		names, err := c.Keys(t.Context(), "*").Result()
		found = append(found, names...)
		return err
	})
	slices.Sort(found)
	return found
}

// each calls do with a client of each server that has keys.
func each(t *testing.T, addr string, do func(*redis.Client) error) {
	t.Helper()
	ok(t, redistest.Each(t.Context(), client(t, addr), do))
}

// wipe drops all keys.
func wipe(t *testing.T, addr string) {
	t.Helper()
	each(t, addr, func(c *redis.Client) error { return c.FlushDB(t.Context()).Err() })
}

// fill stores n keys <prefix>0, <prefix>1, … and returns their names without the prefix.
func fill(t *testing.T, addr, prefix string, n int) []string {
	t.Helper()
	var names []string
	_, err := client(t, addr).Pipelined(t.Context(), func(pipe redis.Pipeliner) error {
		for i := range n {
			names = append(names, strconv.Itoa(i))
			pipe.Set(t.Context(), prefix+strconv.Itoa(i), "v", 0)
		}
		return nil
	})
	ok(t, err)
	return names
}

// calls of a command that real servers have counted, refused ones included.
func calls(t *testing.T, addr, command string) int {
	t.Helper()
	n := 0
	each(t, addr, func(c *redis.Client) error {
		stats := c.InfoMap(t.Context(), "commandstats").Item("Commandstats", "cmdstat_"+command)
		for field := range strings.SplitSeq(stats, ",") {
			if name, value, _ := strings.Cut(field, "="); name == "calls" || name == "rejected_calls" {
				m, _ := strconv.Atoi(value)
				n += m
			}
		}
		return nil
	})
	return n
}

// client of what is at an address.
func client(t *testing.T, addr string) redis.UniversalClient {
	t.Helper()
	return redistest.Client(t, addr)
}

// deletions of keys, whatever they hold.
func deletions(keys ...string) []cache.Deletion {
	all := make([]cache.Deletion, len(keys))
	for i, key := range keys {
		all[i].Key = key
	}
	return all
}
