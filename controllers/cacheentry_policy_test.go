// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/keeper"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// What the conditions of entries read that follow other policies than Enforce.
const (
	isPresent = "Ready=True/Present"
	isWritten = "Ready=True/Written"
	matches   = "Ready=True/Matches"
	differs   = "Ready=False/Differs"
	isMissing = "Ready=False/Missing"
)

// following gives an entry a policy.
func following(p v1alpha1.EntryPolicy) func(*v1alpha1.CacheEntry) {
	return func(e *v1alpha1.CacheEntry) { e.Spec.Policy = p }
}

func ensuring(e *v1alpha1.CacheEntry) { e.Spec.Policy = v1alpha1.PolicyEnsurePresent }

func writingOnce(e *v1alpha1.CacheEntry) { e.Spec.Policy = v1alpha1.PolicyWriteOnChange }

func observing(e *v1alpha1.CacheEntry) { e.Spec.Policy = v1alpha1.PolicyObserve }

// labeled has an entry reconciled that is otherwise the same.
func labeled(e *v1alpha1.CacheEntry) { metav1.SetMetaDataLabel(&e.ObjectMeta, "touched", "yes") }

// held says whether an entry has a finalizer and a record, and fails if it has only one of them.
func (w *world) held(e *v1alpha1.CacheEntry) bool {
	w.t.Helper()
	w.reload(e)
	_, recorded := e.Annotations["cachewright.dev/written"]
	w.Expect(recorded).To(Equal(len(e.Finalizers) > 0), "a record and a finalizer come and go together")
	return recorded
}

// came creates an entry, and waits until its conditions read as given.
func (w *world) came(want, name string, change ...func(*v1alpha1.CacheEntry)) *v1alpha1.CacheEntry {
	w.t.Helper()
	e := w.entry(name, change...)
	w.create(e)
	w.becomes(e, want)
	return e
}

// list makes a key hold another type than a string.
func (w *world) list(key string) {
	w.t.Helper()
	_, err := w.redis.TxPipelined(w.t.Context(), func(p redis.Pipeliner) error { // in one go, or it is written in between
		p.Del(w.t.Context(), key)
		p.LPush(w.t.Context(), key, "x")
		return nil
	})
	w.Expect(err).NotTo(HaveOccurred())
}

// writings of keys on a real server, as its keyspace notifications tell them: those since the call.
func (w *world) writings() func() []string {
	w.t.Helper()
	w.Expect(w.redis.ConfigSet(w.t.Context(), "notify-keyspace-events", "E$g").Err()).To(Succeed())
	subscription := w.redis.Subscribe(w.t.Context(), "__keyevent@0__:set")
	w.t.Cleanup(func() { _ = subscription.Close() })
	_, err := subscription.Receive(w.t.Context())
	w.Expect(err).NotTo(HaveOccurred())
	var written []string
	return func() []string {
		w.Expect(w.redis.Publish(w.t.Context(), "__keyevent@0__:set", "end").Err()).To(Succeed())
		for message := range subscription.Channel(redis.WithChannelSize(10_000)) {
			if message.Payload == "end" {
				break
			}
			if !strings.Contains(message.Payload, "cachewright-probe-") { // the operator's own, to see whether changes are told
				written = append(written, message.Payload)
			}
		}
		return written
	}
}

// unset a key behind the operator's back.
func (w *world) unset(key string) {
	w.t.Helper()
	w.Expect(w.redis.Del(w.t.Context(), key).Err()).To(Succeed())
}

func TestEnsurePresentWritesAKeyThatIsAbsent(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(unwatched)
	e := w.came(isWarm, "e", ensuring, living(time.Hour))
	w.Expect(w.redis.Get(t.Context(), e.Status.Key).Val()).To(Equal("value of e"))
	w.Expect(w.redis.PTTL(t.Context(), e.Status.Key).Val()).To(BeNumerically("~", time.Hour, time.Minute))
	w.Expect(w.held(e)).To(BeTrue())
	w.Expect(e.Status.LastWriteTime).NotTo(BeNil())
	w.Expect(e.Status.WrittenDigest).To(Equal(keeper.Digest("value of e")))
	w.rests(e, time.Second)
}

// Whatever others have put there stays, and the entry has nothing to delete when it goes.
func TestEnsurePresentLeavesAValueOfOthersAlone(t *testing.T) {
	w, _ := newRealWorld(t)
	w.watched(w.ready(unwatched))
	w.set(mainPrefix+"e", "foreign")
	written := w.writings()
	e := w.came(isPresent, "e", ensuring)
	w.says(e, "The key holds a value that others have put there")
	w.Expect(w.held(e)).To(BeFalse(), "it has written nothing")
	w.Expect(e.Status.LastWriteTime).To(BeNil())
	w.Expect(e.Status.WrittenDigest).To(BeEmpty())

	w.set(mainPrefix+"e", "another")
	w.look(e)
	w.rests(e, 2*time.Second)
	w.Expect(summary(e)).To(Equal(isPresent))
	w.Expect(w.redis.Get(t.Context(), e.Status.Key).Val()).To(Equal("another"))
	w.Expect(written()).To(HaveLen(1), "by the test")
}

// The value that it would have written is as good as its own, but it has not written it.
func TestEnsurePresentIsWarmOverTheSameValueOfOthers(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(unwatched)
	w.set(mainPrefix+"e", "value of e")
	e := w.came(isWarm, "e", ensuring)
	w.rests(e, time.Second)
	w.Expect(w.held(e)).To(BeFalse())
	w.Expect(e.Status.LastWriteTime).To(BeNil())
}

func TestEnsurePresentLeavesWhatOthersWriteOverItsValue(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(unwatched)
	e := w.came(isWarm, "e", ensuring)
	w.set(e.Status.Key, "foreign")
	w.becomes(e, isPresent)
	w.Expect(w.held(e)).To(BeTrue(), "what it has written could come back")
	w.set(e.Status.Key, "value of e")
	w.becomes(e, isWarm)
	w.list(e.Status.Key)
	w.becomes(e, isPresent) // it is there, whatever its type
	w.Expect(w.redis.LRange(t.Context(), e.Status.Key, 0, -1).Val()).To(Equal([]string{"x"}))
}

func TestEnsurePresentWritesAMissingKeyAgain(t *testing.T) {
	w, _ := newRealWorld(t)
	w.watched(w.ready(unwatched))
	e := w.came(isWarm, "e", ensuring)
	was := e.DeepCopy()
	w.unset(e.Status.Key)
	w.holds(e.Status.Key, "value of e")
	w.rests(e, time.Second)
	w.Expect(e.ResourceVersion).To(Equal(was.ResourceVersion), "a repair writes nothing to the API server")
}

// Its lifetime runs out before it is written again: nothing is renewed.
func TestEnsurePresentLetsItsValueRunOut(t *testing.T) {
	w, _ := newRealWorld(t)
	w.watched(w.ready(unwatched))
	const ttl = 6 * time.Second
	e := w.came(isWarm, "e", ensuring, living(ttl))
	version, left, renewed := e.ResourceVersion, ttl, 0
	w.Eventually(func() int {
		switch now := w.redis.PTTL(t.Context(), e.Status.Key).Val(); {
		case now < 0: // it has run out
			left = 0
		case now > left:
			w.Expect(left).To(BeNumerically("<", time.Second), "Enforce would renew it in the last third")
			renewed++
			left = now
		default:
			left = now
		}
		return renewed
	}).Should(Equal(2))
	w.reload(e)
	w.Expect(e.ResourceVersion).To(Equal(version))
}

func TestEnsurePresentWritesWhenAForeignValueHasRunOut(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*v1alpha1.CacheEntry){"inline": ensuring, "secret": fromSecret("source", "k")} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			w.ready(unwatched)
			w.secret("source", map[string]string{"k": "value of e"})
			w.Expect(w.redis.Set(t.Context(), mainPrefix+"e", "foreign", 10*time.Second).Err()).To(Succeed())
			e := w.came(isPresent, "e", change, ensuring)
			w.Expect(w.held(e)).To(BeFalse())
			w.becomes(e, isWarm)
			w.Expect(w.redis.Get(t.Context(), e.Status.Key).Val()).To(Equal("value of e"))
			w.Expect(w.redis.PTTL(t.Context(), e.Status.Key).Val()).To(Equal(time.Duration(-1)))
			w.Expect(w.held(e)).To(BeTrue(), "now it has written")
			w.Expect(e.Status.LastWriteTime).NotTo(BeNil())
		})
	}
}

// A declared value that changes is written only if the key is absent.
func TestEnsurePresentWithANewValueLeavesTheOldOne(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		foreign string
		old     string
	}{
		"its own":   {"", "value of e"},
		"a foreign": {"foreign", "foreign"},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			w.ready(unwatched)
			e := w.came(isWarm, "e", ensuring)
			if test.foreign != "" {
				w.set(e.Status.Key, test.foreign)
				w.becomes(e, isPresent)
			}
			update(w, e, valued("new"))
			w.becomes(e, isPresent)
			w.stores(e.Status.Key, test.old, time.Second)
			w.Expect(e.Status.WrittenDigest).To(Equal(keeper.Digest("value of e")), "the last that was written")
			w.unset(e.Status.Key)
			w.becomes(e, isWarm)
			w.Expect(w.redis.Get(t.Context(), e.Status.Key).Val()).To(Equal("new"))
			w.Eventually(func() string { w.reload(e); return e.Status.WrittenDigest }).Should(Equal(keeper.Digest("new")))
		})
	}
}

// The status tells which version of a Secret was written, not which one is there now.
func TestEnsurePresentTellsOfTheSecretThatItHasWritten(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(unwatched)
	s := w.secret("source", map[string]string{"k": "old"})
	e := w.came(isWarm, "e", ensuring, fromSecret("source", "k"))
	written := s.ResourceVersion
	w.Expect(e.Status.SourceResourceVersion).To(Equal(written))
	update(w, s, func(s *corev1.Secret) { s.Data["k"] = []byte("new") })
	w.becomes(e, isPresent)
	w.Expect(e.Status.SourceResourceVersion).To(Equal(written))
	w.rests(e, time.Second)

	w.unset(e.Status.Key)
	w.becomes(e, isWarm)
	w.holds(e.Status.Key, "new")
	w.Eventually(func() string { w.reload(e); return e.Status.SourceResourceVersion }).Should(Equal(s.ResourceVersion))
}

func TestEnsurePresentLeavesAKeyOfAnotherTypeAlone(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(unwatched)
	w.list(mainPrefix + "e")
	e := w.came(isPresent, "e", ensuring)
	w.rests(e, time.Second)
	w.Expect(w.redis.LRange(t.Context(), e.Status.Key, 0, -1).Val()).To(Equal([]string{"x"}))
	w.unset(e.Status.Key)
	w.becomes(e, isWarm)
	w.holds(e.Status.Key, "value of e")
}

// Entries with Retain have neither record nor finalizer, not even for a moment.
func TestEnsurePresentWithRetainIsNeverOnRecord(t *testing.T) {
	w, _ := newRealWorld(t)
	w.watched(w.ready(unwatched))
	seen := w.follow()
	e := w.came(isWarm, "e", ensuring, retained)
	for range 2 {
		w.unset(e.Status.Key)
		w.holds(e.Status.Key, "value of e")
		update(w, e, func(e *v1alpha1.CacheEntry) { e.Labels = map[string]string{"version": e.ResourceVersion} })
	}
	w.rests(e, time.Second)
	for _, e := range seen() {
		w.Expect(e.Finalizers).To(BeEmpty())
		w.Expect(e.Annotations).NotTo(HaveKey("cachewright.dev/written"))
	}
}

func TestWriteOnChangeWritesOverWhateverIsThere(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(unwatched)
	w.Expect(w.redis.Set(t.Context(), mainPrefix+"e", "foreign", time.Hour).Err()).To(Succeed())
	for _, name := range []string{"e", "absent"} {
		e := w.came(isWritten, name, writingOnce)
		w.says(e, "The declared value was written")
		w.Expect(w.redis.Get(t.Context(), e.Status.Key).Val()).To(Equal("value of " + name))
		w.Expect(w.redis.PTTL(t.Context(), e.Status.Key).Val()).To(Equal(time.Duration(-1)))
		w.Expect(w.held(e)).To(BeTrue())
		w.Expect(e.Status.LastWriteTime).NotTo(BeNil())
		w.Expect(e.Status.WrittenDigest).To(Equal(keeper.Digest("value of " + name)))
	}
}

// Whatever becomes of the key is left alone: by events, by sweeps, by a reconcile, by a request to look, by another
// lifetime, by a suspension that ends. Ready stays as it is.
func TestWriteOnChangeLeavesAloneWhatOthersDo(t *testing.T) {
	w, _ := newRealWorld(t)
	w.watched(w.ready())
	ctx := t.Context()
	for name, test := range map[string]struct {
		drift func(key string) error
		left  string
	}{
		"changed": {func(k string) error { return w.redis.Set(ctx, k, "foreign", 0).Err() }, "string foreign -1ns"},
		"missing": {func(k string) error { return w.redis.Del(ctx, k).Err() }, "none"},
		"expired": {func(k string) error { return w.redis.PExpire(ctx, k, time.Millisecond).Err() }, "none"},
		"another type": {func(k string) error {
			_, err := w.redis.TxPipelined(ctx, func(p redis.Pipeliner) error { p.Del(ctx, k); return p.LPush(ctx, k, "x").Err() })
			return err
		}, "list"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := w.sub(t)
			e := w.came(isWritten, name[:5], writingOnce)
			lastWrite := e.Status.LastWriteTime
			left := func() string {
				kind := w.redis.Type(t.Context(), e.Status.Key).Val()
				if kind == "string" {
					return fmt.Sprintf("string %s %s", w.redis.Get(t.Context(), e.Status.Key).Val(), w.redis.PTTL(t.Context(), e.Status.Key).Val())
				}
				return kind
			}
			w.Expect(test.drift(e.Status.Key)).To(Succeed())
			w.Eventually(left).Should(Equal(test.left))
			w.rests(e, sweeps)
			w.Expect(left()).To(Equal(test.left))
			for _, change := range []func(*v1alpha1.CacheEntry){labeled, living(time.Hour), suspendEntry, resumeEntry} {
				update(w, e, change)
				if !e.Spec.Suspend {
					w.becomes(e, isWritten)
				}
			}
			w.look(e)
			w.stays(e, isWritten, time.Second)
			w.Expect(left()).To(Equal(test.left))
			w.Expect(e.Status.LastWriteTime).To(Equal(lastWrite))
		})
	}
}

func TestWriteOnChangeLetsItsValueRunOut(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	e := w.came(isWritten, "e", writingOnce, living(time.Second))
	w.lacks(e.Status.Key)
	w.rests(e, sweeps/2)
	w.Expect(summary(e)).To(Equal(isWritten))
	w.Expect(w.keys(mainPrefix + "e")).To(BeEmpty())
}

func TestWriteOnChangeWritesANewValue(t *testing.T) {
	w, _ := newRealWorld(t)
	w.watched(w.ready(unwatched))
	e := w.came(isWritten, "e", writingOnce)
	for _, value := range []string{"new", "newer", ""} {
		w.set(e.Status.Key, "foreign")
		update(w, e, valued(value))
		w.becomes(e, isWritten)
		w.Expect(w.redis.Get(t.Context(), e.Status.Key).Val()).To(Equal(value))
		w.Expect(e.Status.WrittenDigest).To(Equal(keeper.Digest(value)))
	}
	w.unset(e.Status.Key)
	update(w, e, valued("missing"))
	w.becomes(e, isWritten)
	w.Expect(w.redis.Get(t.Context(), e.Status.Key).Val()).To(Equal("missing"))
}

// A value that comes back is a new one, even if the one in between was never seen in the status.
func TestWriteOnChangeWritesAValueThatComesBack(t *testing.T) {
	w, _ := newRealWorld(t)
	w.watched(w.ready(unwatched))
	e := w.came(isWritten, "e", writingOnce, valued("a"))
	for range 20 {
		update(w, e, valued("b"))
		w.holds(e.Status.Key, "b")
		update(w, e, valued("a"))
		w.becomes(e, isWritten)
		w.Expect(w.redis.Get(t.Context(), e.Status.Key).Val()).To(Equal("a"))
	}
}

func TestWriteOnChangeNeverTouchesAKeyOfAnotherType(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(unwatched)
	w.list(mainPrefix + "e")
	e := w.came(stalls("WrongType"), "e", writingOnce)
	w.Expect(w.redis.LRange(t.Context(), mainPrefix+"e", 0, -1).Val()).To(Equal([]string{"x"}))
	w.unset(mainPrefix + "e")
	w.becomes(e, isWritten)
	w.holds(e.Status.Key, "value of e")

	w.list(e.Status.Key)
	w.rests(e, time.Second) // nothing is to be written
	update(w, e, valued("new"))
	w.becomes(e, stalls("WrongType"))
	w.Expect(w.redis.LRange(t.Context(), e.Status.Key, 0, -1).Val()).To(Equal([]string{"x"}))
}

// What is there already, as it would be written, is not written again; it counts as written.
func TestWriteOnChangeDoesNotWriteWhatIsThere(t *testing.T) {
	w, _ := newRealWorld(t)
	w.watched(w.ready(unwatched))
	w.set(mainPrefix+"e", "value of e")
	written := w.writings()
	e := w.came(isWritten, "e", writingOnce)
	w.Expect(written()).To(BeEmpty())
	w.Expect(w.held(e)).To(BeTrue())
	w.Expect(e.Status.WrittenDigest).To(Equal(keeper.Digest("value of e")))
}

// Only the value counts: a ConfigMap that changes elsewhere, or that comes back as it was, says nothing new.
func TestWriteOnChangeFollowsItsConfigMap(t *testing.T) {
	w, _ := newRealWorld(t)
	w.watched(w.ready(unwatched))
	c := w.configMap(map[string]string{"k": "one", "other": "one"})
	e := w.came(isWritten, "e", fromConfigMap("source", "k"), writingOnce)
	follows := func() {
		w.t.Helper()
		w.Eventually(func() string { w.reload(e); return e.Status.SourceResourceVersion }).Should(Equal(c.ResourceVersion))
	}
	update(w, c, func(c *corev1.ConfigMap) { c.Data["k"] = "two" })
	w.holds(e.Status.Key, "two")
	follows()

	w.set(e.Status.Key, "foreign")
	update(w, c, func(c *corev1.ConfigMap) { c.Data["other"] = "two" })
	follows()
	w.stores(e.Status.Key, "foreign", time.Second)

	update(w, e, suspendEntry)
	w.Eventually(func() string { w.reload(e); return summary(e) }).Should(ContainSubstring("Suspended"))
	update(w, c, func(c *corev1.ConfigMap) { c.Data["other"] = "three" })
	update(w, e, resumeEntry)
	w.becomes(e, isWritten)
	follows()
	w.stores(e.Status.Key, "foreign", time.Second)

	w.delete(c)
	w.becomes(e, waits("SourceNotFound"))
	c = w.configMap(map[string]string{"k": "two"})
	w.becomes(e, isWritten)
	follows()
	w.stores(e.Status.Key, "foreign", time.Second)

	update(w, c, func(c *corev1.ConfigMap) { c.Data["k"] = "three" })
	w.holds(e.Status.Key, "three")
}

// What was written once was written to the former server. On the new one it is Missing until the value changes.
func TestWriteOnChangeIsMissingOnAnotherServer(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready(unwatched)
	e, enforced := w.came(isWritten, "e", writingOnce), w.came(isWarm, "enforced")
	there := redistest.Start(t).Client(t)
	update(w, p, func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{there.Options().Addr} })
	w.becomes(e, isMissing)
	w.says(e, `CachePool "main" has moved to another server, to which this was not written`)
	w.Eventually(func() string { return there.Get(t.Context(), enforced.Status.Key).Val() }).Should(Equal("value of enforced"))
	update(w, e, living(time.Hour)) // another lifetime is no other value
	w.becomes(e, isMissing)
	w.look(e)
	w.stays(e, isMissing, 2*time.Second)
	w.Expect(there.Exists(t.Context(), e.Status.Key).Val()).To(BeZero())

	update(w, e, valued("new"))
	w.becomes(e, isWritten)
	w.Expect(there.Get(t.Context(), e.Status.Key).Val()).To(Equal("new"))
	w.Expect(w.redis.Get(t.Context(), e.Status.Key).Val()).To(Equal("value of e"), "keys on the former server stay")
}

// Observe compares values only, and never writes. It follows what becomes of the key.
func TestObserveSaysWhatTheKeyIsLike(t *testing.T) {
	w, _ := newRealWorld(t)
	w.watched(w.ready(unwatched))
	w.Expect(w.redis.Set(t.Context(), mainPrefix+"same", "value of same", time.Hour).Err()).To(Succeed())
	w.set(mainPrefix+"other", "foreign")
	w.set(mainPrefix+"longer", "value of longer!")
	w.list(mainPrefix + "list")
	written := w.writings()
	for name, want := range map[string]struct {
		conditions, message string
		change              func(*v1alpha1.CacheEntry)
	}{
		"same":   {matches, "The key holds the declared value", observing}, // it has a lifetime, and was to have none
		"other":  {differs, "The key holds another value than the declared one", observing},
		"longer": {differs, "The key holds another value than the declared one", observing},
		"list":   {differs, "The key holds another value than the declared one", observing},
		"absent": {isMissing, "The key does not exist", living(time.Hour)},
	} {
		e := w.came(want.conditions, name, want.change, observing)
		w.says(e, want.message)
		w.Expect(w.held(e)).To(BeFalse())
		w.Expect(e.Status.LastWriteTime).To(BeNil())
		w.Expect(e.Status.WrittenDigest).To(BeEmpty())
		w.Expect(e.Status.Key).To(Equal(mainPrefix + name))
		w.look(e)
		update(w, e, valued("value of "+name+" and more"))
		w.Eventually(func() string { w.reload(e); return summary(e) }).ShouldNot(HavePrefix("stale"))
		w.Expect(w.held(e)).To(BeFalse())
	}
	w.Expect(written()).To(BeEmpty())
	w.Expect(w.keys(mainPrefix + "*")).To(HaveLen(4))
	w.Expect(w.redis.PTTL(t.Context(), mainPrefix+"same").Val()).To(BeNumerically(">", time.Minute))
}

func TestObserveFollowsTheKey(t *testing.T) {
	w, _ := newRealWorld(t)
	w.watched(w.ready(unwatched))
	e := w.came(isMissing, "e", observing)
	w.set(e.Status.Key, "value of e")
	w.becomes(e, matches)
	w.set(e.Status.Key, "foreign")
	w.becomes(e, differs)
	w.Expect(w.redis.Set(t.Context(), e.Status.Key, "value of e", 15*time.Second).Err()).To(Succeed())
	w.becomes(e, matches)
	w.becomes(e, isMissing) // it ran out
}

// However often the key changes, its status does so every ten seconds at most.
func TestObserveChangesItsStatusSeldom(t *testing.T) {
	w, _ := newRealWorld(t)
	w.watched(w.ready(unwatched))
	e := w.came(isMissing, "e", observing)
	seen, flips := w.follow(), 0
	w.Consistently(func() int {
		flips++
		w.set(e.Status.Key, []string{"value of e", "foreign"}[flips%2])
		return len(seen())
	}, 15*time.Second, 100*time.Millisecond).Should(BeNumerically("<=", 1+2), "as it was, and two changes")
	w.Expect(flips).To(BeNumerically(">", 50))
	w.set(e.Status.Key, "value of e")
	w.becomes(e, matches) // what is the case in the end is told in the end
	w.rests(e, sweeps/2)
}

// Observe entries neither hold nor conflict, whoever is older.
func TestObserveNeitherHoldsNorConflicts(t *testing.T) {
	w, _ := newRealWorld(t)
	w.watched(w.ready(unwatched))
	w.came(isMissing, "a", observing, keyed("k"))
	writer := w.came(isWarm, "b", keyed("k"), valued("v"))
	w.came(differs, "c", observing, keyed("k"))
	same := w.came(matches, "d", observing, keyed("k"), valued("v"))
	w.stays(writer, isWarm, time.Second)
	w.holds(mainPrefix+"k", "v")

	// One that begins to write conflicts from then on, and one that stops lets go of the key.
	update(w, same, following(v1alpha1.PolicyEnforce))
	w.becomes(same, stalls("KeyConflict"))
	update(w, writer, observing)
	w.becomes(same, isWarm)
	w.becomes(writer, matches)
	w.Expect(w.held(writer)).To(BeFalse())
	w.holds(mainPrefix+"k", "v")
}

func TestAFlushKeepsTheKeysOfAllPolicies(t *testing.T) {
	w, _ := newRealWorld(t)
	w.watched(w.ready(unwatched))
	w.set(mainPrefix+"observed", "foreign")
	w.came(differs, "observed", observing)
	w.came(isWritten, "written", writingOnce)
	w.came(isWarm, "ensured", ensuring)
	w.came(isWarm, "enforced")
	w.set(mainPrefix+"other", "v")
	w.Expect(progress(w.run("all", all))).To(Equal("100% matched 5 deleted 1 preserved 4"))
	w.Expect(progress(w.run("named", named("observed", "written", "ensured", "enforced")))).To(Equal("100% matched 4 deleted 0 preserved 4"))
	w.Expect(w.redis.Get(t.Context(), mainPrefix+"observed").Val()).To(Equal("foreign"))
}

// A policy that changes takes over the key as it is. Each starts with the value that others have put there after the
// entry came to rest, unless it is Enforce, which does not let them.
func TestThePolicyMayChange(t *testing.T) {
	w, _ := newRealWorld(t)
	w.watched(w.ready(unwatched))
	const (
		enforce = v1alpha1.PolicyEnforce
		ensure  = v1alpha1.PolicyEnsurePresent
		once    = v1alpha1.PolicyWriteOnChange
		observe = v1alpha1.PolicyObserve
	)
	first := map[v1alpha1.EntryPolicy]string{enforce: isWarm, ensure: isWarm, once: isWritten, observe: isMissing}
	foreign := map[v1alpha1.EntryPolicy]string{ensure: isPresent, once: isWritten, observe: differs}
	for i, test := range []struct {
		from, to    v1alpha1.EntryPolicy
		want, value string
		held        bool
	}{
		{enforce, ensure, isWarm, "v", true},
		{enforce, once, isWritten, "v", true},
		{enforce, observe, matches, "v", false},
		{ensure, enforce, isWarm, "v", true},
		{ensure, once, isWritten, "foreign", true}, // it has written this value before
		{ensure, observe, differs, "foreign", false},
		{once, enforce, isWarm, "v", true},
		{once, ensure, isPresent, "foreign", true},
		{once, observe, differs, "foreign", false},
		{observe, enforce, isWarm, "v", true},
		{observe, ensure, isPresent, "foreign", false},
		{observe, once, isWritten, "v", true},
	} {
		t.Run(fmt.Sprintf("%s to %s", test.from, test.to), func(t *testing.T) {
			t.Parallel()
			w := w.sub(t)
			e := w.came(first[test.from], fmt.Sprintf("e%d", i), valued("v"), following(test.from))
			if test.from != enforce {
				w.set(e.Status.Key, "foreign")
				w.becomes(e, foreign[test.from])
			}
			update(w, e, following(test.to))
			w.becomes(e, test.want)
			w.Expect(w.redis.Get(t.Context(), e.Status.Key).Val()).To(Equal(test.value))
			w.Expect(w.held(e)).To(Equal(test.held))
			w.rests(e, time.Second)

			// From now on the new policy says what becomes of a key that others change.
			w.set(e.Status.Key, "others")
			if test.to == enforce {
				w.holds(e.Status.Key, "v")
				w.Expect(summary(e)).To(Equal(isWarm))
			} else {
				w.becomes(e, foreign[test.to])
				w.stores(e.Status.Key, "others", time.Second)
			}
			w.Expect(w.held(e)).To(Equal(test.held))

			// And back again.
			update(w, e, following(test.from))
			switch {
			case test.to != enforce:
				w.becomes(e, cmp.Or(foreign[test.from], isWarm))
			case test.from == observe:
				w.becomes(e, matches)
			default:
				w.becomes(e, first[test.from])
			}
		})
	}
}
