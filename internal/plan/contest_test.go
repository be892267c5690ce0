// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cachewright/cachewright/internal/plan"
)

const (
	// quiet is how long a key must be left alone for its contest to be over.
	quiet = time.Minute
	// seldom is the shortest time between two repairs of a key that is changed all the time.
	seldom = 30 * time.Second
)

var start = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

// at is a time so long after the start.
func at(d time.Duration) time.Time { return start.Add(d) }

// undo expects a wait.
func undo(t *testing.T, c *plan.Contest, now time.Time, want time.Duration) {
	t.Helper()
	if wait := c.Undo(now); wait != want {
		t.Errorf("after %v: wait %v, want %v", now.Sub(start), wait, want)
	}
}

// on expects the contest to be on or not.
func on(t *testing.T, c *plan.Contest, now time.Time, want bool) {
	t.Helper()
	if got := c.On(now); got != want {
		t.Errorf("after %v: on %v, want %v", now.Sub(start), got, want)
	}
}

// calm expects how long the key must still be left alone.
func calm(t *testing.T, c *plan.Contest, now time.Time, want time.Duration) {
	t.Helper()
	if got := c.Calm(now); got != want {
		t.Errorf("after %v: calm in %v, want %v", now.Sub(start), got, want)
	}
}

func TestTheFirstChangeIsUndoneAtOnceAndFurtherOnesEverMoreSeldom(t *testing.T) {
	var c plan.Contest
	now := start
	for i, seconds := range []int{0, 1, 2, 4, 8, 16, 30, 30, 30} {
		wait := time.Duration(seconds) * time.Second
		undo(t, &c, now, wait)
		if now = now.Add(wait); wait > 0 {
			undo(t, &c, now, 0)
		}
		on(t, &c, now, i > 0)
	}
	for range 1000 {
		undo(t, &c, now, seldom)
		now = now.Add(seldom)
		undo(t, &c, now, 0)
	}
}

func TestWhatHasPassedSinceTheLastRepairCounts(t *testing.T) {
	var c plan.Contest
	undo(t, &c, start, 0)
	undo(t, &c, at(300*time.Millisecond), 700*time.Millisecond)
	undo(t, &c, at(time.Second), 0)
	undo(t, &c, at(4*time.Second), 0) // two seconds were enough
	undo(t, &c, at(5*time.Second), 3*time.Second)
}

func TestALookWhileAChangeIsPendingIsNoNewChange(t *testing.T) {
	var c plan.Contest
	undo(t, &c, start, 0)
	for _, d := range []time.Duration{0, time.Millisecond, time.Second / 2, time.Second - 1} {
		undo(t, &c, at(d), time.Second-d)
		calm(t, &c, at(d), quiet-d)
	}
	undo(t, &c, at(time.Second), 0)
	undo(t, &c, at(time.Second), 2*time.Second) // the third change, not the sixth
}

func TestAPendingChangeThatIsLookedAtLateIsUndoneAtOnce(t *testing.T) {
	var c plan.Contest
	undo(t, &c, start, 0)
	undo(t, &c, start, time.Second)
	late := at(5 * time.Minute)
	on(t, &c, late, false)
	undo(t, &c, late, 0)
	on(t, &c, late, true)
	undo(t, &c, late, 2*time.Second)
}

func TestAChangeThatGoesByItselfIsNotUndoneButCounts(t *testing.T) {
	var c plan.Contest
	undo(t, &c, start, 0)
	undo(t, &c, at(500*time.Millisecond), 500*time.Millisecond)
	c.Right()
	on(t, &c, at(700*time.Millisecond), true)
	calm(t, &c, at(700*time.Millisecond), quiet-200*time.Millisecond)
	undo(t, &c, at(800*time.Millisecond), 1200*time.Millisecond) // the third, two seconds after the only repair
	c.Right()
	undo(t, &c, at(900*time.Millisecond), 3100*time.Millisecond)
	c.Right()
	on(t, &c, at(900*time.Millisecond+quiet-1), true)
	on(t, &c, at(900*time.Millisecond+quiet), false)
	undo(t, &c, at(900*time.Millisecond+quiet), 0)
	on(t, &c, at(900*time.Millisecond+quiet), false)
}

func TestAKeyThatIsRightIsNoChange(t *testing.T) {
	var c plan.Contest
	for i := range time.Duration(10) {
		c.Right()
		on(t, &c, at(i), false)
		calm(t, &c, at(i), 0)
	}
	undo(t, &c, start, 0)
	c.Right()
	c.Right()
	on(t, &c, start, false)
	calm(t, &c, start, quiet)
	undo(t, &c, start, time.Second) // the second change
}

func TestAKeyIsContestedFromTheSecondChangeUntilAQuietMinuteIsOver(t *testing.T) {
	var c plan.Contest
	on(t, &c, start, false)
	undo(t, &c, start, 0)
	on(t, &c, start, false)
	undo(t, &c, at(10*time.Second), 0)
	on(t, &c, at(10*time.Second), true)
	undo(t, &c, at(11*time.Second), time.Second)
	on(t, &c, at(11*time.Second), true)
	undo(t, &c, at(12*time.Second), 0)
	over := 12*time.Second + quiet // since the repair, not since the change
	for _, d := range []time.Duration{12 * time.Second, time.Minute, over - 1} {
		on(t, &c, at(d), true)
		calm(t, &c, at(d), over-d)
	}
	for _, d := range []time.Duration{over, over + 1, over + time.Hour} {
		on(t, &c, at(d), false)
		calm(t, &c, at(d), 0)
	}
}

func TestAfterAQuietMinuteAChangeIsTheFirst(t *testing.T) {
	var c plan.Contest
	now := start
	for range 20 {
		if wait := c.Undo(now); wait > 0 {
			now = now.Add(wait)
			undo(t, &c, now, 0)
		}
	}
	undo(t, &c, now.Add(quiet-1), 0) // the pause is over, the minute is not
	on(t, &c, now.Add(quiet-1), true)
	now = now.Add(2*quiet - 1)
	undo(t, &c, now, 0)
	on(t, &c, now, false)
	undo(t, &c, now, time.Second)
	on(t, &c, now, true)
}

func TestChangesAMinuteApartAreNoContest(t *testing.T) {
	var c plan.Contest
	for now := start; now.Before(at(time.Hour)); now = now.Add(quiet) {
		undo(t, &c, now, 0)
		on(t, &c, now, false)
	}
}

// Whoever never leaves the key alone for a minute, it is written at most every 30 seconds, and yet always within 30.
func TestInTheLongRunAKeyIsWrittenAtMostEvery30Seconds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c plan.Contest
		var undone []time.Time
		now := start
		for range rapid.IntRange(1, 100).Draw(t, "changes") {
			wait := c.Undo(now)
			if wait < 0 || wait > seldom {
				t.Fatalf("wait %v", wait)
			}
			now = now.Add(wait)
			if wait > 0 && c.Undo(now) != 0 {
				t.Fatalf("it is not written after the wait of %v", wait)
			}
			undone = append(undone, now)
			now = now.Add(rapid.OneOf(someDuration(0, time.Second), someDuration(0, quiet-1)).Draw(t, "left alone for"))
		}
		for i := 6; i < len(undone); i++ {
			if pause := undone[i].Sub(undone[i-1]); pause < seldom {
				t.Fatalf("written again after %v", pause)
			}
		}
	})
}

// story is a key, somebody else who changes it, and us who look at it at any time. It knows by itself what is to be
// expected of a contest.
type story struct {
	contest plan.Contest
	now     time.Time
	wrong   bool
	// Since the last quiet minute: the changes seen, how often they were undone, and when last.
	changes, repairs int
	repaired         time.Time
	// last is the last change seen or repair, and pending is true between the two.
	last    time.Time
	pending bool
}

func (s *story) look(t *rapid.T) {
	if !s.wrong {
		s.contest.Right()
		s.pending = false
		return
	}
	if !s.pending {
		if s.now.Sub(s.last) >= quiet {
			s.changes, s.repairs = 0, 0
		}
		s.changes++
		s.last, s.pending = s.now, true
	}
	wait := s.contest.Undo(s.now)
	if wait < 0 || wait > seldom {
		t.Fatalf("wait %v", wait)
	}
	if wait > 0 {
		s.waits(t, wait)
		return
	}
	atLeast := []float64{0, 1, 2, 4, 8, 16, 30}[min(s.repairs, 6)]
	if pause := s.now.Sub(s.repaired); pause.Seconds() < atLeast {
		t.Fatalf("repair %d comes after %v, want at least %v s", s.repairs+1, pause, atLeast)
	}
	s.repairs++
	s.repaired, s.last, s.wrong, s.pending = s.now, s.now, false, false
}

// waits expects that the first change is not made to wait, and that a wait is neither too long nor too short.
func (s *story) waits(t *rapid.T, wait time.Duration) {
	if s.changes == 1 {
		t.Fatalf("the first change waits for %v", wait)
	}
	early, inTime := s.contest, s.contest
	if got := early.Undo(s.now.Add(wait - 1)); got != 1 {
		t.Fatalf("wait %v, and then not until the end", wait)
	}
	if got := inTime.Undo(s.now.Add(wait)); got != 0 {
		t.Fatalf("wait %v, and then %v more", wait, got)
	}
}

func (s *story) check(t *rapid.T) {
	left := max(0, quiet-s.now.Sub(s.last))
	if got := s.contest.Calm(s.now); got != left {
		t.Fatalf("calm in %v, want %v", got, left)
	}
	if got, want := s.contest.On(s.now), s.changes > 1 && left > 0; got != want {
		t.Fatalf("on %v, want %v: %d changes, %v before a quiet minute is over", got, want, s.changes, left)
	}
}

func TestContestAlways(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := story{now: start}
		passes := rapid.OneOf(
			rapid.SampledFrom([]time.Duration{0, 1, time.Second, seldom, quiet - 1, quiet}),
			someDuration(0, 3*time.Second), someDuration(0, 2*quiet),
		)
		t.Repeat(map[string]func(*rapid.T){
			"":                      s.check,
			"it is looked at":       s.look,
			"it is looked at again": s.look,
			"it is changed":         func(*rapid.T) { s.wrong = true },
			"it is changed back":    func(*rapid.T) { s.wrong = false },
			"it is changed after each repair, and looked at when it is time": func(t *rapid.T) {
				for range rapid.IntRange(1, 10).Draw(t, "times") {
					s.wrong = true
					copied := s.contest
					s.look(t)
					s.now = s.now.Add(copied.Undo(s.now))
					s.look(t)
				}
			},
			"time passes": func(t *rapid.T) { s.now = s.now.Add(passes.Draw(t, "time")) },
		})
	})
}

// The server's word of a loss comes later than what a look has found, but not by much.
func TestForgive(t *testing.T) {
	var c plan.Contest
	c.Forgive(start) // there is nothing to forgive
	undo(t, &c, at(0), 0)
	undo(t, &c, at(10*time.Second), 0)
	on(t, &c, at(10*time.Second), true)
	c.Forgive(at(11 * time.Second))
	on(t, &c, at(11*time.Second), false)
	c.Forgive(at(11 * time.Second)) // once is enough
	undo(t, &c, at(20*time.Second), 0)
	on(t, &c, at(20*time.Second), true)
	c.Forgive(at(22 * time.Second)) // that was too long ago to be the same
	on(t, &c, at(22*time.Second), true)
}

// What turns out to be no second writer's doing, or was not undone after all, does not count; what was undone does.
func TestExcuse(t *testing.T) {
	now := time.Now()
	var c plan.Contest
	c.Undo(now)
	c.Excuse(now) // the write failed
	if wait := c.Undo(now.Add(time.Second)); wait != 0 {
		t.Errorf("after a write that failed: wait %v", wait)
	}
	c.Excuse(now.Add(1200 * time.Millisecond)) // the server has lost everything since
	if wait := c.Undo(now.Add(1500 * time.Millisecond)); wait <= 0 || !c.On(now.Add(1500*time.Millisecond)) {
		t.Errorf("the second change is none: wait %v", wait)
	}
	c.Excuse(now.Add(3 * time.Second)) // what was pending was a loss of everything
	if c.On(now.Add(3 * time.Second)) {
		t.Error("a loss counts as a change")
	}
}
