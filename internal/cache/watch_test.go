// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2/server"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// flushed stands for a call of Flushed in what a watcher was told.
const flushed = "(flushed)"

// watcher is a Listener that keeps what it is told.
type watcher struct {
	pool  *cache.Pool
	began chan cache.Detection
	ended chan error
	// cancel the context of Watch.
	cancel context.CancelFunc

	mu        sync.Mutex
	told      []string
	over      bool
	sentinels int
}

// listen calls Watch, until the end of the test.
func listen(t *testing.T, p *cache.Pool) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watcher{pool: p, began: make(chan cache.Detection, 10), ended: make(chan error, 1), cancel: cancel}
	var running sync.WaitGroup
	running.Go(func() {
		err := p.Watch(ctx, cache.Listener{
			Began:   func(how cache.Detection) { w.began <- how },
			Changed: func(keys []string) { w.note(t, keys...) },
			Flushed: func() { w.note(t, flushed) },
		})
		w.mu.Lock()
		defer w.mu.Unlock()
		w.over = true
		w.ended <- err
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return w
}

// watch calls Watch, until the end of the test, and waits until it has begun.
func watch(t *testing.T, p *cache.Pool, want cache.Detection) *watcher {
	t.Helper()
	w := listen(t, p)
	select {
	case how := <-w.began:
		if how != want {
			t.Fatalf("it is %s, want %s", how, want)
		}
	case err := <-w.ended:
		t.Fatalf("Watch ends: %v", err)
	}
	return w
}

func (w *watcher) note(t *testing.T, keys ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		t.Errorf("told %q after Watch has ended", keys)
	}
	w.told = append(w.told, keys...)
}

func (w *watcher) heard(key string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.told, key)
}

// news are what was told since the last call. All that has happened before is told when they are given, since it is
// told in the order in which it happens.
func (w *watcher) news(t *testing.T, server redis.UniversalClient) []string {
	t.Helper()
	w.sentinels++
	sentinel := "sentinel " + strconv.Itoa(w.sentinels)
	w.observe(t, sentinel)
	ok(t, server.Set(t.Context(), w.pool.Prefix()+sentinel, "", time.Minute).Err())
	NewWithT(t).Eventually(w.heard).WithArguments(sentinel).WithTimeout(timeout).Should(BeTrue(), "no news")
	w.mu.Lock()
	defer w.mu.Unlock()
	told := slices.DeleteFunc(w.told, func(key string) bool { return key == sentinel })
	w.told = nil
	return told
}

func (w *watcher) observe(t *testing.T, keys ...string) {
	t.Helper()
	looks := make([]cache.Look, len(keys))
	for i, key := range keys {
		looks[i] = cache.Look{Key: key, Size: 10}
	}
	for i, o := range w.pool.Observe(t.Context(), looks) {
		if o.Err != nil {
			t.Fatalf("key %s: %v", keys[i], o.Err)
		}
	}
}

// want that exactly these keys were told since the last call of it, in any order.
func (w *watcher) want(t *testing.T, server redis.UniversalClient, keys ...string) {
	t.Helper()
	if diff := cmp.Diff(keys, w.news(t, server), unsorted(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

// unsorted compares slices in any order.
func unsorted() cmp.Option { return cmpopts.SortSlices(strings.Compare) }

// end of Watch, within a time.
func (w *watcher) end(t *testing.T, within time.Duration) error {
	t.Helper()
	var err error
	NewWithT(t).Eventually(w.ended).WithTimeout(within).Should(Receive(&err), "Watch goes on")
	return err
}

// changes are all ways to change the key k, and what must be there before.
func changes(ctx context.Context) map[string]struct {
	prepare, change func(redis.Cmdable, string) error
} {
	set := func(c redis.Cmdable, k string) error { return c.Set(ctx, k, "1", time.Hour).Err() }
	nothing := func(redis.Cmdable, string) error { return nil }
	type step = func(redis.Cmdable, string) error
	return map[string]struct {
		prepare, change func(redis.Cmdable, string) error
	}{
		"SET":                    {set, func(c redis.Cmdable, k string) error { return c.Set(ctx, k, "2", 0).Err() }},
		"SET of the same value":  {set, set},
		"SET of a missing key":   {nothing, set},
		"DEL":                    {set, func(c redis.Cmdable, k string) error { return c.Del(ctx, k).Err() }},
		"UNLINK":                 {set, func(c redis.Cmdable, k string) error { return c.Unlink(ctx, k).Err() }},
		"GETDEL":                 {set, func(c redis.Cmdable, k string) error { return c.GetDel(ctx, k).Err() }},
		"EXPIRE":                 {set, func(c redis.Cmdable, k string) error { return c.Expire(ctx, k, time.Minute).Err() }},
		"EXPIRE in the past":     {set, func(c redis.Cmdable, k string) error { return c.Expire(ctx, k, -time.Second).Err() }},
		"PERSIST":                {set, func(c redis.Cmdable, k string) error { return c.Persist(ctx, k).Err() }},
		"INCR":                   {set, func(c redis.Cmdable, k string) error { return c.Incr(ctx, k).Err() }},
		"APPEND":                 {set, func(c redis.Cmdable, k string) error { return c.Append(ctx, k, "2").Err() }},
		"RENAME away":            {set, func(c redis.Cmdable, k string) error { return c.Rename(ctx, k, k+" moved").Err() }},
		"RENAME onto it":         {func(c redis.Cmdable, k string) error { return set(c, k+" moved") }, func(c redis.Cmdable, k string) error { return c.Rename(ctx, k+" moved", k).Err() }},
		"COPY onto it":           {func(c redis.Cmdable, k string) error { return set(c, k+" copied") }, func(c redis.Cmdable, k string) error { return c.Copy(ctx, k+" copied", k, 0, true).Err() }},
		"RPUSH of a missing key": {nothing, func(c redis.Cmdable, k string) error { return c.RPush(ctx, k, "v").Err() }},
		"HSET of a hash": {
			func(c redis.Cmdable, k string) error { return c.HSet(ctx, k, "f", "v").Err() },
			func(c redis.Cmdable, k string) error { return c.HSet(ctx, k, "f", "w").Err() },
		},
		"three writes in MULTI": {set, func(c redis.Cmdable, k string) error {
			_, err := c.TxPipelined(ctx, func(p redis.Pipeliner) error {
				for _, s := range []step{set, func(c redis.Cmdable, k string) error { return c.Del(ctx, k).Err() }, set} {
					_ = s(p, k)
				}
				return nil
			})
			return err
		}},
		"two writes in Lua": {set, func(c redis.Cmdable, k string) error {
			return c.Eval(ctx, `redis.call('SET', KEYS[1], 'x') redis.call('DEL', KEYS[1]) return 1`, []string{k}).Err()
		}},
	}
}

func TestAChangeIsToldOnceUntilTheNextObserve(t *testing.T) {
	addr := redistest.Start(t).Addr
	server := client(t, addr)
	w := watch(t, open(t, addr), cache.Tracking)
	for name, tc := range changes(t.Context()) {
		t.Run(name, func(t *testing.T) {
			key := "k " + name
			for range 2 {
				ok(t, server.Del(t.Context(), prefix+key, prefix+key+" moved").Err())
				ok(t, tc.prepare(server, prefix+key))
				w.want(t, server)
				w.observe(t, key)
				w.want(t, server)
				ok(t, tc.change(server, prefix+key))
				w.want(t, server, key)
				ok(t, server.Set(t.Context(), prefix+key, "another", 0).Err())
				w.want(t, server)
			}
		})
	}
	t.Run("reads are none", func(t *testing.T) {
		ok(t, server.Set(t.Context(), prefix+"read", "v", time.Hour).Err())
		w.observe(t, "read")
		for _, c := range []redis.Cmder{
			server.Get(t.Context(), prefix+"read"), server.Touch(t.Context(), prefix+"read"), server.SetNX(t.Context(), prefix+"read", "w", 0),
			server.Expire(t.Context(), prefix+"missing", time.Hour), server.Del(t.Context(), prefix+"missing"),
		} {
			ok(t, c.Err())
		}
		w.want(t, server)
	})
}

func TestBroadcastTellsEachChangeUnderThePrefix(t *testing.T) {
	addr := redistest.Start(t).Addr
	server := client(t, addr)
	wire := newWire()
	w := watch(t, broadcasting(t, addr, over(wire)), cache.Broadcast)
	if sent := wire.commands(t); !slices.Contains(sent, "client tracking on bcast prefix "+prefix) {
		t.Errorf("the server does not know the prefix: %q", sent) // and would tell of all keys that it has
	}
	for name, tc := range changes(t.Context()) {
		t.Run(name, func(t *testing.T) {
			key := "k " + name
			ok(t, tc.prepare(server, prefix+key))
			w.news(t, server)
			for range 2 { // though nobody has read it
				ok(t, server.Set(t.Context(), prefix+key, "1", 0).Err())
				w.want(t, server, key)
			}
			ok(t, server.Del(t.Context(), prefix+key).Err())
			ok(t, tc.prepare(server, prefix+key))
			w.news(t, server)
			ok(t, tc.change(server, prefix+key))
			if told := w.news(t, server); !slices.Contains(told, key) {
				t.Errorf("told %q", told)
			}
		})
	}
	t.Run("and none outside of it", func(t *testing.T) {
		for _, name := range []string{"k", "other:k", strings.ToUpper(prefix) + "k", prefix[:len(prefix)-1], "x" + prefix + "k"} {
			ok(t, server.Set(t.Context(), name, "v", 0).Err())
		}
		w.want(t, server)
		ok(t, server.Set(t.Context(), prefix, "v", 0).Err())
		w.want(t, server, "")
	})
}

// broadcasting is a pool whose user may not ask for the ID of its connection, and so cannot have news sent there.
func broadcasting(t *testing.T, addr string, changes ...func(*cache.Options)) *cache.Pool {
	t.Helper()
	return open(t, addr, append(changes, broadcaster(t, addr))...)
}

func broadcaster(t *testing.T, addr string) func(*cache.Options) {
	t.Helper()
	return user(t, addr, "+@all", "-client|id", "~*")
}

// user with these rules only.
func user(t *testing.T, addr string, rules ...string) func(*cache.Options) {
	t.Helper()
	name, admin := "user-"+rand.Text(), redis.NewClient(&redis.Options{Addr: addr})
	defer func() { _ = admin.Close() }()
	ok(t, admin.ACLSetUser(t.Context(), name, append([]string{"on", ">" + marker}, rules...)...).Err())
	return as(name, marker)
}

func TestTrackingTellsOnlyOfKeysThatWereObserved(t *testing.T) {
	t.Parallel()
	addr := redistest.Start(t).Addr
	server, ctx, p := client(t, addr), t.Context(), open(t, addr)
	w := watch(t, p, cache.Tracking)
	other := open(t, addr, under("other:"))
	w.observe(t, "k")
	// Other ways to read, and other pools, are no Observe.
	_, _ = p.Get(ctx, "got")
	_, _ = p.Has(ctx, "had")
	other.Observe(ctx, []cache.Look{{Key: "k"}})
	for _, name := range []string{prefix + "got", prefix + "had", prefix + "never", "k", "other:k", prefix + "k2", prefix} {
		ok(t, server.Set(ctx, name, "v", 0).Err())
	}
	w.want(t, server)
	ok(t, server.Set(ctx, prefix+"k", "v", 0).Err())
	w.want(t, server, "k")
}

func TestEachOfManyKeysIsTold(t *testing.T) {
	t.Parallel()
	addr := redistest.Start(t).Addr
	server, ctx := client(t, addr), t.Context()
	w := watch(t, open(t, addr), cache.Tracking)
	names := fill(t, addr, prefix, 1234)
	w.observe(t, names...)
	fill(t, addr, prefix, 1234)
	w.want(t, server, names...)
	fill(t, addr, prefix, 1234)
	w.want(t, server)
	ok(t, w.pool.ForgetAll(ctx, deletions(names...))[0])
	w.want(t, server)
}

func TestKeysAreToldWhateverTheirBytes(t *testing.T) {
	addr := redistest.Start(t).Addr
	names := []string{"\xff\x00\xfe", "", " ", "\r\n", "*", "ü", prefix, strings.Repeat("x", 1024)}
	for how, p := range map[cache.Detection]*cache.Pool{cache.Tracking: open(t, addr), cache.Broadcast: broadcasting(t, addr)} {
		t.Run(string(how), func(t *testing.T) {
			w, server := watch(t, p, how), client(t, addr)
			w.observe(t, names...)
			for _, name := range names {
				ok(t, server.Set(t.Context(), prefix+name, "v", 0).Err())
			}
			w.want(t, server, names...)
		})
	}
}

func TestOwnWritesAreTold(t *testing.T) {
	addr := redistest.Start(t).Addr
	p, server := open(t, addr), client(t, addr)
	w := watch(t, p, cache.Tracking)
	value := "1"
	for name, write := range map[string]func(key string) error{
		"put":         func(key string) error { return p.Put(t.Context(), key, "v", time.Hour) },
		"put forever": func(key string) error { return p.PutForever(t.Context(), key, "v") },
		"put all":     func(key string) error { return p.PutAll(t.Context(), []cache.Write{{Key: key, Value: "v"}})[0] },
		"forget":      func(key string) error { return p.Forget(t.Context(), key) },
		"forget all": func(key string) error {
			return p.ForgetAll(t.Context(), []cache.Deletion{{Key: key, Value: &value}})[0]
		},
		"increment": func(key string) error { _, err := p.Increment(t.Context(), key, 1); return err },
		"increment all": func(key string) error {
			return p.IncrementAll(t.Context(), []cache.Increment{{Key: key, ID: "id", By: 1, RunID: "run"}})[0].Err
		},
	} {
		t.Run(name, func(t *testing.T) {
			ok(t, server.Set(t.Context(), prefix+"k", value, 0).Err())
			w.observe(t, "k")
			ok(t, write("k"))
			w.want(t, server, "k")
		})
	}
}

func TestAFlushedServerIsTold(t *testing.T) {
	addr := redistest.Start(t).Addr
	server := client(t, addr)
	other := redis.NewClient(&redis.Options{Addr: addr, DB: 1})
	t.Cleanup(func() { _ = other.Close() })
	for how, p := range map[cache.Detection]*cache.Pool{cache.Tracking: open(t, addr), cache.Broadcast: broadcasting(t, addr)} {
		w := watch(t, p, how)
		for name, flush := range map[string]func() error{
			"FLUSHALL":                    func() error { return server.FlushAll(t.Context()).Err() },
			"FLUSHALL ASYNC":              func() error { return server.FlushAllAsync(t.Context()).Err() },
			"FLUSHDB":                     func() error { return server.FlushDB(t.Context()).Err() },
			"FLUSHDB ASYNC":               func() error { return server.FlushDBAsync(t.Context()).Err() },
			"FLUSHDB of another database": func() error { return other.FlushDB(t.Context()).Err() },
		} {
			t.Run(fmt.Sprintf("%s: %s", how, name), func(t *testing.T) {
				ok(t, server.Set(t.Context(), prefix+"k", "v", 0).Err())
				w.news(t, server)
				w.observe(t, "k")
				ok(t, flush())
				w.want(t, server, flushed)
				ok(t, server.Set(t.Context(), prefix+"k", "v", 0).Err())
				if how == cache.Broadcast {
					w.want(t, server, "k")
				} else {
					w.want(t, server) // forgotten with the rest
				}
				w.observe(t, "k")
				ok(t, server.Set(t.Context(), prefix+"k", "w", 0).Err())
				w.want(t, server, "k")
			})
		}
	}
}

// Redis tells when it deletes the key, which may be long after its time; at the latest, when somebody asks for it.
func TestAKeyThatRanOutIsTold(t *testing.T) {
	addr := redistest.Start(t).Addr
	server := client(t, addr)
	for how, p := range map[cache.Detection]*cache.Pool{cache.Tracking: open(t, addr), cache.Broadcast: broadcasting(t, addr)} {
		t.Run(string(how), func(t *testing.T) {
			w := watch(t, p, how)
			ok(t, server.Set(t.Context(), prefix+"k", "v", 20*time.Millisecond).Err())
			w.news(t, server)
			w.observe(t, "k")
			NewWithT(t).Eventually(func() error { return server.Get(t.Context(), prefix+"k").Err() }).Should(MatchError(redis.Nil))
			w.want(t, server, "k")
			if o := p.Observe(t.Context(), []cache.Look{{Key: "k"}})[0]; o.Err != nil || o.Exists {
				t.Errorf("%+v", o)
			}
		})
	}
}

func TestWatchInAnotherDatabase(t *testing.T) {
	addr := redistest.Start(t).Addr
	three := redis.NewClient(&redis.Options{Addr: addr, DB: 3})
	t.Cleanup(func() { _ = three.Close() })
	inThree := func(o *cache.Options) { o.Database = 3 }
	for how, p := range map[cache.Detection]*cache.Pool{cache.Tracking: open(t, addr, inThree), cache.Broadcast: broadcasting(t, addr, inThree)} {
		t.Run(string(how), func(t *testing.T) {
			w := watch(t, p, how)
			ok(t, three.Set(t.Context(), prefix+"k", "v", 0).Err())
			w.news(t, three)
			if o := p.Observe(t.Context(), []cache.Look{{Key: "k", Size: 1}})[0]; o.Value != "v" {
				t.Errorf("%+v", o)
			}
			ok(t, three.Set(t.Context(), prefix+"k", "w", 0).Err())
			w.want(t, three, "k")
			if n := client(t, addr).DBSize(t.Context()).Val(); n != 0 {
				t.Errorf("%d keys in database 0", n)
			}
		})
	}
}

func TestAnEvictedKeyIsTold(t *testing.T) {
	t.Parallel()
	redisServer := redistest.Start(t, "--maxmemory-policy", "allkeys-lru")
	server, ctx := redisServer.Client(t), t.Context()
	w := watch(t, open(t, redisServer.Addr), cache.Tracking)
	writes, _, names := numbered(1000)
	for i := range writes {
		writes[i].Value = strings.Repeat("x", 1<<10)
	}
	if n := failed(w.pool.PutAll(ctx, writes)); n > 0 {
		t.Fatalf("%d errors", n)
	}
	w.observe(t, names...)
	used := must[int](t)(strconv.Atoi(server.InfoMap(ctx, "memory").Item("Memory", "used_memory")))
	ok(t, server.ConfigSet(ctx, "maxmemory", strconv.Itoa(used-300<<10)).Err())
	gone := func() (gone []string) {
		for _, name := range names {
			if server.Exists(ctx, prefix+name).Val() == 0 {
				gone = append(gone, name)
			}
		}
		return gone
	}
	NewWithT(t).Eventually(gone).WithTimeout(timeout).ShouldNot(BeEmpty())
	ok(t, server.ConfigSet(ctx, "maxmemory", "0").Err())
	w.want(t, server, gone()...)
}

func TestAServerThatMayNotRememberAllKeysTellsTooMuch(t *testing.T) {
	t.Parallel()
	redisServer := redistest.Start(t, "--tracking-table-max-keys", "100")
	server := redisServer.Client(t)
	w := watch(t, open(t, redisServer.Addr), cache.Tracking)
	names := fill(t, redisServer.Addr, prefix, 400)
	w.observe(t, names...)
	// It forgets the others some time later, and says so.
	NewWithT(t).Eventually(func() int { w.mu.Lock(); defer w.mu.Unlock(); return len(w.told) }).WithTimeout(timeout).Should(BeNumerically(">=", 300))
	ok(t, server.Del(t.Context(), prefix+"0").Err())
	if !slices.Contains(w.news(t, server), "0") {
		t.Error("a change was not told")
	}
}

func TestObserveDuringEvents(t *testing.T) {
	t.Parallel()
	addr := redistest.Start(t).Addr
	server, ctx, p := client(t, addr), t.Context(), open(t, addr)
	w := watch(t, p, cache.Tracking)
	names := fill(t, addr, prefix, 50)
	looks := make([]cache.Look, len(names))
	for i, name := range names {
		looks[i] = cache.Look{Key: name, Size: 10}
	}
	var writers, readers sync.WaitGroup
	written, stop := make(chan struct{}), make(chan struct{})
	for i := range 2 {
		writers.Go(func() {
			for n := range 200 {
				ok := server.Set(ctx, prefix+names[(7*n+i)%len(names)], strconv.Itoa(n), 0).Err()
				if ok != nil {
					t.Error(ok)
				}
			}
		})
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, o := range p.Observe(ctx, looks) {
					if o.Err != nil || !o.Exists {
						t.Errorf("%+v", o)
						return
					}
				}
			}
		})
	}
	go func() { writers.Wait(); close(written) }()
	NewWithT(t).Eventually(written).WithTimeout(timeout).Should(BeClosed())
	close(stop)
	readers.Wait()
	// Nothing is told twice without a look in between, and nothing is missed after the last one.
	w.news(t, server)
	w.observe(t, names...)
	fill(t, addr, prefix, len(names))
	w.want(t, server, names...)
}

func TestAServerThatDoesNotTellOfChangesIsUnwatchable(t *testing.T) {
	redisServer := redistest.Start(t).Addr
	for name, tc := range map[string]struct {
		addr  string
		rules []string
	}{
		"miniredis":                                      {redistest.Miniredis(t).Addr(), nil},
		"a user who may not run CLIENT TRACKING":         {redisServer, []string{"+@all", "-client|tracking", "~*"}},
		"a user who may run no CLIENT":                   {redisServer, []string{"+@all", "-client", "~*"}},
		"a user who may not PING":                        {redisServer, []string{"+@all", "-ping", "~*"}},
		"a user who may not SET":                         {redisServer, []string{"+@all", "-set", "~*"}},
		"a user who may not write under the prefix":      {redisServer, []string{"+@all", "%R~" + prefix + "*"}},
		"a user who has no keys under the prefix at all": {redisServer, []string{"+@all", "~other:*"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := open(t, tc.addr)
			if tc.rules != nil {
				p = open(t, tc.addr, user(t, tc.addr, tc.rules...))
			}
			for range 10 { // whichever of its goroutines comes first
				if err := listen(t, p).end(t, time.Second); !errors.Is(err, cache.ErrUnwatchable) {
					t.Fatalf("%v", err)
				}
			}
			if left := keys(t, tc.addr); len(left) > 0 {
				t.Errorf("it leaves %q", left)
			}
		})
	}
}

// Whether a server tells of changes is not known from its answers, but from what it tells.
func TestAServerThatSaysYesAndTellsNothing(t *testing.T) {
	t.Parallel()
	t.Run("in any way", func(t *testing.T) {
		t.Parallel()
		mini := redistest.Miniredis(t)
		mini.Server().SetPreHook(func(c *server.Peer, command string, args ...string) bool {
			switch {
			case command != "CLIENT":
				return false
			case strings.EqualFold(args[0], "id"):
				c.WriteInt(1)
			default:
				c.WriteOK()
			}
			return true
		})
		w := listen(t, open(t, mini.Addr()))
		if err := w.end(t, timeout); !errors.Is(err, cache.ErrUnwatchable) || len(w.began) > 0 {
			t.Errorf("%v", err)
		}
		if left := keys(t, mini.Addr()); len(left) > 0 {
			t.Errorf("it leaves %q", left)
		}
	})
	t.Run("of what it was to remember", func(t *testing.T) {
		t.Parallel()
		addr := redistest.Start(t).Addr
		w := watch(t, open(t, addr, user(t, addr, "+@all", "-exists", "~*")), cache.Broadcast)
		ok(t, client(t, addr).Set(t.Context(), prefix+"k", "v", 0).Err())
		NewWithT(t).Eventually(w.heard).WithArguments("k").Should(BeTrue())
	})
}

func TestWatchNeedsFewRights(t *testing.T) {
	addr := redistest.Start(t).Addr
	server := client(t, addr)
	rights := []string{"~" + prefix + "*", "+set", "+unlink", "+getrange", "+pttl", "+exists", "+ping", "+client|tracking"}
	for how, more := range map[cache.Detection][]string{cache.Tracking: {"+client|id"}, cache.Broadcast: nil} {
		t.Run(string(how), func(t *testing.T) {
			w := watch(t, open(t, addr, user(t, addr, slices.Concat(rights, more)...)), how)
			w.observe(t, "k")
			ok(t, server.Set(t.Context(), prefix+"k", "v", 0).Err())
			w.want(t, server, "k")
		})
	}
}

// What passes by itself is no reason to stop watching for good.
func TestAServerThatCannotServeNowIsNotUnwatchable(t *testing.T) {
	full := redistest.Start(t)
	replica := redistest.Start(t, "--replicaof", "127.0.0.1 1")
	closed := redistest.Start(t, "--requirepass", marker)
	busy := redistest.Start(t, "--maxclients", "1")
	ok(t, full.Client(t).ConfigSet(t.Context(), "maxmemory", "1").Err())
	ok(t, busy.Client(t).Ping(t.Context()).Err())
	stopped := redistest.Start(t)
	stopped.Stop()
	for name, tc := range map[string]struct {
		addr   string
		class  cache.Class
		reason string
	}{
		"out of memory":    {full.Addr, cache.Unavailable, cache.ReasonOutOfMemory},
		"replica":          {replica.Addr, cache.Unavailable, cache.ReasonReadOnlyReplica},
		"wrong password":   {closed.Addr, cache.Refused, cache.ReasonAuthenticationFailed},
		"too many clients": {busy.Addr, cache.Unavailable, cache.ReasonConnectionFailed},
		"not there":        {stopped.Addr, cache.Unavailable, cache.ReasonConnectionFailed},
	} {
		t.Run(name, func(t *testing.T) {
			p := open(t, tc.addr)
			for range 2 {
				wantFailure(t, tc.class, tc.reason, func() error { return listen(t, p).end(t, timeout) })
			}
		})
	}
}
