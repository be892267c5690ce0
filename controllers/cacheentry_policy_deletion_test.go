// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

const (
	isThereAlready = "Ready=True/Present"
	isWrittenOnce  = "Ready=True/Written"
)

func enforcing(e *v1alpha1.CacheEntry) { e.Spec.Policy = v1alpha1.PolicyEnforce }

func ensuringPresent(e *v1alpha1.CacheEntry) { e.Spec.Policy = v1alpha1.PolicyEnsurePresent }

func writingOnChange(e *v1alpha1.CacheEntry) { e.Spec.Policy = v1alpha1.PolicyWriteOnChange }

func onlyObserving(e *v1alpha1.CacheEntry) { e.Spec.Policy = v1alpha1.PolicyObserve }

// cautious policies delete only what the entry has written last, and this is what Ready says then.
var cautious = map[string]struct {
	policy func(*v1alpha1.CacheEntry)
	is     string
}{
	"EnsurePresent": {ensuringPresent, isWarm},
	"WriteOnChange": {writingOnChange, isWrittenOnce},
}

// has says whether a key is in Redis.
func (w *world) has(key string) bool {
	w.t.Helper()
	n, err := w.redis.Exists(w.t.Context(), key).Result()
	w.Expect(err).NotTo(HaveOccurred())
	return n == 1
}

func digestOf(value string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(value))) }

// recordOfValue is the record of one key of which only a value may be deleted.
func recordOfValue(p *v1alpha1.CachePool, key, value string) string {
	return fmt.Sprintf(`[{"pool":{"namespace":%q,"name":%q,"uid":%q},"key":%q,"digest":%q}]`, p.Namespace, p.Name, p.UID, key, digestOf(value))
}

// foreign is what an event says of a key that holds what the entry has not written.
func foreign(fullName string) string {
	return fmt.Sprintf("Warning Released: Key %q stays in Redis, since it does not hold what the entry is known to have written last", fullName)
}

func TestOnlyWhatTheEntryWroteLastIsDeleted(t *testing.T) {
	t.Parallel()
	for policy, of := range cautious {
		t.Run(policy, func(t *testing.T) {
			w, _ := newRealWorld(t)
			p := w.ready(unwatched)
			for name, test := range map[string]struct {
				meanwhile func(key string) error
				stays     bool
				tells     bool
			}{
				"its-own": {func(string) error { return nil }, false, false},
				"its-own-lifetime-changed": {func(k string) error {
					return w.redis.Expire(t.Context(), k, time.Hour).Err()
				}, false, false},
				"its-own-again":     {func(k string) error { return w.redis.Set(t.Context(), k, "v", 0).Err() }, false, false},
				"missing":           {func(k string) error { return w.redis.Del(t.Context(), k).Err() }, false, false},
				"overwritten":       {func(k string) error { return w.redis.Set(t.Context(), k, "w", 0).Err() }, true, true},
				"emptied":           {func(k string) error { return w.redis.Set(t.Context(), k, "", 0).Err() }, true, true},
				"a-byte-more":       {func(k string) error { return w.redis.Append(t.Context(), k, "x").Err() }, true, true},
				"same-length":       {func(k string) error { return w.redis.SetRange(t.Context(), k, 0, "V").Err() }, true, true},
				"of-another-type":   {func(k string) error { w.list(k); return nil }, true, false},
				"the-digest-itself": {func(k string) error { return w.redis.Set(t.Context(), k, digestOf("v"), 0).Err() }, true, true},
			} {
				e := w.entry(name, of.policy, valued("v"))
				w.create(e)
				w.becomes(e, of.is)
				w.Expect(e.Annotations).To(HaveKeyWithValue(writtenAnnotation, recordOfValue(p, name, "v")))
				w.Expect(e.Finalizers).To(ConsistOf(keysFinalizer))
				w.Expect(test.meanwhile(e.Status.Key)).To(Succeed())
				w.delete(e)
				w.vanishes(e)
				w.Expect(w.has(e.Status.Key)).To(Equal(test.stays), name)
				if test.tells {
					w.tells(e, foreign(e.Status.Key))
				} else {
					w.Expect(w.events(e)).NotTo(ContainElement(ContainSubstring("Released")), name)
				}
			}
		})
	}
}

// What EnsurePresent has found and not written is not its own, not even where it is what is declared.
func TestEnsurePresentNeverDeletesWhatItFound(t *testing.T) {
	w := newWorld(t)
	w.ready()
	for name, test := range map[string]struct{ there, is string }{
		"another-value": {"theirs", isThereAlready},
		"same-value":    {"value of same-value", isWarm},
	} {
		w.set(mainPrefix+name, test.there)
		e := w.entry(name, ensuringPresent)
		w.create(e)
		w.becomes(e, test.is)
		w.Expect(e.Finalizers).To(BeEmpty(), "it has nothing to delete")
		w.Expect(e.Annotations).To(BeEmpty())
		w.Expect(e.Status.WrittenDigest).To(BeEmpty())
		w.Expect(e.Status.LastWriteTime).To(BeNil())
		w.delete(e)
		w.vanishes(e)
		w.stores(mainPrefix+name, test.there, time.Second)
	}
}

// It wrote one value, and others put the next one there before it could.
func TestEnsurePresentDoesNotDeleteAValueThatOthersWroteForIt(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	e := w.entry("e", ensuringPresent, valued("one"))
	w.create(e)
	w.becomes(e, isWarm)
	update(w, e, valued("two"))
	w.becomes(e, isThereAlready)
	w.set(mainPrefix+"e", "two")
	w.becomes(e, isWarm)
	w.Expect(e.Status.WrittenDigest).To(Equal(digestOf("one")), "the last value that it wrote")
	w.Expect(e.Annotations).To(HaveKeyWithValue(writtenAnnotation, recordOfValue(p, "e", "one")))
	w.delete(e)
	w.vanishes(e)
	w.holds(mainPrefix+"e", "two")
	w.tells(e, foreign(mainPrefix+"e"))
}

// The value declared last was never written: the one before it still is the entry's own.
func TestEnsurePresentDeletesTheValueThatItWroteBeforeTheDeclaredOne(t *testing.T) {
	w := newWorld(t)
	w.ready()
	e := w.entry("e", ensuringPresent, valued("one"))
	w.create(e)
	w.becomes(e, isWarm)
	update(w, e, valued("two"))
	w.becomes(e, isThereAlready)
	w.holds(mainPrefix+"e", "one")
	w.delete(e)
	w.vanishes(e)
	w.lacks(mainPrefix + "e")
}

func TestEveryWriteIsOnRecordBeforeItIsDone(t *testing.T) {
	t.Parallel()
	for policy, of := range cautious {
		t.Run(policy, func(t *testing.T) {
			w, _ := newRealWorld(t)
			p := w.ready()
			// written waits for a value, and looks at the record at once.
			written := func(e *v1alpha1.CacheEntry, value string) {
				w.Eventually(func() (string, error) { return w.redis.Get(t.Context(), mainPrefix+e.Name).Result() }).
					WithPolling(time.Millisecond).Should(Equal(value))
				w.reload(e)
				w.Expect(e.Annotations).To(HaveKeyWithValue(writtenAnnotation, recordOfValue(p, e.Name, value)))
				w.becomes(e, of.is)
				w.Expect(e.Status.WrittenDigest).To(Equal(digestOf(value)))
			}
			for i := range 5 {
				e := w.entry(fmt.Sprintf("e%d", i), of.policy, valued("one"))
				w.create(e)
				written(e, "one")
				update(w, e, valued("two"))
				if policy == "EnsurePresent" { // it does not overwrite
					w.becomes(e, isThereAlready)
					w.Expect(e.Annotations).To(HaveKeyWithValue(writtenAnnotation, recordOfValue(p, e.Name, "one")))
					w.Expect(w.redis.Del(t.Context(), mainPrefix+e.Name).Err()).To(Succeed())
				}
				written(e, "two")
			}
		})
	}
}

// recordsRefused has the API server refuse every record of the test's namespace, until the function that it returns is
// called.
func (w *world) recordsRefused() (allow func()) {
	w.t.Helper()
	object := func(kind string, spec map[string]any) *unstructured.Unstructured {
		u := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
		u.SetAPIVersion("admissionregistration.k8s.io/v1")
		u.SetKind(kind)
		u.SetName(w.namespace)
		return u
	}
	policy := object("ValidatingAdmissionPolicy", map[string]any{
		"failurePolicy": "Fail",
		"matchConstraints": map[string]any{"resourceRules": []any{map[string]any{
			"apiGroups": []any{"cachewright.dev"}, "apiVersions": []any{"v1alpha1"},
			"operations": []any{"CREATE", "UPDATE"}, "resources": []any{"cacheentries"},
		}}},
		"validations": []any{map[string]any{
			"expression": "!has(object.metadata.annotations) || !('" + writtenAnnotation + "' in object.metadata.annotations)",
			"message":    "refused by the test",
		}},
	})
	binding := object("ValidatingAdmissionPolicyBinding", map[string]any{
		"policyName": w.namespace, "validationActions": []any{"Deny"},
		"matchResources": map[string]any{"namespaceSelector": map[string]any{
			"matchLabels": map[string]any{"kubernetes.io/metadata.name": w.namespace},
		}},
	})
	for _, o := range []*unstructured.Unstructured{policy, binding} {
		w.Expect(k8s.Create(w.t.Context(), o)).To(Succeed())
		w.t.Cleanup(func() { _ = k8s.Delete(w.t.Context(), o) })
	}
	// It takes the API server a moment.
	w.Eventually(func() error {
		probe := w.entry("probe", suspendEntry, holding("[]"))
		err := k8s.Create(w.t.Context(), probe)
		if err == nil {
			_ = k8s.Delete(w.t.Context(), probe)
		}
		return err
	}).Should(MatchError(ContainSubstring("refused by the test")))
	return func() {
		for _, o := range []*unstructured.Unstructured{binding, policy} {
			w.Expect(k8s.Delete(w.t.Context(), o)).To(Succeed())
		}
	}
}

func TestNothingIsWrittenAsLongAsItCannotBePutOnRecord(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	allow := w.recordsRefused()
	looks := w.calls("pttl")
	entries := map[*v1alpha1.CacheEntry]string{
		w.entry("enforced", enforcing):         isWarm,
		w.entry("present", ensuringPresent):    isWarm,
		w.entry("written", writingOnChange):    isWrittenOnce,
		w.entry("counted", counting(5, "r")):   isApplied,
		w.entry("living", living(time.Minute)): isWarm,
	}
	for e := range entries {
		w.create(e)
	}
	w.Eventually(func() int { return w.calls("pttl") }).Should(BeNumerically(">", looks), "EnsurePresent looks first")
	w.Consistently(func() []string { return w.keys("*") }, 3*time.Second).Should(BeEmpty())
	for e := range entries {
		w.reload(e)
		w.Expect(e.Finalizers).To(BeEmpty())
	}
	allow()
	for e, is := range entries {
		w.becomes(e, is)
		w.Expect(w.has(e.Status.Key)).To(BeTrue())
	}
}

// secretive checks that no state of an object that was ever stored, and no event, shows anything of a value.
func (w *world) secretive(e *v1alpha1.CacheEntry, states []*v1alpha1.CacheEntry, value string) {
	w.t.Helper()
	var shown strings.Builder
	for _, state := range states {
		text, err := json.Marshal(state)
		w.Expect(err).NotTo(HaveOccurred())
		shown.Write(text)
	}
	shown.WriteString(strings.Join(w.events(e), "\n"))
	for _, secret := range []string{
		value, digestOf(value)[len("sha256:"):], base64.StdEncoding.EncodeToString([]byte(value)), fmt.Sprintf("%x", value),
	} {
		w.Expect(shown.String()).NotTo(ContainSubstring(secret))
	}
}

func TestASecretIsDeletedOnlyAsLongAsItIsWhatTheSecretHolds(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		meanwhile func(w *world, s *corev1.Secret)
		stays     bool
	}{
		"unchanged": {func(*world, *corev1.Secret) {}, false},
		"another key of it": {func(w *world, s *corev1.Secret) {
			update(w, s, func(s *corev1.Secret) { s.Data["other"] = []byte("x") })
		}, false},
		"changed": {func(w *world, s *corev1.Secret) {
			update(w, s, func(s *corev1.Secret) { s.Data["k"] = []byte("c0rrect") })
		}, true},
		"gone":             {func(w *world, s *corev1.Secret) { w.delete(s); w.vanishes(s) }, true},
		"without the key":  {func(w *world, s *corev1.Secret) { update(w, s, func(s *corev1.Secret) { delete(s.Data, "k") }) }, true},
		"changed in Redis": {func(w *world, _ *corev1.Secret) { w.set(mainPrefix+"e", "theirs") }, true},
		"changed in both": {func(w *world, s *corev1.Secret) {
			update(w, s, func(s *corev1.Secret) { s.Data["k"] = []byte("c0rrect") })
			w.set(mainPrefix+"e", "c0rrect")
		}, false},
		"changed for a time": {func(w *world, s *corev1.Secret) {
			update(w, s, func(s *corev1.Secret) { s.Data["k"] = []byte("c0rrect") })
			update(w, s, func(s *corev1.Secret) { s.Data["k"] = []byte("hunter2") })
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := w.ready(unwatched)
			seen := w.follow()
			s := w.secret("source", map[string]string{"k": "hunter2"})
			e := w.entry("e", ensuringPresent, fromSecret("source", "k"))
			w.create(e)
			w.becomes(e, isWarm)
			w.holds(mainPrefix+"e", "hunter2")
			w.Expect(e.Annotations).To(HaveKeyWithValue(writtenAnnotation, recordAt(p, "e")), "without a digest")
			w.Expect(e.Status.WrittenDigest).To(BeEmpty())
			test.meanwhile(w, s)
			w.delete(e)
			w.vanishes(e)
			w.Expect(w.has(mainPrefix + "e")).To(Equal(test.stays))
			if test.stays {
				w.tells(e, foreign(mainPrefix+"e"))
			} else {
				w.Expect(w.events(e)).NotTo(ContainElement(ContainSubstring("Released")))
			}
			for _, secret := range []string{"hunter2", "c0rrect"} {
				w.secretive(e, seen(), secret)
			}
		})
	}
}

// From a value to a Secret and back: what was written last is what counts.
func TestAnEntryThatChangesToASecretStillDeletesTheValueThatItWrote(t *testing.T) {
	w := newWorld(t)
	w.ready(unwatched)
	w.secret("source", map[string]string{"k": "hunter2"})
	e := w.entry("e", ensuringPresent, valued("v"))
	w.create(e)
	w.becomes(e, isWarm)
	update(w, e, fromSecret("source", "k"))
	w.becomes(e, isThereAlready)
	w.delete(e)
	w.vanishes(e)
	w.lacks(mainPrefix + "e")
}

func TestObserveNeverDeletes(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.set(mainPrefix+"found", "value of found")
	found := w.entry("found", onlyObserving, deleting)
	w.create(found)
	w.becomes(found, "Ready=True/Matches")
	w.Expect(found.Finalizers).To(BeEmpty())
	w.Expect(found.Annotations).To(BeEmpty())
	// This one wrote its key, and then was told only to look.
	wrote := w.entry("wrote")
	w.create(wrote)
	w.becomes(wrote, isWarm)
	update(w, wrote, onlyObserving)
	w.becomes(wrote, "Ready=True/Matches")
	w.Expect(wrote.Finalizers).To(BeEmpty())
	w.Expect(wrote.Annotations).To(BeEmpty())
	for _, e := range []*v1alpha1.CacheEntry{found, wrote} {
		w.delete(e)
		w.vanishes(e)
		w.stores(mainPrefix+e.Name, "value of "+e.Name, time.Second)
		w.Expect(w.events(e)).NotTo(ContainElement(ContainSubstring("Released")))
	}
}

// The server is away when the entry is deleted, and the entry is changed while it waits: what it says last counts.
func TestPolicyAndDeletionPolicyMayChangeWhileAnEntryIsBeingDeleted(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		policy, change func(*v1alpha1.CacheEntry)
		there          string
		stays, tells   bool
	}{
		"Delete to Retain":                          {enforcing, retained, "v", true, false},
		"Enforce to Observe":                        {enforcing, onlyObserving, "v", true, false},
		"Enforce to EnsurePresent, foreign value":   {enforcing, ensuringPresent, "theirs", true, true},
		"Enforce to EnsurePresent, own value":       {enforcing, ensuringPresent, "v", false, false},
		"Enforce to WriteOnChange, foreign value":   {enforcing, writingOnChange, "theirs", true, true},
		"Enforce to WriteOnChange, own value":       {enforcing, writingOnChange, "v", false, false},
		"EnsurePresent to Enforce, foreign value":   {ensuringPresent, enforcing, "theirs", false, false},
		"WriteOnChange to Enforce, foreign value":   {writingOnChange, enforcing, "theirs", false, false},
		"WriteOnChange to Observe":                  {writingOnChange, onlyObserving, "v", true, false},
		"WriteOnChange to Retain":                   {writingOnChange, retained, "v", true, false},
		"Enforce to another value, which is theirs": {enforcing, valued("theirs"), "theirs", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			m := redistest.Miniredis(t)
			p := w.ready(seldom, func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{m.Addr()} })
			e := w.entry("e", test.policy, valued("v"))
			w.create(e)
			w.Eventually(func() string { w.reload(e); return summary(e) }).Should(HavePrefix("Ready=True/"))
			m.SetError("LOADING Redis is loading the dataset in memory")
			w.delete(e) // the deletion is asked for, and fails
			w.becomes(p, waits("Loading"))
			update(w, e, test.change)
			if test.stays && !test.tells {
				w.vanishes(e)
			} else {
				w.Eventually(func() string { w.reload(e); return summary(e) }).Should(Equal(waits("PoolNotReady")))
				w.Eventually(func() int64 { w.reload(e); return e.Status.ObservedGeneration }).Should(Equal(e.Generation))
			}
			w.Expect(m.Set(mainPrefix+"e", test.there)).To(Succeed())
			m.SetError("")
			w.becomes(p, connected)
			w.vanishes(e)
			w.Consistently(func() bool { return m.Exists(mainPrefix + "e") }, "500ms").Should(Equal(test.stays))
			if test.tells {
				w.tells(e, foreign(mainPrefix+"e"))
			} else {
				w.Expect(w.events(e)).NotTo(ContainElement(ContainSubstring("Released")))
			}
		})
	}
}

func TestDeletionWhileSuspendedLeavesTheKeyUnderEveryPolicy(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	policies := map[string]func(*v1alpha1.CacheEntry){"enforced": enforcing, "present": ensuringPresent, "written": writingOnChange, "counted": counting(5, "r")}
	for name, policy := range policies {
		e := w.entry(name, policy, deleting)
		w.create(e)
		w.Eventually(func() string { w.reload(e); return summary(e) }).Should(HavePrefix("Ready=True/"))
		update(w, e, suspendEntry)
		w.delete(e)
		w.vanishes(e)
		w.tells(e, fmt.Sprintf("Warning Released: Key %q stays in Redis, since the entry is suspended", mainPrefix+name))
		w.Expect(w.has(mainPrefix + name)).To(BeTrue())
	}
	var entries []*v1alpha1.CacheEntry
	for name, policy := range policies {
		e := w.entry("pool-"+name, policy, deleting)
		w.create(e)
		w.Eventually(func() string { w.reload(e); return summary(e) }).Should(HavePrefix("Ready=True/"))
		entries = append(entries, e)
	}
	update(w, p, suspendPool)
	w.becomes(p, isSuspended)
	for _, e := range entries {
		w.delete(e)
		w.vanishes(e)
		w.tells(e, fmt.Sprintf(`Warning Released: Key %q stays in Redis, since CachePool "main" is suspended`, mainPrefix+e.Name))
		w.Expect(w.has(mainPrefix + e.Name)).To(BeTrue())
	}
}

func TestAnEntryIsReleasedFromAPoolThatIsGoneUnderEveryPolicy(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]func(*v1alpha1.CacheEntry){
		"EnsurePresent": ensuringPresent, "WriteOnChange": writingOnChange, "counter": counting(5, "r"),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := w.ready()
			e := w.entry("e", policy, deleting)
			w.create(e)
			w.Eventually(func() string { w.reload(e); return summary(e) }).Should(HavePrefix("Ready=True/"))
			w.delete(p)
			w.becomes(p, waits("InUse"))
			update(w, p, func(p *v1alpha1.CachePool) { p.Finalizers = nil }) // somebody forces it
			w.becomes(e, waits("PoolNotFound"))
			w.delete(e)
			w.vanishes(e)
			w.Expect(w.has(mainPrefix + "e")).To(BeTrue())
			w.tells(e, `Warning Released: Key "e" stays in Redis, since CachePool "main" is gone, or does not serve this namespace any more`)
		})
	}
}

func TestAnEntryIsReleasedFromAPoolThatIsDownAndDeletedTooUnderEveryPolicy(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]func(*v1alpha1.CacheEntry){
		"EnsurePresent": ensuringPresent, "WriteOnChange": writingOnChange, "counter": counting(5, "r"),
	} {
		t.Run(name, func(t *testing.T) {
			w, _, proxy := newProxiedWorld(t)
			p := w.ready()
			e := w.entry("e", policy, deleting)
			w.create(e)
			w.Eventually(func() string { w.reload(e); return summary(e) }).Should(HavePrefix("Ready=True/"))
			proxy.Cut()
			w.delete(p)
			w.delete(e)
			w.vanishes(e)
			w.vanishes(p)
			w.tells(e, `Warning Released: Key "glimr:cache:main:e" stays in Redis, since CachePool "main" cannot serve`)
			w.Expect(w.has(mainPrefix + "e")).To(BeTrue())
		})
	}
}

// A value as large as they come is compared in full.
func TestTheLargestValueIsDeletedOnlyIfItIsTheEntrys(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(unwatched)
	value := strings.Repeat("x", v1alpha1.MaxValueBytes)
	for name, test := range map[string]struct {
		there string
		stays bool
	}{
		"own": {value, false}, "a-byte-more": {value + "x", true}, "a-byte-less": {value[1:], true}, "the-last-byte": {value[1:] + "y", true},
	} {
		e := w.entry(name, writingOnChange, valued(value))
		w.create(e)
		w.becomes(e, isWrittenOnce)
		w.set(mainPrefix+name, test.there)
		w.delete(e)
		w.vanishes(e)
		w.Expect(w.has(mainPrefix+name)).To(Equal(test.stays), name)
	}
}

// listen to the commands that a real server runs on keys whose names contain a text. What it returns gives them, in
// order, each as the command and the first argument.
func (w *world) listen(text string) func() []string {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.redis.Options().Addr)
	w.Expect(err).NotTo(HaveOccurred())
	w.t.Cleanup(func() { _ = conn.Close() })
	_, err = conn.Write([]byte("MONITOR\r\n"))
	w.Expect(err).NotTo(HaveOccurred())
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, 4<<20)
	w.Expect(lines.Scan()).To(BeTrue())
	var mu sync.Mutex
	var heard []string
	go func() {
		for lines.Scan() {
			if words := strings.SplitN(lines.Text(), `"`, 6); len(words) > 4 && strings.Contains(words[3], text) {
				mu.Lock()
				heard = append(heard, strings.ToLower(words[1])+" "+words[3])
				mu.Unlock()
			}
		}
	}()
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), heard...)
	}
}

// writesAmong are the writes and deletions among what was heard.
func writesAmong(heard []string) []string {
	var found []string
	for _, h := range heard {
		switch command, _, _ := strings.Cut(h, " "); command {
		case "set", "unlink", "del", "incrby", "getdel", "expire", "pexpire", "rename":
			found = append(found, h)
		}
	}
	return found
}

func TestAChangedKeyIsWrittenBeforeTheOldOneGoesUnderEveryPolicy(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		policy   func(*v1alpha1.CacheEntry)
		is       string
		cautious bool
		stays    bool
	}{
		"Enforce":       {enforcing, isWarm, false, false},
		"EnsurePresent": {ensuringPresent, isWarm, true, false},
		"WriteOnChange": {writingOnChange, isWrittenOnce, true, false},
		"Retain":        {retained, isWarm, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			p := w.ready(unwatched)
			other := w.pool(under("other:"), func(p *v1alpha1.CachePool) { p.Name = "other" })
			w.create(other)
			w.becomes(other, connected)
			for _, move := range []struct {
				name     string
				change   func(*v1alpha1.CacheEntry)
				old, new string
				pool     *v1alpha1.CachePool
			}{
				{"key", keyed("key-new"), mainPrefix + "key", mainPrefix + "key-new", p},
				{"pool", in("other"), mainPrefix + "pool", "other:pool", other},
				{"both", func(e *v1alpha1.CacheEntry) { in("other")(e); keyed("both-new")(e) }, mainPrefix + "both", "other:both-new", other},
				{"value", func(e *v1alpha1.CacheEntry) { keyed("value-new")(e); valued("another value")(e) }, mainPrefix + "value", mainPrefix + "value-new", p},
			} {
				heard := w.listen(":" + move.name)
				e := w.entry(move.name, test.policy)
				w.create(e)
				w.becomes(e, test.is)
				update(w, e, move.change)
				w.becomes(e, test.is)
				w.holds(move.new, *e.Spec.Value)
				w.Expect(e.Status.Key).To(Equal(move.new))
				if test.stays {
					w.Expect(writesAmong(heard())).To(Equal([]string{"set " + move.old, "set " + move.new}))
					continue
				}
				w.lacks(move.old)
				w.Eventually(func() []string { return writesAmong(heard()) }).Should(Equal([]string{"set " + move.old, "set " + move.new, "unlink " + move.old}))
				record := recordAt(move.pool, e.Spec.Key)
				if test.cautious {
					record = recordOfValue(move.pool, e.Spec.Key, *e.Spec.Value)
				}
				w.Eventually(func() string { w.reload(e); return e.Annotations[writtenAnnotation] }).Should(Equal(record))
				w.Expect(w.events(e)).NotTo(ContainElement(HavePrefix("Warning")))
			}
		})
	}
}

// The same for what others have made of the old key: it stays, and an event says so.
func TestAnOldKeyThatHoldsAForeignValueStays(t *testing.T) {
	t.Parallel()
	for policy, of := range cautious {
		t.Run(policy, func(t *testing.T) {
			w := newWorld(t)
			p := w.ready(unwatched)
			other := w.pool(under("other:"), func(p *v1alpha1.CachePool) { p.Name = "other" })
			w.create(other)
			w.becomes(other, connected)
			for name, test := range map[string]struct {
				change func(*v1alpha1.CacheEntry)
				pool   *v1alpha1.CachePool
			}{"key": {keyed("new"), p}, "pool": {in("other"), other}} {
				e := w.entry(name, of.policy)
				w.create(e)
				w.becomes(e, of.is)
				w.set(mainPrefix+name, "theirs")
				update(w, e, test.change)
				w.becomes(e, of.is)
				w.tells(e, foreign(mainPrefix+name))
				w.stores(mainPrefix+name, "theirs", time.Second)
				w.reload(e)
				w.Expect(e.Annotations).To(HaveKeyWithValue(writtenAnnotation, recordOfValue(test.pool, e.Spec.Key, *e.Spec.Value)), "it is done with")
			}
		})
	}
}

// The new key is somebody else's, and EnsurePresent is content with that; its old one goes all the same.
func TestEnsurePresentLeavesItsOldKeyForOneThatIsThereAlready(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.set(mainPrefix+"new", "theirs")
	e := w.entry("e", ensuringPresent, keyed("old"))
	w.create(e)
	w.becomes(e, isWarm)
	update(w, e, keyed("new"))
	w.becomes(e, isThereAlready)
	w.lacks(mainPrefix + "old")
	w.Eventually(func() []string { w.reload(e); return e.Finalizers }).Should(BeEmpty())
	w.delete(e)
	w.vanishes(e)
	w.stores(mainPrefix+"new", "theirs", time.Second)
}

// A key and a policy that change together: the old key is treated as the new policy says.
func TestAnOldKeyIsTreatedAsThePolicyOfNowSays(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		from, to func(*v1alpha1.CacheEntry)
		there    string
		stays    bool
		tells    bool
	}{
		"Enforce to WriteOnChange, own value":     {enforcing, writingOnChange, "v", false, false},
		"Enforce to WriteOnChange, foreign value": {enforcing, writingOnChange, "theirs", true, true},
		"Enforce to EnsurePresent, own value":     {enforcing, ensuringPresent, "v", false, false},
		"Enforce to EnsurePresent, foreign value": {enforcing, ensuringPresent, "theirs", true, true},
		"WriteOnChange to Enforce, foreign value": {writingOnChange, enforcing, "theirs", false, false},
		"Enforce to Observe":                      {enforcing, onlyObserving, "v", true, false},
		"Delete to Retain":                        {enforcing, retained, "v", true, false},
		"Retain to Delete":                        {retained, deleting, "v", true, false}, // it was never on record
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.ready(unwatched)
			e := w.entry("e", keyed("old"), valued("v"), test.from)
			w.create(e)
			w.Eventually(func() string { w.reload(e); return summary(e) }).Should(HavePrefix("Ready=True/"))
			w.set(mainPrefix+"old", test.there)
			update(w, e, func(e *v1alpha1.CacheEntry) { keyed("new")(e); test.to(e) })
			w.Eventually(func() string { w.reload(e); return e.Status.Key }).Should(Equal(mainPrefix + "new"))
			w.Eventually(func() bool { return w.has(mainPrefix + "old") }).Should(Equal(test.stays))
			if test.tells {
				w.tells(e, foreign(mainPrefix+"old"))
			} else {
				w.Expect(w.events(e)).NotTo(ContainElement(ContainSubstring("Released")))
			}
		})
	}
}

// The operator wrote a value, and was killed before its status could tell; then the key was changed, or the entry deleted.
func TestACrashBetweenWriteAndStatusLeavesNothingBehindUnderEveryPolicy(t *testing.T) {
	t.Parallel()
	for policy, of := range cautious {
		t.Run(policy, func(t *testing.T) {
			w := newWorld(t)
			p := w.ready(unwatched)
			for name, test := range map[string]struct {
				there string
				stays bool
			}{"own": {"v", false}, "foreign": {"theirs", true}} {
				old, next := mainPrefix+"old-"+name, mainPrefix+"new-"+name
				w.set(old, test.there)
				moved := w.entry("moved-"+name, of.policy, keyed("new-"+name), valued("w"), holding(recordOfValue(p, "old-"+name, "v")))
				w.create(moved)
				w.becomes(moved, of.is)
				w.holds(next, "w")
				w.Eventually(func() string { w.reload(moved); return moved.Annotations[writtenAnnotation] }).Should(Equal(recordOfValue(p, "new-"+name, "w")))
				w.Expect(w.has(old)).To(Equal(test.stays))
				if test.stays {
					w.tells(moved, foreign(old))
				}

				key := "deleted-" + name
				w.set(mainPrefix+key, test.there)
				e := w.entry(key, of.policy, in("missing"), valued("w"), holding(recordOfValue(p, key, "v")))
				w.create(e)
				w.becomes(e, waits("PoolNotFound"))
				w.delete(e)
				w.vanishes(e)
				w.Expect(w.has(mainPrefix + key)).To(Equal(test.stays))
				if test.stays {
					w.tells(e, foreign(mainPrefix+key))
				}
			}
		})
	}
}

// The same for an entry that comes back to life in place: what it recorded and wrote is its own.
func TestAfterACrashAnEntryKnowsItsOwnValue(t *testing.T) {
	t.Parallel()
	for policy, of := range cautious {
		t.Run(policy, func(t *testing.T) {
			w, _ := newRealWorld(t)
			p := w.ready(unwatched)
			w.set(mainPrefix+"e", "v")
			heard := w.listen(mainPrefix + "e")
			e := w.entry("e", of.policy, valued("v"), holding(recordOfValue(p, "e", "v")))
			w.create(e)
			w.becomes(e, of.is)
			w.Expect(e.Status.WrittenDigest).To(Equal(digestOf("v")))
			w.Expect(e.Status.LastWriteTime).NotTo(BeNil())
			w.Expect(writesAmong(heard())).To(BeEmpty(), "it is there already")
			w.delete(e)
			w.vanishes(e)
			w.lacks(mainPrefix + "e")
		})
	}
}

// A user without EVAL cannot compare and delete in one step: the deletion waits, and says for what.
func TestADeletionThatMustCompareNeedsEVAL(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(unwatched)
	e := w.entry("e", writingOnChange)
	w.create(e)
	w.becomes(e, isWrittenOnce)
	w.Expect(w.redis.Do(t.Context(), "acl", "setuser", "default", "-eval").Err()).To(Succeed())
	w.delete(e)
	w.becomes(e, waits("WriteFailed"))
	w.says(e, "The key cannot be deleted yet: The Redis user may not run EVAL; it needs the ACL rule +eval")
	w.holds(mainPrefix+"e", "value of e")
	w.Expect(w.redis.Do(t.Context(), "acl", "setuser", "default", "+eval").Err()).To(Succeed())
	w.vanishes(e)
	w.lacks(mainPrefix + "e")
}

// What was written while it was to be retained goes too, once it is not to be retained any more.
func TestWhatWasRetainedIsDeletedOnceItIsNot(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]v1alpha1.EntryPolicy{"as before": v1alpha1.PolicyEnsurePresent, "enforced before": v1alpha1.PolicyEnforce} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.ready()
			e := w.entry("e", retained, func(e *v1alpha1.CacheEntry) { e.Spec.Policy = before })
			w.create(e)
			w.becomes(e, isWarm)
			update(w, e, func(e *v1alpha1.CacheEntry) { ensuringPresent(e); deleting(e) })
			w.becomes(e, isWarm)
			w.delete(e)
			w.vanishes(e)
			w.lacks(mainPrefix + "e")
		})
	}
}

// What changes while the pool is away is not carried out as it was: the value that is written first is the new one.
func TestWhatChangesWhileThePoolIsAwayIsCarriedOutAsItIs(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.NewProxy(t, server.Addr, 0)
	t.Parallel()
	w := worldAt(t, proxy.Addr)
	w.redis = server.Client(t)
	p := w.ready(seldom)
	e := w.entry("e", ensuringPresent, valued("old"))
	w.create(e)
	w.becomes(e, isWarm)
	proxy.Cut()
	w.becomes(p, waits("ConnectionFailed"))
	update(w, e, valued("new"))
	w.becomes(e, waits("PoolNotReady"))
	w.Expect(w.redis.FlushAll(t.Context()).Err()).To(Succeed())
	proxy.Mend()
	w.becomes(p, connected)
	w.becomes(e, isWarm)
	w.holds(mainPrefix+"e", "new")
}
