// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package bench_test measures the operator at work, as a process of its own, on a real API server and a real
// redis-server, against what people would use instead and against floors that nobody can beat: see `make bench`.
package bench_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/cachewright/cachewright/internal/testing/controlplane"
)

// patience bounds every wait for something that takes a moment.
const patience = time.Minute

var (
	repeats  = flag.Int("repeats", 3, "how often everything that is compared is measured, in turn")
	calm     = flag.Duration("calm", resyncPeriod+time.Second, "how long an operator rests before its memory is measured; a third of how long it idles")
	output   = flag.String("output", "", "folder that gets what was measured, a JSON file for each benchmark; none when empty")
	profiles = flag.String("profiles", "", "folder that gets the operator's profiles; none when empty. To profile costs time")
)

// scratch is a folder for as long as the benchmarks run.
var scratch string

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	for env, main := range map[string]func(string) error{readerEnv: read, informerEnv: hold} {
		if what := os.Getenv(env); what != "" {
			if err := main(what); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
	}
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	if scratch, err = os.MkdirTemp("", "cachewright-bench-"); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	return m.Run(), nil
}

// build the operator, once.
var build = sync.OnceValues(func() (binary string, err error) {
	root, err := controlplane.Root()
	if err != nil {
		return "", err
	}
	binary = filepath.Join(scratch, "cachewright")
	command := exec.Command("go", "build", "-o", binary, "./cmd")
	command.Dir = root
	if out, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the operator: %w: %s", err, out)
	}
	return binary, nil
})

// parallel does n things, some at a time.
func parallel(n int, do func(i int) error) error {
	var next atomic.Int64
	errs := make([]error, workers)
	var working sync.WaitGroup
	for worker := range workers {
		working.Go(func() {
			for errs[worker] == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				errs[worker] = do(i)
			}
		})
	}
	working.Wait()
	return errors.Join(errs...)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// count with commas, as people read it.
func count(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func median[T cmp.Ordered](some []T) T { return quantile(some, 0.5) }

// quantile of some values; the last one is for 1.
func quantile[T cmp.Ordered](some []T, q float64) T {
	return slices.Sorted(slices.Values(some))[min(len(some)-1, int(q*float64(len(some))))]
}

// say something at once: what a benchmark logs is cut off after ten lines.
func say(format string, args ...any) { _, _ = fmt.Fprintf(os.Stdout, format, args...) }
