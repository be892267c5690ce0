// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package claims knows which entry declares which key, so that of two entries for one key the same one holds it
// everywhere, and a flush can tell declared keys in no time.
package claims

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Claim is the declaration of a key by an entry that is not being deleted.
type Claim struct {
	Place

	Entry   types.NamespacedName
	UID     types.UID
	Created time.Time
	// Generation of the entry: what is known of an older one is out of date.
	Generation int64
	// Observes says that the entry only looks at the key: it neither holds it nor stands in anybody's way.
	Observes bool
}

// older orders claims: creation time, then namespace/name, then UID.
func older(a, b Claim) int {
	return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Entry.String(), b.Entry.String()), strings.Compare(string(a.UID), string(b.UID)))
}

// Index of all claims.
type Index struct {
	// Left, if it is set, is called when an entry ceases to claim what it did, before anybody can see that: whoever
	// claims it next must not find the entry still at work there.
	Left func(entry types.NamespacedName)

	mu      sync.RWMutex
	byEntry map[types.NamespacedName]*known
	byPlace map[Place][]*known
	version int64
}

// known is a claim, and whether its entry was looked at since the start.
type known struct {
	Claim

	decided bool
}

// NewIndex makes an empty Index.
func NewIndex() *Index {
	return &Index{byEntry: map[types.NamespacedName]*known{}, byPlace: map[Place][]*known{}}
}

// Set the claim of an entry, and drop the one it had. It returns where the entry claimed and claims a key, as far
// as that has changed: others may hold those keys now.
func (x *Index) Set(c Claim) (changed []Place) {
	x.mu.Lock()
	defer x.mu.Unlock()
	old, ok := x.byEntry[c.Entry]
	if ok && (old.Claim == c || old.outdates(c)) {
		return nil
	}
	x.version++
	next := &known{Claim: c}
	if ok {
		next.decided = old.decided && old.UID == c.UID
		if old.Generation = c.Generation; old.Claim == c { // it was only another part of the entry that changed
			return nil
		}
		changed = append(changed, x.remove(old))
	}
	x.byEntry[c.Entry] = next
	x.byPlace[c.Place] = append(x.byPlace[c.Place], next)
	return append(changed, c.Place)
}

// outdates says whether c is news of the past: it comes from a source that lags behind.
func (c Claim) outdates(o Claim) bool {
	if c.UID == o.UID {
		return c.Generation > o.Generation
	}
	return o.Created.Before(c.Created)
}

// Delete the claim of an entry with this UID; an empty one stands for any. It returns where that was.
func (x *Index) Delete(entry types.NamespacedName, uid types.UID) (changed []Place) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if old, ok := x.byEntry[entry]; ok && (uid == "" || uid == old.UID) {
		x.version++
		delete(x.byEntry, entry)
		changed = append(changed, x.remove(old))
	}
	return changed
}

func (x *Index) remove(c *known) Place {
	if x.Left != nil {
		x.Left(c.Entry)
	}
	rest := slices.DeleteFunc(x.byPlace[c.Place], func(o *known) bool { return o == c })
	if x.byPlace[c.Place] = rest; len(rest) == 0 {
		delete(x.byPlace, c.Place)
	}
	return c.Place
}

// At gives the claims on a key that goes by several names, in several pools of one server, the holder first. Entries that
// only observe it are not among them.
func (x *Index) At(places ...Place) []Claim {
	return slices.DeleteFunc(x.All(places...), func(c Claim) bool { return c.Observes })
}

// All gives the claims on such a key, the oldest first, of entries that only observe it too.
func (x *Index) All(places ...Place) []Claim {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var all []Claim
	for _, p := range places {
		for _, c := range x.byPlace[p] {
			all = append(all, c.Claim)
		}
	}
	slices.SortFunc(all, older)
	return all
}

// Version is another one whenever claims have changed.
func (x *Index) Version() int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.version
}

// Decide notes that an entry was looked at: what is to be done about its claim is known.
func (x *Index) Decide(entry types.NamespacedName, uid types.UID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if c, ok := x.byEntry[entry]; ok && c.UID == uid {
		c.decided = true
	}
}

// Undecided says whether there are claims in any of these pools whose entries were not looked at since the start.
func (x *Index) Undecided(pools []types.NamespacedName) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, c := range x.byEntry {
		if !c.decided && slices.Contains(pools, c.Pool) {
			return true
		}
	}
	return false
}
