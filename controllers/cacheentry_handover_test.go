// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// reader is an application that reads a key all the time.
type reader struct {
	stopped atomic.Bool
	done    sync.WaitGroup
	reads   int
	misses  int
	values  []string
	err     error
}

// read a key in a loop, until finish is called.
func (w *world) read(key string) *reader {
	w.t.Helper()
	r, client := &reader{}, redistest.Client(w.t, w.redis.Options().Addr)
	r.done.Go(func() {
		for ; !r.stopped.Load(); r.reads++ {
			value, err := client.Get(w.t.Context(), key).Result()
			switch {
			case errors.Is(err, redis.Nil):
				r.misses++
			case err != nil:
				r.err = err
				return
			case len(r.values) == 0 || r.values[len(r.values)-1] != value:
				r.values = append(r.values, value)
			}
		}
	})
	w.t.Cleanup(r.finish)
	return r
}

func (r *reader) finish() { r.stopped.Store(true); r.done.Wait() }

// neverMissed ends a reader, who must have found its key each time, with these values one after the other.
func (w *world) neverMissed(r *reader, values ...string) {
	w.t.Helper()
	r.finish()
	w.Expect(r.err).NotTo(HaveOccurred())
	w.Expect(r.reads).To(BeNumerically(">", 0))
	w.Expect(r.misses).To(BeZero(), "of %d reads", r.reads)
	w.Expect(r.values).To(Equal(values))
}

// neverDeleted checks that no command has deleted a key, not even one that found nothing to delete.
func (w *world) neverDeleted(heard []string) {
	w.t.Helper()
	for _, command := range writesAmong(heard) {
		w.Expect(command).To(HavePrefix("set "))
	}
}

// When the holder goes, the key passes on, and a client that reads all the while never misses it.
func TestAReaderNeverMissesAKeyThatPassesOn(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	policies := []struct {
		name   string
		policy func(*v1alpha1.CacheEntry)
		is     string
	}{{"enforce", enforcing, isWarm}, {"present", ensuringPresent, isWarm}, {"written", writingOnChange, isWrittenOnce}}
	for _, holder := range policies {
		for _, successor := range policies {
			key := holder.name + "-" + successor.name
			older := w.entry("a-"+key, keyed(key), valued("older"), holder.policy)
			younger := w.entry("b-"+key, keyed(key), valued("younger"), successor.policy)
			w.create(older)
			w.becomes(older, holder.is)
			w.create(younger)
			w.becomes(younger, stalls("KeyConflict"))

			heard, r := w.listen(key), w.read(mainPrefix+key)
			w.delete(older)
			w.vanishes(older)
			if successor.name == "present" { // it leaves what is there
				w.becomes(younger, isThereAlready)
				w.neverMissed(r, "older")
				w.Expect(younger.Finalizers).To(BeEmpty())
			} else {
				w.becomes(younger, successor.is)
				w.holds(mainPrefix+key, "younger")
				w.Eventually(heard).Should(ContainElement("set " + mainPrefix + key))
				w.stores(mainPrefix+key, "younger", time.Second)
				w.neverMissed(r, "older", "younger")
			}
			w.neverDeleted(heard())
			w.Expect(w.events(older)).NotTo(ContainElement(ContainSubstring("Released")))

			// The successor's own deletion is by its own rule.
			w.delete(younger)
			w.vanishes(younger)
			if successor.name == "present" {
				w.stores(mainPrefix+key, "older", time.Second)
			} else {
				w.lacks(mainPrefix + key)
			}
		}
	}
}

// The same key by another name, through another pool of the server.
func TestAKeyPassesOnBetweenPoolsOfOneServer(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]func(*v1alpha1.CacheEntry){"Enforce": enforcing, "WriteOnChange": writingOnChange} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			w.ready(under("app:"))
			users := w.pool(under("app:users:"), func(p *v1alpha1.CachePool) { p.Name = "users" })
			w.create(users)
			w.becomes(users, connected)
			const full = "app:users:1"
			older, younger := w.entry("a", keyed("users:1"), valued("older"), policy), w.entry("b", keyed("1"), in("users"), valued("younger"), policy)
			w.create(older)
			w.Eventually(func() string { w.reload(older); return summary(older) }).Should(HavePrefix("Ready=True/"))
			w.create(younger)
			w.becomes(younger, stalls("KeyConflict"))
			w.says(younger, `CacheEntry "a" is older and declares the same key`)

			heard, r := w.listen(full), w.read(full)
			w.delete(older)
			w.vanishes(older)
			w.Eventually(func() string { w.reload(younger); return summary(younger) }).Should(HavePrefix("Ready=True/"))
			w.holds(full, "younger")
			w.stores(full, "younger", time.Second)
			w.neverMissed(r, "older", "younger")
			w.neverDeleted(heard())
			w.delete(younger)
			w.vanishes(younger)
			w.lacks(full)
		})
	}
}

// One after the other, down to the last.
func TestAKeyPassesDownAWholeLine(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	var line []*v1alpha1.CacheEntry
	var values []string
	for i := range 5 {
		e := w.entry(fmt.Sprintf("e%d", i), keyed("k"), valued(strconv.Itoa(i)))
		w.create(e)
		line, values = append(line, e), append(values, strconv.Itoa(i))
	}
	w.becomes(line[0], isWarm)
	w.holds(mainPrefix+"k", "0")
	for _, e := range line[1:] {
		w.becomes(e, stalls("KeyConflict"))
	}
	heard, r := w.listen(mainPrefix+"k"), w.read(mainPrefix+"k")
	for i, e := range line[:4] {
		w.delete(e)
		w.becomes(line[i+1], isWarm)
	}
	w.neverMissed(r, values...)
	w.neverDeleted(heard())
	w.delete(line[4])
	w.vanishes(line[4])
	w.lacks(mainPrefix + "k")
}

// All at once but the last: whoever comes in between, the key stays.
func TestAKeyStaysWhenAllButOneOfItsEntriesGoAtOnce(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	var line []*v1alpha1.CacheEntry
	for i := range 10 {
		e := w.entry(fmt.Sprintf("e%d", i), keyed("k"))
		w.create(e)
		line = append(line, e)
	}
	w.becomes(line[0], isWarm)
	w.becomes(line[9], stalls("KeyConflict"))
	heard, r := w.listen(mainPrefix+"k"), w.read(mainPrefix+"k")
	for _, e := range line[:9] {
		w.delete(e)
	}
	for _, e := range line[:9] {
		w.vanishes(e)
	}
	w.becomes(line[9], isWarm)
	w.holds(mainPrefix+"k", "value of e9")
	r.finish()
	w.Expect(r.misses).To(BeZero())
	w.neverDeleted(heard())
}

// A holder that moves away, to another key or pool, or that is told to only look, passes its key on as one that goes.
func TestAHolderThatLeavesPassesItsKeyOn(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*v1alpha1.CacheEntry){
		"another key": keyed("elsewhere"), "another pool": in("other"), "only observing": onlyObserving,
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			w.ready()
			w.create(w.pool(func(p *v1alpha1.CachePool) { p.Name = "other" }))
			older, younger := w.rivals(writingOnChange)
			w.becomes(younger, stalls("KeyConflict"))
			heard, r := w.listen(mainPrefix+"k"), w.read(mainPrefix+"k")
			update(w, older, leave)
			w.becomes(younger, isWrittenOnce)
			w.Eventually(func() string { w.reload(older); return summary(older) }).Should(Or(Equal(isWarm), Equal("Ready=False/Differs")))
			w.holds(mainPrefix+"k", "younger")
			w.stores(mainPrefix+"k", "younger", time.Second)
			w.neverMissed(r, "older", "younger")
			w.neverDeleted(heard())
			w.Expect(w.events(older)).NotTo(ContainElement(ContainSubstring("Released")))
		})
	}
}

// Neither of two that only look stands in anybody's way, however old.
func TestAnObserverNeitherHoldsNorConflicts(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	first := w.entry("a-first", keyed("k"), valued("v"), onlyObserving)
	w.create(first)
	w.becomes(first, "Ready=False/Missing")
	holder := w.entry("b-holder", keyed("k"), valued("v"))
	w.create(holder)
	w.becomes(holder, isWarm)
	second := w.entry("c-second", keyed("k"), valued("w"), onlyObserving)
	w.create(second)
	w.becomes(second, "Ready=False/Differs")
	w.becomes(first, "Ready=True/Matches")
	w.stays(holder, isWarm, time.Second)

	// An observer that begins to write is what its age makes of it.
	update(w, second, enforcing)
	w.becomes(second, stalls("KeyConflict"))
	w.says(second, `CacheEntry "b-holder" is older and declares the same key`)
	update(w, second, onlyObserving)
	w.becomes(second, "Ready=False/Differs")
	heard := w.listen(mainPrefix + "k")
	update(w, first, func(e *v1alpha1.CacheEntry) { enforcing(e); valued("older")(e) })
	w.becomes(first, isWarm)
	w.becomes(holder, stalls("KeyConflict"))
	w.holds(mainPrefix+"k", "older")
	update(w, first, onlyObserving)
	w.becomes(holder, isWarm)
	w.holds(mainPrefix+"k", "v")
	w.neverDeleted(heard())
}

// Observers do not protect the key from its holder's deletion.
func TestAKeyThatIsOnlyObservedIsDeletedWithItsHolder(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]func(*v1alpha1.CacheEntry){
		"Enforce": enforcing, "WriteOnChange": writingOnChange, "EnsurePresent": ensuringPresent,
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			w.ready(under("app:"))
			users := w.pool(under("app:users:"), func(p *v1alpha1.CachePool) { p.Name = "users" })
			w.create(users)
			w.becomes(users, connected)
			before := w.entry("a-before", keyed("users:1"), valued("v"), onlyObserving)
			w.create(before)
			holder := w.entry("b-holder", keyed("users:1"), valued("v"), policy)
			w.create(holder)
			w.Eventually(func() string { w.reload(holder); return summary(holder) }).Should(HavePrefix("Ready=True/"))
			after, byAnotherName := w.entry("c-after", keyed("users:1"), valued("v"), onlyObserving), w.entry("d-other", keyed("1"), in("users"), valued("v"), onlyObserving)
			observers := []*v1alpha1.CacheEntry{before, after, byAnotherName}
			w.create(after)
			w.create(byAnotherName)
			for _, o := range observers {
				w.becomes(o, "Ready=True/Matches")
			}
			w.delete(holder)
			w.vanishes(holder)
			w.lacks("app:users:1")
			for _, o := range observers {
				w.becomes(o, "Ready=False/Missing")
			}
		})
	}
}

// An older entry that changes its key to one that is held takes it, whatever the two may do with it.
func TestAnOlderEntryTakesAHeldKeyUnderEveryPolicy(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	policies := map[string]func(*v1alpha1.CacheEntry){"enforce": enforcing, "present": ensuringPresent, "written": writingOnChange}
	for first, policy := range policies {
		for second, other := range policies {
			key := first + "-takes-" + second
			older := w.entry("a-"+key, keyed("own-"+key), valued("older"), policy)
			younger := w.entry("b-"+key, keyed(key), valued("younger"), other)
			for _, e := range []*v1alpha1.CacheEntry{older, younger} {
				w.create(e)
				w.Eventually(func() string { w.reload(e); return summary(e) }).Should(HavePrefix("Ready=True/"))
			}
			heard, r := w.listen(":"+key), w.read(mainPrefix+key)
			update(w, older, keyed(key))
			w.becomes(younger, stalls("KeyConflict"))
			w.Eventually(func() string { w.reload(older); return older.Status.Key }).Should(Equal(mainPrefix + key))
			w.lacks(mainPrefix + "own-" + key)
			if first == "present" {
				w.becomes(older, isThereAlready)
				w.neverMissed(r, "younger")
			} else {
				w.stores(mainPrefix+key, "older", time.Second)
				w.neverMissed(r, "younger", "older")
			}
			w.neverDeleted(heard())
			// What the younger one has written there is nothing of its own any more.
			w.delete(younger)
			w.vanishes(younger)
			w.Expect(w.has(mainPrefix + key)).To(BeTrue())
		}
	}
}

// The successor cannot write: it has no source. The key stays as the holder left it.
func TestAKeyPassesOnToAnEntryThatCannotWrite(t *testing.T) {
	t.Parallel()
	for name, cannot := range map[string]func(*v1alpha1.CacheEntry){"no source": fromConfigMap("missing", "k"), "suspended": suspendEntry} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			w.ready()
			older, younger := w.entry("a", keyed("k"), valued("older")), w.entry("b", keyed("k"), valued("younger"), cannot)
			w.create(older)
			w.becomes(older, isWarm)
			w.create(younger)
			w.Eventually(func() string { w.reload(younger); return summary(younger) }).Should(Or(Equal(stalls("KeyConflict")), Equal(isSuspended)))
			heard := w.listen(mainPrefix + "k")
			w.delete(older)
			w.vanishes(older)
			w.stores(mainPrefix+"k", "older", time.Second)
			w.neverDeleted(heard())
			if name == "suspended" {
				update(w, younger, resumeEntry)
			} else {
				w.becomes(younger, waits("SourceNotFound"))
				w.configMap(map[string]string{"k": "younger"})
				update(w, younger, fromConfigMap("source", "k"))
			}
			w.becomes(younger, isWarm)
			w.holds(mainPrefix+"k", "younger")
			w.neverDeleted(heard())
		})
	}
}

// A holder that moves away leaves its key to another entry: if that goes before it has written, the key must too.
func TestAHolderThatMovesAwayLeavesItsKeyToAnHeirThatCannotWriteYet(t *testing.T) {
	t.Parallel()
	for _, taken := range []bool{true, false} {
		t.Run(fmt.Sprintf("taken over %v", taken), func(t *testing.T) {
			w, _ := newRealWorld(t)
			p := w.ready()
			holder, heir := w.entry("a", keyed("k")), w.entry("b", keyed("k"), fromConfigMap("source", "k"))
			w.create(holder)
			w.becomes(holder, isWarm)
			w.create(heir)
			w.becomes(heir, stalls("KeyConflict"))
			heard := w.listen(mainPrefix + "k")
			update(w, holder, keyed("elsewhere"))
			w.becomes(holder, isWarm)
			w.becomes(heir, waits("SourceNotFound"))
			w.stores(mainPrefix+"k", "value of a", time.Second)
			w.neverDeleted(heard())
			if taken {
				w.configMap(map[string]string{"k": "value of b"})
				w.becomes(heir, isWarm)
			} else {
				w.delete(heir)
				w.vanishes(heir)
				w.lacks(mainPrefix + "k")
			}
			w.Eventually(func() string { w.reload(holder); return holder.Annotations[writtenAnnotation] }).Should(Equal(recordAt(p, "elsewhere")))
			w.Expect(w.events(holder)).NotTo(ContainElement(ContainSubstring("Released")))
			w.holds(mainPrefix+"elsewhere", "value of a")
			if taken {
				w.holds(mainPrefix+"k", "value of b")
				w.neverDeleted(heard())
			}
		})
	}
}

// Neither entry leaves the key to the other when both go.
func TestWhenAllEntriesOfAKeyGoItIsDeleted(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	for i := range 10 {
		key := fmt.Sprintf("k%d", i)
		holder := w.entry("holder-"+key, keyed(key))
		w.create(holder)
		w.becomes(holder, isWarm)
		heir := w.entry("zheir-"+key, keyed(key))
		w.create(heir)
		w.becomes(heir, stalls("KeyConflict"))
		w.delete(holder)
		w.delete(heir)
		w.vanishes(holder)
		w.vanishes(heir)
		w.lacks(mainPrefix + key)
	}
}

// Whoever a key has passed on to deletes it, also when it never came to write there.
func TestAKeyThatHasPassedOnIsDeletedWithItsLastEntry(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready()
	older, younger := w.entry("a", keyed("k"), valued("older")), w.entry("b", keyed("k"), fromConfigMap("missing", "k"))
	w.create(older)
	w.becomes(older, isWarm)
	w.create(younger)
	w.becomes(younger, stalls("KeyConflict"))
	w.Expect(younger.Finalizers).To(BeEmpty())
	w.delete(older)
	w.vanishes(older)
	w.becomes(younger, waits("SourceNotFound"))
	w.Expect(younger.Annotations[writtenAnnotation]).To(Equal(recordAt(p, "k")))
	w.stores(mainPrefix+"k", "older", time.Second)
	w.delete(younger)
	w.vanishes(younger)
	w.lacks(mainPrefix + "k")
}

// A key that its holder would have left passes on as it is: the heir may delete only what the holder wrote last, until it
// has written itself.
func TestAnHeirDeletesWhatItsPredecessorWouldHave(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		holder, heir func(*v1alpha1.CacheEntry)
		foreign      bool
		stays        bool
	}{
		"Enforce to WriteOnChange":                       {enforcing, writingOnChange, false, false},
		"WriteOnChange to Enforce":                       {writingOnChange, enforcing, false, false},
		"WriteOnChange to Enforce, changed by others":    {writingOnChange, enforcing, true, true},
		"EnsurePresent to Enforce, changed by others":    {ensuringPresent, enforcing, true, true},
		"a counter that is retained":                     {counting(5, "r"), enforcing, false, true},
		"to EnsurePresent, which takes it for another's": {enforcing, ensuringPresent, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			w.ready(unwatched)
			holder, heir := w.entry("a", keyed("k"), valued("older"), test.holder), w.entry("b", keyed("k"), test.heir, fromConfigMap("missing", "k"))
			w.create(holder)
			w.Eventually(func() string { w.reload(holder); return summary(holder) }).Should(HavePrefix("Ready=True/"))
			w.create(heir)
			w.becomes(heir, stalls("KeyConflict"))
			if test.foreign {
				w.Expect(w.redis.Set(t.Context(), mainPrefix+"k", "foreign", 0).Err()).To(Succeed())
			}
			w.delete(holder)
			w.vanishes(holder)
			w.becomes(heir, waits("SourceNotFound"))
			w.delete(heir)
			w.vanishes(heir)
			if test.stays {
				w.Expect(w.has(mainPrefix + "k")).To(BeTrue())
			} else {
				w.lacks(mainPrefix + "k")
			}
		})
	}
}
