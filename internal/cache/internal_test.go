// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"
)

func TestBatch(t *testing.T) {
	n := func(n, size int) []int { return slices.Repeat([]int{size}, n) }
	for name, tc := range map[string]struct {
		sizes []int
		want  int
	}{
		"one item":                                    {n(1, 10), 1},
		"fewer than the limits":                       {n(10, 10), 10},
		"as many commands as a batch takes":           {n(maxBatchCommands, 0), maxBatchCommands},
		"one command more":                            {n(maxBatchCommands+1, 0), maxBatchCommands},
		"as many bytes as a batch takes":              {n(4, 25), 4},
		"one byte more":                               {[]int{50, 50, 1}, 2},
		"a first item beyond the limit goes alone":    {[]int{1000, 1, 1}, 1},
		"an item beyond the limit ends the batch":     {[]int{1, 1000, 1}, 1},
		"an only item beyond the limit still goes":    {[]int{1000}, 1},
		"bytes reach their limit before the commands": {n(maxBatchCommands, 10), 10},
	} {
		t.Run(name, func(t *testing.T) {
			if got := batch(tc.sizes, 100, func(size int) int { return size }); got != tc.want {
				t.Errorf("%d items, want %d", got, tc.want)
			}
		})
	}
}

func TestBatchesNeverExceedTheLimitsAndLoseNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		items := rapid.SliceOfN(rapid.IntRange(0, 60), 1, 1200).Draw(t, "sizes")
		for len(items) > 0 {
			n := batch(items, 100, func(size int) int { return size })
			total := 0
			for _, size := range items[:n] {
				total += size
			}
			if n < 1 || n > maxBatchCommands || n > 1 && total > 100 {
				t.Fatalf("a batch of %d items and %d bytes", n, total)
			}
			items = items[n:]
		}
	})
}

func TestAnswersToGETRANGEAndPTTLMakeAnObservation(t *testing.T) {
	wrongType := redis.ErrNoScript // any error of a server can be given; this stands for another
	for name, tc := range map[string]struct {
		value  string
		get    error
		pttl   time.Duration
		ttlErr error
		want   Observation
	}{
		"a value that stays":              {value: "v", pttl: -1, want: Observation{Exists: true, String: true, Value: "v", TTL: Forever}},
		"a value that runs out":           {value: "v", pttl: time.Second, want: Observation{Exists: true, String: true, Value: "v", TTL: time.Second}},
		"a value in its last millisecond": {value: "v", pttl: 0, want: Observation{Exists: true, String: true, Value: "v"}},
		"nothing":                         {pttl: -2},
		"a value that ran out in between": {value: "v", pttl: -2},
		"a value that came in between":    {pttl: time.Second, want: Observation{Exists: true, String: true, TTL: time.Second}},
		"another type":                    {get: ErrWrongType, pttl: time.Second, want: Observation{Exists: true, TTL: time.Second}},
		"another type gone in between":    {get: ErrWrongType, pttl: -2},
		"an error of PTTL":                {value: "v", ttlErr: ErrNotFound, want: Observation{Err: ErrNotFound}},
		"an error of GETRANGE":            {get: wrongType, pttl: -2, want: Observation{Err: wrap("GETRANGE", wrongType)}},
	} {
		t.Run(name, func(t *testing.T) {
			get, pttl := redis.NewStringResult(tc.value, tc.get), redis.NewDurationResult(tc.pttl, tc.ttlErr)
			sameText := cmp.Comparer(func(a, b error) bool { return fmt.Sprint(a) == fmt.Sprint(b) })
			if diff := cmp.Diff(tc.want, observation(get, pttl), sameText); diff != "" {
				t.Errorf("observation (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCOUNTIsNotFooledByANetworkWhoseDelaysVary(t *testing.T) {
	var recent costs
	count := int64(startCount)
	for page := range 40 {
		took := time.Duration(count) * 100 * time.Nanosecond // what the server needs: 5000 buckets in half a millisecond
		if page%4 > 0 {
			took += 20 * time.Millisecond // what the network adds, now and then
		}
		count = adapt(count, recent.best(took, count), defaultBudget)
	}
	if count != maxCount {
		t.Errorf("COUNT %d, want %d", count, maxCount)
	}
	for range 20 {
		count = adapt(count, recent.best(time.Duration(count)*4*time.Microsecond, count), defaultBudget) // a server that has become slow
	}
	if count != 500 {
		t.Errorf("COUNT %d, want 500: 2 ms, at 4 µs a bucket", count)
	}
}

func TestCOUNTAdaptsToTheLatencyBudget(t *testing.T) {
	for name, tc := range map[string]struct {
		count  int64
		took   time.Duration
		budget time.Duration
		want   int64
	}{
		"on budget it stays":                    {1000, defaultBudget, defaultBudget, 1000},
		"a bit slow: a bit less":                {1000, defaultBudget * 5 / 4, defaultBudget, 800},
		"a bit fast: a bit more":                {1000, defaultBudget * 4 / 5, defaultBudget, 1250},
		"much too slow: at most halved":         {1000, time.Second, defaultBudget, 500},
		"much too fast: at most doubled":        {1000, time.Microsecond, defaultBudget, 2000},
		"no time at all, or less: doubled":      {1000, 0, defaultBudget, 2000},
		"a round trip quicker than INFO's":      {1000, -time.Millisecond, defaultBudget, 2000},
		"never below the minimum":               {minCount, time.Second, defaultBudget, minCount},
		"never above the maximum":               {maxCount, 0, defaultBudget, maxCount},
		"a larger budget: more":                 {1000, 2 * time.Millisecond, 3 * time.Millisecond, 1500},
		"a smaller budget: less":                {1000, 2 * time.Millisecond, 1500 * time.Microsecond, 750},
		"the largest budget: at most doubled":   {1000, 2 * time.Millisecond, time.Second, 2000},
		"the smallest budget: at most halved":   {1000, 2 * time.Millisecond, 100 * time.Microsecond, 500},
		"the first step up is within the range": {startCount, 0, defaultBudget, 2 * startCount},
	} {
		t.Run(name, func(t *testing.T) {
			if got := adapt(tc.count, tc.took, tc.budget); got != tc.want {
				t.Errorf("COUNT %d, want %d", got, tc.want)
			}
		})
	}
}

func TestPercentReadsTheCursorFromTheHighBits(t *testing.T) {
	for name, tc := range map[string]struct {
		checkpoint Checkpoint
		want       int32
	}{
		"start":              {Checkpoint{}, 0},
		"half of any table":  {Checkpoint{Nodes: []NodeCheckpoint{{Cursor: 1}}}, 50},
		"a quarter":          {Checkpoint{Nodes: []NodeCheckpoint{{Cursor: 2}}}, 25},
		"three quarters":     {Checkpoint{Nodes: []NodeCheckpoint{{Cursor: 3}}}, 75},
		"last of 16 buckets": {Checkpoint{Nodes: []NodeCheckpoint{{Cursor: 15}}}, 93},
		"as far as it goes":  {Checkpoint{Nodes: []NodeCheckpoint{{Cursor: 1<<64 - 1}}}, 99},
		"done":               {Checkpoint{Done: true}, 100},
		"a second time":      {Checkpoint{Nodes: []NodeCheckpoint{{ServerID: "id" + again}, {ServerID: "id" + again, Cursor: 1}}}, 99},
		"nodes":              {Checkpoint{Nodes: []NodeCheckpoint{{Done: true}, {Cursor: 1}, {}}}, 50},
		"all, but not over":  {Checkpoint{Nodes: []NodeCheckpoint{{Done: true}, {Done: true}}}, 100},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.checkpoint.Percent(); got != tc.want {
				t.Errorf("%d%%, want %d%%", got, tc.want)
			}
		})
	}
}

func TestEscape(t *testing.T) {
	for literal, want := range map[string]string{
		"":              "",
		"glimr:cache:":  "glimr:cache:",
		`a*b?c[d]e\`:    `a\*b\?c\[d]e\\`,
		"{tag}^-!":      "{tag}^-!",
		"\x00\xff\r\nü": "\x00\xff\r\nü",
	} {
		if got := escape(literal); got != want {
			t.Errorf("escape(%q) is %q, want %q", literal, got, want)
		}
	}
}

func TestAConnectionsFailureIsDescribedWithoutAddresses(t *testing.T) {
	dial := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{Port: 6379}, Err: err}
	}
	for want, errs := range map[string][]error{
		"Connection refused":                   {dial(syscall.ECONNREFUSED)},
		"No route to the server":               {dial(syscall.EHOSTUNREACH), dial(syscall.ENETUNREACH)},
		"The server's name cannot be resolved": {dial(&net.DNSError{Name: "redis"}), dial(&net.DNSError{Name: "redis", IsTimeout: true})},
		"Connection timed out":                 {context.DeadlineExceeded, dial(syscall.ETIMEDOUT), dial(context.DeadlineExceeded)},
		"Interrupted":                          {context.Canceled},
		"All connections are in use":           {redis.ErrPoolTimeout, redis.ErrPoolExhausted},
		"Connection closed":                    {io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed, redis.ErrClosed},
		"Connection failed":                    {errors.New("redis at 10.0.0.1:6379 speaks HTTP")},
	} {
		for _, err := range errs {
			wrapped, _ := errors.AsType[*Error](wrap("GET", fmt.Errorf("again: %w", err)))
			if wrapped.Message != want || wrapped.Class != Unavailable || wrapped.Reason != ReasonConnectionFailed || !errors.Is(wrapped, err) {
				t.Errorf("%v: %+v, want %q", err, wrapped, want)
			}
		}
	}
	if err := wrap("GET", nil); err != nil {
		t.Errorf("no error becomes %v", err)
	}
}

// The examples of https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags, and what a
// server says of them with CLUSTER KEYSLOT.
func TestHashSlots(t *testing.T) {
	for name, tc := range map[string]struct {
		tag  string
		slot uint16
	}{
		"123456789":            {"123456789", 12739},
		"foo":                  {"foo", 12182},
		"{user1000}.following": {"user1000", 3443},
		"{user1000}.followers": {"user1000", 3443},
		"foo{}{bar}":           {"foo{}{bar}", 8363},
		"foo{{bar}}zap":        {"{bar", 4015},
		"foo{bar}{zap}":        {"bar", 5061},
		"foo{bar":              {"foo{bar", 15278},
		"foo}{bar":             {"foo}{bar", 7624},
		"foo}bar":              {"foo}bar", 7223},
		"":                     {"", 0},
		"{}":                   {"{}", 15257},
		"\xff\x00":             {"\xff\x00", 1023},
	} {
		if tag, slot := hashTag(name), hashSlot(name); tag != tc.tag || slot != tc.slot {
			t.Errorf("%q has the tag %q and slot %d, want %q and %d", name, tag, slot, tc.tag, tc.slot)
		}
	}
}

func TestMarkers(t *testing.T) {
	for name, want := range map[string]string{
		"a:b":    "cachewright:counter:{a:b}:id",
		"a:{b}c": "cachewright:counter:{b}:id",
		"a{b":    "cachewright:counter:{a{b}:id",
		"a}b":    "cachewright:counter:{20658}:id", // another tag of the slot
	} {
		if got := marker(name, "id"); got != want {
			t.Errorf("the marker of %q is %q, want %q", name, got, want)
		}
	}
}

func TestMarkersShareTheSlotOfTheirCounter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringOfN(rapid.RuneFrom([]rune("{}ab:ü\x00")), 1, 8, -1).Draw(t, "name")
		if got := marker(name, "id"); hashSlot(got) != hashSlot(name) || !strings.HasPrefix(got, "cachewright:counter:{") || !strings.HasSuffix(got, "}:id") {
			t.Errorf("the marker of %q is %q", name, got)
		}
	})
}

// A scan that counts may have needed a second pass; the one that deletes is a first one.
func TestTheStartOfAScanIsOfAFirstPass(t *testing.T) {
	counted := Checkpoint{Done: true, Nodes: []NodeCheckpoint{{Node: "a", ServerID: "1/0/x" + again, Cursor: 5, Done: true}, {Node: "b", ServerID: "2/0/y"}}}
	want := Checkpoint{Nodes: []NodeCheckpoint{{Node: "a", ServerID: "1/0/x"}, {Node: "b", ServerID: "2/0/y"}}}
	if diff := cmp.Diff(want, counted.Start()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
