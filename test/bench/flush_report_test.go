// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// Names of the ways to flush.
const (
	engine   = "engine"
	glimr    = "glimr_redis"
	redisCLI = "redis-cli | xargs"
	blocking = "KEYS + UNLINK"
	object   = "CacheFlush object"
	flushDB  = "FLUSHDB ASYNC"
)

// targets that ratios should not exceed. They are printed beside what was measured, never enforced.
var targets = []struct {
	metric   string
	of, to   string
	most     float64
	quantity func(w *way, repeat int) time.Duration
}{
	{"ours/glimr", engine, glimr, 0.45, duration},
	{"ours/redis-cli", engine, redisCLI, 0.25, duration},
	{"ours/keys", engine, blocking, 1.6, duration},
	{"ours/keys-longest-wait", engine, blocking, 1.0 / 25, longest},
	{"object/engine", object, engine, 1.15, duration},
}

func duration(w *way, repeat int) time.Duration { return w.took[repeat] }
func p50(w *way, repeat int) time.Duration      { return w.waits[repeat].p50 }
func p99(w *way, repeat int) time.Duration      { return w.waits[repeat].p99 }
func longest(w *way, repeat int) time.Duration  { return w.waits[repeat].longest }

// compare the ways, in tables and in metrics.
func (w *flushBench) compare(all []*way) {
	w.Helper()
	say("\n%d keys, half of them flushed. Medians of %d repeats, in ms; waits: of another client, for each GET\n", w.keys, *repeats)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(format string, args ...any) { _, _ = fmt.Fprintf(table, format+"\t\n", args...) }
	row("\ttime\tleast\tmost\tengine/this\twait p50\tp99\tlongest")
	for _, way := range all {
		row("%s\t%.1f\t%.1f\t%.1f\t%.2f\t%.3f\t%.2f\t%.1f", way.name,
			milliseconds(median(way.all(duration))), milliseconds(slices.Min(way.took)), milliseconds(slices.Max(way.took)),
			median(ratios(all[0], way, duration)),
			milliseconds(median(way.all(p50))), milliseconds(median(way.all(p99))), milliseconds(median(way.all(longest))))
	}
	_ = table.Flush()
	w.report("engine-ms", milliseconds(median(all[0].took)))

	say("\n")
	row("ratio\tmedian\tleast\tmost\ttarget")
	for _, t := range targets {
		of, to := find(all, t.of), find(all, t.to)
		if of == nil || to == nil {
			continue
		}
		got := ratios(of, to, t.quantity)
		row("%s\t%.3f\t%.3f\t%.3f\t%.2f", t.metric, median(got), slices.Min(got), slices.Max(got), t.most)
		w.report(t.metric, median(got))
	}
	_ = table.Flush()
}

// all that was measured of a quantity.
func (w *way) all(quantity func(w *way, repeat int) time.Duration) []time.Duration {
	some := make([]time.Duration, len(w.took))
	for repeat := range some {
		some[repeat] = quantity(w, repeat)
	}
	return some
}

// ratios of two ways, repeat by repeat.
func ratios(of, to *way, quantity func(w *way, repeat int) time.Duration) []float64 {
	some := make([]float64, len(of.took))
	for repeat := range some {
		some[repeat] = float64(quantity(of, repeat)) / float64(quantity(to, repeat))
	}
	return some
}

func find(all []*way, name string) *way {
	if i := slices.IndexFunc(all, func(w *way) bool { return w.name == name }); i >= 0 {
		return all[i]
	}
	return nil
}

func median[T cmp.Ordered](some []T) T { return slices.Sorted(slices.Values(some))[len(some)/2] }

// say something at once: what a benchmark logs is cut off after ten lines.
func say(format string, args ...any) { _, _ = fmt.Fprintf(os.Stdout, format, args...) }
