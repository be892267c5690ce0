// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Command benchmarks makes a page, with plots, of what `make bench` has measured. It is a module of its own, so that the
// operator does not depend on what draws.
package main

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/template"
)

//go:embed page.md.tmpl
var page string

// report is what a benchmark found.
type report struct {
	Name    string         `json:"name"`
	Machine map[string]any `json:"machine"`
	Rows    []row          `json:"rows"`
	Tables  []grid         `json:"tables"`
	Plots   []plotData     `json:"plots"`
}

// grid is a table of what has no target.
type grid struct {
	Header []string   `json:"header"`
	Lines  [][]string `json:"lines"`
}

// row of a table: the median of what was measured, and how far it was spread.
type row struct {
	ID     string   `json:"id"`
	What   string   `json:"what"`
	Unit   string   `json:"unit"`
	Target *float64 `json:"target"`
	Median float64  `json:"median"`
	Least  float64  `json:"least"`
	Most   float64  `json:"most"`
	Times  int      `json:"times"`
	// delta is what benchstat says of the difference.
	delta string
}

// Missed says whether it is more than it should be, and benchstat, if it compared them, sees a difference at all.
func (r row) Missed() bool {
	return r.Target != nil && r.Median > *r.Target && !strings.HasPrefix(r.delta, "~")
}

// Name of what was measured, in a cell of a table.
func (r row) Name() string { return escape([]string{r.What})[0] }

// escape cells of a table.
func escape(cells []string) (escaped []string) {
	for _, c := range cells {
		escaped = append(escaped, strings.ReplaceAll(c, "|", `\|`))
	}
	return escaped
}

// Figure is the median.
func (r row) Figure() string { return strings.TrimSpace(number(r.Median) + " " + r.Unit) }

// Spread of what was measured more than once.
func (r row) Spread() string {
	if r.Times < 2 {
		return r.delta
	}
	return number(r.Least) + " to " + number(r.Most)
}

// Goal is the target.
func (r row) Goal() string {
	if r.Target == nil {
		return ""
	}
	return strings.TrimSpace("≤ " + number(*r.Target) + " " + r.Unit)
}

// number with three digits that count.
func number(f float64) string {
	digits := 0
	for size := max(f, -f); size < 100 && digits < 3; size *= 10 {
		digits++
	}
	text := strconv.FormatFloat(f, 'f', digits, 64)
	if digits > 0 {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}

func main() {
	results := flag.String("results", "", "folder with a JSON file for each benchmark, and what benchstat says in primitives.csv and primitives.txt")
	out := flag.String("out", "", "page to write; its plots go to a folder of its name")
	png := flag.Bool("png", false, "draw PNG files too")
	flag.Parse()
	if err := write(*results, *out, *png); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(results, out string, png bool) error {
	reports, err := read(results)
	if err != nil {
		return err
	}
	folder := strings.TrimSuffix(out, ".md")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for _, r := range reports {
		for _, p := range r.Plots {
			if err := draw(p, filepath.Join(folder, p.Name), png); err != nil {
				return fmt.Errorf("%s: %w", p.Name, err)
			}
		}
	}
	text, err := render(reports, filepath.Base(folder), results)
	if err != nil {
		return err
	}
	return os.WriteFile(out, []byte(text), 0o644)
}

func read(folder string) ([]report, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no results in %s", folder)
	}
	var reports []report
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var r report
		if err := json.Unmarshal(text, &r); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		reports = append(reports, r)
	}
	primitives, err := readPrimitives(filepath.Join(folder, "primitives.csv"))
	if err == nil {
		reports = append(reports, primitives)
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	order := []string{"flush", "scaling", "warmup", "entries", "losses", "memory", "primitives"}
	slices.SortFunc(reports, func(a, b report) int {
		return cmp.Compare(slices.Index(order, a.Name), slices.Index(order, b.Name))
	})
	return reports, nil
}

// render the page. Benchmarks that did not run leave their places empty.
func render(reports []report, folder, results string) (string, error) {
	var all, missed []row
	named := map[string]report{}
	for _, r := range reports {
		named[r.Name] = r
		for _, w := range r.Rows {
			if w.Target != nil {
				all = append(all, w)
			}
			if w.Missed() {
				missed = append(missed, w)
			}
		}
	}
	t := template.New("page")
	t.Funcs(template.FuncMap{
		"rows": func(name string) []row {
			return slices.DeleteFunc(slices.Clone(named[name].Rows), func(w row) bool { return w.Target != nil })
		},
		"tables": func(name string) []grid { return named[name].Tables },
		"cells":  func(cells []string) string { return "| " + strings.Join(escape(cells), " | ") + " |" },
		"plots":  func(name string) []plotData { return named[name].Plots },
		"file": func(name string) (string, error) {
			text, err := os.ReadFile(filepath.Join(results, name))
			if errors.Is(err, os.ErrNotExist) {
				return "", nil
			}
			return string(text), err
		},
		"why": func(id string) (string, error) {
			if t.Lookup(id) == nil {
				return "Nobody has looked into it yet.", nil
			}
			var text strings.Builder
			err := t.ExecuteTemplate(&text, id, nil)
			return strings.TrimSpace(text.String()), err
		},
	})
	if _, err := t.Parse(page); err != nil {
		return "", err
	}
	var text strings.Builder
	err := t.Execute(&text, map[string]any{"Machine": reports[0].Machine, "Targets": all, "Missed": missed, "Folder": folder})
	return text.String(), err
}
