// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package redistest

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Proxy is a network between a client and a server that is slow, can be cut, and can lose everything.
type Proxy struct {
	Addr string

	tb     testing.TB
	target string
	mu     sync.Mutex
	delay  time.Duration
	listen net.Listener
	conns  map[net.Conn]bool
	work   sync.WaitGroup
	trips  atomic.Int64
	// cut is closed when the connections there are now break, thawed when those that are frozen go on.
	cut, thawed chan struct{}
}

// NewProxy leads to a server until the end of the test. Every answer is delayed.
func NewProxy(tb testing.TB, target string, delay time.Duration) *Proxy {
	tb.Helper()
	p := &Proxy{tb: tb, target: target, delay: delay, conns: map[net.Conn]bool{}, Addr: freeAddress(tb), thawed: make(chan struct{})}
	close(p.thawed)
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

// Freeze lets nothing through any more, and tells neither side: connections stay open, and new ones are accepted.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.thawed = make(chan struct{})
}

// Thaw lets through what has been frozen.
func (p *Proxy) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.thawed)
}

// Cut breaks every connection, and refuses new ones. What was on its way is lost.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listen != nil {
		_ = p.listen.Close()
		p.listen = nil
		close(p.cut)
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
	p.listen, p.cut = listen, make(chan struct{})
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
	cut := p.cut
	if p.listen != listen { // cut meanwhile
		_, _ = client.Close(), server.Close()
	} else {
		p.conns[client], p.conns[server] = true, true
	}
	p.mu.Unlock()
	var asked atomic.Bool
	p.work.Go(func() {
		p.forward(server, client, cut, func() time.Duration {
			if !asked.Swap(true) {
				p.trips.Add(1)
			}
			return 0
		})
	})
	p.forward(client, server, cut, func() time.Duration { asked.Store(false); return p.delay })
}

// Trips is how many round trips there have been: requests that followed an answer, or nothing.
func (p *Proxy) Trips() int { return int(p.trips.Load()) }

// forward what comes, later, until one side closes. What comes in the meantime waits with it.
func (p *Proxy) forward(to, from net.Conn, cut <-chan struct{}, delay func() time.Duration) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buffer := make([]byte, 1<<20)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if !p.wait(cut, delay) {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// wait until something may pass; false when it is lost.
func (p *Proxy) wait(cut <-chan struct{}, delay func() time.Duration) bool {
	p.mu.Lock()
	later, thawed := time.NewTimer(delay()), p.thawed
	p.mu.Unlock()
	defer later.Stop()
	select {
	case <-thawed:
	case <-cut:
		return false
	}
	select {
	case <-later.C:
		return true
	case <-cut:
		return false
	}
}
