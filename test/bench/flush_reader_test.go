// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// waits of a client for its answers, in milliseconds.
type waits struct {
	p50, p99, longest float64
	// history is the longest wait in each slice of time, by the milliseconds since the flush began.
	history [][2]float64
}

// slice of the history.
const slice = 2 * time.Millisecond

// wait for one answer.
type wait struct {
	began time.Time
	took  time.Duration
}

// reader is another client of the server, one that reads all the time. It is a process of its own, this binary once
// more, so that all ways to flush have the same neighbor: goroutines of one process would wait for each other.
type reader struct {
	w       *flushBench
	process *exec.Cmd
	stdin   io.Closer
	stdout  *bufio.Reader
}

// readerEnv tells a process to be a reader, and what to read: address, number of keys, and pauses.
const readerEnv = "CACHEWRIGHT_BENCH_READER"

func (w *flushBench) startReader() *reader {
	w.Helper()
	self, err := os.Executable()
	w.must(err)
	process := exec.CommandContext(w.Context(), self)
	process.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d", readerEnv, w.server.Addr, w.keys/2, *pauses))
	process.Stderr = os.Stderr
	stdin, err := process.StdinPipe()
	w.must(err)
	stdout, err := process.StdoutPipe()
	w.must(err)
	w.must(process.Start())
	r := &reader{w: w, process: process, stdin: stdin, stdout: bufio.NewReader(stdout)}
	_, err = r.stdout.ReadString('\n') // it reads
	w.must(err)
	return r
}

// stop reading, and tell how it went since the flush began.
func (r *reader) stop(flushed time.Time) (of waits) {
	r.w.Helper()
	r.w.must(r.stdin.Close())
	_, err := fmt.Fscanln(r.stdout, &of.p50, &of.p99, &of.longest)
	for err == nil {
		var at int64
		var took float64
		if _, err = fmt.Fscanln(r.stdout, &at, &took); err == nil {
			of.history = append(of.history, [2]float64{milliseconds(time.Unix(0, at).Sub(flushed)), took})
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	r.w.must(errors.Join(err, r.process.Wait()))
	return of
}

// read is the main function of a reader: until standard input ends.
func read(what string) error {
	var addr string
	var keys int
	var pauses time.Duration
	if _, err := fmt.Sscan(what, &addr, &keys, &pauses); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		cancel()
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	answers, took := bufio.NewReader(conn), make([]wait, 0, 1<<20)
	for ctx.Err() == nil || len(took) < 2 {
		began := time.Now()
		if err := get(conn, answers, name(foreign, rand.IntN(keys))); err != nil {
			return err
		}
		if took = append(took, wait{began, time.Since(began)}); len(took) == 1 {
			say("reading\n")
		}
		if pauses > 0 {
			pause(ctx, pauses)
		}
	}
	tell(took[1:]) // the first one was for practice
	return conn.Close()
}

// tell p50, p99 and the longest of some waits, and then their history.
func tell(all []wait) {
	took := make([]time.Duration, len(all))
	for i, w := range all {
		took[i] = w.took
	}
	say("%f %f %f\n", milliseconds(quantile(took, 0.5)), milliseconds(quantile(took, 0.99)), milliseconds(slices.Max(took)))
	for len(all) > 0 {
		worst, n := all[0], 0
		for ; n < len(all) && all[n].began.Sub(all[0].began) < slice; n++ {
			if all[n].took > worst.took {
				worst = all[n]
			}
		}
		say("%d %f\n", worst.began.UnixNano(), milliseconds(worst.took))
		all = all[n:]
	}
}

// get a key, there or not. It speaks the protocol itself: a client library would measure its own pool too.
func get(conn io.Writer, answers *bufio.Reader, key string) error {
	if _, err := fmt.Fprintf(conn, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", len(key), key); err != nil {
		return err
	}
	line, err := answers.ReadString('\n')
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
	_, err = answers.Discard(n + len("\r\n"))
	return err
}
