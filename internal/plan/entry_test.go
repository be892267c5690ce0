// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/plan"
)

// The cells of the API's table of policies are all combinations of these.
var (
	policies = []plan.Policy{plan.Enforce, plan.EnsurePresent, plan.WriteOnChange, plan.Observe}

	keys = map[string]cache.Observation{
		"missing":    {},
		"right":      {Exists: true, String: true, Value: "v"},
		"different":  {Exists: true, String: true, Value: "w"},
		"empty":      {Exists: true, String: true},
		"wrong type": {Exists: true},
	}

	lifetimes = map[string]time.Duration{
		"none":              cache.Forever,
		"running out now":   0,
		"too little":        time.Minute,
		"just too little":   3 * time.Minute,
		"just enough":       3*time.Minute + time.Millisecond,
		"all":               9 * time.Minute,
		"too much by a bit": 9*time.Minute + time.Millisecond,
		"far too much":      24 * time.Hour,
	}

	declarations = map[string]time.Duration{"ttl": 9 * time.Minute, "forever": 0}

	histories = map[string]plan.History{
		"nothing":          {},
		"written":          {Written: true},
		"written and lost": {Written: true, Lost: true},
		"recorded":         {Recorded: true},
	}
)

const whatever = ""

// rule is a row of the table: it says what is done in all cells that it names.
type rule struct {
	policy plan.Policy
	// The rest of the cell's name: one, several with commas between them, or whatever.
	key, lifetime, declared, history string
	want                             plan.Decision
}

var (
	leave = func(s plan.State) plan.Decision { return plan.Decision{Action: plan.Leave, State: s} }
	put   = func(c plan.Cause, s plan.State) plan.Decision {
		return plan.Decision{Action: plan.Put, Cause: c, State: s}
	}
	putIfAbsent = plan.Decision{Action: plan.PutIfAbsent, Cause: plan.Absent, State: plan.Warm}
)

const (
	tooLittle = "running out now, too little, just too little"
	enough    = "just enough, all"
	tooMuch   = "too much by a bit, far too much"
	limited   = tooLittle + ", " + enough + ", " + tooMuch
)

var rules = []rule{
	// Always as declared. The lifetime is left to run while there is enough of it, and mended when it is another one.
	{plan.Enforce, "missing", whatever, whatever, whatever, put(plan.Absent, plan.Warm)},
	{plan.Enforce, "different, empty", whatever, whatever, whatever, put(plan.Changed, plan.Warm)},
	{plan.Enforce, "wrong type", whatever, whatever, whatever, leave(plan.WrongType)},
	{plan.Enforce, "right", enough, "ttl", whatever, leave(plan.Warm)},
	{plan.Enforce, "right", tooLittle, "ttl", whatever, put(plan.Renewal, plan.Warm)},
	{plan.Enforce, "right", tooMuch, "ttl", whatever, put(plan.Lifetime, plan.Warm)},
	{plan.Enforce, "right", "none", "ttl", whatever, put(plan.Lifetime, plan.Warm)},
	{plan.Enforce, "right", "none", "forever", whatever, leave(plan.Warm)},
	{plan.Enforce, "right", limited, "forever", whatever, put(plan.Lifetime, plan.Warm)},

	// Whatever is there stays, with the lifetime that it has. What is absent is put on record before it is written.
	{plan.EnsurePresent, "missing", whatever, whatever, "recorded", putIfAbsent},
	{plan.EnsurePresent, "missing", whatever, whatever, "nothing, written, written and lost", leave(plan.Unrecorded)},
	{plan.EnsurePresent, "right", whatever, whatever, whatever, leave(plan.Warm)},
	{plan.EnsurePresent, "different, empty, wrong type", whatever, whatever, whatever, leave(plan.Present)},

	// Once, over whatever is there; not if that is right and has enough life left. Afterwards nothing matters but a move.
	{plan.WriteOnChange, "missing", whatever, whatever, "nothing, recorded", put(plan.Absent, plan.Written)},
	{plan.WriteOnChange, "different, empty", whatever, whatever, "nothing, recorded", put(plan.Changed, plan.Written)},
	{plan.WriteOnChange, "wrong type", whatever, whatever, "nothing, recorded", leave(plan.WrongType)},
	{plan.WriteOnChange, "right", enough, "ttl", "nothing, recorded", leave(plan.Written)},
	{plan.WriteOnChange, "right", tooLittle, "ttl", "nothing, recorded", put(plan.Renewal, plan.Written)},
	{plan.WriteOnChange, "right", tooMuch, "ttl", "nothing, recorded", put(plan.Lifetime, plan.Written)},
	{plan.WriteOnChange, "right", "none", "ttl", "nothing, recorded", put(plan.Lifetime, plan.Written)},
	{plan.WriteOnChange, "right", "none", "forever", "nothing, recorded", leave(plan.Written)},
	{plan.WriteOnChange, "right", limited, "forever", "nothing, recorded", put(plan.Lifetime, plan.Written)},
	{plan.WriteOnChange, whatever, whatever, whatever, "written", leave(plan.Written)},
	{plan.WriteOnChange, whatever, whatever, whatever, "written and lost", leave(plan.Missing)},

	// Never. Values are compared, lifetimes are not.
	{plan.Observe, "missing", whatever, whatever, whatever, leave(plan.Missing)},
	{plan.Observe, "right", whatever, whatever, whatever, leave(plan.Matches)},
	{plan.Observe, "different, empty, wrong type", whatever, whatever, whatever, leave(plan.Differs)},
}

// covers says whether a cell is one of the rule's.
func (r rule) covers(policy plan.Policy, key, lifetime, declared, history string) bool {
	in := func(names, name string) bool {
		return names == whatever || slices.Contains(strings.Split(names, ", "), name)
	}
	return r.policy == policy && in(r.key, key) && in(r.lifetime, lifetime) && in(r.declared, declared) && in(r.history, history)
}

func TestDecide(t *testing.T) {
	cellsOf := make([]int, len(rules))
	check := func(policy plan.Policy, key, lifetime, declared, history string) {
		var of []int
		for i, r := range rules {
			if r.covers(policy, key, lifetime, declared, history) {
				of = append(of, i)
				cellsOf[i]++
			}
		}
		cell := strings.Join([]string{string(policy), "key " + key, "lifetime " + lifetime, "declared " + declared, "history " + history}, ", ")
		if len(of) != 1 {
			t.Errorf("%s: %d rules, want exactly one: %v", cell, len(of), of)
			return
		}
		seen := keys[key]
		if seen.Exists {
			seen.TTL = lifetimes[lifetime]
		}
		got := plan.Decide(plan.Declared{Policy: policy, Value: "v", TTL: declarations[declared]}, histories[history], seen)
		if want := rules[of[0]].want; got != want {
			t.Errorf("%s: %+v, want %+v", cell, got, want)
		}
	}
	for _, policy := range policies {
		for key := range keys {
			for lifetime := range lifetimes {
				for declared := range declarations {
					for history := range histories {
						check(policy, key, lifetime, declared, history)
					}
				}
			}
		}
	}
	for i, cells := range cellsOf {
		if cells == 0 {
			t.Errorf("rule %d names no cell: %+v", i, rules[i])
		}
	}
}

func TestAnEmptyValueIsAValue(t *testing.T) {
	for _, tc := range []struct {
		policy         plan.Policy
		there, missing plan.Decision
		wrongType      plan.State
	}{
		{plan.Enforce, leave(plan.Warm), put(plan.Absent, plan.Warm), plan.WrongType},
		{plan.EnsurePresent, leave(plan.Warm), putIfAbsent, plan.Present},
		{plan.WriteOnChange, leave(plan.Written), put(plan.Absent, plan.Written), plan.WrongType},
		{plan.Observe, leave(plan.Matches), leave(plan.Missing), plan.Differs},
	} {
		t.Run(string(tc.policy), func(t *testing.T) {
			decide := func(o cache.Observation) plan.Decision {
				return plan.Decide(plan.Declared{Policy: tc.policy}, plan.History{Recorded: true}, o)
			}
			if got := decide(cache.Observation{Exists: true, String: true, TTL: cache.Forever}); got != tc.there {
				t.Errorf("there: %+v, want %+v", got, tc.there)
			}
			if got := decide(cache.Observation{}); got != tc.missing {
				t.Errorf("missing: %+v, want %+v", got, tc.missing)
			}
			if got := decide(cache.Observation{Exists: true, TTL: cache.Forever}); got != leave(tc.wrongType) {
				t.Errorf("another type: %+v, want %+v", got, leave(tc.wrongType))
			}
		})
	}
}

// situation is anything that Decide can be asked about.
type situation struct {
	declared plan.Declared
	history  plan.History
	seen     cache.Observation
}

func (s situation) decide() plan.Decision { return plan.Decide(s.declared, s.history, s.seen) }

// right says whether the key holds the declared value.
func (s situation) right() bool {
	return s.seen.Exists && s.seen.String && s.seen.Value == s.declared.Value
}

// lasts says whether the key has a lifetime as declared, more than a third of which is left.
func (s situation) lasts() bool {
	if s.declared.TTL == 0 {
		return s.seen.TTL == cache.Forever
	}
	return s.seen.TTL != cache.Forever && s.seen.TTL <= s.declared.TTL && s.seen.TTL*3 > s.declared.TTL
}

// carriedOut is the key after the decision.
func (s situation) carriedOut(d plan.Decision) situation {
	if d.Action != plan.Leave {
		s.seen = cache.Observation{Exists: true, String: true, Value: s.declared.Value, TTL: s.declared.TTL}
		if s.declared.TTL == 0 {
			s.seen.TTL = cache.Forever
		}
	}
	return s
}

const tenYears = 10 * 365 * 24 * time.Hour

func someDuration(from, to time.Duration) *rapid.Generator[time.Duration] {
	return rapid.Map(rapid.Int64Range(int64(from), int64(to)), func(n int64) time.Duration { return time.Duration(n) })
}

// situations under some of the policies. Most are near to where decisions differ.
func situations(of ...plan.Policy) *rapid.Generator[situation] {
	return rapid.Custom(func(t *rapid.T) situation {
		value := rapid.OneOf(rapid.SampledFrom([]string{"", "v", "w"}), rapid.String())
		s := situation{
			declared: plan.Declared{
				Policy: rapid.SampledFrom(of).Draw(t, "policy"),
				Value:  value.Draw(t, "declared value"),
				TTL:    rapid.OneOf(rapid.Just(time.Duration(0)), someDuration(time.Second, tenYears)).Draw(t, "ttl"),
			},
			history: plan.History{
				Written:  rapid.Bool().Draw(t, "written"),
				Lost:     rapid.Bool().Draw(t, "lost"),
				Recorded: rapid.Bool().Draw(t, "recorded"),
			},
		}
		if rapid.Bool().Draw(t, "missing") {
			return s
		}
		ttl := s.declared.TTL
		s.seen = cache.Observation{Exists: true, TTL: rapid.OneOf(
			rapid.SampledFrom([]time.Duration{cache.Forever, 0, 1, ttl / 3, ttl/3 + 1, ttl, ttl + 1}),
			someDuration(0, ttl), someDuration(0, 2*tenYears),
		).Draw(t, "life left")}
		if s.seen.String = rapid.Bool().Draw(t, "string"); s.seen.String {
			s.seen.Value = rapid.OneOf(rapid.Just(s.declared.Value), value).Draw(t, "value")
		}
		return s
	})
}

// What holds in every situation under some policies.
func TestDecideAlways(t *testing.T) {
	for name, law := range map[string]struct {
		of    []plan.Policy
		holds func(s situation, d plan.Decision) bool
	}{
		"Observe never writes": {[]plan.Policy{plan.Observe}, func(_ situation, d plan.Decision) bool {
			return d.Action == plan.Leave
		}},
		"Observe compares values only": {[]plan.Policy{plan.Observe}, func(s situation, d plan.Decision) bool {
			s.history, s.seen.TTL, s.declared.TTL = plan.History{}, cache.Forever, 0
			return s.decide() == d
		}},
		"Observe says Matches when the value is right": {[]plan.Policy{plan.Observe}, func(s situation, d plan.Decision) bool {
			return (d.State == plan.Matches) == s.right()
		}},
		"a key of another type is never written": {policies, func(s situation, d plan.Decision) bool {
			return !s.seen.Exists || s.seen.String || d.Action == plan.Leave
		}},
		"what is right and has enough life left is never written": {policies, func(s situation, d plan.Decision) bool {
			return !s.right() || !s.lasts() || d.Action == plan.Leave
		}},
		"WriteOnChange never writes what was written": {[]plan.Policy{plan.WriteOnChange}, func(s situation, d plan.Decision) bool {
			return !s.history.Written && !s.history.Lost || d.Action == plan.Leave
		}},
		"WriteOnChange sees to it that a new value is there to stay": {[]plan.Policy{plan.WriteOnChange}, func(s situation, d plan.Decision) bool {
			after := s.carriedOut(d)
			return s.history.Written || s.history.Lost || d.State == plan.WrongType || after.right() && after.lasts()
		}},
		"EnsurePresent writes what is absent and on record, and only if it is still absent": {[]plan.Policy{plan.EnsurePresent}, func(s situation, d plan.Decision) bool {
			if !s.seen.Exists && s.history.Recorded {
				return d.Action == plan.PutIfAbsent
			}
			return d.Action == plan.Leave
		}},
		"only EnsurePresent minds what has come meanwhile": {[]plan.Policy{plan.Enforce, plan.WriteOnChange, plan.Observe}, func(_ situation, d plan.Decision) bool {
			return d.Action != plan.PutIfAbsent
		}},
		"Enforce leaves what holds the value with enough life, and another type, and nothing else": {[]plan.Policy{plan.Enforce}, func(s situation, d plan.Decision) bool {
			return (d.Action == plan.Leave) == (s.right() && s.lasts() || s.seen.Exists && !s.seen.String)
		}},
		"Enforce has no history": {[]plan.Policy{plan.Enforce}, func(s situation, d plan.Decision) bool {
			s.history = plan.History{}
			return s.decide() == d
		}},
		"a write has a cause, and nothing else has": {policies, func(_ situation, d plan.Decision) bool {
			return (d.Action != plan.Leave) == (d.Cause != "")
		}},
		"what is carried out is left alone, in the state that was decided": {policies, func(s situation, d plan.Decision) bool {
			return s.carriedOut(d).decide() == leave(d.State)
		}},
		"a key that is not looked at any more would be left alone, whatever it holds": {policies, func(s situation, d plan.Decision) bool {
			return !plan.Once(s.declared.Policy, s.history) || d == plan.Decide(s.declared, s.history, cache.Observation{}) && d.Action == plan.Leave
		}},
	} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				s := situations(law.of...).Draw(t, "situation")
				if d := s.decide(); !law.holds(s, d) {
					t.Fatalf("%+v", d)
				}
			})
		})
	}
}

func TestOnce(t *testing.T) {
	for _, policy := range policies {
		for name, history := range histories {
			want := policy == plan.WriteOnChange && (name == "written" || name == "written and lost")
			if got := plan.Once(policy, history); got != want {
				t.Errorf("%s, %s: %v, want %v", policy, name, got, want)
			}
		}
	}
}

func TestRenewIn(t *testing.T) {
	for name, tc := range map[string]struct {
		ttl, left time.Duration
		spread    float64
		want      time.Duration
	}{
		"a new key, at two thirds of its life":         {9 * time.Minute, 9 * time.Minute, 0, 6 * time.Minute},
		"spread out, up to a quarter of a third later": {9 * time.Minute, 9 * time.Minute, 1, 6*time.Minute + 45*time.Second},
		"half spread":                                {8 * time.Minute, 8 * time.Minute, 0.5, 5*time.Minute + 40*time.Second},
		"an old key, what is left to that":           {9 * time.Minute, 4 * time.Minute, 0, time.Minute},
		"a key in its last third, at once":           {9 * time.Minute, 3 * time.Minute, 0, 0},
		"a key about to run out, at once":            {9 * time.Minute, time.Second, 0, 0},
		"a key about to run out, spread: at once":    {9 * time.Minute, time.Second, 1, 0},
		"the shortest lifetime that can be declared": {time.Second, time.Second, 0, time.Second - time.Second/3},
	} {
		t.Run(name, func(t *testing.T) {
			if got := plan.RenewIn(tc.ttl, tc.left, tc.spread); got != tc.want {
				t.Errorf("in %v, want %v", got, tc.want)
			}
		})
	}
}

func TestAKeyIsRenewedBeforeItRunsOutAndNotBeforeItMust(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ttl := someDuration(time.Second, tenYears).Draw(t, "ttl")
		left := someDuration(0, ttl).Draw(t, "left")
		spread := rapid.Float64Range(0, 1).Draw(t, "spread")
		in := plan.RenewIn(ttl, left, spread)
		if in < 0 || in > left {
			t.Fatalf("renewal in %v of a key with %v left", in, left)
		}
		declared := plan.Declared{Policy: plan.Enforce, Value: "v", TTL: ttl}
		at := func(after time.Duration) plan.Decision {
			return plan.Decide(declared, plan.History{}, cache.Observation{Exists: true, String: true, Value: "v", TTL: left - after})
		}
		if got := at(in); got != put(plan.Renewal, plan.Warm) {
			t.Fatalf("%+v when the renewal in %v is due", got, in)
		}
		if in > ttl/3/4 && at(in-ttl/3/4-1) != leave(plan.Warm) {
			t.Fatalf("Enforce would have renewed it long before %v", in)
		}
	})
}
