// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package command_test

import (
	"context"
	"io"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/creack/pty"
	. "github.com/onsi/gomega"
	"github.com/spf13/cobra"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/command"
)

const columns = 40

// screen is what a terminal shows after some output. A line that goes on in the next row is one.
func screen(output string) []string {
	rows, wrapped := [][]rune{nil}, map[int]bool{}
	row, column := 0, 0
	begin := func() {
		row++
		if row == len(rows) {
			rows = append(rows, nil)
		}
	}
	for text := strings.ReplaceAll(output, "\033[K", "\x00"); text != ""; {
		r, size := utf8.DecodeRuneInString(text)
		text = text[size:]
		switch r {
		case '\r':
			column = 0
		case '\n':
			begin()
		case '\x00':
			rows[row] = rows[row][:min(column, len(rows[row]))]
		default:
			if column == columns {
				wrapped[row] = true
				begin()
				column = 0
			}
			rows[row] = append(rows[row][:column], r)
			column++
		}
	}
	var lines []string
	for i, content := range rows {
		if wrapped[i-1] {
			lines[len(lines)-1] += string(content)
		} else {
			lines = append(lines, string(content))
		}
	}
	return lines
}

func TestTheTestsScreen(t *testing.T) {
	t.Parallel()
	NewWithT(t).Expect(screen("one\r\ntw\rT\033[K\r\n"+strings.Repeat("x", columns+1)+"\r\033[K")).
		To(Equal([]string{"one", "T", strings.Repeat("x", columns)}), "the row above is not wiped")
}

// onTerminal runs the whole program on a pseudo-terminal; what it returns waits for the end.
func (b *bench) onTerminal(ctx context.Context, args ...string) func() int {
	b.t.Helper()
	keyboard, tty, err := pty.Open()
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(pty.Setsize(tty, &pty.Winsize{Rows: 24, Cols: columns})).To(Succeed())
	shown, ended := make(chan struct{}), make(chan int, 1)
	go func() {
		defer close(shown)
		_, _ = io.Copy(b, keyboard) // ends with an error when nobody writes any more
	}()
	go func() {
		root := &cobra.Command{Use: "cachewright"}
		root.AddCommand(command.NewFlush("cachewright")) //nolint:contextcheck // Run passes it on
		root.SetArgs(append([]string{"flush"}, b.args(args...)...))
		root.SetOut(tty)
		root.SetErr(tty)
		ended <- command.Run(ctx, root)
	}()
	return func() int {
		b.t.Helper()
		var code int
		b.Eventually(ended).Should(Receive(&code))
		b.Expect(tty.Close()).To(Succeed())
		b.Eventually(shown).Should(BeClosed())
		b.Expect(keyboard.Close()).To(Succeed())
		return code
	}
}

func (b *bench) screen() []string { return screen(b.said()) }

func bar(done int, text string) string {
	return "[" + strings.Repeat("#", done) + strings.Repeat("-", 30-done) + "] " + text
}

func TestTheBarLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		end  func(b *bench, f *v1alpha1.CacheFlush, interrupt func())
		code int
		want func(b *bench) string
	}{
		"complete": {nil, func(b *bench, f *v1alpha1.CacheFlush, _ func()) {
			b.say(f, v1alpha1.ReasonKeysFlushed, progress(100, 7), v1alpha1.ConditionComplete)
		}, 0, func(*bench) string { return "cacheflush/f complete: 7 keys deleted, 2 preserved" }},
		"failed": {nil, func(b *bench, f *v1alpha1.CacheFlush, _ func()) {
			b.say(f, v1alpha1.ReasonDeadlineExceeded, progress(50, 7), v1alpha1.ConditionFailed)
		}, command.ExitFailed, func(*bench) string { return "error: cacheflush/f failed after 7 keys: Because of DeadlineExceeded" }},
		"interrupted": {nil, func(_ *bench, _ *v1alpha1.CacheFlush, interrupt func()) {
			interrupt()
		}, command.ExitFailed, func(b *bench) string { return "error: interrupted; cacheflush/f goes on" + b.hint() }},
		"timed out": {[]string{"--timeout", "5s"}, func(*bench, *v1alpha1.CacheFlush, func()) {
		}, command.ExitTimeout, func(b *bench) string { return "error: timed out; cacheflush/f goes on" + b.hint() }},
		"deleted": {nil, func(b *bench, f *v1alpha1.CacheFlush, _ func()) {
			b.Expect(k8s.Delete(b.t.Context(), f)).To(Succeed())
		}, command.ExitFailed, func(*bench) string { return "error: cacheflush/f was deleted before its end" }},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			wait := b.onTerminal(ctx, append([]string{"--name", "f", "--all", "--wait"}, tc.args...)...)
			f := b.only()
			b.Eventually(b.screen).Should(Equal([]string{"cacheflush/f created", bar(0, "waits ")}))
			b.say(f, v1alpha1.ReasonPoolNotReady, waits("First\n"+strings.Repeat("a long message ", 19)))
			b.Eventually(b.screen).Should(Equal([]string{"cacheflush/f created", bar(0, "PoolNo")}))
			b.say(f, v1alpha1.ReasonRunning, progress(50, 7))
			b.Eventually(b.screen).Should(Equal([]string{"cacheflush/f created", bar(15, "50%, 7")}))
			tc.end(b, f, interrupt)
			b.Expect(wait()).To(Equal(tc.code))
			want := append([]string{"cacheflush/f created"}, strings.Split(tc.want(b), "\n")...)
			b.Expect(b.screen()).To(Equal(append(want, "")))
		})
	}
}

func TestTheBarFitsATerminalOfAnyWidth(t *testing.T) {
	b := newBench(t)
	keyboard, tty, err := pty.Open()
	b.Expect(err).NotTo(HaveOccurred())
	defer func() { _, _ = keyboard.Close(), tty.Close() }()
	go func() { _, _ = io.Copy(b, keyboard) }()
	c := command.NewFlush("cachewright")
	c.SetArgs(b.args("--name", "f", "--all", "--wait"))
	c.SetOut(tty)
	c.SetErr(tty)
	ended := make(chan error, 1)
	ctx := t.Context()
	go func() { ended <- c.ExecuteContext(ctx) }()
	f := b.only()
	message := strings.Repeat("x", 200)
	for i, tc := range []struct {
		columns uint16
		want    string
	}{
		{1, ""},
		{20, strings.Repeat("-", 18)},
		{120, strings.Repeat("-", 30) + "] PoolNotReady: 2" + strings.Repeat("x", 71)},
		{0, strings.Repeat("-", 30) + "] PoolNotReady: 3" + strings.Repeat("x", 31)}, // unknown: 80
	} {
		b.Expect(pty.Setsize(tty, &pty.Winsize{Cols: tc.columns})).To(Succeed())
		b.say(f, v1alpha1.ReasonPoolNotReady, waits(strconv.Itoa(i)+message))
		b.Eventually(b.said).Should(MatchRegexp(`\r\x1b\[K\[?` + tc.want + "$"))
	}
	b.say(f, v1alpha1.ReasonKeysFlushed, nil, v1alpha1.ConditionComplete)
	b.Eventually(ended).Should(Receive(BeNil()))
}
