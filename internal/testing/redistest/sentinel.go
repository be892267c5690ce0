// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package redistest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// MasterName is what sentinels call the server that they watch.
const MasterName = "mymaster"

// Sentinels are a server, two replicas and three sentinels that watch them, on the loopback interface.
type Sentinels struct {
	// Servers that have the keys, the master among them.
	Servers []*Server
	// Sentinels say which of them is the master.
	Sentinels []*Server

	tb testing.TB
	// authority of the certificates, if all of them speak TLS.
	authority *Authority
}

// StartSentinels runs a Sentinel set until the end of the test. Options are lines of the sentinels' configuration about
// the master, without its name, such as "down-after-milliseconds 500"; or about the sentinel, with the word sentinel or
// without, after "*": "* requirepass secret".
func StartSentinels(tb testing.TB, options ...string) *Sentinels {
	tb.Helper()
	s := &Sentinels{tb: tb}
	s.start(options)
	return s
}

// StartSentinelsTLS runs a Sentinel set that speaks TLS, as StartTLS has it, until the end of the test.
func StartSentinelsTLS(tb testing.TB, by *Authority, options ...string) *Sentinels {
	tb.Helper()
	s := &Sentinels{tb: tb, authority: by}
	s.start(options)
	return s
}

func (s *Sentinels) start(options []string) {
	s.tb.Helper()
	s.Servers = append(s.Servers, s.server("--repl-diskless-sync-delay", "0"))
	host, port, _ := net.SplitHostPort(s.Servers[0].Address())
	for range 2 {
		s.Servers = append(s.Servers, s.server("--repl-diskless-sync-delay", "0", "--replicaof", host+" "+port))
	}
	for _, replica := range s.Servers[1:] {
		eventually(s.tb, "the replica is in sync", func() bool { return replica.says("master_link_status:up", "info", "replication") })
	}
	for range 3 {
		s.Sentinels = append(s.Sentinels, s.sentinel(host, port, options))
	}
	for _, sentinel := range s.Sentinels {
		s.ready(sentinel)
	}
}

func (s *Sentinels) server(args ...string) *Server {
	s.tb.Helper()
	if s.authority != nil {
		return StartTLS(s.tb, s.authority, append(args, "--tls-replication", "yes")...)
	}
	return Start(s.tb, args...)
}

func (s *Sentinels) sentinel(host, port string, options []string) *Server {
	s.tb.Helper()
	var config strings.Builder
	fmt.Fprintf(&config, "sentinel monitor %s %s %s 2\n", MasterName, host, port)
	// A failover that fails, for example since two sentinels began it at the same time, is tried again after twice this.
	fmt.Fprintf(&config, "sentinel failover-timeout %s 3000\n", MasterName)
	for _, option := range options {
		if rest, ok := strings.CutPrefix(option, "* "); ok {
			config.WriteString(rest + "\n")
			continue
		}
		name, value, _ := strings.Cut(option, " ")
		fmt.Fprintf(&config, "sentinel %s %s %s\n", name, MasterName, value)
	}
	path := filepath.Join(s.tb.TempDir(), "sentinel.conf")
	if err := os.WriteFile(path, []byte(config.String()), 0o600); err != nil {
		s.tb.Fatal(err)
	}
	return s.server(path, "--sentinel")
}

// ready waits until a sentinel knows all there is, and could take part in a failover. One with a password is not asked.
func (s *Sentinels) ready(sentinel *Server) {
	s.tb.Helper()
	if redis.IsAuthError(sentinel.ask("ping").Err()) {
		return
	}
	eventually(s.tb, "the sentinel knows all there is", func() bool {
		return sentinel.says("status=ok,address="+s.Servers[0].Address()+",slaves=2,sentinels=3", "info", "sentinel")
	})
}

// Address is that of the set, for Options.
func (s *Sentinels) Address() string {
	var addrs []string
	for _, sentinel := range s.Sentinels {
		addrs = append(addrs, sentinel.Address())
	}
	return "sentinel://" + strings.Join(addrs, ",") + "/" + MasterName
}

// Master as the sentinels see it, once they agree.
func (s *Sentinels) Master() *Server {
	s.tb.Helper()
	var master *Server
	eventually(s.tb, "the sentinels agree on a master", func() bool {
		master = nil
		for _, sentinel := range s.Sentinels {
			addr, _ := sentinel.ask("sentinel", "get-master-addr-by-name", MasterName).StringSlice()
			if len(addr) != 2 || master != nil && master.Address() != net.JoinHostPort(addr[0], addr[1]) {
				return false
			}
			master = s.at(net.JoinHostPort(addr[0], addr[1]))
		}
		return master != nil && master.says("role:master", "info", "replication")
	})
	return master
}

func (s *Sentinels) at(addr string) *Server {
	for _, server := range s.Servers {
		if server.Address() == addr {
			return server
		}
	}
	return nil
}

// FailOver has the sentinels make another server the master, and waits until they have.
func (s *Sentinels) FailOver() {
	s.tb.Helper()
	before := s.Master()
	eventually(s.tb, "a sentinel begins the failover", func() bool {
		return s.Sentinels[0].ask("sentinel", "failover", MasterName).Err() == nil
	})
	s.replaced(before)
}

// Lose kills the master and waits until another server has taken its place.
func (s *Sentinels) Lose() {
	s.tb.Helper()
	before := s.Master()
	before.Kill()
	s.replaced(before)
}

func (s *Sentinels) replaced(before *Server) {
	s.tb.Helper()
	eventually(s.tb, "another server is the master", func() bool { return s.Master() != before })
}
