// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"fmt"
	"slices"
	"strconv"
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

// compare the ways.
func compare(r *report, ways []*way) {
	for _, row := range []struct {
		id, of, to string
		target     *float64
	}{
		{"glimr", engine, glimr, new(0.45)},
		{"redis-cli", engine, redisCLI, new(0.25)},
		{"keys", engine, blocking, new(1.6)},
		{"object", object, engine, new(1.15)},
	} {
		if of, to := find(ways, row.of), find(ways, row.to); of != nil && to != nil {
			r.add(row.id, "time to flush: "+row.of+" / "+row.to, "", row.target, ratios(of.took, to.took)...)
		}
	}
	ours, theirs := find(ways, engine), find(ways, blocking)
	r.add("wait", "longest wait of another client: engine / KEYS + UNLINK", "", new(1./25), ratios(ours.longest, theirs.longest)...)
	table := grid{Header: []string{"in ms", "time", "least to most", "another client waits: p50", "p99", "longest"}}
	for _, way := range ways {
		text := func(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) }
		table.Lines = append(table.Lines, []string{
			way.name, text(median(way.took)), text(slices.Min(way.took)) + " to " + text(slices.Max(way.took)),
			text(median(way.p50)), text(median(way.p99)), text(median(way.longest)),
		})
	}
	r.tabulate(table)
	r.plot(plotData{
		Name: "flush-waits", Title: fmt.Sprintf("While keys are flushed, another client waits %.3g ms at most; with KEYS + UNLINK %.3g ms",
			median(ours.longest), median(theirs.longest)),
		X: axis{Label: "milliseconds since the flush began"}, Y: axis{Label: "longest wait in each 2 ms, in ms", Log: true},
		Series: []line{{Name: "cachewright", Steps: true, Points: ours.history}, {Name: blocking, Steps: true, Points: theirs.history}},
	})
}

func find(ways []*way, name string) *way {
	if i := slices.IndexFunc(ways, func(w *way) bool { return w.name == name }); i >= 0 {
		return ways[i]
	}
	return nil
}
