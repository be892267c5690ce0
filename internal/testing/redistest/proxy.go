// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package redistest

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy is a network between a client and a server that is slow, and can be cut.
type Proxy struct {
	Addr string

	tb     testing.TB
	target string
	mu     sync.Mutex
	delay  time.Duration
	listen net.Listener
	conns  map[net.Conn]bool
	work   sync.WaitGroup
}

// NewProxy leads to a server until the end of the test. Every answer is delayed.
func NewProxy(tb testing.TB, target string, delay time.Duration) *Proxy {
	tb.Helper()
	p := &Proxy{tb: tb, target: target, delay: delay, conns: map[net.Conn]bool{}, Addr: freeAddress(tb)}
	p.Mend()
	tb.Cleanup(func() { p.Cut(); p.work.Wait() })
	return p
}

// Slow changes the delay of every answer.
func (p *Proxy) Slow(delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = delay
}

// Cut breaks every connection, and refuses new ones.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listen != nil {
		_ = p.listen.Close()
		p.listen = nil
	}
	for conn := range p.conns {
		_ = conn.Close()
	}
	clear(p.conns)
}

// Mend accepts connections again.
func (p *Proxy) Mend() {
	p.tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	listen, err := net.Listen("tcp", p.Addr)
	if err != nil {
		p.tb.Fatal(err)
	}
	p.listen = listen
	p.work.Go(func() {
		for {
			conn, err := listen.Accept()
			if err != nil {
				return
			}
			p.work.Go(func() { p.serve(listen, conn) })
		}
	})
}

func (p *Proxy) serve(listen net.Listener, client net.Conn) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	if p.listen != listen { // cut meanwhile
		_, _ = client.Close(), server.Close()
	} else {
		p.conns[client], p.conns[server] = true, true
	}
	p.mu.Unlock()
	p.work.Go(func() { _, _ = io.Copy(server, client); _ = server.Close() })
	p.answer(client, server)
	_, _ = client.Close(), server.Close()
}

// answer the client with what the server says, later. What comes in the meantime waits with it.
func (p *Proxy) answer(client, server net.Conn) {
	buffer := make([]byte, 1<<20)
	for {
		n, err := server.Read(buffer)
		if n > 0 {
			p.wait()
			if _, err := client.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *Proxy) wait() {
	p.mu.Lock()
	delay := p.delay
	p.mu.Unlock()
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		<-timer.C
	}
}
