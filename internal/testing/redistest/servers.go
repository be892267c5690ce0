// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package redistest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Servers give miniredis, a real server, one behind sentinels, and a cluster, by name, and tell the address; a Valkey
// server too, where there is one on PATH. A contract runs on each; what miniredis cannot do, it asks of real servers only.
// The address is host:port, or a URL: see Options. A Sentinel set and a cluster take seconds to start, and so are shared,
// one test after the other, until StopShared.
var Servers = servers()

func servers() map[string]func(tb testing.TB) (addr string, isReal bool) {
	all := map[string]func(tb testing.TB) (string, bool){
		"miniredis":    func(tb testing.TB) (string, bool) { tb.Helper(); return Miniredis(tb).Addr(), false },
		"redis-server": func(tb testing.TB) (string, bool) { tb.Helper(); return Start(tb).Addr, true },
		"sentinel":     func(tb testing.TB) (string, bool) { tb.Helper(); return sets.lend(tb), true },
		"cluster":      func(tb testing.TB) (string, bool) { tb.Helper(); return clusters.lend(tb), true },
	}
	const valkey = "valkey-server"
	if binary, err := exec.LookPath(valkey); err == nil {
		all[valkey] = func(tb testing.TB) (string, bool) { tb.Helper(); return start(tb, binary).Addr, true }
	}
	return all
}

// Options to reach what is at an address: host:port of a server, sentinel://host:port,…/master or cluster://host:port,….
func Options(addr string) *redis.UniversalOptions {
	if rest, ok := strings.CutPrefix(addr, "cluster://"); ok {
		o := plain(strings.Split(rest, ",")...)
		o.IsClusterMode = true
		return o
	}
	if rest, ok := strings.CutPrefix(addr, "sentinel://"); ok {
		sentinels, master, _ := strings.Cut(rest, "/")
		o := plain(strings.Split(sentinels, ",")...)
		o.MasterName = master
		return o
	}
	return plain(addr)
}

func plain(addrs ...string) *redis.UniversalOptions {
	return &redis.UniversalOptions{
		Addrs: addrs, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// Client is a plain client for preparations and assertions, closed at the end of the test.
func Client(tb testing.TB, addr string) redis.UniversalClient {
	tb.Helper()
	client := redis.NewUniversalClient(Options(addr))
	tb.Cleanup(func() { _ = client.Close() })
	return client
}

// Each calls do with a client of each server that has keys: of each master, if it is a cluster.
func Each(ctx context.Context, client redis.UniversalClient, do func(*redis.Client) error) error {
	var one sync.Mutex
	if cluster, ok := client.(*redis.ClusterClient); ok {
		return cluster.ForEachMaster(ctx, func(_ context.Context, master *redis.Client) error {
			one.Lock()
			defer one.Unlock()
			return do(master)
		})
	}
	return do(client.(*redis.Client)) //nolint:forcetypeassert,errcheck // there is no other that Options could make
}

var (
	clusters = shelf{start: func(tb testing.TB) string { tb.Helper(); return StartCluster(tb, 3, false).Address() }}
	sets     = shelf{start: func(tb testing.TB) string {
		tb.Helper()
		return StartSentinels(tb, "down-after-milliseconds 60000").Address()
	}}
)

// shelf of servers that go from test to test. Tests that run at the same time never have the same.
type shelf struct {
	start func(tb testing.TB) string
	mu    sync.Mutex
	free  []string
}

// lend an address until the end of the test.
func (s *shelf) lend(tb testing.TB) string {
	tb.Helper()
	addr := s.take()
	if addr == "" {
		addr = s.start(&lasting{tb})
	}
	tb.Cleanup(func() {
		client := redis.NewUniversalClient(Options(addr))
		defer func() { _ = client.Close() }()
		ctx := context.WithoutCancel(tb.Context())
		err := Each(ctx, client, func(c *redis.Client) error {
			return errors.Join(c.FlushAll(ctx).Err(), c.ConfigResetStat(ctx).Err())
		})
		if err != nil {
			tb.Errorf("the servers at %s cannot be used by the next test: %v", addr, err)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.free = append(s.free, addr)
	})
	return addr
}

func (s *shelf) take() (addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := len(s.free) - 1; last >= 0 {
		addr, s.free = s.free[last], s.free[:last]
	}
	return addr
}

// lasting is a test whose cleanup waits until StopShared.
type lasting struct{ testing.TB }

var shared struct {
	mu       sync.Mutex
	cleanups []func()
}

// Cleanup waits until StopShared.
func (*lasting) Cleanup(do func()) {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	shared.cleanups = append(shared.cleanups, do)
}

// TempDir lasts until StopShared.
func (l *lasting) TempDir() string {
	dir, err := os.MkdirTemp("", "redistest")
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// StopShared ends the servers that tests have shared. TestMain must call it where tests use Servers.
func StopShared() {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	for len(shared.cleanups) > 0 {
		last := len(shared.cleanups) - 1
		shared.cleanups[last]()
		shared.cleanups = shared.cleanups[:last]
	}
}
