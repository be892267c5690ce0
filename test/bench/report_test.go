// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
)

// report is what a benchmark found. hack/benchmarks makes a page of it.
type report struct {
	b *testing.B

	Name    string     `json:"name"`
	Machine machine    `json:"machine"`
	Rows    []row      `json:"rows"`
	Tables  []grid     `json:"tables"`
	Plots   []plotData `json:"plots"`
}

// grid is a table of what has no target.
type grid struct {
	Header []string   `json:"header"`
	Lines  [][]string `json:"lines"`
}

// row of the table: what was measured, once for each repeat.
type row struct {
	// ID names the row: explanations refer to it.
	ID string `json:"id"`
	// What is compared with what.
	What string `json:"what"`
	// Unit of the figures; empty: they are ratios.
	Unit string `json:"unit,omitempty"`
	// Target is the most that the median should be; nil: the row is there to be read along.
	Target *float64 `json:"target,omitempty"`
	Median float64  `json:"median"`
	Least  float64  `json:"least"`
	Most   float64  `json:"most"`
	// Times is how often it was measured.
	Times int `json:"times"`
}

// plotData are lines to be drawn.
type plotData struct {
	Name   string `json:"name"`
	Title  string `json:"title"`
	X      axis   `json:"x"`
	Y      axis   `json:"y"`
	Series []line `json:"series"`
}

type axis struct {
	Label string `json:"label"`
	Log   bool   `json:"log,omitempty"`
}

type line struct {
	Name string `json:"name"`
	// Dots marks each point, for lines of a few; Dashed lines are floors and limits.
	Dots   bool `json:"dots,omitempty"`
	Dashed bool `json:"dashed,omitempty"`
	// Steps : a value holds until the next one.
	Steps  bool         `json:"steps,omitempty"`
	Points [][2]float64 `json:"points"`
}

func newReport(b *testing.B, name string) *report {
	b.Helper()
	m, err := thisMachine()
	if err != nil {
		b.Fatal(err)
	}
	return &report{b: b, Name: name, Machine: m}
}

// add a row for what has been measured, which should not be more than the target, if there is one.
func (r *report) add(id, what, unit string, target *float64, measured ...float64) {
	r.Rows = append(r.Rows, row{
		ID: r.Name + "/" + id, What: what, Unit: unit, Target: target,
		Median: median(measured), Least: slices.Min(measured), Most: slices.Max(measured), Times: len(measured),
	})
}

// plot lines, each of which has a name.
func (r *report) plot(p plotData) { r.Plots = append(r.Plots, p) }

// tabulate what has no target.
func (r *report) tabulate(g grid) { r.Tables = append(r.Tables, g) }

// end prints the rows, and keeps them, if that is wanted.
func (r *report) end() {
	r.b.Helper()
	say("\n")
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(table, "%s\ttarget\tmedian\tleast\tmost\t\n", r.Name)
	for _, w := range r.Rows {
		target, verdict := "", ""
		if w.Target != nil {
			target, verdict = fmt.Sprintf("%.4g", *w.Target), "missed"
			if w.Median <= *w.Target {
				verdict = "met"
			}
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%.4g %s\t%.4g\t%.4g\t%s\n", w.What, target, w.Median, w.Unit, w.Least, w.Most, verdict)
	}
	_ = table.Flush()
	for _, g := range r.Tables {
		say("\n")
		for _, cells := range append([][]string{g.Header}, g.Lines...) {
			_, _ = fmt.Fprintln(table, strings.Join(cells, "\t"))
		}
		_ = table.Flush()
	}
	say("\n")
	if *output == "" {
		return
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err == nil {
		err = os.WriteFile(filepath.Join(*output, r.Name+".json"), text, 0o600)
	}
	if err != nil {
		r.b.Fatal(err)
	}
}

// ratios of what was measured in the same repeats: machines have moods.
func ratios(of, to []float64) []float64 {
	some := make([]float64, len(of))
	for i := range some {
		some[i] = of[i] / to[i]
	}
	return some
}
