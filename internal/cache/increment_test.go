// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// uid is the ID of the counter that most tests increment, under the key counter.
const uid = "0b8d9c0e-6f5c-4a7e-9f0c-1f4f8f3f6f2d"

// markers are the names of what IncrementAll notes, and counter is the only one's of the key counter.
const (
	markers = "cachewright:counter:"
	counter = markers + "{" + prefix + "counter}:" + uid
)

// increment once, of the key counter unless a change says otherwise.
func increment(t *testing.T, p *cache.Pool, by int64, run string, generation int64, changes ...func(*cache.Increment)) cache.Sum {
	t.Helper()
	i := cache.Increment{Key: "counter", ID: uid, By: by, RunID: run, Generation: generation}
	for _, change := range changes {
		change(&i)
	}
	sums := p.IncrementAll(t.Context(), []cache.Increment{i})
	if len(sums) != 1 {
		t.Fatalf("%d sums", len(sums))
	}
	return sums[0]
}

func wantSum(t *testing.T, want int64, got cache.Sum) {
	t.Helper()
	if got.Err != nil || got.Value != want {
		t.Errorf("sum %d, error %v; want %d", got.Value, got.Err, want)
	}
}

// holds checks a key of the server, "" if there should be none.
func holds(t *testing.T, server redis.UniversalClient, name, want string) {
	t.Helper()
	got, err := server.Get(t.Context(), name).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("%q holds %q, want %q", name, got, want)
	}
}

func TestAnIncrementCountsOnce(t *testing.T) {
	t.Parallel()
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, _ := start(t)
			p, server := open(t, addr), client(t, addr)

			t.Run("however often it is sent", func(t *testing.T) {
				for range 3 {
					wantSum(t, 5, increment(t, p, 5, "first", 1))
				}
				holds(t, server, prefix+"counter", "5")
				holds(t, server, counter, "1 5 first")
			})
			t.Run("a new run counts again", func(t *testing.T) {
				for range 2 {
					wantSum(t, 8, increment(t, p, 3, "second", 2))
				}
				holds(t, server, prefix+"counter", "8")
			})
			t.Run("an older generation is refused", func(t *testing.T) {
				wantFailure(t, cache.Key, cache.ErrStale.Reason, func() error { return increment(t, p, 100, marker, 1).Err })
				if err := increment(t, p, 100, "first", 1).Err; !errors.Is(err, cache.ErrStale) || cache.ServerWide(err) {
					t.Errorf("%v", err)
				}
				holds(t, server, prefix+"counter", "8")
				holds(t, server, counter, "2 8 second")
			})
			t.Run("the run that was the last is answered in any generation", func(t *testing.T) {
				for _, generation := range []int64{1, 2, 3, 1 << 60} {
					wantSum(t, 8, increment(t, p, 3, "second", generation))
				}
				holds(t, server, prefix+"counter", "8")
			})
			t.Run("with the value of then, whatever others did since", func(t *testing.T) {
				ok(t, server.IncrBy(t.Context(), prefix+"counter", 92).Err())
				wantSum(t, 8, increment(t, p, 3, "second", 2))
				ok(t, server.Del(t.Context(), prefix+"counter").Err())
				wantSum(t, 8, increment(t, p, 3, "second", 2))
				ok(t, server.HSet(t.Context(), prefix+"counter", "f", "v").Err())
				wantSum(t, 8, increment(t, p, 3, "second", 2))
				ok(t, server.Set(t.Context(), prefix+"counter", "100", 0).Err())
			})
			t.Run("another amount changes nothing", func(t *testing.T) {
				wantSum(t, 8, increment(t, p, 1000, "second", 3))
				holds(t, server, prefix+"counter", "100")
			})
			t.Run("a new run of the same generation counts", func(t *testing.T) {
				wantSum(t, 101, increment(t, p, 1, "third", 2))
			})
			t.Run("an earlier run that comes back is new", func(t *testing.T) {
				wantSum(t, 106, increment(t, p, 5, "first", 4))
			})
			t.Run("another counter's runs are its own, on the same key too", func(t *testing.T) {
				wantSum(t, 107, increment(t, p, 1, "first", 1, func(i *cache.Increment) { i.ID = "another" }))
				wantSum(t, 1, increment(t, p, 1, "first", 1, func(i *cache.Increment) { i.Key = "another" }))
			})
			t.Run("an increment by nothing is one too", func(t *testing.T) {
				wantSum(t, 0, increment(t, p, 0, "first", 1, func(i *cache.Increment) { i.Key = "nothing" }))
				holds(t, server, prefix+"nothing", "0")
			})
		})
	}
}

func TestRunsHaveAnyName(t *testing.T) {
	t.Parallel()
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, _ := start(t)
			p := open(t, addr)
			want, generation := int64(0), int64(0)
			for _, run := range []string{
				"release-42", " ", "  ", "a b", "a  b", " a", "a ", "1", "1 2", "1 2 3", "-1", "1 1 ", "\n", "a\nb", "a\n", "\r\n", "ü", "日本", "*", "?", "[a]", "%d", "%", "^$",
				"(.*)", "]]", "'", `"`, `\`, "\x00", "a\x00b", "\xff\xfe", "", "nil", "false", strings.Repeat("x", 128), strings.Repeat("x", 127) + "y", "A B", "a B",
			} {
				want, generation = want+1, generation+1
				for range 2 {
					if got := increment(t, p, 1, run, generation); got != (cache.Sum{Value: want}) {
						t.Fatalf("run %q: %+v, want %d", run, got, want)
					}
				}
			}
		})
	}
}

func TestIncrementsAreExact(t *testing.T) {
	t.Parallel()
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, _ := start(t)
			p, server := open(t, addr), client(t, addr)
			const most = 1<<63 - 1
			for _, tc := range []struct {
				value    string
				by, want int64
			}{
				{"9007199254740992", 1, 9007199254740993},
				{"9007199254740993", -1, 9007199254740992},
				{"9223372036854775806", 1, most},
				{"0", most, most},
				{"", -most - 1, -most - 1},
				{"-9223372036854775807", -1, -most - 1},
				{"-9223372036854775808", most, -1},
				{"9223372036854775807", -most, 0},
				{"", -7, -7},
			} {
				t.Run(fmt.Sprintf("%s and %d", tc.value, tc.by), func(t *testing.T) {
					wipe(t, addr)
					if tc.value != "" {
						ok(t, p.PutForever(t.Context(), "counter", tc.value))
					}
					for range 2 {
						wantSum(t, tc.want, increment(t, p, tc.by, "run", 1))
					}
					holds(t, server, prefix+"counter", strconv.FormatInt(tc.want, 10))
				})
			}
		})
	}
}

// What INCRBY refuses leaves no trace, and works once the key was mended.
func TestAnIncrementThatFailsDidNotCount(t *testing.T) {
	addr := redistest.Start(t).Addr
	p, server := open(t, addr), client(t, addr)
	for name, tc := range map[string]struct {
		value, reason string
		by            int64
	}{
		"too much":                 {"9223372036854775807", cache.ReasonOverflow, 1},
		"too little":               {"-9223372036854775808", cache.ReasonOverflow, -1},
		"text":                     {marker, cache.ReasonNotAnInteger, 1},
		"empty":                    {" ", cache.ReasonNotAnInteger, 1},
		"a number with a fraction": {"1.5", cache.ReasonNotAnInteger, 1},
		"zeros in front":           {"007", cache.ReasonNotAnInteger, 1},
		"out of range already":     {"9223372036854775808", cache.ReasonNotAnInteger, 1},
	} {
		t.Run(name, func(t *testing.T) {
			for _, before := range []string{"", "1 5 first"} {
				wipe(t, addr)
				ok(t, p.Put(t.Context(), "counter", tc.value, time.Hour))
				if before != "" {
					ok(t, server.Set(t.Context(), counter, before, 0).Err())
				}
				wantFailure(t, cache.Key, tc.reason, func() error { return increment(t, p, tc.by, "second", 2).Err })
				holds(t, server, prefix+"counter", tc.value)
				holds(t, server, counter, before)
				ok(t, p.PutForever(t.Context(), "counter", "10"))
				for range 2 {
					wantSum(t, 10+tc.by, increment(t, p, tc.by, "second", 2))
				}
			}
		})
	}
	t.Run("another type", func(t *testing.T) {
		wipe(t, addr)
		ok(t, server.RPush(t.Context(), prefix+"counter", "v").Err())
		wantFailure(t, cache.Key, cache.ReasonWrongType, func() error { return increment(t, p, 1, "run", 1).Err })
		if left := keys(t, addr); len(left) != 1 || server.LLen(t.Context(), prefix+"counter").Val() != 1 {
			t.Errorf("%q", left)
		}
	})
}

func TestAnIncrementSetsTheLifetimeOnlyOfAKeyThatItCreates(t *testing.T) {
	t.Parallel()
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, _ := start(t)
			p, server, ctx := open(t, addr), client(t, addr), t.Context()
			forAnHour := func(i *cache.Increment) { i.TTL = time.Hour }
			left := func(name string) time.Duration { return must[time.Duration](t)(server.PTTL(ctx, name).Result()) }

			wantSum(t, 1, increment(t, p, 1, "first", 1, forAnHour))
			if d := left(prefix + "counter"); d <= 0 || d > time.Hour {
				t.Errorf("the lifetime of a new key is %v", d)
			}
			ok(t, server.PExpire(ctx, prefix+"counter", time.Minute).Err())
			wantSum(t, 2, increment(t, p, 1, "second", 2, forAnHour))
			if d := left(prefix + "counter"); d <= 0 || d > time.Minute {
				t.Errorf("the lifetime of a key that had one is %v", d)
			}
			ok(t, server.Persist(ctx, prefix+"counter").Err())
			wantSum(t, 3, increment(t, p, 1, "third", 3, forAnHour))
			if d := left(prefix + "counter"); d != -1 {
				t.Errorf("the lifetime of a key that had none is %v", d)
			}
			ok(t, server.Del(ctx, prefix+"counter").Err())
			wantSum(t, 1, increment(t, p, 1, "fourth", 4))
			if d := left(prefix + "counter"); d != -1 {
				t.Errorf("the lifetime of a key that is to have none is %v", d)
			}
			if d := left(counter); d != -1 {
				t.Errorf("the lifetime of the marker is %v", d)
			}
		})
	}
}

func TestAnIncrementWhoseAnswerIsLostCountsOnce(t *testing.T) {
	t.Parallel()
	addr := redistest.Start(t).Addr
	server, proxy := client(t, addr), redistest.NewProxy(t, addr, 0)
	p := open(t, proxy.Addr)
	wantSum(t, 1, increment(t, p, 1, "first", 1))
	for i := range 3 {
		run, generation, want := strconv.Itoa(i), int64(i+2), int64(i+2)
		proxy.Slow(time.Hour)
		lost := make(chan cache.Sum, 1)
		go func() { lost <- increment(t, p, 1, run, generation) }()
		NewWithT(t).Eventually(func() string { return server.Get(t.Context(), prefix+"counter").Val() }).Should(Equal(strconv.FormatInt(want, 10)))
		proxy.Cut()
		var sum cache.Sum
		NewWithT(t).Eventually(lost).Should(Receive(&sum))
		if !cache.Is(sum.Err, cache.ReasonConnectionFailed) || !cache.ServerWide(sum.Err) {
			t.Errorf("%+v", sum)
		}
		proxy.Slow(0)
		proxy.Mend()
		for range 2 {
			wantSum(t, want, increment(t, p, 1, run, generation))
		}
	}
}

func TestTwoWhoIncrementAtTheSameTimeCountOnce(t *testing.T) {
	t.Parallel()
	addr := redistest.Start(t).Addr
	pools := []*cache.Pool{open(t, addr), open(t, addr), open(t, addr)}
	for generation := range int64(30) {
		var all sync.WaitGroup
		for _, p := range pools {
			all.Go(func() { wantSum(t, generation+1, increment(t, p, 1, fmt.Sprint("run ", generation), generation)) })
		}
		all.Wait()
	}
	holds(t, client(t, addr), prefix+"counter", "30")
}

func TestABatchOfIncrements(t *testing.T) {
	t.Parallel()
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, _ := start(t)
			p, server := open(t, addr), client(t, addr)
			var all []cache.Increment
			for i := range 2000 {
				all = append(all, cache.Increment{Key: strconv.Itoa(i), ID: fmt.Sprint("id-", i), By: int64(i), RunID: "run", Generation: 1})
			}
			// Some keys that fail, in the middle and at the end, leave the others alone.
			fails := map[int]bool{0: true, 7: true, 8: true, 1000: true, 1999: true}
			for i := range fails {
				ok(t, server.HSet(t.Context(), prefix+strconv.Itoa(i), "f", "v").Err())
			}
			for range 2 {
				sums := p.IncrementAll(t.Context(), all)
				if len(sums) != len(all) {
					t.Fatalf("%d sums", len(sums))
				}
				for i, sum := range sums {
					if fails[i] != errors.Is(sum.Err, cache.ErrWrongType) || !fails[i] && sum != (cache.Sum{Value: int64(i)}) {
						t.Fatalf("number %d: %+v", i, sum)
					}
				}
			}
			if n := len(keys(t, addr)); n != 2*2000-len(fails) {
				t.Errorf("%d keys", n)
			}
			if sums := p.IncrementAll(t.Context(), nil); len(sums) != 0 {
				t.Errorf("%v", sums)
			}
		})
	}
}

func TestAServerWithoutMemoryDoesNotCount(t *testing.T) {
	t.Parallel()
	redisServer, w := redistest.Start(t), newWire()
	p, server, ctx := open(t, redisServer.Addr, over(w)), redisServer.Client(t), t.Context()
	wantSum(t, 1, increment(t, p, 1, "first", 1))
	ok(t, server.ConfigSet(ctx, "maxmemory", "1").Err())
	wantFailure(t, cache.Unavailable, cache.ReasonOutOfMemory, func() error { return increment(t, p, 1, "second", 2).Err })
	holds(t, server, prefix+"counter", "1")
	holds(t, server, counter, "1 1 first")
	wantSum(t, 1, increment(t, p, 1, "first", 1)) // it was done
	w.commands(t)
	for _, sum := range p.IncrementAll(ctx, make([]cache.Increment, 2000)) {
		if !cache.Is(sum.Err, cache.ReasonOutOfMemory) {
			t.Fatal(sum.Err)
		}
	}
	if n := len(w.commands(t)); n > 500 {
		t.Errorf("%d commands were sent after the first batch was refused", n)
	}
	// What frees memory works.
	if errs := p.ForgetAll(ctx, []cache.Deletion{{Key: "counter", Counter: uid}, {Key: "counter"}}); failed(errs) > 0 {
		t.Errorf("%v", errs)
	}
	if left := keys(t, redisServer.Addr); len(left) > 0 {
		t.Errorf("%q", left)
	}
	ok(t, server.ConfigSet(ctx, "maxmemory", "0").Err())
	wantSum(t, 1, increment(t, p, 1, "second", 2))
}

func TestAReplicaDoesNotCount(t *testing.T) {
	t.Parallel()
	p := open(t, redistest.Start(t, "--replicaof", "127.0.0.1 1").Addr)
	wantFailure(t, cache.Unavailable, cache.ReasonReadOnlyReplica, func() error { return increment(t, p, 1, "run", 1).Err })
}

// Whatever right is missing, nothing is done, however often it is tried, and all of it once the right is there.
func TestAnIncrementThatTheUserMayNotDoDidNotCount(t *testing.T) {
	addr := redistest.Start(t).Addr
	server := client(t, addr)
	rights := []string{"+eval", "+get", "+exists", "+incrby", "+pexpire", "+set", "~" + prefix + "*", "~" + markers + "*"}
	forAnHour := func(i *cache.Increment) { i.TTL = time.Hour }

	t.Run("nothing else than these is needed", func(t *testing.T) {
		p := open(t, addr, user(t, addr, rights...))
		for range 2 {
			wantSum(t, 1, increment(t, p, 1, "run", 1, forAnHour))
		}
	})
	missing := map[string][]string{
		"the counter":              append([]string{"resetkeys"}, "~"+markers+"*"),
		"the marker":               append([]string{"resetkeys"}, "~"+prefix+"*"),
		"writing the marker":       append([]string{"resetkeys"}, "~"+prefix+"*", "%R~"+markers+"*"),
		"reading the marker":       append([]string{"resetkeys"}, "~"+prefix+"*", "%W~"+markers+"*"),
		"writing the counter":      append([]string{"resetkeys"}, "%R~"+prefix+"*", "~"+markers+"*"),
		"reading the counter":      append([]string{"resetkeys"}, "%W~"+prefix+"*", "~"+markers+"*"),
		"scripts, by category":     {"-@scripting"},
		"writing commands, by one": {"-@write"},
	}
	for _, right := range rights {
		if command, is := strings.CutPrefix(right, "+"); is {
			missing[command] = []string{"-" + command}
		}
	}
	for name, rules := range missing {
		t.Run(name, func(t *testing.T) {
			may := user(t, addr, rights...)
			p := open(t, addr, user(t, addr, append(rights, rules...)...))
			for _, before := range []string{"", "3 10 before"} {
				wipe(t, addr)
				if before != "" {
					ok(t, server.Set(t.Context(), counter, before, 0).Err())
				}
				for range 2 {
					e := failure(t, func() error { return increment(t, p, 1, marker, 4, forAnHour).Err })
					isNamed := e.Message == "The Redis user may not run EVAL; it needs the ACL rule +eval" ||
						strings.HasPrefix(e.Message, "The Redis user may not run EVAL with ") && strings.Contains(e.Message, "INCRBY")
					if e.Class != cache.Denied || e.Reason != cache.ReasonPermissionDenied || !isNamed {
						t.Errorf("%+v", e)
					}
				}
				holds(t, server, prefix+"counter", "")
				holds(t, server, counter, before)
				wantSum(t, 1, increment(t, open(t, addr, may), 1, marker, 4, forAnHour))
				if d := server.PTTL(t.Context(), prefix+"counter").Val(); d <= 0 {
					t.Errorf("PTTL %v", d)
				}
			}
		})
	}
}

// Nobody should write markers but the operator. If somebody does, nothing breaks.
func TestAMarkerThatIsNone(t *testing.T) {
	t.Parallel()
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, isReal := start(t)
			p, server := open(t, addr), client(t, addr)
			for _, nonsense := range []string{
				"", " ", marker, "1", "1 2", "a 2 run", "1 a run", "1 2run", "-1 2 run", "1.5 2 run", " 1 2 run", "1  2 run", "1 2\nrun", "\x00\xff", "1 -- run", "[]", strings.Repeat("9", 1000),
			} {
				t.Run(nonsense, func(t *testing.T) {
					wipe(t, addr)
					ok(t, server.Set(t.Context(), counter, nonsense, time.Hour).Err())
					for range 2 { // as if there was none
						wantSum(t, 1, increment(t, p, 1, "run", 1))
					}
					holds(t, server, counter, "1 1 run")
					if d := server.PTTL(t.Context(), counter).Val(); d != -1 {
						t.Errorf("the marker's lifetime is %v", d)
					}
				})
			}
			t.Run("a value beyond 64 bits", func(t *testing.T) {
				wipe(t, addr)
				ok(t, server.Set(t.Context(), counter, "1 92233720368547758070 run", 0).Err())
				wantFailure(t, cache.Key, cache.ReasonNotAnInteger, func() error { return increment(t, p, 1, "run", 1).Err })
				wantSum(t, 1, increment(t, p, 1, "another", 2))
			})
			if !isReal {
				return // its Lua knows fewer numbers, and errors
			}
			t.Run("a generation of many digits", func(t *testing.T) {
				wipe(t, addr)
				ok(t, server.Set(t.Context(), counter, strings.Repeat("9", 30)+" 5 before", 0).Err())
				if err := increment(t, p, 1, "run", 1<<62).Err; !errors.Is(err, cache.ErrStale) {
					t.Errorf("%v", err)
				}
				wantSum(t, 5, increment(t, p, 1, "before", 1))
			})
			t.Run("another type", func(t *testing.T) {
				wipe(t, addr)
				ok(t, server.HSet(t.Context(), counter, "f", "v").Err())
				wantFailure(t, cache.Key, cache.ReasonWrongType, func() error { return increment(t, p, 1, "run", 1).Err })
				holds(t, server, prefix+"counter", "")
				ok(t, p.ForgetAll(t.Context(), []cache.Deletion{{Key: "counter", Counter: uid}})[0])
				wantSum(t, 1, increment(t, p, 1, "run", 1))
			})
		})
	}
}

func TestAMarkerLiesOutsideOfEveryPrefixAndGoesAlone(t *testing.T) {
	t.Parallel()
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, _ := start(t)
			p, server, ctx := open(t, addr), client(t, addr), t.Context()
			second := func(i *cache.Increment) { i.ID = "second" }
			other := strings.Replace(counter, uid, "second", 1)

			wantSum(t, 1, increment(t, p, 1, "run", 1))
			wantSum(t, 2, increment(t, p, 1, "run", 1, second))
			if diff := cmp.Diff([]string{counter, other, prefix + "counter"}, keys(t, addr), unsorted()); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
			if deleted := must[int64](t)(p.Flush(ctx)); deleted != 1 {
				t.Errorf("a flush deleted %d keys", deleted)
			}
			wantSum(t, 1, increment(t, p, 1, "run", 1)) // the flush has not undone it
			holds(t, server, prefix+"counter", "")
			wantSum(t, 1, increment(t, p, 1, "second", 2))

			value := "whatever"
			for range 2 { // it succeeds when there is none
				errs := p.ForgetAll(ctx, []cache.Deletion{{Key: "counter", Counter: uid, Value: &value}, {Key: "other", Counter: uid}})
				if failed(errs) > 0 {
					t.Errorf("%v", errs)
				}
			}
			if diff := cmp.Diff([]string{other, prefix + "counter"}, keys(t, addr), unsorted()); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
			wantSum(t, 2, increment(t, p, 1, "second", 2)) // a counter made anew applies its run anew
			ok(t, p.ForgetAll(ctx, deletions("counter"))[0])
			holds(t, server, counter, "2 2 second")
		})
	}
}

func TestAMarkerThatTheUserMayNotDelete(t *testing.T) {
	addr := redistest.Start(t).Addr
	for name, rules := range map[string][]string{"no right": {"+@all", "~" + prefix + "*"}, "a right to read": {"+@all", "~" + prefix + "*", "%R~" + markers + "*"}} {
		t.Run(name, func(t *testing.T) {
			p := open(t, addr, user(t, addr, rules...))
			want := cache.Error{Class: cache.Denied, Reason: cache.ReasonPermissionDenied, Message: "The Redis user may not run UNLINK on this key"}
			if e := failure(t, func() error {
				return p.ForgetAll(context.WithoutCancel(t.Context()), []cache.Deletion{{Key: "counter", Counter: uid}})[0]
			}); e != want {
				t.Errorf("%+v, want %+v", e, want)
			}
		})
	}
}

// One node that has all slots answers as any cluster does to a script whose keys lie in different ones.
func TestACounterAndItsMarkerShareAHashSlot(t *testing.T) {
	t.Parallel()
	redisServer := redistest.Start(t, "--cluster-enabled", "yes")
	server, ctx := redisServer.Client(t), t.Context()
	ok(t, server.ClusterAddSlotsRange(ctx, 0, 16383).Err())
	NewWithT(t).Eventually(func() string { return server.ClusterInfo(ctx).Val() }).WithTimeout(timeout).Should(HavePrefix("cluster_state:ok"))
	if err := server.Eval(ctx, "return 1", []string{"a", "b"}).Err(); !redis.HasErrorPrefix(err, "CROSSSLOT") {
		t.Fatalf("the server takes keys of any slots: %v", err)
	}
	pieces := []string{"{", "{", "}", "}", "{}", "}{", "a", "b", "user:", "1000", ":", "\x00", "\xff", " ", "ü", "\r\n", "*", "{tag}"}
	for _, prefix := range []string{prefix, "{", "}", "{}", "}{", "{a}", "{a", "a}", "a{b}c{", "a{}b}", "a}{b", "{{a}}", "{}{a}", ":"} {
		p := open(t, redisServer.Addr, under(prefix))
		var all []cache.Increment
		var forget []cache.Deletion
		for range 60 {
			var key strings.Builder
			for range rand.IntN(6) {
				key.WriteString(pieces[rand.IntN(len(pieces))])
			}
			id := uid + pieces[rand.IntN(len(pieces))]
			all = append(all, cache.Increment{Key: key.String(), ID: id, By: 1, TTL: time.Hour, RunID: "run"})
			forget = append(forget, cache.Deletion{Key: key.String(), Counter: id})
		}
		for i, sum := range p.IncrementAll(ctx, all) {
			if sum.Err != nil {
				t.Errorf("%q: %v", prefix+all[i].Key, errors.Unwrap(sum.Err))
			}
		}
		names := keys(t, redisServer.Addr)
		if !slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, markers) }) {
			t.Errorf("no markers: %q", names)
		}
		if errs := p.ForgetAll(ctx, forget); failed(errs) > 0 {
			t.Errorf("%v", errs)
		}
		for _, name := range keys(t, redisServer.Addr) {
			if strings.HasPrefix(name, markers) {
				t.Errorf("%q is left", name)
			}
		}
	}
}
