// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/plan"
)

// Every cell of what a key can hold and how long it can have to live, for an entry with a lifetime and for one without.
func TestEnforce(t *testing.T) {
	const ttl = 9 * time.Minute
	values := map[string]cache.Observation{
		"missing":    {},
		"same":       {Exists: true, String: true, Value: "v"},
		"different":  {Exists: true, String: true, Value: "w"},
		"empty":      {Exists: true, String: true},
		"wrong type": {Exists: true},
	}
	lifetimes := map[string]time.Duration{
		"none":              cache.Forever,
		"running out now":   0,
		"too little":        time.Minute,
		"just too little":   ttl / 3,
		"just enough":       ttl/3 + time.Millisecond,
		"all":               ttl,
		"too much by a bit": ttl + time.Millisecond,
		"far too much":      24 * time.Hour,
	}
	// What a key that holds the declared value needs; every other cell depends on the value alone.
	enough := map[string]bool{"just enough": true, "all": true}
	for value, observed := range values {
		for lifetime, left := range lifetimes {
			for _, declared := range []plan.Declared{{Value: "v", TTL: ttl}, {Value: "v"}} {
				want := plan.Put
				switch {
				case value == "wrong type":
					want = plan.Refuse
				case value == "same" && declared.TTL > 0 && enough[lifetime], value == "same" && declared.TTL == 0 && lifetime == "none":
					want = plan.Leave
				}
				if observed.TTL = 0; observed.Exists {
					observed.TTL = left
				}
				if got := plan.Enforce(declared, observed); got != want {
					t.Errorf("%s value, lifetime %s, declared with ttl %v: action %d, want %d", value, lifetime, declared.TTL, got, want)
				}
			}
		}
	}
}

func TestEnforceTakesAnEmptyValueForAValue(t *testing.T) {
	empty := cache.Observation{Exists: true, String: true, TTL: cache.Forever}
	if got := plan.Enforce(plan.Declared{}, empty); got != plan.Leave {
		t.Errorf("action %d for a declared empty value that is there", got)
	}
	if got := plan.Enforce(plan.Declared{}, cache.Observation{}); got != plan.Put {
		t.Errorf("action %d for a declared empty value that is missing", got)
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
		ttl := time.Duration(rapid.Int64Range(int64(time.Second), int64(10*365*24*time.Hour)).Draw(t, "ttl"))
		left := time.Duration(rapid.Int64Range(0, int64(ttl)).Draw(t, "left"))
		spread := rapid.Float64Range(0, 1).Draw(t, "spread")
		in := plan.RenewIn(ttl, left, spread)
		if in < 0 || in > left {
			t.Fatalf("renewal in %v of a key with %v left", in, left)
		}
		declared := plan.Declared{Value: "v", TTL: ttl}
		at := func(after time.Duration) plan.Action {
			return plan.Enforce(declared, cache.Observation{Exists: true, String: true, Value: "v", TTL: left - after})
		}
		if got := at(in); got != plan.Put {
			t.Fatalf("action %d when the renewal in %v is due", got, in)
		}
		if in > ttl/3/4 && at(in-ttl/3/4-1) != plan.Leave {
			t.Fatalf("Enforce would have renewed it long before %v", in)
		}
	})
}
