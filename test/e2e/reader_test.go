// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// shortLived is how long keys live that a reader reads all the time, and readingTime how long it does.
const (
	shortLived  = 2 * time.Second
	readingTime = 60 * time.Second
)

// reader gets a hundred keys that an operator keeps, over and over.
type reader struct {
	*WithT

	t      *testing.T
	redis  *redis.Client
	names  []string
	values []string

	mu   sync.Mutex
	keys []readKey
	// rounds over all keys, and the longest of them.
	rounds  int
	longest time.Duration
	// absent and foreign are how often a key was not there, or held something else.
	absent, foreign int
	// repairs are how long a key was not as declared, from the change to the first sight of the right value.
	repairs []repair
}

// readKey is what is known of one key.
type readKey struct {
	// changes that another client has made, and when the first one began and the last one was over that the reader
	// has not seen undone yet.
	changes     int
	first, last time.Time
	changing    bool
	wrong       bool
}

type repair struct {
	// change says the how manieth change of the key it was.
	change int
	took   time.Duration
}

// startReader on a server of its own, once all keys of a pool are warm.
func startReader(t *testing.T, space, name string) *reader {
	t.Helper()
	const n = 100
	server := redistest.Start(t)
	r := &reader{WithT: expectations(t), t: t, redis: server.Client(t), keys: make([]readKey, n)}
	pool := poolIn(space, server.Addr)
	pool.Name = name
	r.Expect(k8s.Create(t.Context(), pool)).To(Succeed())
	entries := make([]*v1alpha1.CacheEntry, n)
	for i := range entries {
		e := entryIn(space, fmt.Sprintf("%s-%d", pool.Name, i))
		e.Spec.PoolRef.Name, e.Spec.Forever, e.Spec.TTL = pool.Name, nil, &metav1.Duration{Duration: shortLived}
		entries[i] = e
		r.names, r.values = append(r.names, "glimr:cache:"+pool.Name+":"+e.Spec.Key), append(r.values, *e.Spec.Value)
	}
	all(n, func(i int) {
		if err := k8s.Create(t.Context(), entries[i]); err != nil {
			t.Error(err)
		}
	})
	for _, e := range entries {
		becomes(t, r.WithT, e, v1alpha1.ConditionReady)
	}
	return r
}

// read all keys in a loop until the context ends.
func (r *reader) read(ctx context.Context) {
	for tick := time.NewTicker(time.Millisecond); ; {
		sent := time.Now()
		values, err := r.redis.MGet(ctx, r.names...).Result()
		if ctx.Err() != nil {
			tick.Stop()
			return
		}
		if err != nil {
			r.t.Error(err)
			return
		}
		received := time.Now()
		r.mu.Lock()
		r.rounds++
		r.longest = max(r.longest, received.Sub(sent))
		for i, v := range values {
			r.saw(i, v, sent, received)
		}
		r.mu.Unlock()
		<-tick.C
	}
}

// saw a value of a key, or nil.
func (r *reader) saw(i int, value any, sent, received time.Time) {
	k := &r.keys[i]
	switch value {
	case r.values[i]:
		if k.changing || k.first.IsZero() || !sent.After(k.last) {
			return // it may be from before the change
		}
		if limit := k.last.Add(k.patience()); received.After(limit) && k.wrong && sent.After(limit) {
			r.t.Errorf("%s was right again %v after change %d, want at most %v", r.names[i], received.Sub(k.last), k.changes, k.patience())
		}
		r.repairs = append(r.repairs, repair{change: k.changes, took: received.Sub(k.first)})
		k.first, k.wrong = time.Time{}, false
	case nil:
		r.absent++
		r.wrong(i, "is not there", sent)
	default:
		r.foreign++
		r.wrong(i, fmt.Sprintf("holds %q", value), sent)
	}
}

// wrong may only be what has been changed and not been put right yet.
func (r *reader) wrong(i int, what string, sent time.Time) {
	k := &r.keys[i]
	k.wrong = true
	switch {
	case k.first.IsZero():
		r.t.Errorf("%s %s, though nobody has changed it since it was right", r.names[i], what)
	case !k.changing && sent.After(k.last.Add(k.patience())):
		r.t.Errorf("%s %s %v after change %d", r.names[i], what, sent.Sub(k.last), k.changes)
		k.last = sent // once is enough
	}
}

// patience with the repair of a key: the first change is undone at once, further ones ever more seldom, if they come
// before a quiet minute is over, as all do here.
func (k *readKey) patience() time.Duration {
	const slack = time.Second // of a loaded machine
	if k.changes < 2 {
		return slack
	}
	return min(30*time.Second, time.Second<<(k.changes-2)) + slack
}

// change random keys at random times until the context ends: delete them, or put something else there.
func (r *reader) change(ctx context.Context, random *rand.Rand, between time.Duration) {
	whole := context.WithoutCancel(ctx) // a change that has begun is made
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.NewTimer(time.Duration(random.Int64N(int64(2 * between)))).C:
		}
		i := random.IntN(len(r.keys))
		k := &r.keys[i]
		r.mu.Lock()
		k.changes++
		if k.changing = true; k.first.IsZero() {
			k.first = time.Now()
		}
		r.mu.Unlock()
		var err error
		if random.IntN(2) == 0 {
			err = r.redis.Del(whole, r.names[i]).Err()
		} else {
			err = r.redis.Set(whole, r.names[i], "foreign", 0).Err()
		}
		if err != nil {
			r.t.Error(err)
			return
		}
		r.mu.Lock()
		k.changing, k.last = false, time.Now()
		r.mu.Unlock()
	}
}

// expired keys that the server has had: it counts a key whether a reader or itself finds out.
func (r *reader) expired() string {
	return r.redis.InfoMap(r.t.Context(), "stats").Item("Stats", "expired_keys")
}

func (r *reader) report() string {
	changes := 0
	for i := range r.keys {
		changes += r.keys[i].changes
	}
	return fmt.Sprintf("%d reads of each of %d keys, the longest took %v; %d changes; %d reads found no key and %d another value",
		r.rounds, len(r.keys), r.longest.Round(time.Microsecond), changes, r.absent, r.foreign)
}

// firstRepairs are how long the first changes of keys lasted, sorted.
func (r *reader) firstRepairs() []time.Duration {
	var first []time.Duration
	for _, repair := range r.repairs {
		if repair.change == 1 {
			first = append(first, repair.took)
		}
	}
	slices.Sort(first)
	return first
}

func TestAReaderMissesNoKeyButBetweenADeletionAndItsRepair(t *testing.T) {
	t.Parallel()
	random := chance(t)
	space := namespace(t, "reader")
	run(t, kubeconfig, "--namespaces="+space)
	calm, disturbed := startReader(t, space, "calm"), startReader(t, space, "disturbed")

	reading, cancel := context.WithTimeout(t.Context(), readingTime)
	defer cancel()
	changing, cancel := context.WithTimeout(t.Context(), readingTime-8*time.Second)
	defer cancel()
	var work sync.WaitGroup
	work.Go(func() { calm.read(reading) })
	work.Go(func() { disturbed.read(reading) })
	work.Go(func() { disturbed.change(changing, random, 200*time.Millisecond) })
	work.Wait()

	t.Logf("keys that nobody changes: %s", calm.report())
	calm.Expect(calm.absent+calm.foreign).To(BeZero(), "no read found another value than the declared one")
	calm.Expect(calm.expired()).To(Equal("0"))

	t.Logf("keys that somebody changes: %s", disturbed.report())
	disturbed.Expect(disturbed.expired()).To(Equal("0"), "no key was ever gone because its life was over")
	first := disturbed.firstRepairs()
	disturbed.Expect(len(first)).To(BeNumerically(">", 10))
	t.Logf("of %d first changes, half were undone within %v, 99%% within %v, all within %v",
		len(first), first[len(first)/2], first[len(first)*99/100], first[len(first)-1])
	disturbed.Expect(first[len(first)/2]).To(BeNumerically("<", 100*time.Millisecond))
}
