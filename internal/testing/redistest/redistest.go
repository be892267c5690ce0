// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package redistest gives tests a Redis: a real server of their own, or miniredis.
package redistest

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Binary is the environment variable that names the server to run, redis-server if unset; valkey-server does too.
const Binary = "REDIS_SERVER"

const (
	startTimeout = 20 * time.Second
	poll         = 5 * time.Millisecond
)

// Server is a real server on the loopback interface that stores nothing on disk.
type Server struct {
	Addr string

	t       testing.TB
	binary  string
	args    []string
	dir     string
	process *exec.Cmd
	exited  chan struct{}
}

// Start runs a server until the end of the test, with further arguments such as "--maxmemory", "1mb"; a first
// argument without dashes is a configuration file. Without a server on PATH the test is skipped, or fails when
// REQUIRE_REDIS=1.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := &Server{t: t, binary: find(t), args: args, dir: t.TempDir()}
	t.Cleanup(s.Kill)
	for range 10 {
		s.Addr = freeAddress(t)
		if s.start() {
			return s
		}
	}
	t.Fatalf("%s does not start: %s", s.binary, s.log())
	return nil
}

// Client is a plain client for preparations and assertions, closed at the end of the test.
func (s *Server) Client(t testing.TB) *redis.Client {
	t.Helper()
	return Client(t, s.Addr)
}

// Client is a plain client for preparations and assertions, closed at the end of the test.
func Client(t testing.TB, addr string) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{
		Addr: addr, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// Stop ends the server in good order.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the server at once.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// Restart ends the server and starts another one at the same address: with another run_id, and without data.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	if !s.start() {
		s.t.Fatalf("%s does not start again: %s", s.binary, s.log())
	}
}

// Miniredis is a server inside of the test's process.
func Miniredis(t testing.TB) *miniredis.Miniredis {
	t.Helper()
	return miniredis.RunT(t)
}

// EachServer runs a contract on miniredis and on a real server. isReal tells which: what miniredis cannot do is for
// real servers alone.
func EachServer(t *testing.T, contract func(t *testing.T, addr string, isReal bool)) {
	t.Helper()
	t.Run("miniredis", func(t *testing.T) { contract(t, Miniredis(t).Addr(), false) })
	t.Run("redis-server", func(t *testing.T) { contract(t, Start(t).Addr, true) })
}

func find(t testing.TB) string {
	t.Helper()
	name := os.Getenv(Binary)
	if name == "" {
		name = "redis-server"
	}
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path
	case os.Getenv("REQUIRE_REDIS") == "1":
		t.Fatalf("no %s on PATH, and REQUIRE_REDIS=1: install it, or set %s to a redis-server or valkey-server", name, Binary)
	default:
		t.Skipf("skipped: no %s on PATH; install it, or set %s to a redis-server or valkey-server", name, Binary)
	}
	return ""
}

// freeAddress is below the ports that systems give to outgoing connections, so that nobody takes it while the server
// is down, and low enough for a cluster's bus, 10000 ports above.
func freeAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(10000+rand.IntN(20000)))
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = l.Close()
			return addr
		}
	}
	t.Fatal("no free port on the loopback interface")
	return ""
}

// start says whether the server answers; it does not when another process has taken the port.
func (s *Server) start() bool {
	s.t.Helper()
	_, port, _ := net.SplitHostPort(s.Addr)
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	config, extra := []string(nil), s.args
	if len(extra) > 0 && !strings.HasPrefix(extra[0], "-") {
		config, extra = extra[:1], extra[1:]
	}
	args := append(config, "--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--appendonly", "no")
	s.process = exec.Command(s.binary, append(args, extra...)...)
	s.process.Stdout, s.process.Stderr = log, log
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.exited = make(chan struct{})
	go func(process *exec.Cmd, exited chan struct{}) {
		_ = process.Wait()
		close(exited)
	}(s.process, s.exited)
	return s.answers()
}

func (s *Server) answers() bool {
	s.t.Helper()
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	deadline := time.NewTimer(startTimeout)
	defer deadline.Stop()
	for ping(s.Addr) != nil {
		select {
		case <-s.exited:
			return false
		case <-deadline.C:
			s.t.Fatalf("%s does not answer: %s", s.binary, s.log())
		case <-ticker.C:
		}
	}
	return true
}

// ping succeeds on any answer but that the data set is loading: a server that asks for a password has answered.
func ping(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := fmt.Fprint(conn, "PING\r\n"); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && strings.HasPrefix(answer, "-LOADING") {
		err = errors.New(answer)
	}
	return err
}

func (s *Server) end(signal syscall.Signal) {
	if s.exited == nil {
		return
	}
	_ = s.process.Process.Signal(signal)
	<-s.exited
}

func (s *Server) log() string {
	text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return string(text)
}
