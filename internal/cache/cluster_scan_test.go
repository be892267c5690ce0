// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// tagged is where many keys of one slot lie, among the users.
const tagged = "user:{slot}"

// inTurn are the masters of a cluster in the order in which they are scanned.
func inTurn(c *redistest.Cluster) []*redistest.Server {
	return slices.SortedFunc(slices.Values(c.Masters), func(a, b *redistest.Server) int { return strings.Compare(a.Addr, b.Addr) })
}

// wantOnlyOutsideOf all running masters of a cluster, wherever it thinks that keys should be.
func wantOnlyOutsideOf(t *testing.T, c *redistest.Cluster) {
	t.Helper()
	var names []string
	for _, s := range slices.Concat(c.Masters, c.Replicas) {
		if client := s.Client(t); strings.Contains(client.Info(t.Context(), "replication").Val(), "role:master") {
			names = append(names, client.Keys(t.Context(), "*").Val()...)
		}
	}
	left := slices.DeleteFunc(names, func(name string) bool { return slices.Contains(outside, name) })
	if len(left) > 0 {
		t.Errorf("%d keys are left, such as %q", len(left), left[:min(3, len(left))])
	}
}

// inSlices runs a scan to its end, in slices that each know the checkpoint only, and calls do between two of them once the
// first node is done, or at once if it has none. What passes by itself is waited for.
func inSlices(t *testing.T, p *cache.Pool, target cache.Target, o cache.ScanOptions, do func()) (sum cache.ScanResult) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !sum.Checkpoint.Done; {
		got, err := p.NewScan(target, o).Run(t.Context(), sum.Checkpoint, soon())
		sum.Checkpoint, sum.Restarted = got.Checkpoint, sum.Restarted || got.Restarted
		sum.Matched, sum.Deleted, sum.Preserved = sum.Matched+got.Matched, sum.Deleted+got.Deleted, sum.Preserved+got.Preserved
		switch {
		case time.Now().After(end):
			t.Fatalf("the scan does not end: %+v, %v", got, err)
		case err != nil && !cache.ServerWide(err):
			t.Fatal(err)
		case err != nil:
			<-tick.C
		case do != nil && got.Checkpoint.Nodes[0].Done && !got.Checkpoint.Done:
			do()
			do = nil
		}
	}
	if do != nil {
		t.Fatal("it was never in the middle")
	}
	return sum
}

func TestASlotThatMovesUnderAFlush(t *testing.T) {
	t.Parallel()
	type migration func(t *testing.T, c *redistest.Cluster, slot int, from, to *redistest.Server)
	move := func(t *testing.T, c *redistest.Cluster, slot int, from, to *redistest.Server) {
		t.Helper()
		c.Move(slot, from, to)
	}
	halfWay := func(t *testing.T, c *redistest.Cluster, slot int, from, to *redistest.Server) {
		t.Helper()
		if n := c.Migrate(slot, from, to).Carry(100); n != 100 {
			t.Fatalf("%d keys carried", n)
		}
	}
	for name, tc := range map[string]struct {
		// from and to are the places of the two masters in the order of the scan; -1 is a master that has just joined.
		from, to       int
		before, during migration
	}{
		"to a master that was scanned already":                 {2, 0, nil, move},
		"to a master that was not scanned yet":                 {1, 2, nil, move},
		"half-way, to a master that was scanned already":       {2, 0, nil, halfWay},
		"half-way, to a master that was not scanned yet":       {1, 2, nil, halfWay},
		"half-way all the time, to a master that comes sooner": {1, 0, halfWay, nil},
		"half-way all the time, to a master that comes later":  {1, 2, halfWay, nil},
		"to a master that had no slots":                        {2, -1, nil, move},
		"half-way, to a master that has no slots":              {2, -1, nil, halfWay},
		"half-way all the time, to a master that has no slots": {0, -1, halfWay, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := redistest.StartCluster(t, 3, false)
			masters := inTurn(c)
			from := masters[tc.from]
			slot := c.SlotOf("{slot}")
			for _, s := range masters {
				if owns(t, s, "{slot}") && s != from {
					c.Move(slot, s, from)
				}
			}
			var to *redistest.Server
			if tc.to < 0 {
				to = c.Join()
			} else {
				to = masters[tc.to]
			}
			withUsers(t, c.Address(), 3000)
			fill(t, c.Address(), prefix+tagged, 10_000)
			p := open(t, c.Address())
			ok(t, check(t, p)())
			if tc.before != nil {
				tc.before(t, c, slot, from, to)
			}
			var during func()
			if tc.during != nil {
				during = func() { tc.during(t, c, slot, from, to) }
			}
			got := inSlices(t, p, users, cache.ScanOptions{}, during)
			wantOnlyOutsideOf(t, c)
			if got.Deleted != 13_000 || got.Matched < 13_000 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// owns says whether a master has the slot of a key.
func owns(t *testing.T, s *redistest.Server, key string) bool {
	t.Helper()
	_, moved := redis.IsMovedError(s.Client(t).Get(t.Context(), key).Err())
	return !moved
}

func TestAMasterThatIsReplacedUnderAFlush(t *testing.T) {
	t.Parallel()
	for name, replace := range map[string]func(*redistest.Cluster, int){"lost": (*redistest.Cluster).Lose, "in good order": (*redistest.Cluster).FailOver} {
		for _, place := range []string{"that was scanned already", "that was not scanned yet"} {
			t.Run(name+", one "+place, func(t *testing.T) {
				t.Parallel()
				c := redistest.StartCluster(t, 3, true)
				master := inTurn(c)[2]
				if place == "that was scanned already" {
					master = inTurn(c)[0]
				}
				withUsers(t, c.Address(), 20_000)
				p := open(t, c.Address(), within(time.Second))
				got := inSlices(t, p, users, cache.ScanOptions{}, func() { replace(c, slices.Index(c.Masters, master)) })
				wantOnlyOutsideOf(t, c)
				if !got.Restarted || got.Deleted < 15_000 {
					t.Errorf("%+v", got)
				}
			})
		}
	}
}

func TestAFailoverUnderAFlush(t *testing.T) {
	t.Parallel()
	for name, replace := range map[string]func(*redistest.Sentinels){"lost": (*redistest.Sentinels).Lose, "in good order": (*redistest.Sentinels).FailOver} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redistest.StartSentinels(t, "down-after-milliseconds 500")
			withUsers(t, s.Address(), 200_000)
			ok(t, s.Master().Client(t).Wait(t.Context(), 2, timeout).Err())
			p, asked := open(t, s.Address(), within(time.Second)), 0
			got, err := p.NewScan(users, cache.ScanOptions{}).Run(t.Context(), cache.Checkpoint{}, func() bool {
				asked++
				if asked == 20 {
					replace(s)
				}
				return false
			})
			if got.Checkpoint.Done {
				t.Fatalf("it was never in the middle: %+v, %v", got, err)
			}
			rest := inSlices(t, p, users, cache.ScanOptions{}, nil)
			if got.Deleted == 0 || rest.Deleted == 0 {
				t.Errorf("%+v\n%+v", got, rest)
			}
			wantOnlyOutside(t, s.Address())
		})
	}
}

// Nobody reads while a key has two places, and so writes go on all the time.
func TestWritesInALoopThroughAFailover(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinels(t, "down-after-milliseconds 500")
	p := open(t, s.Address(), within(time.Second))
	writes, _, names := numbered(100)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	lost := make(chan struct{})
	go func() { s.Lose(); close(lost) }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for good := 0; good < 10; {
		errs := p.PutAll(ctx, writes)
		for _, err := range errs {
			if err != nil && !cache.ServerWide(err) {
				t.Fatal(err)
			}
		}
		if ctx.Err() != nil {
			t.Fatalf("it does not recover: %v", errs[0])
		}
		select {
		case <-lost:
			if failed(errs) == 0 {
				good++
			}
		case <-tick.C:
		}
	}
	for i, name := range names {
		if got := must[string](t)(p.Get(ctx, name)); got != writes[i].Value {
			t.Fatalf("key %s holds %q", name, got)
		}
	}
}
