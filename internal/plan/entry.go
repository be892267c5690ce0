// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package plan decides what to do with a key, and when to look at it again. It has no clock, no client and no context,
// so that every decision is a row in a table test.
package plan

import (
	"time"

	"github.com/cachewright/cachewright/internal/cache"
)

// Policy says when a key is written, in the words of the API.
type Policy string

// Policies.
const (
	Enforce       Policy = "Enforce"
	EnsurePresent Policy = "EnsurePresent"
	WriteOnChange Policy = "WriteOnChange"
	Observe       Policy = "Observe"
)

// State of a key, in the words of the conditions it ends up in.
type State string

const (
	// Warm : it holds the declared value.
	Warm State = "Warm"
	// Present : it holds something else, which EnsurePresent leaves alone.
	Present State = "Present"
	// Written : the declared value was written, and what has become of it does not matter.
	Written State = "Written"
	// Applied : the counter was incremented, and what has become of it does not matter.
	Applied State = "Applied"
	// Matches : it holds the declared value, as Observe sees it.
	Matches State = "Matches"
	// Differs : it holds something else, as Observe sees it.
	Differs State = "Differs"
	// Missing : it is not there, as Observe sees it; or what was written once was written to another server.
	Missing State = "Missing"
	// WrongType : it holds no string, and must not be touched.
	WrongType State = "WrongType"
	// Unrecorded : it is absent, and is to be written once that is on record.
	Unrecorded State = "Unrecorded"
	// Contested : something else keeps changing or removing it.
	Contested State = "Contested"
)

// Declared is what an entry wants of its key. TTL 0 means without a lifetime.
type Declared struct {
	Policy Policy
	Value  string
	TTL    time.Duration
}

// History is what has been done before.
type History struct {
	// Written : this very value was written to this key.
	Written bool
	// Lost : and since then the pool has moved to another server.
	Lost bool
	// Recorded : it is on record that this value may be written.
	Recorded bool
}

// Action is what is to be done with a key.
type Action int

const (
	// Leave the key as it is.
	Leave Action = iota
	// Put the declared value with the declared lifetime.
	Put
	// PutIfAbsent does so only if the key is still not there.
	PutIfAbsent
)

// Cause of a write.
type Cause string

const (
	// Absent : the key was not there.
	Absent Cause = "missing"
	// Changed : it held another value.
	Changed Cause = "changed"
	// Lifetime : its lifetime was missing, too long, or one too many.
	Lifetime Cause = "lifetime"
	// Renewal : its lifetime was about to run out, as it does.
	Renewal Cause = "renewal"
)

// Decision is what to do with a key, why, and what the key is like when that is done.
type Decision struct {
	Action Action
	Cause  Cause
	State  State
}

// Decide about a key.
func Decide(d Declared, h History, o cache.Observation) Decision {
	switch d.Policy {
	case EnsurePresent:
		return ensurePresent(d, h, o)
	case WriteOnChange:
		return writeOnChange(d, h, o)
	case Observe:
		return observe(d, o)
	case Enforce:
	}
	return enforce(d, o)
}

// Once says whether a key is not looked at any more: what was to be done once is done.
func Once(p Policy, h History) bool { return p == WriteOnChange && (h.Written || h.Lost) }

// enforce wants the declared value and lifetime. A lifetime that is right and long enough is left to run.
func enforce(d Declared, o cache.Observation) Decision {
	put := func(c Cause) Decision { return Decision{Action: Put, Cause: c, State: Warm} }
	switch {
	case !o.Exists:
		return put(Absent)
	case !o.String:
		return Decision{State: WrongType}
	case o.Value != d.Value:
		return put(Changed)
	case !d.lives(o.TTL):
		return put(Lifetime)
	case d.TTL > 0 && o.TTL <= renewBefore(d.TTL):
		return put(Renewal)
	default:
		return Decision{State: Warm}
	}
}

// ensurePresent wants the key to hold something, at best the declared value.
func ensurePresent(d Declared, h History, o cache.Observation) Decision {
	switch {
	case o.Exists && o.String && o.Value == d.Value:
		return Decision{State: Warm}
	case o.Exists:
		return Decision{State: Present}
	case !h.Recorded:
		return Decision{State: Unrecorded}
	default:
		return Decision{Action: PutIfAbsent, Cause: Absent, State: Warm}
	}
}

// writeOnChange wants each declared value to be written once. A value that is there already, as it would have been
// written, may be our own from before a crash; it is written again if it would soon be gone.
func writeOnChange(d Declared, h History, o cache.Observation) Decision {
	switch {
	case h.Lost:
		return Decision{State: Missing}
	case h.Written:
		return Decision{State: Written}
	}
	first := enforce(d, o)
	if first.State == Warm {
		first.State = Written
	}
	return first
}

// observe compares values only.
func observe(d Declared, o cache.Observation) Decision {
	switch {
	case !o.Exists:
		return Decision{State: Missing}
	case o.String && o.Value == d.Value:
		return Decision{State: Matches}
	default:
		return Decision{State: Differs}
	}
}

// lives says whether a lifetime may be what is left of the declared one.
func (d Declared) lives(left time.Duration) bool {
	if d.TTL == 0 {
		return left == cache.Forever
	}
	return left != cache.Forever && left <= d.TTL
}

// RenewIn says after how long a key that has this much life left must be renewed. spread, from 0 to 1, keeps keys
// that were written together from being renewed together, within the last third of their life.
func RenewIn(ttl, left time.Duration, spread float64) time.Duration {
	margin := renewBefore(ttl)
	return max(0, left-margin+time.Duration(spread*float64(margin)/4))
}

// renewBefore is how much life a key must have left. A third, as cert-manager does it with certificates: a missed
// attempt or a short outage of the operator costs nobody a miss.
func renewBefore(ttl time.Duration) time.Duration { return ttl / 3 }
