// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"context"
	"math"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// after gives a reason to stop when a time has passed.
func after(d time.Duration) func() bool {
	end := time.Now().Add(d)
	return func() bool { return !time.Now().Before(end) }
}

// meter counts the keys that UNLINK names, and complains when they are more than a limit allows for the time since it began.
type meter struct {
	mu    sync.Mutex
	keys  int
	began time.Time
	over  string
}

// measure the deletions of a server from now on: at no time may they be more than limit a second, and a share of it.
func measure(m *miniredis.Miniredis, limit float64) *meter {
	c := &meter{began: time.Now()}
	m.Server().SetPreHook(func(_ *server.Peer, command string, args ...string) bool {
		if command == "UNLINK" {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.keys += len(args)
			if passed := time.Since(c.began); float64(c.keys) > limit*passed.Seconds()+1 {
				c.over = strconv.Itoa(c.keys) + " keys in " + passed.String()
			}
		}
		return false
	})
	return c
}

func (c *meter) wantWithin(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over != "" {
		t.Errorf("deleted %s: more than the limit", c.over)
	}
}

func TestALimitedScanNeverDeletesFasterThanItMay(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		keys  int
		limit int64
		least time.Duration
		most  time.Duration
	}{
		"a share is many keys": {2000, 4000, 450 * time.Millisecond, 2 * time.Second},
		"a share is one key":   {12, 20, 550 * time.Millisecond, 2 * time.Second},
		"more than there are":  {300, 1_000_000, 0, time.Second},
		"the largest number":   {300, math.MaxInt64, 0, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := redistest.Miniredis(t)
			withUsers(t, m.Addr(), tc.keys)
			p := open(t, m.Addr())
			c := measure(m, float64(tc.limit))
			got := must[cache.ScanResult](t)(p.NewScan(users, cache.ScanOptions{MaxKeysPerSecond: tc.limit}).Run(t.Context(), cache.Checkpoint{}, never))
			if took := time.Since(c.began); took < tc.least || took > tc.most {
				t.Errorf("it took %s, want %s to %s", took, tc.least, tc.most)
			}
			c.wantWithin(t)
			if int(got.Deleted) != tc.keys || int(got.Matched) != tc.keys || !got.Checkpoint.Done {
				t.Errorf("%+v", got)
			}
			wantOnlyOutside(t, m.Addr())
		})
	}
}

func TestALimitedScanStoppedHalfWayMissesNothingAndCountsEachKeyOnce(t *testing.T) {
	t.Parallel()
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, _ := start(t)
			const n, limit = 1500, 2000
			withUsers(t, addr, n)
			p, began := open(t, addr), time.Now()
			preserve := func(name string) bool { return strings.HasSuffix(name, "7") }
			var sum cache.ScanResult
			runs := 0
			for percent := int32(0); !sum.Checkpoint.Done; runs++ {
				scan := p.NewScan(users, cache.ScanOptions{MaxKeysPerSecond: limit, Preserve: preserve})
				got := must[cache.ScanResult](t)(scan.Run(t.Context(), sum.Checkpoint, after(100*time.Millisecond)))
				if now := got.Checkpoint.Percent(); now < percent || got.Restarted {
					t.Fatalf("run %d after %d%%: %+v", runs, percent, got)
				}
				percent = got.Checkpoint.Percent()
				sum.Checkpoint, sum.Deleted = got.Checkpoint, sum.Deleted+got.Deleted
				sum.Matched, sum.Preserved = sum.Matched+got.Matched, sum.Preserved+got.Preserved
				if rate := float64(sum.Deleted) / time.Since(began).Seconds(); rate > limit {
					t.Errorf("deleted %d keys in %s", sum.Deleted, time.Since(began))
				}
				if runs > n {
					t.Fatal("the scan does not advance")
				}
			}
			sum.Checkpoint = cache.Checkpoint{}
			if diff := cmp.Diff(cache.ScanResult{Matched: n, Deleted: n - 150, Preserved: 150}, sum); diff != "" || runs < 5 {
				t.Errorf("%d runs in all (-want +got):\n%s", runs, diff)
			}
			if left := len(keys(t, addr)) - len(outside); left != 150 {
				t.Errorf("%d keys are left", left)
			}
		})
	}
}

// A slice of such a flush lasts two seconds, or twice the time that a key takes.
func TestSmallLimitsMakeProgress(t *testing.T) {
	t.Parallel()
	for _, limit := range []int64{1, 3} {
		t.Run(strconv.FormatInt(limit, 10), func(t *testing.T) {
			t.Parallel()
			m := redistest.Miniredis(t)
			withUsers(t, m.Addr(), 20)
			p := open(t, m.Addr())
			c := measure(m, float64(limit))
			got := must[cache.ScanResult](t)(p.NewScan(users, cache.ScanOptions{MaxKeysPerSecond: limit}).Run(t.Context(), cache.Checkpoint{}, after(2*time.Second/time.Duration(limit))))
			c.wantWithin(t)
			if got.Deleted < 1 || got.Deleted > 2 || got.Matched != got.Deleted || got.Checkpoint.Done {
				t.Errorf("%+v", got)
			}
		})
	}
}

// Or else a server whose INFO takes as long as a slice would never see its keys go.
func TestALimitedScanThatIsToldToStopDeletesAShareThatIsDue(t *testing.T) {
	t.Parallel()
	const slow = 60 * time.Millisecond
	m := redistest.Miniredis(t)
	withUsers(t, m.Addr(), 500)
	proxy := redistest.NewProxy(t, m.Addr(), slow)
	p := open(t, proxy.Addr)
	o := cache.ScanOptions{MaxKeysPerSecond: 200}
	atOnce := func() bool { return true }
	got := must[cache.ScanResult](t)(p.NewScan(users, o).Run(t.Context(), cache.Checkpoint{}, atOnce))
	if got.Deleted != 10 || got.Matched != 10 || got.Checkpoint.Done {
		t.Errorf("%+v", got)
	}
	got = must[cache.ScanResult](t)(p.ForgetNamed(t.Context(), []string{"user:1", "user:2", "user:3", "user:4"}, cache.ScanOptions{MaxKeysPerSecond: 30}, atOnce))
	if got.Deleted != 1 || got.Matched != 1 || got.Checkpoint.Done {
		t.Errorf("%+v", got)
	}
}

func TestALimitedForgetNamedStopsAndGoesOn(t *testing.T) {
	t.Parallel()
	m := redistest.Miniredis(t)
	names := fill(t, m.Addr(), prefix, 200)
	p, c := open(t, m.Addr()), measure(m, 400)
	o := cache.ScanOptions{MaxKeysPerSecond: 400, Preserve: func(name string) bool { return strings.HasSuffix(name, "7") }}
	var sum cache.ScanResult
	runs := 0
	for ; !sum.Checkpoint.Done && runs < 100; runs++ {
		got := must[cache.ScanResult](t)(p.ForgetNamed(t.Context(), names, o, after(150*time.Millisecond)))
		sum.Checkpoint, sum.Deleted = got.Checkpoint, sum.Deleted+got.Deleted
		sum.Matched, sum.Preserved = sum.Matched+got.Matched, sum.Preserved+got.Preserved
	}
	c.wantWithin(t)
	want := cache.ScanResult{Matched: 200, Deleted: 180, Preserved: 20, Checkpoint: cache.Checkpoint{Done: true}}
	if diff := cmp.Diff(want, sum, cmpopts.EquateEmpty()); diff != "" || runs < 2 {
		t.Errorf("%d runs in all (-want +got):\n%s", runs, diff)
	}
	if left := len(m.Keys()); left != 20 {
		t.Errorf("%d keys are left", left)
	}
}

func TestOnlyDeletionsAreLimited(t *testing.T) {
	t.Parallel()
	m := redistest.Miniredis(t)
	withUsers(t, m.Addr(), 3000)
	p, o := open(t, m.Addr()), cache.ScanOptions{MaxKeysPerSecond: 1, DryRun: true}
	stop := after(time.Second)
	got := must[cache.ScanResult](t)(p.NewScan(users, o).Run(t.Context(), cache.Checkpoint{}, stop))
	if got.Matched != 3000 || !got.Checkpoint.Done || stop() {
		t.Errorf("a dry run: %+v", got)
	}
	got = must[cache.ScanResult](t)(p.ForgetNamed(t.Context(), []string{"user:1", "user:2", "user:3"}, o, never))
	if got.Matched != 3 || !got.Checkpoint.Done || stop() {
		t.Errorf("a dry run of named keys: %+v", got)
	}
	o = cache.ScanOptions{MaxKeysPerSecond: 1, Preserve: func(string) bool { return true }}
	got = must[cache.ScanResult](t)(p.NewScan(users, o).Run(t.Context(), cache.Checkpoint{}, never))
	if got.Preserved != 3000 || !got.Checkpoint.Done || stop() {
		t.Errorf("keys that all stay: %+v", got)
	}
}

func TestWithoutALimitNamedKeysGoAtOnceWhateverStopSays(t *testing.T) {
	t.Parallel()
	m := redistest.Miniredis(t)
	names := fill(t, m.Addr(), prefix, 1000)
	got := must[cache.ScanResult](t)(open(t, m.Addr()).ForgetNamed(t.Context(), names, cache.ScanOptions{}, func() bool { return true }))
	if got.Deleted != 1000 || got.Matched != 1000 || !got.Checkpoint.Done {
		t.Errorf("%+v", got)
	}
}

func TestALimitedScanEndsWithItsContext(t *testing.T) {
	t.Parallel()
	m := redistest.Miniredis(t)
	withUsers(t, m.Addr(), 20)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	asked := 0
	_, err := open(t, m.Addr()).NewScan(users, cache.ScanOptions{MaxKeysPerSecond: 1}).Run(ctx, cache.Checkpoint{}, func() bool { asked++; return false })
	if err == nil || asked > 100 || len(m.Keys()) != 20+len(outside) {
		t.Errorf("%v; asked %d times; %d keys are left", err, asked, len(m.Keys()))
	}
}

// The server takes 5 ms for every page, whatever its size.
func TestTheLatencyBudgetSetsTheSizeOfThePages(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		budget time.Duration
		want   string
	}{
		"large": {time.Second, "5000"},
		"small": {100 * time.Microsecond, "100"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, pages, last := redistest.Miniredis(t), 0, ""
			m.Server().SetPreHook(func(c *server.Peer, command string, args ...string) bool {
				if command != "SCAN" {
					return false
				}
				timer := time.NewTimer(5 * time.Millisecond)
				<-timer.C
				last, pages = args[len(args)-1], pages+1
				cursor := pages % 20
				c.WriteLen(2)
				c.WriteBulk(strconv.Itoa(cursor))
				c.WriteLen(0)
				return true
			})
			got := must[cache.ScanResult](t)(open(t, m.Addr()).NewScan(users, cache.ScanOptions{LatencyBudget: tc.budget}).Run(t.Context(), cache.Checkpoint{}, never))
			if last != tc.want || pages != 20 || !got.Checkpoint.Done {
				t.Errorf("the last COUNT of %d is %s, want %s", pages, last, tc.want)
			}
		})
	}
}
