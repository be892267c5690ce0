// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

func TestAnEntryIsStoredUnderThePrefixOfItsPool(t *testing.T) {
	w := newWorld(t)
	w.ready()
	e := w.entry("feature-flags")
	w.create(e)

	w.becomes(e, isWarm)
	w.holds("glimr:cache:main:feature-flags", "value of feature-flags")
	w.Expect(e.Status.Key).To(Equal("glimr:cache:main:feature-flags"))
	w.Expect(e.Status.Pool).To(Equal(w.namespace + "/main"))
	w.Expect(e.Status.LastWriteTime).NotTo(BeNil())
	w.Expect(e.Status.WrittenDigest).To(HavePrefix("sha256:"))
	w.Expect(w.redis.PTTL(t.Context(), e.Status.Key).Val()).To(Equal(time.Duration(-1)), "forever means no TTL at all")
}

func TestAnEntryWithATTLHasThatLifetime(t *testing.T) {
	w := newWorld(t)
	w.ready()
	e := w.entry("short", func(e *v1alpha1.CacheEntry) {
		e.Spec.Forever, e.Spec.TTL = nil, &metav1.Duration{Duration: 10 * time.Minute}
	})
	w.create(e)
	w.becomes(e, isWarm)
	w.Expect(w.redis.PTTL(t.Context(), e.Status.Key).Val()).To(And(BeNumerically(">", 9*time.Minute), BeNumerically("<=", 10*time.Minute)))
}

func TestDeletingAnEntryDeletesItsKey(t *testing.T) {
	w := newWorld(t)
	w.ready()
	e := w.entry("gone")
	w.create(e)
	w.becomes(e, isWarm)

	w.Expect(k8s.Delete(t.Context(), e)).To(Succeed())
	w.vanishes(e)
	w.lacks(mainPrefix + "gone")
}

// fromConfigMap and fromSecret are sources of a value.
func fromConfigMap(name, key string) func(*v1alpha1.CacheEntry) {
	return func(e *v1alpha1.CacheEntry) {
		e.Spec.Value, e.Spec.ValueFrom = nil, &v1alpha1.ValueSource{ConfigMapKeyRef: &v1alpha1.KeyReference{Name: name, Key: key}}
	}
}

func fromSecret(name, key string) func(*v1alpha1.CacheEntry) {
	return func(e *v1alpha1.CacheEntry) {
		e.Spec.Value, e.Spec.ValueFrom = nil, &v1alpha1.ValueSource{SecretKeyRef: &v1alpha1.KeyReference{Name: name, Key: key}}
	}
}

// living gives an entry a lifetime.
func living(ttl time.Duration) func(*v1alpha1.CacheEntry) {
	return func(e *v1alpha1.CacheEntry) { e.Spec.Forever, e.Spec.TTL = nil, &metav1.Duration{Duration: ttl} }
}

func valued(value string) func(*v1alpha1.CacheEntry) {
	return func(e *v1alpha1.CacheEntry) { e.Spec.Value = &value }
}

func TestEveryKindOfValueIsStoredByteForByte(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	everyByte := make([]byte, 256)
	for i := range everyByte {
		everyByte[i] = byte(i)
	}
	c := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "source"}, Data: map[string]string{"text": "a: b\r\n\tc\n", "empty": ""},
		BinaryData: map[string][]byte{"bytes": everyByte},
	}
	w.create(c)
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "source"}, Data: map[string][]byte{"bytes": everyByte, "empty": {}}}
	w.create(s)
	ofJSON := func(text string) func(*v1alpha1.CacheEntry) {
		return func(e *v1alpha1.CacheEntry) { e.Spec.Value, e.Spec.JSON = nil, json.RawMessage(text) }
	}
	binary := func(b []byte) func(*v1alpha1.CacheEntry) {
		return func(e *v1alpha1.CacheEntry) { e.Spec.Value, e.Spec.Binary = nil, b }
	}
	for name, test := range map[string]struct {
		change func(*v1alpha1.CacheEntry)
		want   string
	}{
		"value":            {valued("on"), "on"},
		"value-empty":      {valued(""), ""},
		"value-utf8":       {valued("Grüße, 世界 \u2028 \x00 🎉\r\n"), "Grüße, 世界 \u2028 \x00 🎉\r\n"},
		"value-1-mib":      {valued(strings.Repeat("x", v1alpha1.MaxValueBytes)), strings.Repeat("x", v1alpha1.MaxValueBytes)},
		"json-sorted":      {ofJSON(` { "b" : [ 1 , 2 ] , "a" : { "d" : null , "c" : true } } `), `{"a":{"c":true,"d":null},"b":[1,2]}`},
		"json-text":        {ofJSON(`"<a href=\"x\">&</a> ü"`), `"<a href=\"x\">&</a> ü"`},
		"json-numbers":     {ofJSON(`[0, -1, 9007199254740993, 0.1, 2.50, 1e3]`), `[0,-1,9007199254740993,0.1,2.5,1000]`},
		"json-false":       {ofJSON(`false`), `false`},
		"json-zero":        {ofJSON(`0`), `0`},
		"json-empty":       {ofJSON(`{}`), `{}`},
		"binary":           {binary(everyByte), string(everyByte)},
		"binary-zero":      {binary([]byte{0}), "\x00"},
		"binary-empty":     {binary([]byte{}), ""},
		"configmap":        {fromConfigMap("source", "text"), "a: b\r\n\tc\n"},
		"configmap-empty":  {fromConfigMap("source", "empty"), ""},
		"configmap-binary": {fromConfigMap("source", "bytes"), string(everyByte)},
		"secret":           {fromSecret("source", "bytes"), string(everyByte)},
		"secret-empty":     {fromSecret("source", "empty"), ""},
	} {
		e := w.entry(name, test.change)
		w.create(e)
		w.becomes(e, isWarm)
		w.holds(mainPrefix+name, test.want)
	}
}

func TestAKeyMayBeAnyText(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	key := "ключ \n*?[a] {tag} " + strings.Repeat("x", 900)
	e := w.entry("any", func(e *v1alpha1.CacheEntry) { e.Spec.Key = key })
	w.create(e)
	w.becomes(e, isWarm)
	w.holds(mainPrefix+key, "value of any")
	w.Expect(e.Status.Key).To(Equal(mainPrefix + key))
	w.delete(e)
	w.vanishes(e)
	w.lacks(mainPrefix + key)
}

// One patch for finalizer and record, before the first write to Redis; one write of the status.
// It runs alone: on a slow machine "Progressing" may come in between.
func TestANewEntryCostsOnePatchAndOneStatusWrite(t *testing.T) {
	w := worldAt(t, redistest.Miniredis(t).Addr())
	w.ready()
	w.configMap(map[string]string{"k": "v"})
	for _, change := range []func(*v1alpha1.CacheEntry){valued("v"), fromConfigMap("source", "k"), living(time.Hour)} {
		seen := w.follow()
		e := w.entry("new", change)
		w.create(e)
		w.becomes(e, isWarm)
		w.rests(e, 2*time.Second)
		w.Eventually(seen).Should(HaveLen(3), "created, held, warm")
		created, held, warm := seen()[0], seen()[1], seen()[2]
		w.Expect(created.Finalizers).To(BeEmpty())
		w.Expect(created.Status.ObservedGeneration).To(BeEquivalentTo(-1))
		w.Expect(held.Finalizers).To(ConsistOf("cachewright.dev/keys"))
		w.Expect(held.Annotations).To(HaveKey("cachewright.dev/written"))
		w.Expect(held.Status.Conditions).To(BeEmpty())
		w.Expect(summary(warm)).To(Equal(isWarm))
		w.delete(e)
		w.vanishes(e)
	}
}

func TestARetainedEntryCostsOneStatusWrite(t *testing.T) {
	w := worldAt(t, redistest.Miniredis(t).Addr())
	w.ready()
	seen := w.follow()
	e := w.entry("new", retained)
	w.create(e)
	w.becomes(e, isWarm)
	w.rests(e, time.Second)
	w.Expect(seen()).To(HaveLen(2))
}

func TestWhatIsDefaultedIsNotWrittenIntoTheSpec(t *testing.T) {
	w := newWorld(t)
	w.ready()
	e := w.entry("new")
	w.create(e)
	w.becomes(e, isWarm)
	w.Expect(e.Spec.DeletionPolicy).To(BeEmpty())
	w.Expect(e.Generation).To(BeEquivalentTo(1))
}

// The digest is of inline and ConfigMap values only, the version of the source is that of the object.
func TestTheStatusTellsWhatWasWritten(t *testing.T) {
	w := newWorld(t)
	w.ready()
	c := w.configMap(map[string]string{"k": "on"})
	s := w.secret("source", map[string]string{"k": "on"})
	inline, configMap, secret := w.entry("inline", valued("on")), w.entry("configmap", fromConfigMap("source", "k")), w.entry("secret", fromSecret("source", "k"))
	for _, e := range []*v1alpha1.CacheEntry{inline, configMap, secret} {
		w.create(e)
		w.becomes(e, isWarm)
		w.Expect(e.Status.LastWriteTime).NotTo(BeNil())
	}
	w.Expect(inline.Status.WrittenDigest).To(Equal(fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("on")))))
	w.Expect(configMap.Status.WrittenDigest).To(Equal(inline.Status.WrittenDigest))
	w.Expect(secret.Status.WrittenDigest).To(BeEmpty())
	w.Expect(inline.Status.SourceResourceVersion).To(BeEmpty())
	w.Expect(configMap.Status.SourceResourceVersion).To(Equal(c.ResourceVersion))
	w.Expect(secret.Status.SourceResourceVersion).To(Equal(s.ResourceVersion))
}

func TestLastWriteTimeChangesWithANewValueOnly(t *testing.T) {
	w := newWorld(t)
	w.ready()
	c := w.configMap(map[string]string{"k": "old", "other": "old"})
	s := w.secret("source", map[string]string{"k": "old", "other": "old"})
	for _, e := range []*v1alpha1.CacheEntry{w.entry("inline", valued("old")), w.entry("configmap", fromConfigMap("source", "k")), w.entry("secret", fromSecret("source", "k"))} {
		w.create(e)
		w.becomes(e, isWarm)
		then := e.Status.LastWriteTime
		lastWrite := func() time.Time { w.reload(e); return e.Status.LastWriteTime.Time }

		w.set(e.Status.Key, "drift") // a repair, more than a second later, is no new value
		w.holds(e.Status.Key, "old")
		update(w, e, living(time.Hour)) // nor is a lifetime
		w.becomes(e, isWarm)
		w.Expect(lastWrite()).To(BeTemporally("==", then.Time))

		switch e.Name { // nor is another value in the same source
		case "configmap":
			update(w, c, func(c *corev1.ConfigMap) { c.Data["other"] = "new" })
			w.Eventually(func() string { w.reload(e); return e.Status.SourceResourceVersion }).Should(Equal(c.ResourceVersion))
		case "secret":
			update(w, s, func(s *corev1.Secret) { s.Data["other"] = []byte("new") })
			w.Eventually(func() string { w.reload(e); return e.Status.SourceResourceVersion }).Should(Equal(s.ResourceVersion))
		}
		w.Expect(lastWrite()).To(BeTemporally("==", then.Time), e.Name)

		switch e.Name {
		case "configmap":
			update(w, c, func(c *corev1.ConfigMap) { c.Data["k"] = "new" })
		case "secret":
			update(w, s, func(s *corev1.Secret) { s.Data["k"] = []byte("new") })
		default:
			update(w, e, valued("new"))
		}
		w.holds(e.Status.Key, "new")
		w.Eventually(lastWrite).ShouldNot(BeTemporally("==", then.Time), e.Name)
	}
}

func TestAValueThatIsAlreadyThereIsNotWrittenAgain(t *testing.T) {
	w, _ := newRealWorld(t)
	w.watched(w.ready())
	w.Expect(w.redis.Set(t.Context(), mainPrefix+"there", "v", time.Hour).Err()).To(Succeed())
	written := w.writings()
	e := w.entry("there", valued("v"), living(time.Hour))
	w.create(e)
	w.becomes(e, isWarm)
	w.Expect(written()).NotTo(ContainElement(e.Status.Key), "a live TTL is not reset without need")
	w.Expect(e.Status.LastWriteTime).NotTo(BeNil())
}

func TestAChangedEntryIsWrittenAtOnce(t *testing.T) {
	w := newWorld(t)
	w.ready()
	e := w.entry("changing")
	w.create(e)
	w.becomes(e, isWarm)
	ttl := func() time.Duration { return w.redis.PTTL(t.Context(), mainPrefix+"changing").Val() }
	for _, step := range []struct {
		change func(*v1alpha1.CacheEntry)
		value  string
		ttl    time.Duration
	}{
		{valued("new"), "new", -1},
		{living(time.Hour), "new", time.Hour},
		{living(time.Minute), "new", time.Minute},
		{living(2 * time.Hour), "new", 2 * time.Hour},
		{func(e *v1alpha1.CacheEntry) { e.Spec.TTL, e.Spec.Forever = nil, new(true) }, "new", -1},
		{func(e *v1alpha1.CacheEntry) { e.Spec.Value, e.Spec.JSON = nil, json.RawMessage(`{"a":1}`) }, `{"a":1}`, -1},
	} {
		update(w, e, step.change)
		w.becomes(e, isWarm)
		w.Expect(w.redis.Get(t.Context(), mainPrefix+"changing").Val()).To(Equal(step.value))
		w.Expect(ttl()).To(BeNumerically("~", step.ttl, time.Minute/2))
	}
}

// Values, lifetimes and pools may change while nothing is looked at: it is the last that counts.
func TestTheLastOfManyChangesWins(t *testing.T) {
	w := newWorld(t)
	w.ready()
	e := w.entry("busy")
	w.create(e)
	for i := range 50 {
		update(w, e, valued(strings.Repeat("x", i)))
	}
	w.becomes(e, isWarm)
	w.holds(mainPrefix+"busy", strings.Repeat("x", 49))
}

func TestAValueThatCannotBeStoredStallsItsEntry(t *testing.T) {
	w := newWorld(t)
	w.ready()
	e := w.entry("large", func(e *v1alpha1.CacheEntry) {
		e.Spec.Value, e.Spec.JSON = nil, json.RawMessage(`"`+strings.Repeat("x", v1alpha1.MaxValueBytes)+`"`)
	})
	w.create(e)
	w.becomes(e, stalls("InvalidValue"))
	w.says(e, "The value has 1048578 bytes, more than the 1048576 (1 MiB) that an entry stores")
	w.lacks(mainPrefix + "large")
	update(w, e, func(e *v1alpha1.CacheEntry) {
		e.Spec.JSON = json.RawMessage(`"` + strings.Repeat("x", v1alpha1.MaxValueBytes-2) + `"`)
	})
	w.becomes(e, isWarm)
}
