// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2/server"
	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/gomega"
	"pgregory.net/rapid"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// outside are names that a scan of <prefix>user: must leave.
var outside = []string{"other", prefix, prefix + "user", prefix + "users:1", strings.ToUpper(prefix) + "user:1"}

var users = cache.Prefixed("user:")

// withUsers fills a server with n keys that match users, and those outside.
func withUsers(t *testing.T, addr string, n int) {
	t.Helper()
	fill(t, addr, prefix+"user:", n)
	for _, name := range outside {
		ok(t, client(t, addr).Set(t.Context(), name, "v", 0).Err())
	}
}

func wantOnlyOutside(t *testing.T, addr string) {
	t.Helper()
	want := slices.Sorted(slices.Values(outside))
	if diff := cmp.Diff(want, keys(t, addr)); diff != "" {
		t.Errorf("keys left (-want +got):\n%s", diff)
	}
}

func TestAScanDeletesWhatMatches(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, _ := start(t)
			withUsers(t, addr, 3000)
			w := newWire()
			got := must[cache.ScanResult](t)(open(t, addr, over(w)).NewScan(users, cache.ScanOptions{}).Run(t.Context(), cache.Checkpoint{}, never))
			if !got.Checkpoint.Done || got.Checkpoint.Percent() != 100 || got.Restarted || got.Deleted != 3000 || got.Matched < 3000 || got.Preserved != 0 || got.Sample != nil {
				t.Errorf("%+v", got)
			}
			wantOnlyOutside(t, addr)
			for _, command := range w.commands(t) {
				if name, _, _ := strings.Cut(command, " "); name != "info" && name != "scan" && name != "unlink" {
					t.Errorf("sent %s", name)
				}
			}
		})
	}
}

func TestAScanStoppedAfterEachPageMissesNothing(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, isReal := start(t)
			const n = 20_000
			withUsers(t, addr, n)
			p := open(t, addr)
			var sum cache.ScanResult
			slices, percent := 0, int32(0)
			for !sum.Checkpoint.Done {
				// Each slice could be another process: nothing but the checkpoint is handed on.
				got := must[cache.ScanResult](t)(p.NewScan(users, cache.ScanOptions{}).Run(t.Context(), sum.Checkpoint, soon()))
				if now := got.Checkpoint.Percent(); got.Restarted || now < percent || now > 100 {
					t.Fatalf("slice %d after %d%%: %+v", slices, percent, got)
				}
				percent = got.Checkpoint.Percent()
				sum.Checkpoint, sum.Deleted, sum.Matched = got.Checkpoint, sum.Deleted+got.Deleted, sum.Matched+got.Matched
				slices++
				if slices > n {
					t.Fatal("the scan does not advance")
				}
			}
			if sum.Deleted != n || sum.Matched < n || isReal && slices < 10 {
				t.Errorf("%+v in %d slices", sum, slices)
			}
			if again := must[cache.ScanResult](t)(p.NewScan(users, cache.ScanOptions{}).Run(t.Context(), sum.Checkpoint, never)); again.Matched > 0 || again.Restarted {
				t.Errorf("a scan that is done did more: %+v", again)
			}
			wantOnlyOutside(t, addr)
		})
	}
}

func TestEachRunOfAScanCountsForItself(t *testing.T) {
	server := redistest.Start(t)
	withUsers(t, server.Addr, 5000)
	scan, sum := open(t, server.Addr).NewScan(users, cache.ScanOptions{}), int64(0)
	for from := (cache.Checkpoint{}); !from.Done && sum <= 5000; {
		got := must[cache.ScanResult](t)(scan.Run(t.Context(), from, soon()))
		from, sum = got.Checkpoint, sum+got.Deleted
	}
	if sum != 5000 {
		t.Errorf("deleted %d in all, want 5000", sum)
	}
}

func TestAScanThatIsToldToStopDoesOnePageAllTheSame(t *testing.T) {
	// Or else a server whose INFO takes a second would never see its keys go.
	server := redistest.Start(t)
	withUsers(t, server.Addr, 5000)
	got := must[cache.ScanResult](t)(open(t, server.Addr).NewScan(users, cache.ScanOptions{}).Run(t.Context(), cache.Checkpoint{}, func() bool { return true }))
	if got.Deleted == 0 || got.Deleted != got.Matched || got.Checkpoint.Done || got.Checkpoint.Nodes[0].Cursor == 0 {
		t.Errorf("%+v", got)
	}
}

func TestACursorMeansNothingInAnotherDatabase(t *testing.T) {
	server := redistest.Start(t)
	withUsers(t, server.Addr, 5000)
	stopped := must[cache.ScanResult](t)(open(t, server.Addr).NewScan(users, cache.ScanOptions{}).Run(t.Context(), cache.Checkpoint{}, func() bool { return true }))

	other := open(t, server.Addr, func(o *cache.Options) { o.Database = 3 })
	writes, _, _ := numbered(100)
	for _, w := range writes {
		ok(t, other.PutForever(t.Context(), "user:"+w.Key, w.Value))
	}
	got := must[cache.ScanResult](t)(other.NewScan(users, cache.ScanOptions{}).Run(t.Context(), stopped.Checkpoint, func() bool { return false }))
	if !got.Restarted || got.Deleted != 100 {
		t.Errorf("%+v", got)
	}
}

// A pool may be deleted and created anew, with another prefix, while its flush is suspended.
func TestACheckpointOfOtherKeysIsTheStart(t *testing.T) {
	server := redistest.Start(t)
	withUsers(t, server.Addr, 5000)
	stopped := must[cache.ScanResult](t)(open(t, server.Addr).NewScan(users, cache.ScanOptions{}).Run(t.Context(), cache.Checkpoint{}, soon()))
	fill(t, server.Addr, "another:user:", 1000)
	another := open(t, server.Addr, func(o *cache.Options) { o.Prefix = "another:" })
	got := must[cache.ScanResult](t)(another.NewScan(users, cache.ScanOptions{}).Run(t.Context(), stopped.Checkpoint, never))
	if !got.Restarted || got.Deleted != 1000 || !got.Checkpoint.Done {
		t.Errorf("%+v", got)
	}
}

// The promise is for what was there at the start: a table that grows or shrinks under the scan hides none of it.
func TestKeysWrittenMeanwhileHideNoOthers(t *testing.T) {
	server := redistest.Start(t)
	const n = 10_000
	fill(t, server.Addr, prefix+"user:", n)
	p, runs := open(t, server.Addr), 0
	var sum cache.ScanResult
	for !sum.Checkpoint.Done {
		got := must[cache.ScanResult](t)(p.NewScan(users, cache.ScanOptions{}).Run(t.Context(), sum.Checkpoint, soon()))
		sum.Checkpoint, sum.Deleted, sum.Matched = got.Checkpoint, sum.Deleted+got.Deleted, sum.Matched+got.Matched
		runs++
		if runs <= 20 { // from 16 thousand buckets to 64 thousand
			fill(t, server.Addr, prefix+"user:new:"+strconv.Itoa(runs)+":", 2000)
		}
	}
	left := slices.DeleteFunc(keys(t, server.Addr), func(name string) bool { return strings.HasPrefix(name, prefix+"user:new:") })
	if len(left) > 0 || runs < 10 || sum.Matched < sum.Deleted || sum.Deleted < n {
		t.Errorf("%d keys are left of those that were there at the start, after %d runs: %+v", len(left), runs, sum)
	}
}

func TestADryRunCountsAndSamplesAndDeletesNothing(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, _ := start(t)
			withUsers(t, addr, 3000)
			before, w := keys(t, addr), newWire()
			got := must[cache.ScanResult](t)(open(t, addr, over(w)).NewScan(users, cache.ScanOptions{DryRun: true}).Run(t.Context(), cache.Checkpoint{}, never))
			if got.Matched < 3000 || got.Deleted != 0 || !got.Checkpoint.Done || len(got.Sample) != 10 {
				t.Errorf("%+v", got)
			}
			for _, name := range got.Sample {
				if !strings.HasPrefix(name, "user:") {
					t.Errorf("sample %q", name)
				}
			}
			if diff := cmp.Diff(before, keys(t, addr)); diff != "" {
				t.Errorf("the keys have changed (-before +after):\n%s", diff)
			}
			if sent := strings.Join(w.commands(t), "\n"); strings.Contains(sent, "unlink") {
				t.Error("sent UNLINK")
			}
		})
	}
}

func TestPreservedKeysStayAndAreCounted(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, _ := start(t)
			withUsers(t, addr, 2000)
			preserve := func(name string) bool { return strings.HasSuffix(name, "7") }
			for _, dry := range []bool{true, false} {
				got := must[cache.ScanResult](t)(open(t, addr).NewScan(users, cache.ScanOptions{DryRun: dry, Preserve: preserve}).Run(t.Context(), cache.Checkpoint{}, never))
				if got.Preserved < 200 || got.Matched < 2000 || !dry && got.Deleted != 1800 {
					t.Errorf("%+v", got)
				}
				if slices.ContainsFunc(got.Sample, preserve) {
					t.Errorf("the sample %q holds what would stay", got.Sample)
				}
			}
			if left := len(keys(t, addr)) - len(outside); left != 200 {
				t.Errorf("%d keys are left", left)
			}
		})
	}
}

func TestACheckpointOfAnotherServerIsTheStart(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, _ := start(t)
			for name, from := range map[string]cache.NodeCheckpoint{
				"half-way": {ServerID: "another", Cursor: 12345},
				"done":     {ServerID: "another", Done: true},
			} {
				t.Run(name, func(t *testing.T) {
					withUsers(t, addr, 3000)
					p := open(t, addr)
					done := must[cache.ScanResult](t)(p.NewScan(users, cache.ScanOptions{DryRun: true}).Run(t.Context(), cache.Checkpoint{}, never)).Checkpoint
					start := cache.Checkpoint{Nodes: slices.Clone(done.Nodes)}
					for i, n := range done.Nodes {
						start.Nodes[i] = from
						start.Nodes[i].Node = n.Node
					}
					got := must[cache.ScanResult](t)(p.NewScan(users, cache.ScanOptions{}).Run(t.Context(), start, never))
					if diff := cmp.Diff(done, got.Checkpoint); diff != "" || !got.Restarted || got.Deleted != 3000 {
						t.Errorf("%+v\n%s", got, diff)
					}
					wantOnlyOutside(t, addr)
				})
			}
		})
	}
}

func TestAServerRestartedBetweenSlicesIsScannedFromTheStart(t *testing.T) {
	server := redistest.Start(t)
	withUsers(t, server.Addr, 5000)
	p := open(t, server.Addr)
	half := must[cache.ScanResult](t)(p.NewScan(users, cache.ScanOptions{}).Run(t.Context(), cache.Checkpoint{}, soon()))
	if half.Checkpoint.Done || half.Deleted == 0 {
		t.Fatalf("%+v", half)
	}
	server.Restart()
	withUsers(t, server.Addr, 5000)
	var got cache.ScanResult
	NewWithT(t).Eventually(func() (err error) {
		got, err = p.NewScan(users, cache.ScanOptions{}).Run(t.Context(), half.Checkpoint, never)
		return err
	}).Should(Succeed())
	if !got.Restarted || got.Deleted != 5000 || !got.Checkpoint.Done {
		t.Errorf("%+v", got)
	}
	wantOnlyOutside(t, server.Addr)
}

// What was sampled before is of keys that may not be there any more.
func TestADryRunThatBeginsAnewSamplesAnew(t *testing.T) {
	server := redistest.Start(t)
	withUsers(t, server.Addr, 3000)
	elsewhere := cache.Checkpoint{Nodes: []cache.NodeCheckpoint{{Node: server.Addr, ServerID: "another", Cursor: 12345}}}
	got := must[cache.ScanResult](t)(open(t, server.Addr).NewScan(users, cache.ScanOptions{DryRun: true, Sample: 10}).Run(t.Context(), elsewhere, never))
	if !got.Restarted || !got.Checkpoint.Done || len(got.Sample) != 10 {
		t.Errorf("%+v", got)
	}
}

func TestAServerRestartedBetweenPagesIsNotTakenForDone(t *testing.T) {
	server := redistest.Start(t)
	withUsers(t, server.Addr, 5000)
	p, asked := open(t, server.Addr), 0
	got, err := p.NewScan(users, cache.ScanOptions{}).Run(t.Context(), cache.Checkpoint{}, func() bool {
		asked++
		if asked == 5 {
			server.Restart()
			withUsers(t, server.Addr, 5000)
		}
		return false
	})
	// The client may notice the restart, or dial again without a word.
	if err == nil && !got.Restarted || got.Checkpoint.Done {
		t.Fatalf("%+v, %v", got, err)
	}
	got = must[cache.ScanResult](t)(p.NewScan(users, cache.ScanOptions{}).Run(t.Context(), got.Checkpoint, never))
	if !got.Checkpoint.Done {
		t.Errorf("%+v", got)
	}
	wantOnlyOutside(t, server.Addr)
}

func TestFlushGoesOnUntilOneServerWasScannedFromStartToEnd(t *testing.T) {
	mini, infos := redistest.Miniredis(t), 0
	ok(t, mini.Set(prefix+"k", "v"))
	mini.Server().SetPreHook(func(c *server.Peer, command string, _ ...string) bool {
		if command != "INFO" {
			return false
		}
		infos++
		id := "before"
		if infos > 1 { // after the first scan: what its mixed cursors have missed is still there
			id = "after"
			if infos == 2 {
				_ = mini.Set(prefix+"missed", "v")
			}
		}
		c.WriteBulk("run_id:" + id + "\r\n")
		return true
	})
	deleted := must[int64](t)(open(t, mini.Addr()).Flush(t.Context()))
	if left := mini.Keys(); deleted != 2 || len(left) > 0 {
		t.Errorf("deleted %d, left %q", deleted, left)
	}
}

func TestAScanThatFailsCountsWhatItDidAndCanGoOn(t *testing.T) {
	t.Run("server gone half-way", func(t *testing.T) {
		server, w := redistest.Start(t), newWire()
		withUsers(t, server.Addr, 20_000)
		p := open(t, server.Addr, over(w))
		_, err := p.Check(t.Context())
		ok(t, err)
		w.cutAfter(5)
		first, err := p.NewScan(users, cache.ScanOptions{}).Run(t.Context(), cache.Checkpoint{}, never)
		wantFailure(t, cache.Unavailable, cache.ReasonConnectionFailed, func() error { return err })
		// A page whose answer was lost is gone, and not counted.
		gone := 20_000 - (len(keys(t, server.Addr)) - len(outside))
		if first.Deleted == 0 || int(first.Deleted) > gone || gone > int(first.Matched) {
			t.Errorf("%+v, %d gone", first, gone)
		}
		down, err := p.NewScan(users, cache.ScanOptions{}).Run(t.Context(), first.Checkpoint, never)
		wantFailure(t, cache.Unavailable, cache.ReasonConnectionFailed, func() error { return err })
		if diff := cmp.Diff(first.Checkpoint, down.Checkpoint); diff != "" {
			t.Errorf("the checkpoint has moved without a server:\n%s", diff)
		}
		w.mend()
		second := must[cache.ScanResult](t)(p.NewScan(users, cache.ScanOptions{}).Run(t.Context(), first.Checkpoint, never))
		if gone+int(second.Deleted) != 20_000 || second.Restarted || !second.Checkpoint.Done {
			t.Errorf("%+v", second)
		}
		wantOnlyOutside(t, server.Addr)
	})
	t.Run("one UNLINK of several refused", func(t *testing.T) {
		mini, unlinks := redistest.Miniredis(t), 0
		withUsers(t, mini.Addr(), 2500)
		mini.Server().SetPreHook(func(c *server.Peer, command string, _ ...string) bool {
			if command == "UNLINK" {
				unlinks++
			}
			if command == "UNLINK" && unlinks == 1 {
				c.WriteError("ERR " + marker)
				return true
			}
			return false
		})
		p := open(t, mini.Addr())
		first, err := p.NewScan(users, cache.ScanOptions{}).Run(t.Context(), cache.Checkpoint{}, never)
		wantFailure(t, cache.Failed, cache.ReasonCommandFailed, func() error { return err })
		if left := len(mini.Keys()) - len(outside); int(first.Deleted)+left != 2500 || first.Matched != first.Deleted || first.Checkpoint.Done {
			t.Errorf("%+v, %d left", first, left)
		}
		second := must[cache.ScanResult](t)(p.NewScan(users, cache.ScanOptions{}).Run(t.Context(), first.Checkpoint, never))
		if first.Matched+second.Matched != 2500 || first.Deleted+second.Deleted != 2500 {
			t.Errorf("%+v, then %+v: a key that has gone counts once", first, second)
		}
	})
	t.Run("the UNLINK of a page, of which keys are withheld", func(t *testing.T) {
		mini := redistest.Miniredis(t)
		withUsers(t, mini.Addr(), 10)
		mini.Server().SetPreHook(func(c *server.Peer, command string, _ ...string) bool {
			if command == "UNLINK" {
				c.WriteError("ERR " + marker)
			}
			return command == "UNLINK"
		})
		o := cache.ScanOptions{Release: func(names []string) []string { return names[:1] }}
		got, err := open(t, mini.Addr()).NewScan(users, o).Run(t.Context(), cache.Checkpoint{}, never)
		wantFailure(t, cache.Failed, cache.ReasonCommandFailed, func() error { return err })
		if got.Matched != 0 || got.Preserved != 0 || got.Deleted != 0 {
			t.Errorf("%+v: the next Run finds them all again", got)
		}
	})
	t.Run("server gone at the end of a slice", func(t *testing.T) {
		mini, gone := redistest.Miniredis(t), false
		withUsers(t, mini.Addr(), 2500)
		mini.Server().SetPreHook(func(c *server.Peer, command string, _ ...string) bool {
			if gone = gone || command == "SCAN"; gone && command == "INFO" {
				c.WriteError("LOADING Redis is loading the dataset in memory")
			}
			return gone && command == "INFO"
		})
		preserve := func(name string) bool { return strings.HasSuffix(name, "7") }
		for _, dry := range []bool{true, false} {
			gone = false
			got, err := open(t, mini.Addr()).NewScan(users, cache.ScanOptions{DryRun: dry, Preserve: preserve}).Run(t.Context(), cache.Checkpoint{}, never)
			wantFailure(t, cache.Unavailable, cache.ReasonLoading, func() error { return err })
			if got.Matched != got.Deleted || got.Preserved != 0 || got.Sample != nil || len(got.Checkpoint.Nodes) > 0 {
				t.Errorf("%+v: the next Run finds the others again", got)
			}
		}
	})
	t.Run("keys that the user may not delete", func(t *testing.T) {
		server := redistest.Start(t)
		withUsers(t, server.Addr, 2000)
		ok(t, server.Client(t).ACLSetUser(t.Context(), "app", "on", ">"+marker, "+@all", "~"+prefix+"admin:*").Err())
		got, err := open(t, server.Addr, as("app", marker)).NewScan(users, cache.ScanOptions{}).Run(t.Context(), cache.Checkpoint{}, never)
		wantFailure(t, cache.Denied, cache.ReasonPermissionDenied, func() error { return err })
		if left := len(keys(t, server.Addr)) - len(outside); left != 2000 || got.Deleted != 0 || got.Checkpoint.Done {
			t.Errorf("%+v, %d left", got, left)
		}
	})
}

// A server without INFO does not say who it is: what was learnt of it is good for this Pool only.
func TestAServerWithoutAnIDIsScannedFromTheStartByTheNextPool(t *testing.T) {
	server := redistest.Start(t)
	withUsers(t, server.Addr, 5000)
	ok(t, server.Client(t).ACLSetUser(t.Context(), "app", "on", "nopass", "+@all", "-info", "~*").Err())
	p := open(t, server.Addr, as("app", marker))
	first := must[cache.ScanResult](t)(p.NewScan(users, cache.ScanOptions{}).Run(t.Context(), cache.Checkpoint{}, soon()))
	second := must[cache.ScanResult](t)(p.NewScan(users, cache.ScanOptions{}).Run(t.Context(), first.Checkpoint, soon()))
	third := must[cache.ScanResult](t)(open(t, server.Addr, as("app", marker)).NewScan(users, cache.ScanOptions{}).Run(t.Context(), second.Checkpoint, never))
	if second.Restarted || !third.Restarted || first.Deleted+second.Deleted+third.Deleted != 5000 {
		t.Errorf("%+v\n%+v\n%+v", first, second, third)
	}
}

func TestMatchingIsAGlobBehindThePrefix(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, _ := start(t)
			for glob, want := range map[string][]string{
				"*":              {"user:1:name", "user:1:mail", "user:2:name", "post:1"},
				"user:*:name":    {"user:1:name", "user:2:name"},
				"user:[2-9]:*":   {"user:2:name"},
				"user:[^2]:*":    {"user:1:name", "user:1:mail"},
				"p???:1":         {"post:1"},
				`user\:1\:nam\e`: {"user:1:name"},
				"user":           nil,
			} {
				t.Run(glob, func(t *testing.T) {
					// The same under another prefix, and under none, is not meant.
					for _, name := range []string{"user:1:name", "user:1:mail", "user:2:name", "post:1"} {
						for _, front := range []string{prefix, "", "x" + prefix} {
							ok(t, client(t, addr).Set(t.Context(), front+name, "v", 0).Err())
						}
					}
					got := must[cache.ScanResult](t)(open(t, addr).NewScan(cache.Matching(glob), cache.ScanOptions{}).Run(t.Context(), cache.Checkpoint{}, never))
					if got.Deleted != int64(len(want)) || len(keys(t, addr)) != 12-len(want) {
						t.Errorf("deleted %d of 12 keys, %d are left", got.Deleted, len(keys(t, addr)))
					}
					for _, name := range want {
						if client(t, addr).Exists(t.Context(), prefix+name).Val() > 0 {
							t.Errorf("%s is still there", name)
						}
					}
				})
			}
		})
	}
}

// On a real server, for its own idea of a glob.
func TestAPrefixIsLiteralWhateverItContains(t *testing.T) {
	server := redistest.Start(t)
	admin := server.Client(t)
	text := func(most int) *rapid.Generator[string] {
		letters := rapid.SampledFrom([]byte("ab*?[]\\^-!{}\x00\xff\r\n "))
		return rapid.Map(rapid.SliceOfN(letters, 1, most), func(b []byte) string { return string(b) })
	}
	rapid.Check(t, func(rt *rapid.T) {
		ctx := t.Context()
		prefix := text(6).Draw(rt, "prefix")
		within := rapid.StringMatching(`[ab*?\[\]\\]{0,3}`).Draw(rt, "within")
		names := rapid.SliceOfN(text(9), 1, 20).Draw(rt, "names")
		names = append(names, prefix, prefix+within, prefix+within+"k", prefix[1:]+within+"k")
		if err := admin.FlushDB(ctx).Err(); err != nil {
			rt.Fatal(err)
		}
		var want []string
		for _, name := range names {
			if err := admin.Set(ctx, name, "v", 0).Err(); err != nil {
				rt.Fatal(err)
			}
			if !strings.HasPrefix(name, prefix+within) {
				want = append(want, name)
			}
		}
		p := cache.Open(cache.Options{Addresses: []string{server.Addr}, Prefix: prefix, Timeout: timeout})
		defer func() { _ = p.Stop() }()
		if _, err := p.NewScan(cache.Prefixed(within), cache.ScanOptions{}).Run(ctx, cache.Checkpoint{}, never); err != nil {
			rt.Fatal(err)
		}
		left := admin.Keys(ctx, "*").Val()
		slices.Sort(want)
		slices.Sort(left)
		if diff := cmp.Diff(slices.Compact(want), left); diff != "" {
			rt.Fatalf("keys left (-want +got):\n%s", diff)
		}
	})
}
