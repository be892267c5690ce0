// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/operator"
)

// BenchmarkMemory measures what ever more entries cost an operator that has come to rest, against a process that does
// nothing but hold them in an informer.
func BenchmarkMemory(b *testing.B) {
	r := newReport(b, "memory")
	w := newBench(b)
	w.createPool(w.server.Addr)
	sizes := []int{1, *entries, *entries * 4, *entries * 10}
	resident, anonymous, floor := line{Name: "resident", Dots: true}, line{Name: "not shared with the file", Dots: true}, line{Name: "floor: informer, not shared", Dots: true, Dashed: true}
	stamped := 0
	for _, n := range sizes {
		w.stamp(stamped, n)
		stamped = n
		read := w.reads()
		w.startOperator()
		w.awaitReads(read + n)
		pause(w.Context(), *calm)
		x := float64(n)
		resident.Points = append(resident.Points, [2]float64{x, w.operator.memory("VmRSS")})
		anonymous.Points = append(anonymous.Points, [2]float64{x, w.operator.memory("RssAnon")})
		w.operator.heap(fmt.Sprintf("memory-%d", n))
		w.stopOperator()
		floor.Points = append(floor.Points, [2]float64{x, w.informer()})
	}
	last := len(sizes) - 1
	slope := func(l line, from, to int) float64 {
		return 1024 * (l.Points[to][1] - l.Points[from][1]) / (l.Points[to][0] - l.Points[from][0])
	}
	r.add("resident", count(sizes[1])+" entries of 100 bytes: resident memory", "MiB", new(80.), resident.Points[1][1])
	r.add("anonymous", count(sizes[1])+" entries: memory that is not shared with the program file", "MiB", nil, anonymous.Points[1][1])
	r.add("base", "resident memory with 1 entry", "MiB", nil, resident.Points[0][1])
	r.add("most", count(sizes[last])+" entries: resident memory", "MiB", nil, resident.Points[last][1])
	r.add("each", "memory for each entry", "KiB", nil, slope(resident, 0, last))
	r.add("floor", count(sizes[last])+" entries: memory that is not shared, operator / bare informer", "", nil, anonymous.Points[last][1]/floor.Points[last][1])
	r.add("linear", fmt.Sprintf("memory for each entry, from %s to %s / up to %s", count(sizes[2]), count(sizes[last]), count(sizes[2])), "", nil, slope(resident, 2, last)/slope(resident, 0, 2))
	r.plot(plotData{
		Name: "memory", Title: fmt.Sprintf("At rest, the operator needs %.0f MiB, and %.2g KiB for each entry", resident.Points[0][1], slope(resident, 0, last)),
		X: axis{Label: "entries of 100 bytes"}, Y: axis{Label: "MiB"}, Series: []line{resident, anonymous, floor},
	})
	r.end()
}

// awaitReads until so many keys have been read since the server started.
func (b *bench) awaitReads(n int) {
	b.Helper()
	for deadline := time.Now().Add(patience); b.reads() < n; pause(b.Context(), 5*time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatal("the keys are not verified")
		}
	}
}

// informerEnv tells a process to hold all entries in an informer, and with which kubeconfig.
const informerEnv = "CACHEWRIGHT_BENCH_INFORMER"

// informer is the memory of a process that holds all entries, this binary once more.
func (b *bench) informer() float64 {
	b.Helper()
	self, err := os.Executable()
	b.must(err)
	process := exec.CommandContext(b.Context(), self)
	process.Env = append(os.Environ(), informerEnv+"="+b.kubeconfig)
	process.Stderr = os.Stderr
	stdout, err := process.StdoutPipe()
	b.must(err)
	b.must(process.Start())
	_, err = bufio.NewReader(stdout).ReadString('\n') // it holds them
	b.must(err)
	pause(b.Context(), *calm)
	used := b.memory(process.Process.Pid, "RssAnon")
	_ = process.Process.Kill()
	_ = process.Wait()
	return used
}

// hold is the main function of an informer: until somebody kills it.
func hold(kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	scheme, err := operator.NewScheme()
	if err != nil {
		return err
	}
	c, err := cache.New(config, cache.Options{Scheme: scheme, DefaultTransform: cache.TransformStripManagedFields()})
	if err != nil {
		return err
	}
	ctx := context.Background()
	if _, err := c.GetInformer(ctx, &v1alpha1.CacheEntry{}, cache.BlockUntilSynced(false)); err != nil {
		return err
	}
	go func() {
		if c.WaitForCacheSync(ctx) {
			say("holding\n")
		}
	}()
	return c.Start(ctx)
}
