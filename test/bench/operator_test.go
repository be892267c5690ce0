// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// operatorProcess is the operator as a process.
type operatorProcess struct {
	*exec.Cmd

	bench   *bench
	started time.Time
	// log is the name of a file.
	log string
	// profiler is where it serves profiles, if it does.
	profiler string
}

func (b *bench) startOperator(args ...string) {
	b.Helper()
	binary, err := build()
	b.must(err)
	o := &operatorProcess{bench: b, Cmd: exec.Command(binary, "manager", "--kubeconfig", b.kubeconfig, "--health-probe-bind-address", "0", "--zap-log-level", "error")}
	o.Args = append(o.Args, args...)
	log := b.log()
	o.Stderr, o.log = log, log.Name()
	if *profiles != "" {
		o.profiler = b.freeAddress()
		o.Args = append(o.Args, "--pprof-bind-address", o.profiler)
	}
	o.started = time.Now()
	b.must(o.Start())
	b.Cleanup(func() {
		_, _ = o.Process.Kill(), log.Close()
		if text, _ := os.ReadFile(log.Name()); b.Failed() {
			b.Logf("the operator said: %s", text)
		}
	})
	b.operator = o
}

// log of an operator. When it is stopped, it says of everything under way that it was interrupted.
func (b *bench) log() *os.File {
	b.Helper()
	file, err := os.CreateTemp(b.TempDir(), "log-")
	b.must(err)
	return file
}

func (b *bench) stopOperator() {
	b.Helper()
	b.must(b.operator.Process.Signal(syscall.SIGTERM))
	b.must(b.operator.Wait())
}

// synced waits until an operator that logs has entries in its cache, and gives the time.
func (o *operatorProcess) synced() time.Time {
	o.bench.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); pause(o.bench.Context(), time.Millisecond) {
		text, err := os.ReadFile(o.log)
		o.bench.must(err)
		for line := range bytes.Lines(text) {
			if bytes.Contains(line, []byte(`"Starting workers"`)) && bytes.Contains(line, []byte(`"cacheentry"`)) {
				return time.Now()
			}
		}
	}
	o.bench.Fatal("the operator does not start")
	return time.Time{}
}

// cpu seconds that the operator has used.
func (o *operatorProcess) cpu() float64 {
	o.bench.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", o.Process.Pid))
	o.bench.must(err)
	const ticks = 100 // a second, on Linux
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, err := strconv.Atoi(fields[11])
	o.bench.must(err)
	system, err := strconv.Atoi(fields[12])
	o.bench.must(err)
	return float64(user+system) / ticks
}

// memory of the operator in MiB.
func (o *operatorProcess) memory(field string) float64 {
	o.bench.Helper()
	return o.bench.memory(o.Process.Pid, field)
}

// memory of a process in MiB: VmRSS is what is resident now, VmHWM the most that ever was; RssAnon is without what is
// mapped from files.
func (b *bench) memory(pid int, field string) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	b.must(err)
	_, rest, _ := strings.Cut(string(text), field+":")
	var kib float64
	_, err = fmt.Sscan(rest, &kib)
	b.must(err)
	return kib / 1024
}

// profile what the operator does in the next seconds, if that is wanted: its use of the CPU, and what it allocates. The
// returned function waits for the end.
func (o *operatorProcess) profile(name string, seconds int) (wait func()) {
	o.bench.Helper()
	var working sync.WaitGroup
	for kind, path := range map[string]string{"cpu": "profile", "allocs": "allocs"} {
		working.Go(func() { o.save(name+"-"+kind, fmt.Sprintf("%s?seconds=%d", path, seconds)) })
	}
	return working.Wait
}

// heap of the operator as it is now, right after a collection.
func (o *operatorProcess) heap(name string) { o.save(name+"-heap", "heap?gc=1") }

// save a profile, if that is wanted.
func (o *operatorProcess) save(name, path string) {
	if *profiles == "" {
		return
	}
	url := "http://" + o.profiler + "/debug/pprof/" + path
	response, err := http.Get(url)
	for deadline := time.Now().Add(patience); err != nil && time.Now().Before(deadline); response, err = http.Get(url) {
		pause(o.bench.Context(), 5*time.Millisecond) // it is still starting
	}
	if err != nil {
		o.bench.Error(err)
		return
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err == nil {
		err = os.WriteFile(filepath.Join(*profiles, name+".pprof"), content, 0o600)
	}
	if err != nil {
		o.bench.Error(err)
	}
}

func (b *bench) freeAddress() string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	b.must(err)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
