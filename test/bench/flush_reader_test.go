// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// waits of a client for its answers.
type waits struct{ p50, p99, longest time.Duration }

// reader is another client of the server, one that reads all the time. It speaks the protocol itself: a client library
// would measure its own pool too.
type reader struct {
	w      *flushBench
	conn   net.Conn
	answer *bufio.Reader
	cancel context.CancelFunc
	work   sync.WaitGroup
	took   []time.Duration
	err    error
}

func (w *flushBench) startReader() *reader {
	w.Helper()
	conn, err := (&net.Dialer{}).DialContext(w.Context(), "tcp", w.server.Addr)
	w.must(err)
	ctx, cancel := context.WithCancel(w.Context())
	r := &reader{w: w, conn: conn, answer: bufio.NewReader(conn), cancel: cancel, took: make([]time.Duration, 0, 1<<20)}
	r.err = r.get() // the first one is not measured
	r.work.Go(func() {
		for r.err == nil && ctx.Err() == nil {
			began := time.Now()
			r.err = r.get()
			r.took = append(r.took, time.Since(began))
			if *pauses > 0 {
				pause(ctx, *pauses)
			}
		}
	})
	return r
}

// get a random key of those that no flush may touch.
func (r *reader) get() error {
	key := name(foreign, rand.IntN(r.w.keys/2))
	if _, err := fmt.Fprintf(r.conn, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", len(key), key); err != nil {
		return err
	}
	line, err := r.answer.ReadString('\n')
	if err != nil {
		return err
	}
	length, ok := strings.CutPrefix(strings.TrimSpace(line), "$")
	if !ok {
		return errors.New(line)
	}
	n, err := strconv.Atoi(length)
	if err != nil || n < 0 { // not there
		return err
	}
	_, err = r.answer.Discard(n + len("\r\n"))
	return err
}

// stop reading.
func (r *reader) stop() waits {
	r.w.Helper()
	r.cancel()
	r.work.Wait()
	_ = r.conn.Close()
	r.w.must(r.err)
	if len(r.took) == 0 { // the flush was over before it began
		return waits{}
	}
	slices.Sort(r.took)
	n := len(r.took)
	return waits{p50: r.took[n/2], p99: r.took[n*99/100], longest: r.took[n-1]}
}
