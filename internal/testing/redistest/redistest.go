// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package redistest gives tests a Redis: a real server of their own, or miniredis.
package redistest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
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
	// TLSAddr is where it speaks TLS, if it was started by StartTLS.
	TLSAddr string

	tb      testing.TB
	binary  string
	args    []string
	dir     string
	secure  bool
	process *exec.Cmd
	exited  chan struct{}
}

// Start runs a server until the end of the test, with further arguments such as "--maxmemory", "1mb"; a first
// argument without dashes is a configuration file. Without a server on PATH the test is skipped, or fails when
// REQUIRE_REDIS=1.
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	return start(tb, find(tb), args...)
}

func start(tb testing.TB, binary string, args ...string) *Server {
	tb.Helper()
	s := &Server{tb: tb, binary: binary, args: args, dir: tb.TempDir()}
	s.begin(tb)
	return s
}

func (s *Server) begin(tb testing.TB) {
	tb.Helper()
	tb.Cleanup(s.Kill)
	for range 10 {
		s.Addr = freeAddress(tb)
		if s.secure {
			s.TLSAddr = freeAddress(tb)
		}
		if s.start() {
			return
		}
	}
	tb.Fatalf("%s does not start: %s", s.binary, s.log())
}

// Client is a plain client for preparations and assertions, closed at the end of the test.
func (s *Server) Client(tb testing.TB) *redis.Client {
	tb.Helper()
	client := redis.NewClient(plain(s.Addr).Simple())
	tb.Cleanup(func() { _ = client.Close() })
	return client
}

// Address is where clients are to go: to the port that speaks TLS, if there is one.
func (s *Server) Address() string {
	if s.secure {
		return s.TLSAddr
	}
	return s.Addr
}

// User makes an ACL user who may do everything, or has one log in with another password only.
func (s *Server) User(tb testing.TB, name, password string) {
	tb.Helper()
	if err := s.Client(tb).ACLSetUser(tb.Context(), name, "on", "resetpass", ">"+password, "allkeys", "allchannels", "+@all").Err(); err != nil {
		tb.Fatal(err)
	}
}

// ask a server one thing, on a connection that is closed afterwards.
func (s *Server) ask(args ...any) *redis.Cmd {
	client := redis.NewClient(plain(s.Addr).Simple())
	defer func() { _ = client.Close() }()
	return client.Do(context.Background(), args...)
}

// says whether the answer holds a text.
func (s *Server) says(text string, args ...any) bool {
	answer, _ := s.ask(args...).Text()
	return strings.Contains(answer, text)
}

// Stop ends the server in good order.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the server at once.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// Restart ends the server and starts another one at the same address: with another run_id, and without data.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Stop()
	if !s.start() {
		s.tb.Fatalf("%s does not start again: %s", s.binary, s.log())
	}
}

// Miniredis is a server inside of the test's process.
func Miniredis(tb testing.TB) *miniredis.Miniredis {
	tb.Helper()
	return miniredis.RunT(tb)
}

func find(tb testing.TB) string {
	tb.Helper()
	name := os.Getenv(Binary)
	if name == "" {
		name = "redis-server"
	}
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path
	case os.Getenv("REQUIRE_REDIS") == "1":
		tb.Fatalf("no %s on PATH, and REQUIRE_REDIS=1: install it, or set %s to a redis-server or valkey-server", name, Binary)
	default:
		tb.Skipf("skipped: no %s on PATH; install it, or set %s to a redis-server or valkey-server", name, Binary)
	}
	return ""
}

// freeAddress is below the ports that systems give to outgoing connections, so that nobody takes it while the server
// is down, and low enough for a cluster's bus, 10000 ports above.
func freeAddress(tb testing.TB) string {
	tb.Helper()
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(10000+rand.IntN(20000)))
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = l.Close()
			return addr
		}
	}
	tb.Fatal("no free port on the loopback interface")
	return ""
}

// start says whether the server answers; it does not when another process has taken the port.
func (s *Server) start() bool {
	s.tb.Helper()
	_, port, _ := net.SplitHostPort(s.Addr)
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	args := []string{"--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--appendonly", "no"}
	if s.secure {
		_, port, _ := net.SplitHostPort(s.TLSAddr)
		args = append(append(args, "--tls-port", port), s.certificates()...)
	}
	at := 0
	if len(s.args) > 0 && !strings.HasPrefix(s.args[0], "-") {
		at = 1
	}
	s.process = exec.Command(s.binary, slices.Concat(s.args[:at], args, s.args[at:])...)
	s.process.Stdout, s.process.Stderr = log, log
	if err := s.process.Start(); err != nil {
		s.tb.Fatal(err)
	}
	s.exited = make(chan struct{})
	go func(process *exec.Cmd, exited chan struct{}) {
		_ = process.Wait()
		close(exited)
	}(s.process, s.exited)
	return s.answers()
}

func (s *Server) answers() bool {
	s.tb.Helper()
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	deadline := time.NewTimer(startTimeout)
	defer deadline.Stop()
	for ping(s.Addr) != nil {
		select {
		case <-s.exited:
			return false
		case <-deadline.C:
			s.tb.Fatalf("%s does not answer: %s", s.binary, s.log())
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

func (s *Server) isRunning() bool {
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
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
