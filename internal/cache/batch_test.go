// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

func TestObserveTellsWhatIsThere(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, _ := start(t)
			p, server, ctx := open(t, addr), client(t, addr), t.Context()
			ok(t, p.PutForever(ctx, "forever", "v"))
			ok(t, p.PutForever(ctx, "empty", ""))
			ok(t, p.Put(ctx, "binary", "\x00\xff\r\n", time.Hour))
			ok(t, server.HSet(ctx, prefix+"hash", "f", "v").Err())
			ok(t, server.SAdd(ctx, prefix+"set", "v").Err())
			ok(t, server.Expire(ctx, prefix+"set", time.Hour).Err())

			ok(t, p.PutForever(ctx, "long", strings.Repeat("v", 1000)))

			names := []string{"forever", "missing", "hash", "empty", "set", "binary", "forever", "long"}
			var looks []cache.Look
			for _, name := range names {
				looks = append(looks, cache.Look{Key: name, Size: 4})
			}
			want := []cache.Observation{
				{Exists: true, String: true, Value: "v", TTL: cache.Forever},
				{},
				{Exists: true, TTL: cache.Forever},
				{Exists: true, String: true, TTL: cache.Forever},
				{Exists: true, TTL: time.Hour},
				{Exists: true, String: true, Value: "\x00\xff\r\n", TTL: time.Hour},
				{Exists: true, String: true, Value: "v", TTL: cache.Forever},
				{Exists: true, String: true, Value: "vvvvv", TTL: cache.Forever}, // one byte too many tells that it differs
			}
			aMinute := cmp.Comparer(func(a, b time.Duration) bool { return a == b || a > 0 && b > 0 && (a-b).Abs() < time.Minute })
			if diff := cmp.Diff(want, p.Observe(ctx, looks), aMinute); diff != "" {
				t.Errorf("observations (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBatchesOfAnySizeGiveOneAnswerForEachKeyInOrder(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, _ := start(t)
			p := open(t, addr)
			for _, n := range []int{0, 1, 500, 501, 1234} {
				t.Run(fmt.Sprintf("%d keys", n), func(t *testing.T) {
					writes, looks, names := numbered(n)
					if n > 3 {
						// Values that fill a batch alone, among small ones.
						writes[2].Value = strings.Repeat("x", 1<<20)
						writes[3].Value = strings.Repeat("y", 100<<10)
						looks[2].Size, looks[3].Size = 1<<20, 100<<10
					}
					if errs := p.PutAll(t.Context(), writes); len(errs) != n || failed(errs) > 0 {
						t.Fatalf("%d answers, %d errors", len(errs), failed(errs))
					}
					seen := p.Observe(t.Context(), looks)
					for i, o := range seen {
						if o.Err != nil || o.Value != writes[i].Value || (o.TTL == cache.Forever) != (writes[i].TTL == 0) {
							t.Fatalf("key %d: %.40q, %v, error %v", i, o.Value, o.TTL, o.Err)
						}
					}
					// Every other one is gone already.
					for i := 0; i < n; i += 2 {
						ok(t, p.Forget(t.Context(), names[i]))
					}
					if errs := p.ForgetAll(t.Context(), deletions(names...)); len(seen) != n || len(errs) != n || failed(errs) > 0 {
						t.Errorf("%d observations, %d answers, %d errors", len(seen), len(errs), failed(errs))
					}
					if left := keys(t, addr); len(left) > 0 {
						t.Errorf("%d keys are left", len(left))
					}
				})
			}
		})
	}
}

func TestABatchGoesOnAfterAKeyThatFails(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, _ := start(t)
			p, server, ctx := open(t, addr), client(t, addr), t.Context()
			writes, looks, names := numbered(1200)
			for i := 0; i < len(names); i += 2 {
				ok(t, server.HSet(ctx, prefix+names[i], "f", "v").Err())
			}
			for i := 1; i < len(names); i += 2 {
				ok(t, p.PutForever(ctx, names[i], "v"))
			}
			for i, o := range p.Observe(ctx, looks) {
				if o.Err != nil || !o.Exists || o.String != (i%2 == 1) {
					t.Fatalf("key %d: %+v", i, o)
				}
			}
			// A lifetime of no time at all is the one thing that SET refuses.
			for i := range writes {
				if i%2 == 0 {
					writes[i].TTL = time.Microsecond
				}
			}
			for i, err := range p.PutAll(ctx, writes) {
				if (err != nil) != (i%2 == 0) || err != nil && !cache.Is(err, cache.ReasonCommandFailed) {
					t.Fatalf("key %d: %v", i, err)
				}
			}
		})
	}
}

func TestAWriteIfAbsentLeavesWhatIsThere(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, _ := start(t)
			w := newWire()
			p, server, ctx := open(t, addr, over(w)), client(t, addr), t.Context()
			for name, tc := range map[string]struct {
				before func(name string) error
				ttl    time.Duration
				exists bool
				// value and lifetime afterwards.
				value string
				left  time.Duration
				sent  string
			}{
				"absent":                  {ttl: time.Hour, value: "new", left: time.Hour, sent: "px 3600000 nx"},
				"absent, and forever":     {value: "new", left: -1, sent: "nx"},
				"the same value":          {func(name string) error { return server.Set(ctx, name, "new", time.Minute).Err() }, time.Hour, true, "new", time.Minute, "px 3600000 nx"},
				"another value":           {func(name string) error { return server.Set(ctx, name, "old", 0).Err() }, time.Hour, true, "old", -1, "px 3600000 nx"},
				"another value, for long": {func(name string) error { return server.Set(ctx, name, "old", 2*time.Hour).Err() }, 0, true, "old", 2 * time.Hour, "nx"},
				"an empty value":          {func(name string) error { return server.Set(ctx, name, "", 0).Err() }, 0, true, "", -1, "nx"},
				"another type":            {func(name string) error { return server.HSet(ctx, name, "f", "old").Err() }, 0, true, "", -1, "nx"},
			} {
				t.Run(name, func(t *testing.T) {
					wipe(t, addr) //nolint:contextcheck // it takes the test's own
					if tc.before != nil {
						ok(t, tc.before(prefix+"k"))
					}
					ok(t, p.PutForever(ctx, "warm", ""))
					w.commands(t)
					errs := p.PutAll(ctx, []cache.Write{{Key: "k", Value: "new", TTL: tc.ttl, IfAbsent: true}})
					if len(errs) != 1 || errors.Is(errs[0], cache.ErrExists) != tc.exists || !tc.exists && errs[0] != nil || cache.ServerWide(errs[0]) {
						t.Errorf("%v", errs)
					}
					// One command: there is no moment with the value but without its lifetime.
					if diff := cmp.Diff([]string{"set " + prefix + "k new " + tc.sent}, w.commands(t)); diff != "" {
						t.Errorf("commands sent (-want +got):\n%s", diff)
					}
					if value := server.Get(ctx, prefix+"k").Val(); value != tc.value {
						t.Errorf("value %q", value)
					}
					if left := server.PTTL(ctx, prefix+"k").Val(); left > tc.left || left < tc.left-time.Minute/2 {
						t.Errorf("PTTL %v, want %v", left, tc.left)
					}
				})
			}
		})
	}
}

func TestADeletionOfAValueLeavesOthers(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, isReal := start(t)
			p, server, ctx := open(t, addr), client(t, addr), t.Context()
			big := strings.Repeat("x", 300<<10)
			for name, tc := range map[string]struct{ is, want, reason string }{
				"equal":                      {is: "v", want: "v"},
				"another value":              {"w", "v", cache.ErrChanged.Reason},
				"one byte more":              {"vv", "v", cache.ErrChanged.Reason},
				"one byte less":              {"v", "vv", cache.ErrChanged.Reason},
				"another case":               {"V", "v", cache.ErrChanged.Reason},
				"empty":                      {},
				"empty, and should not be":   {"", "v", cache.ErrChanged.Reason},
				"not empty, but should be":   {"v", "", cache.ErrChanged.Reason},
				"a number":                   {is: "1", want: "1"},
				"the same number":            {"1", "01", cache.ErrChanged.Reason},
				"any bytes":                  {is: "\x00\xff\r\n%", want: "\x00\xff\r\n%"},
				"any bytes, but others":      {"\x00\xff", "\x00\xfe", cache.ErrChanged.Reason},
				"bigger than a batch":        {is: big, want: big},
				"bigger, and another at end": {big, big[1:] + "y", cache.ErrChanged.Reason},
			} {
				t.Run(name, func(t *testing.T) {
					ok(t, p.Put(ctx, "k", tc.is, time.Hour))
					for _, attempt := range []string{"", "again"} {
						err := p.ForgetAll(ctx, []cache.Deletion{{Key: "k", Value: &tc.want}})[0]
						if !cache.Is(err, tc.reason) && (err != nil || tc.reason != "") || cache.ServerWide(err) {
							t.Errorf("%v %s", err, attempt)
						}
						if there := must[bool](t)(p.Has(ctx, "k")); there != (tc.reason != "") {
							t.Errorf("it is there: %v %s", there, attempt)
						}
					}
				})
			}
			t.Run("another type", func(t *testing.T) {
				ok(t, server.HSet(ctx, prefix+marker, "f", "v").Err())
				if isReal { // miniredis has another text
					wantFailure(t, cache.Key, cache.ReasonWrongType, func() error {
						return p.ForgetAll(ctx, []cache.Deletion{{Key: marker, Value: new("v")}})[0]
					})
				}
				if err := p.ForgetAll(ctx, []cache.Deletion{{Key: marker, Value: new("")}})[0]; err == nil || !must[bool](t)(p.Has(ctx, marker)) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

func TestABatchOfAllKindsOfWritesAndDeletions(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, isReal := start(t)
			p, server, ctx := open(t, addr), client(t, addr), t.Context()
			writes, _, names := numbered(1200)
			for i := range writes {
				writes[i].IfAbsent = i%2 == 0
			}
			for i := 0; i < len(names); i += 4 {
				ok(t, p.PutForever(ctx, names[i], "before"))
			}
			for i, err := range p.PutAll(ctx, writes) {
				if errors.Is(err, cache.ErrExists) != (i%4 == 0) || i%4 != 0 && err != nil {
					t.Fatalf("write %d: %v", i, err)
				}
			}
			// Every fourth key holds another value, every fourth but one another type, and every fourth but two goes anyway.
			all := make([]cache.Deletion, len(names))
			for i, name := range names {
				all[i] = cache.Deletion{Key: name, Value: &writes[i].Value}
				switch i % 4 {
				case 1:
					ok(t, server.Del(ctx, prefix+name).Err())
					ok(t, server.RPush(ctx, prefix+name, "v").Err())
				case 2:
					all[i].Value = nil
				}
			}
			for i, err := range p.ForgetAll(ctx, all) {
				switch {
				case i%4 == 0 && !errors.Is(err, cache.ErrChanged),
					i%4 == 1 && (err == nil || isReal && !errors.Is(err, cache.ErrWrongType)),
					i%4 > 1 && err != nil:
					t.Fatalf("deletion %d: %v", i, err)
				}
			}
			if left := len(keys(t, addr)); left != len(names)/2 {
				t.Errorf("%d keys are left", left)
			}
		})
	}
}

func TestADeletionOfAValueThatTheUserMayNotDo(t *testing.T) {
	addr := redistest.Start(t).Addr
	ok(t, client(t, addr).Set(t.Context(), prefix+marker, "v", 0).Err())
	rights := []string{"+eval", "+get", "+unlink", "~" + prefix + "*"}
	for name, rules := range map[string][]string{
		"EVAL": {"-eval"}, "GET": {"-get"}, "UNLINK": {"-unlink"}, "reading": {"resetkeys", "%W~*"}, "writing": {"resetkeys", "%R~*"}, "the key": {"resetkeys"},
	} {
		t.Run(name, func(t *testing.T) {
			p := open(t, addr, user(t, addr, append(rights, rules...)...))
			e := failure(t, func() error { return p.ForgetAll(t.Context(), []cache.Deletion{{Key: marker, Value: new("v")}})[0] })
			if e.Class != cache.Denied || !strings.HasPrefix(e.Message, "The Redis user may not run EVAL") {
				t.Errorf("%+v", e)
			}
		})
	}
	p := open(t, addr, user(t, addr, rights...))
	ok(t, p.ForgetAll(t.Context(), []cache.Deletion{{Key: marker, Value: new("v")}})[0])
	if left := keys(t, addr); len(left) > 0 {
		t.Errorf("%q", left)
	}
}

func TestABatchTellsWhichKeysTheUserMayNotTouch(t *testing.T) {
	server := redistest.Start(t)
	ok(t, server.Client(t).ACLSetUser(t.Context(), "app", "on", ">"+marker, "+@all", "~"+prefix+"*1").Err())
	p := open(t, server.Addr, as("app", marker))
	writes, looks, names := numbered(1200)
	put, seen, forgotten := p.PutAll(t.Context(), writes), p.Observe(t.Context(), looks), p.ForgetAll(t.Context(), deletions(names...))
	for i, name := range names {
		for _, err := range []error{put[i], seen[i].Err, forgotten[i]} {
			if err == nil != strings.HasSuffix(name, "1") {
				t.Fatalf("key %s: %v", name, err)
			}
			if err != nil {
				wantFailure(t, cache.Denied, cache.ReasonPermissionDenied, func() error { return err })
			}
		}
	}
}

func TestABatchStopsWhenTheServerIsOutOfMemory(t *testing.T) {
	server, w := redistest.Start(t), newWire()
	p, admin, ctx := open(t, server.Addr, over(w)), server.Client(t), t.Context()
	ok(t, p.PutForever(ctx, "k", "v"))
	w.commands(t)
	ok(t, admin.ConfigSet(ctx, "maxmemory", "1").Err())
	writes, looks, names := numbered(2000)
	for _, err := range p.PutAll(ctx, writes) {
		if !cache.Is(err, cache.ReasonOutOfMemory) {
			t.Fatal(err)
		}
		wantFailure(t, cache.Unavailable, cache.ReasonOutOfMemory, func() error { return err })
	}
	if n := len(w.commands(t)); n > 500 {
		t.Errorf("%d commands were sent after the first batch was refused", n)
	}
	// What frees memory, or needs none, still works.
	if seen := p.Observe(ctx, looks); seen[0].Err != nil {
		t.Error(seen[0].Err)
	}
	if err := p.ForgetAll(ctx, []cache.Deletion{{Key: "k", Value: new("v")}})[0]; err != nil {
		t.Error(err)
	}
	if errs := p.ForgetAll(ctx, deletions(append(names, "k")...)); failed(errs) > 0 {
		t.Errorf("%d errors", failed(errs))
	}
	if left := keys(t, server.Addr); len(left) > 0 {
		t.Errorf("keys left: %q", left)
	}
}

func TestABatchWhoseServerGoesHalfWay(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, _ := start(t)
			const n = 2000
			for name, send := range map[string]func(*testing.T, *cache.Pool) []error{
				"put all": func(t *testing.T, p *cache.Pool) []error {
					t.Helper()
					writes, _, _ := numbered(n)
					return p.PutAll(t.Context(), writes)
				},
				"forget all": func(t *testing.T, p *cache.Pool) []error {
					t.Helper()
					_, _, names := numbered(n)
					return p.ForgetAll(t.Context(), deletions(names...))
				},
				"observe": func(t *testing.T, p *cache.Pool) []error {
					t.Helper()
					_, looks, _ := numbered(n)
					var errs []error
					for _, o := range p.Observe(t.Context(), looks) {
						errs = append(errs, o.Err)
					}
					return errs
				},
			} {
				t.Run(name, func(t *testing.T) {
					w := newWire()
					p := open(t, addr, over(w))
					_, err := p.Check(t.Context())
					ok(t, err)
					writes := 2
					if isCluster(addr) { // a batch is one to each master
						writes = 4
					}
					w.cutAfter(writes)
					errs := send(t, p)
					done := slices.IndexFunc(errs, func(err error) bool { return err != nil })
					if len(errs) != n || done <= 0 {
						t.Fatalf("%d answers, the first error is number %d", len(errs), done)
					}
					for i, err := range errs[done:] {
						if !cache.Is(err, cache.ReasonConnectionFailed) && (err != nil || !isCluster(addr)) { // some of a batch may come through
							t.Fatalf("key %d: %v", done+i, err)
						}
					}
					if w.refused > 0 && !isCluster(addr) { // a cluster's client tries other nodes
						t.Errorf("%d more batches were tried", w.refused)
					}
					w.mend()
					// The client may go on refusing for a second, after as many failures as it has connections.
					NewWithT(t).Eventually(func() int { return failed(send(t, p)) }).WithTimeout(timeout).Should(BeZero())
				})
			}
		})
	}
}

func TestForgetNamed(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, _ := start(t)
			for name, tc := range map[string]struct {
				keys    []string
				options cache.ScanOptions
				want    cache.ScanResult
				left    int
			}{
				"no keys":                     {left: 1500},
				"keys that are not there":     {keys: []string{"a", "b", "a"}, left: 1500},
				"each once, whatever is said": {keys: []string{"1", "a", "2", "1", "1"}, want: cache.ScanResult{Matched: 2, Deleted: 2}, left: 1498},
				"glob characters are literal": {keys: []string{"*", "?", "[0-9]"}, left: 1500},
				"a dry run deletes nothing": {
					keys: []string{"7", "8", "a"}, options: cache.ScanOptions{DryRun: true},
					want: cache.ScanResult{Matched: 2, Sample: []string{"7", "8"}}, left: 1500,
				},
				"preserved keys stay": {
					keys: []string{"7", "8", "9"}, options: cache.ScanOptions{Preserve: func(name string) bool { return name == prefix+"8" }},
					want: cache.ScanResult{Matched: 3, Deleted: 2, Preserved: 1}, left: 1498,
				},
				"more than one UNLINK takes": {keys: fill(t, addr, prefix, 1500), want: cache.ScanResult{Matched: 1500, Deleted: 1500}},
			} {
				t.Run(name, func(t *testing.T) {
					fill(t, addr, prefix, 1500)
					got := must[cache.ScanResult](t)(open(t, addr).ForgetNamed(t.Context(), tc.keys, tc.options, never))
					tc.want.Checkpoint.Done = true
					if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); diff != "" {
						t.Errorf("result (-want +got):\n%s", diff)
					}
					if left := keys(t, addr); len(left) != tc.left {
						t.Errorf("%d keys are left, want %d", len(left), tc.left)
					}
				})
			}
		})
	}
}

// numbered makes n different writes, every third one without a lifetime, and the looks and keys that go with them.
func numbered(n int) (writes []cache.Write, looks []cache.Look, names []string) {
	for i := range n {
		name := fmt.Sprintf("%s-%d", marker, i)
		w := cache.Write{Key: name, Value: fmt.Sprintf("%s value %d", marker, i)}
		if i%3 > 0 {
			w.TTL = time.Hour
		}
		writes, looks, names = append(writes, w), append(looks, cache.Look{Key: name, Size: len(w.Value)}), append(names, name)
	}
	return writes, looks, names
}

func failed(errs []error) int {
	n := 0
	for _, err := range errs {
		if err != nil {
			n++
		}
	}
	return n
}

// The server lets nobody in any more, and has cut the connections: nothing may look as if it had been done.
func TestNothingSucceedsWithoutALogin(t *testing.T) {
	for name, test := range map[string]struct {
		change func(s *redistest.Server) error
		reason string
	}{
		"another password": {func(s *redistest.Server) error { s.User(t, "app", marker+"-new"); return nil }, cache.ReasonAuthenticationFailed},
		"no such user":     {func(s *redistest.Server) error { return s.Client(t).ACLDelUser(t.Context(), "app").Err() }, cache.ReasonAuthenticationFailed},
	} {
		t.Run(name, func(t *testing.T) {
			s := redistest.Start(t)
			s.User(t, "app", marker)
			p := open(t, s.Addr, as("app", marker))
			ok(t, check(t, p)())
			ok(t, test.change(s))
			for name, call := range operations {
				t.Run(name, func(t *testing.T) {
					_ = s.Client(t).ClientKillByFilter(t.Context(), "user", "app").Err() // those that are left
					wantFailure(t, cache.Refused, test.reason, func() error { return call(t.Context(), p) })
				})
			}
			if left := keys(t, s.Addr); len(left) > 0 {
				t.Errorf("there is %q", left)
			}
		})
	}
}
