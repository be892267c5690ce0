// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// wire is a network that records what is sent, and can be cut.
type wire struct {
	mu    sync.Mutex
	conns []*wireConn
	// left until the wire is cut: so many writes get through.
	left int
	down bool
	// refused dials, since it was cut.
	refused int
}

type wireConn struct {
	*net.TCPConn

	wire   *wire
	sent   bytes.Buffer
	closed bool
}

func newWire() *wire { return &wire{left: -1} }

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		w.refused++
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	tcp, _ := conn.(*net.TCPConn)
	c := &wireConn{TCPConn: tcp, wire: w}
	w.conns = append(w.conns, c)
	return c, nil
}

// cutAfter lets so many writes through, and breaks every connection at the next one. Nobody can dial then.
func (w *wire) cutAfter(writes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left = writes
}

// mend undoes cutAfter.
func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left, w.down = -1, false
}

func (c *wireConn) Write(b []byte) (int, error) {
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	if c.wire.left == 0 {
		c.wire.down = true
		_ = c.TCPConn.Close()
		return 0, syscall.ECONNRESET
	}
	c.wire.left--
	c.sent.Write(b)
	return c.TCPConn.Write(b)
}

func (c *wireConn) Close() error {
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	c.closed = true
	return c.TCPConn.Close()
}

func (w *wire) open() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, c := range w.conns {
		if !c.closed {
			n++
		}
	}
	return n
}

// commands that were sent, but for the handshake and the questions about the topology, each as one line; what has been given is forgotten.
func (w *wire) commands(t *testing.T) []string {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var lines []string
	for _, c := range w.conns {
		for r := bufio.NewReader(&c.sent); ; {
			var args, length int
			if _, err := fmt.Fscanf(r, "*%d\r\n", &args); err != nil {
				break
			}
			var words []string
			for range args {
				if _, err := fmt.Fscanf(r, "$%d\r\n", &length); err != nil {
					t.Fatal(err)
				}
				word := make([]byte, length+2)
				if _, err := io.ReadFull(r, word); err != nil {
					t.Fatal(err)
				}
				words = append(words, string(word[:length]))
			}
			if !slices.Contains([]string{"hello", "cluster", "sentinel", "subscribe"}, words[0]) {
				lines = append(lines, strings.Join(words, " "))
			}
		}
	}
	return lines
}
