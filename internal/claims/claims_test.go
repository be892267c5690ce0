// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package claims

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func named(namespace, name string) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: name}
}

func TestOlderIsCreationTimeThenNameThenUID(t *testing.T) {
	inOrder := []Claim{
		{Entry: named("z", "z"), UID: "9", Created: start},
		{Entry: named("a", "a"), UID: "9", Created: start.Add(time.Second)},
		{Entry: named("a", "b"), UID: "1", Created: start.Add(time.Second)},
		{Entry: named("a", "b"), UID: "2", Created: start.Add(time.Second)},
		{Entry: named("b", "a"), UID: "0", Created: start.Add(time.Second)},
		{Entry: named("a", "a"), UID: "0", Created: start.Add(2 * time.Second)},
	}
	for i, a := range inOrder {
		for j, b := range inOrder {
			if got := older(a, b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("older(%d, %d) = %d", i, j, got)
			}
		}
	}
}

func TestSetTellsWhereAnEntryClaimedAndClaims(t *testing.T) {
	x := NewIndex()
	pool := named("ns", "main")
	claim := Claim{Place: Place{Pool: pool, Key: "k"}, Entry: named("ns", "e"), UID: "1", Created: start}
	moved := claim
	moved.Key = "elsewhere"
	for i, step := range []struct {
		got, want []Place
	}{
		{x.Set(claim), []Place{claim.Place}},
		{x.Set(claim), nil},
		{x.Set(moved), []Place{claim.Place, moved.Place}},
		{x.Delete(claim.Entry, ""), []Place{moved.Place}},
		{x.Delete(claim.Entry, ""), nil},
	} {
		if diff := cmp.Diff(step.want, step.got); diff != "" {
			t.Errorf("step %d: %s", i, diff)
		}
	}
}

// A recreated entry has the same name and another age.
func TestARecreatedEntryIsAnotherClaim(t *testing.T) {
	x := NewIndex()
	place := Place{Pool: named("ns", "main"), Key: "k"}
	x.Set(Claim{Place: place, Entry: named("ns", "a"), UID: "1", Created: start})
	x.Set(Claim{Place: place, Entry: named("ns", "b"), UID: "2", Created: start.Add(time.Second)})
	if changed := x.Set(Claim{Place: place, Entry: named("ns", "a"), UID: "3", Created: start.Add(time.Minute)}); len(changed) == 0 {
		t.Error("nothing has changed, it says")
	}
	if holder := x.At(place)[0]; holder.UID != "2" {
		t.Errorf("the holder is %v", holder)
	}
}

// Whoever claims a key next must not find the one who has left still at work there.
func TestWhoeverLeavesIsToldBeforeAnybodyCanSeeIt(t *testing.T) {
	x, left := NewIndex(), []string{}
	x.Left = func(entry types.NamespacedName) { left = append(left, entry.Name) }
	place := Place{Pool: named("ns", "main"), Key: "k"}
	claim := Claim{Place: place, Entry: named("ns", "a"), UID: "1", Created: start}
	moved, observing := claim, claim
	moved.Key = "elsewhere"
	observing.Observes = true
	for i, step := range []struct {
		do   func()
		left int
	}{
		{func() { x.Set(claim) }, 0},
		{func() { x.Set(claim) }, 0},
		{func() { x.Set(moved) }, 1},
		{func() { x.Set(observing) }, 2},
		{func() { x.Delete(claim.Entry, "") }, 3},
		{func() { x.Delete(claim.Entry, "") }, 3},
	} {
		step.do()
		if len(left) != step.left {
			t.Fatalf("step %d: %v have left", i, left)
		}
	}
}

// Whatever happens to entries, the index says of every place what a list of all claims says.
func TestTheIndexIsAListOfClaims(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, list := NewIndex(), map[types.NamespacedName]Claim{}
		small := rapid.IntRange(0, 3)
		place := func() Place {
			return Place{Pool: named("ns", fmt.Sprintf("pool%d", small.Draw(t, "pool"))), Key: fmt.Sprintf("key%d", small.Draw(t, "key"))}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			entry := named(fmt.Sprintf("ns%d", small.Draw(t, "namespace")), fmt.Sprintf("e%d", small.Draw(t, "entry")))
			if rapid.Bool().Draw(t, "delete") {
				x.Delete(entry, "")
				delete(list, entry)
				continue
			}
			c := Claim{Place: place(), Entry: entry, UID: types.UID(entry.Name), Created: start.Add(time.Duration(small.Draw(t, "age")) * time.Second), Observes: rapid.Bool().Draw(t, "observes")}
			x.Set(c)
			list[entry] = c
		}
		places := []Place{place(), place()}
		if places[0] == places[1] {
			places = places[:1]
		}
		var want []Claim
		for _, c := range list {
			if slices.Contains(places, c.Place) {
				want = append(want, c)
			}
		}
		slices.SortFunc(want, older)
		if diff := cmp.Diff(want, x.All(places...)); diff != "" {
			t.Fatal(diff)
		}
		holding := slices.DeleteFunc(slices.Clone(want), func(c Claim) bool { return c.Observes })
		if diff := cmp.Diff(holding, x.At(places...), cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
		if len(x.byEntry) != len(list) || len(x.byPlace) > len(list) {
			t.Fatal("the index has grown beyond its claims")
		}
	})
}

// Whoever has looked at claims can tell whether to look again.
func TestTheVersionChangesWithTheClaims(t *testing.T) {
	x := NewIndex()
	entry, place := types.NamespacedName{Namespace: "ns", Name: "e"}, Place{Key: "k"}
	claim := Claim{Place: place, Entry: entry, UID: "1", Generation: 1}
	newer := claim
	newer.Generation = 2
	for _, step := range []struct {
		name    string
		do      func()
		changes bool
	}{
		{"a claim", func() { x.Set(claim) }, true},
		{"the same", func() { x.Set(claim) }, false},
		{"another generation", func() { x.Set(newer) }, true},
		{"an old one", func() { x.Set(claim) }, false},
		{"another's end", func() { x.Delete(entry, "2") }, false},
		{"its end", func() { x.Delete(entry, "1") }, true},
		{"its end again", func() { x.Delete(entry, "1") }, false},
	} {
		before := x.Version()
		step.do()
		if (x.Version() != before) != step.changes {
			t.Errorf("%s: version %d, %d before", step.name, x.Version(), before)
		}
	}
}

// An entry is undecided from its first claim until it was looked at, and so is another one of its name.
func TestUndecidedClaims(t *testing.T) {
	x := NewIndex()
	here, there := types.NamespacedName{Namespace: "ns", Name: "here"}, types.NamespacedName{Namespace: "ns", Name: "there"}
	entry := types.NamespacedName{Namespace: "ns", Name: "e"}
	undecided := func(want bool, pools ...types.NamespacedName) {
		t.Helper()
		if got := x.Undecided(pools); got != want {
			t.Errorf("undecided in %v: %v", pools, got)
		}
	}
	undecided(false, here)
	x.Decide(entry, "1") // nobody claims anything
	x.Set(Claim{Place: Place{Pool: here, Key: "k"}, Entry: entry, UID: "1"})
	undecided(true, here)
	undecided(true, there, here)
	undecided(false, there)
	undecided(false)
	x.Decide(entry, "2")
	undecided(true, here)
	x.Decide(entry, "1")
	undecided(false, here)
	x.Set(Claim{Place: Place{Pool: here, Key: "k"}, Entry: entry, UID: "1", Generation: 2})
	undecided(false, here)
	x.Delete(entry, "1")
	x.Set(Claim{Place: Place{Pool: here, Key: "k"}, Entry: entry, UID: "2"})
	undecided(true, here)
}
