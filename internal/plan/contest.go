// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import "time"

// Contest with whatever else changes or removes a key: the first change is undone at once, further ones ever more
// seldom, so that no two operators, nor an operator and a server too small for what is declared, chase each other.
type Contest struct {
	// changes since the last quiet time, the last of them undone unless it is pending.
	changes int
	pending bool
	// noticed and undone are when that last happened.
	noticed, undone time.Time
}

const (
	// quiet is how long a key must have been left alone for a change to count as the first.
	quiet = time.Minute
	// firstPause before a second change is undone, and the longest one.
	firstPause, maxPause = time.Second, 30 * time.Second
	// moment is by how much the news of a loss may come later than what a look has found.
	moment = time.Second
)

// Undo notes that the key was found changed, and says how long to wait before it is written. When there is nothing to
// wait for, it is taken to be written.
func (c *Contest) Undo(now time.Time) (wait time.Duration) {
	if !c.pending {
		if c.Calm(now) == 0 {
			c.changes = 0
		}
		c.changes++
		c.noticed, c.pending = now, true
	}
	if c.changes > 1 {
		pause := min(maxPause, firstPause<<min(c.changes-2, 10))
		wait = max(0, c.undone.Add(pause).Sub(now))
	}
	if wait == 0 {
		c.undone, c.pending = now, false
	}
	return wait
}

// Excuse what is pending, or was noticed just now: it was not somebody who keeps changing the key, or the write came to
// nothing.
func (c *Contest) Excuse(now time.Time) {
	if c.changes > 0 && (c.pending || c.noticed.Equal(now)) {
		c.changes, c.noticed = c.changes-1, time.Time{}
	}
	c.pending = false
}

// Forgive what was noticed a moment ago, and is right by now: the server has lost everything, which a look on another
// connection may find before the server's word comes.
func (c *Contest) Forgive(now time.Time) {
	if c.changes > 0 && now.Sub(c.noticed) <= moment {
		c.changes, c.noticed = c.changes-1, time.Time{}
	}
	c.pending = false
}

// Right notes that the key was found as it should be.
func (c *Contest) Right() { c.pending = false }

// On says whether the key has been changed more than once without a quiet time in between.
func (c *Contest) On(now time.Time) bool { return c.changes > 1 && c.Calm(now) > 0 }

// Calm is how long the key must still be left alone to count as quiet.
func (c *Contest) Calm(now time.Time) time.Duration {
	last := c.noticed
	if c.undone.After(last) {
		last = c.undone
	}
	return max(0, last.Add(quiet).Sub(now))
}
