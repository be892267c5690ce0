// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2/server"
	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

func check(t *testing.T, p *cache.Pool) func() error {
	t.Helper()
	return func() error { _, err := p.Check(t.Context()); return err }
}

func TestCheckTellsWhatAnswers(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, isReal := start(t)
			got := must[cache.Server](t)(open(t, addr).Check(t.Context()))
			want := cache.Server{Product: "redis", Topology: string(at(addr).Topology), Nodes: 1}
			if want.Topology == "" {
				want.Topology = "Standalone"
			}
			if isReal {
				info := client(t, addr).InfoMap(t.Context(), "server")
				want.Version, want.ID = info.Item("Server", "redis_version"), info.Item("Server", "run_id")
				if valkey := info.Item("Server", "valkey_version"); valkey != "" {
					want.Product, want.Version = "valkey", valkey
				}
				if isCluster(addr) {
					var ids []string
					each(t, addr, func(c *redis.Client) error { ids = append(ids, c.ClusterMyID(t.Context()).Val()); return nil })
					slices.Sort(ids)
					want.Nodes, want.ID = 3, strings.Join(ids, ",")
				}
				if want.Version == "" || want.ID == "" {
					t.Fatal("the server tells nothing")
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("server (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCheckChangesNothing(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, isReal := start(t)
			fill(t, addr, prefix, 10)
			before := keys(t, addr)
			state := func() (all []string) {
				if !isReal {
					return nil
				}
				each(t, addr, func(c *redis.Client) error {
					info := c.InfoMap(t.Context())
					all = append(all, info.Item("Persistence", "rdb_changes_since_last_save")+" "+info.Item("Stats", "expired_keys")+" "+
						info.Item("Stats", "evicted_keys")+" "+info.Item("Keyspace", "db0"))
					return nil
				})
				slices.Sort(all)
				return all
			}
			was := state()
			ok(t, check(t, open(t, addr))())
			if isReal { // and for whom all commands are sent, since the server does not tell of his rights
				each(t, addr, func(c *redis.Client) error {
					return c.ACLSetUser(t.Context(), "plain", "on", ">"+marker, "+@all", "-acl", "~*").Err()
				})
				ok(t, check(t, open(t, addr, as("plain", marker)))())
			}
			if diff := cmp.Diff(before, keys(t, addr)); diff != "" {
				t.Errorf("the keys have changed (-before +after):\n%s", diff)
			}
			if diff := cmp.Diff(was, state()); diff != "" {
				t.Errorf("the server has changed (-before +after):\n%s", diff)
			}
		})
	}
}

func TestCheckRefusesAServerThatDoesNotLetUsIn(t *testing.T) {
	open1 := redistest.Start(t)
	admin, ctx := open1.Client(t), t.Context()
	closed := redistest.Start(t, "--requirepass", marker+"-right")
	ok(t, admin.ACLSetUser(ctx, "app", "on", ">"+marker, "+@all", "~*").Err())
	ok(t, admin.ACLSetUser(ctx, "off", "off", ">"+marker, "+@all", "~*").Err())

	for name, tc := range map[string]struct {
		pool    *cache.Pool
		message string
	}{
		"wrong password":               {open(t, closed.Addr, as("", marker)), "The server refuses the user name or password"},
		"no password given":            {open(t, closed.Addr), "The server asks for a password"},
		"wrong password of a user":     {open(t, open1.Addr, as("app", marker+"-wrong")), "The server refuses the user name or password"},
		"user that is not there":       {open(t, open1.Addr, as(marker, marker)), "The server refuses the user name or password"},
		"user that is switched off":    {open(t, open1.Addr, as("off", marker)), "The server refuses the user name or password"},
		"user name without a password": {open(t, closed.Addr, as(marker, "")), "The server asks for a password"},
	} {
		t.Run(name, func(t *testing.T) {
			want := cache.Error{Class: cache.Refused, Reason: cache.ReasonAuthenticationFailed, Message: tc.message}
			if e := failure(t, check(t, tc.pool)); e != want {
				t.Errorf("%+v, want %+v", e, want)
			}
		})
	}
	t.Run("the right password is let in", func(t *testing.T) {
		ok(t, check(t, open(t, closed.Addr, as("", marker+"-right")))())
		ok(t, check(t, open(t, closed.Addr, as("default", marker+"-right")))())
		ok(t, check(t, open(t, open1.Addr, as("app", marker)))())
	})
}

func TestCheckWithoutINFOSucceedsAndKnowsLess(t *testing.T) {
	redisServer := redistest.Start(t)
	ok(t, redisServer.Client(t).ACLSetUser(t.Context(), "app", "on", ">"+marker, "+@all", "-info", "~*").Err())
	got := must[cache.Server](t)(open(t, redisServer.Addr, as("app", marker)).Check(t.Context()))
	if diff := cmp.Diff(cache.Server{Product: "redis", Topology: "Standalone", Nodes: 1, Lacks: "+info for telling versions and restarts apart"}, got); diff != "" {
		t.Errorf("server (-want +got):\n%s", diff)
	}
}

func TestCheckOfServersThatCannotBeUsed(t *testing.T) {
	t.Run("replica", func(t *testing.T) {
		master := redistest.Start(t)
		host, port, _ := strings.Cut(master.Addr, ":")
		replica := redistest.Start(t, "--replicaof", host+" "+port)
		p := open(t, replica.Addr)
		// The master may still be sending its data.
		NewWithT(t).Eventually(check(t, p)).WithTimeout(timeout).ShouldNot(Satisfy(func(err error) bool { return cache.Is(err, cache.ReasonLoading) }))
		wantFailure(t, cache.Unavailable, cache.ReasonReadOnlyReplica, check(t, p))
	})
	t.Run("out of memory", func(t *testing.T) {
		redisServer := redistest.Start(t, "--maxmemory", "1")
		wantFailure(t, cache.Unavailable, cache.ReasonOutOfMemory, check(t, open(t, redisServer.Addr)))
	})
	t.Run("node of a cluster", func(t *testing.T) {
		redisServer := redistest.Start(t, "--cluster-enabled", "yes")
		wantFailure(t, cache.Refused, cache.ReasonWrongTopology, check(t, open(t, redisServer.Addr)))
		wantFailure(t, cache.Refused, cache.ReasonWrongTopology, check(t, open(t, redisServer.Addr, func(o *cache.Options) { o.Database = 1 })))
	})
	t.Run("database out of range", func(t *testing.T) {
		redisServer := redistest.Start(t, "--databases", "4")
		ok(t, check(t, open(t, redisServer.Addr, func(o *cache.Options) { o.Database = 3 }))())
		wantFailure(t, cache.Refused, cache.ReasonWrongTopology, check(t, open(t, redisServer.Addr, func(o *cache.Options) { o.Database = 4 })))
	})
	t.Run("sentinel", func(t *testing.T) {
		config := filepath.Join(t.TempDir(), "sentinel.conf")
		ok(t, os.WriteFile(config, nil, 0o600))
		redisServer := redistest.Start(t, config, "--sentinel")
		wantFailure(t, cache.Refused, cache.ReasonWrongTopology, check(t, open(t, redisServer.Addr)))
	})
	t.Run("full", func(t *testing.T) {
		redisServer := redistest.Start(t, "--maxclients", "1")
		ok(t, redisServer.Client(t).Ping(t.Context()).Err())
		wantFailure(t, cache.Unavailable, cache.ReasonConnectionFailed, check(t, open(t, redisServer.Addr)))
	})
	t.Run("loading", func(t *testing.T) {
		mini := redistest.Miniredis(t)
		mini.SetError("LOADING Redis is loading the dataset in memory")
		wantFailure(t, cache.Unavailable, cache.ReasonLoading, check(t, open(t, mini.Addr())))
	})
}

// Valkey's INFO has other names: see https://valkey.io/commands/info/.
func TestCheckKnowsValkey(t *testing.T) {
	for mode, want := range map[string]string{"standalone": "", "cluster": cache.ReasonWrongTopology, "sentinel": cache.ReasonWrongTopology} {
		t.Run(mode, func(t *testing.T) {
			mini := redistest.Miniredis(t)
			mini.Server().SetPreHook(func(c *server.Peer, command string, _ ...string) bool {
				if command != "INFO" {
					return false
				}
				c.WriteBulk("# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.0\r\nserver_mode:" + mode + "\r\nrun_id:e0abe2248cad\r\n")
				return true
			})
			got, err := open(t, mini.Addr()).Check(t.Context())
			if want != "" {
				wantFailure(t, cache.Refused, want, func() error { return err })
				return
			}
			ok(t, err)
			if diff := cmp.Diff(cache.Server{Product: "valkey", Version: "8.1.0", Topology: "Standalone", Nodes: 1, ID: "e0abe2248cad"}, got); diff != "" {
				t.Errorf("server (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAPoolWorksInItsDatabaseOnly(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, _ := start(t)
			if isCluster(addr) {
				t.Skip("a cluster has only one")
			}
			for db := range 2 {
				p := open(t, addr, func(o *cache.Options) { o.Database = db })
				ok(t, p.PutForever(t.Context(), "k", strconv.Itoa(db)))
			}
			deleted := must[int64](t)(open(t, addr).Flush(t.Context()))
			o := redistest.Options(addr)
			o.DB = 1
			other := redis.NewUniversalClient(o)
			t.Cleanup(func() { _ = other.Close() })
			if left := other.Get(t.Context(), prefix+"k").Val(); deleted != 1 || left != "1" {
				t.Errorf("deleted %d, left %q", deleted, left)
			}
		})
	}
}
