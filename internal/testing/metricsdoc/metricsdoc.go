// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package metricsdoc reads docs/metrics.md, so that tests can hold the operator to it.
package metricsdoc

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// Family of metrics, as documented.
type Family struct {
	Type, Meaning string
	Labels        []string
}

var (
	row        = regexp.MustCompile("(?m)^\\| `(cachewright_\\w+)` \\| (\\w+) \\| (.*?) \\| (.*?) \\|$")
	expression = regexp.MustCompile("(?m)^\\| [^|`]+(?:`\\w+`[^|`]*)? \\| `(.*?)`[^|]*\\|$")
)

// Families by name.
func Families(tb testing.TB) map[string]Family {
	tb.Helper()
	families := map[string]Family{}
	for _, cells := range row.FindAllStringSubmatch(page(tb), -1) {
		families[cells[1]] = Family{Type: cells[2], Labels: strings.Split(strings.ReplaceAll(cells[3], "`", ""), ", "), Meaning: cells[4]}
	}
	return families
}

// Alerts are the expressions of those proposed.
func Alerts(tb testing.TB) (expressions []string) {
	tb.Helper()
	_, alerts, _ := strings.Cut(page(tb), "## Alerts")
	for _, cells := range expression.FindAllStringSubmatch(alerts, -1) {
		expressions = append(expressions, cells[1])
	}
	return expressions
}

func page(tb testing.TB) string {
	tb.Helper()
	_, here, _, _ := runtime.Caller(0)
	text, err := os.ReadFile(filepath.Join(filepath.Dir(here), "..", "..", "..", "docs", "metrics.md"))
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}
