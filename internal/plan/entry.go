// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package plan decides what to do with a key, and when to look at it again. It has no clock, no client and no context,
// so that every decision is a row in a table test.
package plan

import (
	"time"

	"github.com/cachewright/cachewright/internal/cache"
)

// Declared is what an entry wants of its key. TTL 0 means without a lifetime.
type Declared struct {
	Value string
	TTL   time.Duration
}

// Action is what is to be done with a key.
type Action int

const (
	// Leave the key as it is.
	Leave Action = iota
	// Put the declared value with the declared lifetime.
	Put
	// Refuse to touch the key, because it holds no string.
	Refuse
)

// Enforce decides for a key that must hold the declared value and lifetime. A lifetime that is right and long
// enough is left to run.
func Enforce(d Declared, o cache.Observation) Action {
	switch {
	case !o.Exists:
		return Put
	case !o.String:
		return Refuse
	case o.Value != d.Value:
		return Put
	case d.TTL == 0 && o.TTL != cache.Forever:
		return Put
	case d.TTL > 0 && (o.TTL == cache.Forever || o.TTL > d.TTL || o.TTL <= renewBefore(d.TTL)):
		return Put
	default:
		return Leave
	}
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
