// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"fmt"
	"testing"
)

// BenchmarkScaling flushes half of ever more keys: neither the time for each nor the operator's memory should grow.
func BenchmarkScaling(b *testing.B) {
	r := newReport(b, "scaling")
	w := newFlushBench(b)
	times := plotData{
		Name: "scaling-time",
		X:    axis{Label: "keys on the server", Log: true}, Y: axis{Label: "µs for each key on the server", Log: true},
		Series: []line{{Name: "engine", Dots: true}, {Name: object, Dots: true}, {Name: blocking, Dots: true, Dashed: true}},
	}
	memory := plotData{
		Name: "scaling-memory",
		X:    axis{Label: "keys on the server", Log: true}, Y: axis{Label: "most resident memory so far, in MiB"},
		Series: []line{{Name: "after the flush", Dots: true}, {Name: "before", Dots: true, Dashed: true}},
	}
	var each, most [][]float64
	sizes := []int{*keys / 100, *keys / 25, *keys / 10, *keys * 2 / 5, *keys, *keys * 4}
	for _, n := range sizes {
		w.fill(n)
		w.memories = nil
		ways := []*way{
			{name: engine, flush: w.byEngine},
			{name: object, flush: w.byObject, before: w.startFlusher, after: w.stopOperator},
			{name: blocking, flush: w.byKeys},
		}
		for range *repeats {
			for _, way := range ways {
				w.measure(way)
			}
		}
		for i, way := range ways {
			times.Series[i].Points = append(times.Series[i].Points, [2]float64{float64(n), 1000 * median(way.took) / float64(n)})
		}
		var before, after []float64
		for _, m := range w.memories {
			before, after = append(before, m.before), append(after, m.after)
		}
		memory.Series[0].Points = append(memory.Series[0].Points, [2]float64{float64(n), median(after)})
		memory.Series[1].Points = append(memory.Series[1].Points, [2]float64{float64(n), median(before)})
		each, most = append(each, ways[0].took), append(most, after)
		r.add(fmt.Sprintf("keys-%d", n), count(n)+" keys: engine / KEYS + UNLINK", "", nil, ratios(ways[0].took, ways[2].took)...)
	}
	last, tenth, first := len(sizes)-1, 3, 0
	perKey := ratios(each[last], each[tenth])
	for i := range perKey {
		perKey[i] *= float64(sizes[tenth]) / float64(sizes[last])
	}
	r.add("time", fmt.Sprintf("time for each key: with %s keys / with %s", count(sizes[last]), count(sizes[tenth])), "", new(1.25), perKey...)
	r.add("memory", fmt.Sprintf("most memory of the operator: with %s keys / with %s", count(sizes[last]), count(sizes[first])), "", new(1.1), ratios(most[last], most[first])...)
	r.add("memory-mib", "most memory of the operator, with "+count(sizes[last])+" keys", "MiB", nil, most[last]...)
	of, to := times.Series[0].Points[tenth][1], times.Series[0].Points[last][1]
	times.Title = fmt.Sprintf("A key costs %.2g µs among %s, and %.2g µs among %s", of, count(sizes[tenth]), to, count(sizes[last]))
	of, to = memory.Series[0].Points[first][1], memory.Series[0].Points[last][1]
	memory.Title = fmt.Sprintf("The operator needs %.0f MiB with %s keys, and %.0f MiB with %s", of, count(sizes[first]), to, count(sizes[last]))
	r.plot(times)
	r.plot(memory)
	r.end()
}
