// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/term"
	apimeta "k8s.io/apimachinery/pkg/api/meta"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// display of how far a flush is: a bar on a terminal, lines elsewhere.
type display struct {
	out io.Writer
	// columns of the terminal; nil elsewhere.
	columns func() int

	mu sync.Mutex
	// bar that is on the terminal, and line that was said last.
	bar, line string
}

func newDisplay(out io.Writer) *display {
	d := &display{out: out}
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		d.columns = func() int {
			if columns, _, err := term.GetSize(int(file.Fd())); err == nil && columns > 0 {
				return columns
			}
			return 80
		}
	}
	return d
}

// width of the bar.
const width = 30

// show how far the flush is.
func (d *display) show(o *v1alpha1.CacheFlush) {
	if d.columns == nil {
		d.say("cacheflush/" + o.Name + " " + describe(o))
		return
	}
	done := 0
	if o.Status.Progress != nil && !stale(o) {
		done = int(o.Status.Progress.Percent) * width / 100
	}
	bar := []rune("[" + strings.Repeat("#", done) + strings.Repeat("-", width-done) + "] " + describe(o))
	d.mu.Lock()
	defer d.mu.Unlock()
	// Not in the last column, behind which some terminals begin a new line, that no wiping would reach.
	d.bar = string(bar[:min(len(bar), d.columns()-1)])
	d.print(wiping + d.bar)
}

// say a line, once, above the bar.
func (d *display) say(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if line == d.line {
		return
	}
	d.line = line
	if d.columns == nil {
		d.print(line + "\n")
		return
	}
	d.print(wiping + line + "\n" + d.bar)
}

// wiping clears the line of the terminal.
const wiping = "\r\033[K"

// wipe the bar, for whatever is said next.
func (d *display) wipe() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.bar != "" {
		d.bar = ""
		d.print(wiping)
	}
}

func (d *display) print(text string) { _, _ = io.WriteString(d.out, text) }

// describe in words how far a flush is.
func describe(o *v1alpha1.CacheFlush) string {
	ready := apimeta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionReady)
	switch p := o.Status.Progress; {
	case ready == nil, stale(o):
		return "waits for the operator"
	case ready.Reason == v1alpha1.ReasonRunning && (p == nil || *p == v1alpha1.FlushProgress{}): // it may be counting first
		return printable(ready.Message)
	case ready.Reason == v1alpha1.ReasonRunning && o.Spec.Mode == v1alpha1.FlushDryRun:
		return fmt.Sprintf("%d%%, %s counted", p.Percent, keys(p.Matched))
	case ready.Reason == v1alpha1.ReasonRunning:
		return fmt.Sprintf("%d%%, %s deleted", p.Percent, keys(p.Deleted))
	default:
		return ready.Reason + ": " + printable(ready.Message)
	}
}

func keys(n int64) string {
	if n == 1 {
		return "1 key"
	}
	return fmt.Sprintf("%d keys", n)
}

// printable text: keys and errors from elsewhere may hold what moves a cursor.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}
