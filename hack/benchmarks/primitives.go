// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/csv"
	"fmt"
	"os"
	"strconv"
)

// quantities that benchstat compares, and how much more of each the cache may need than go-redis alone.
var quantities = map[string]struct {
	what   string
	target *float64
}{
	"sec/op":    {"time", new(1.1)},
	"trips/op":  {"round trips", nil},
	"allocs/op": {"allocations", nil},
	"B/op":      {"bytes allocated", nil},
}

// readPrimitives reads what benchstat says: for each unit a table, with go-redis on the left and the cache on the right.
func readPrimitives(file string) (report, error) {
	r := report{Name: "primitives"}
	f, err := os.Open(file)
	if err != nil {
		return r, err
	}
	defer func() { _ = f.Close() }()
	lines := csv.NewReader(f)
	lines.FieldsPerRecord = -1
	records, err := lines.ReadAll()
	if err != nil {
		return r, err
	}
	unit, trips := "", 0.
	for _, fields := range records {
		const base, ours, delta, probability = 1, 3, 5, 6
		switch {
		case len(fields) <= probability, fields[0] == "geomean":
		case fields[0] == "":
			unit = fields[base]
		default:
			left, err := strconv.ParseFloat(fields[base], 64)
			if err != nil {
				continue
			}
			right, err := strconv.ParseFloat(fields[ours], 64)
			if err != nil {
				continue
			}
			q, ok := quantities[unit]
			if !ok || left == 0 {
				continue
			}
			if unit == "trips/op" {
				trips = max(trips, right/left)
				continue
			}
			r.Rows = append(r.Rows, row{
				ID: "primitives/" + fields[0] + "-" + unit, What: fmt.Sprintf("%s, %s: cachewright / go-redis", fields[0], q.what),
				Target: q.target, Median: right / left, Times: 1, delta: fmt.Sprintf("%s (%s)", fields[delta], fields[probability]),
			})
		}
	}
	r.Rows = append(r.Rows, row{ID: "primitives/trips", What: "round trips of any primitive, at most: cachewright / go-redis", Target: new(1.), Median: trips, Times: 1})
	return r, nil
}
