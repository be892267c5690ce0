// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

func TestAChangedSourceIsWrittenAtOnce(t *testing.T) {
	w := newWorld(t)
	w.ready(unwatched)
	c := w.configMap(map[string]string{"k": "one"})
	s := w.secret("source", map[string]string{"k": "one"})
	public, secret := w.entry("public", fromConfigMap("source", "k")), w.entry("secret", fromSecret("source", "k"))
	w.create(public)
	w.create(secret)
	for _, value := range []string{"two", "three"} {
		update(w, c, func(c *corev1.ConfigMap) { c.Data["k"] = value })
		update(w, s, func(s *corev1.Secret) { s.Data["k"] = []byte(value) })
		w.holds(mainPrefix+"public", value)
		w.holds(mainPrefix+"secret", value)
		w.Eventually(func() string { w.reload(public); return public.Status.SourceResourceVersion }).Should(Equal(c.ResourceVersion))
		w.Eventually(func() string { w.reload(secret); return secret.Status.SourceResourceVersion }).Should(Equal(s.ResourceVersion))
	}
}

func TestAnEntryWaitsForItsSource(t *testing.T) {
	t.Parallel()
	for kind, from := range map[string]func(name, key string) func(*v1alpha1.CacheEntry){"ConfigMap": fromConfigMap, "Secret": fromSecret} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			w.ready(unwatched)
			w.set(mainPrefix+"e", "as it was")
			e := w.entry("e", from("source", "k"))
			w.create(e)
			w.becomes(e, waits("SourceNotFound"))
			w.says(e, kind+` "source" does not exist; the key in Redis stays as it is`)
			w.rests(e, time.Second)

			if kind == "ConfigMap" {
				w.configMap(map[string]string{"other": "v"})
			} else {
				w.secret("source", map[string]string{"other": "v"})
			}
			w.says(e, kind+` "source" has no key "k"; the key in Redis stays as it is`)
			w.Expect(summary(e)).To(Equal(waits("SourceNotFound")))
			w.holds(mainPrefix+"e", "as it was")

			update(w, e, from("source", "other"))
			w.becomes(e, isWarm)
			w.holds(mainPrefix+"e", "v")
		})
	}
}

func TestASourceThatVanishesLeavesTheKeyUnrenewed(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	c := w.configMap(map[string]string{"k": "v"})
	forever, short := w.entry("forever", fromConfigMap("source", "k")), w.entry("short", fromConfigMap("source", "k"), living(3*time.Second))
	w.create(forever)
	w.create(short)
	w.becomes(forever, isWarm)
	w.becomes(short, isWarm)
	w.delete(c)
	w.becomes(forever, waits("SourceNotFound"))
	w.becomes(short, waits("SourceNotFound"))
	w.Expect(forever.Status.SourceResourceVersion).To(Equal(c.ResourceVersion), "the one last written")
	w.lacks(mainPrefix + "short")
	w.stores(mainPrefix+"forever", "v", sweeps/2)
	w.set(mainPrefix+"forever", "drift")
	w.stores(mainPrefix+"forever", "drift", sweeps/2)

	w.configMap(map[string]string{"k": "w"})
	w.holds(mainPrefix+"forever", "w")
	w.holds(mainPrefix+"short", "w")
	w.becomes(short, isWarm)
}

func TestDeletingAnEntryWhoseSourceHasGoneDeletesItsKey(t *testing.T) {
	w := newWorld(t)
	w.ready()
	c := w.configMap(map[string]string{"k": "v"})
	e := w.entry("e", fromConfigMap("source", "k"))
	w.create(e)
	w.becomes(e, isWarm)
	w.delete(c)
	w.becomes(e, waits("SourceNotFound"))
	w.delete(e)
	w.vanishes(e)
	w.lacks(mainPrefix + "e")
}

// The API server takes no larger ConfigMap.
func TestAConfigMapMayHoldTheLargestValue(t *testing.T) {
	w := newWorld(t)
	w.ready()
	value := strings.Repeat("\xff", v1alpha1.MaxValueBytes)
	w.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "large"}, BinaryData: map[string][]byte{"k": []byte(value)}})
	e := w.entry("e", fromConfigMap("large", "k"))
	w.create(e)
	w.becomes(e, isWarm)
	w.holds(mainPrefix+"e", value)
}

func TestNothingOfASecretIsShown(t *testing.T) {
	w := newWorld(t)
	w.ready()
	s := w.secret("source", map[string]string{"k": "hunter2"})
	e := w.entry("e", fromSecret("source", "k"))
	w.create(e)
	w.becomes(e, isWarm)
	w.Expect(w.redis.Del(t.Context(), e.Status.Key).Err()).To(Succeed())
	w.Expect(w.redis.LPush(t.Context(), e.Status.Key, "x").Err()).To(Succeed())
	w.becomes(e, stalls("WrongType"))
	w.delete(s)
	w.becomes(e, waits("SourceNotFound"))
	w.discreet(e, "hunter2", "f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7")
	w.Expect(e.Status.WrittenDigest).To(BeEmpty())
	w.Expect(e.Annotations).NotTo(ContainElement(ContainSubstring("hunter2")))
}

// A change of the kind of source, or from a source to a value, leaves nothing of the old one in the status.
func TestAnEntryMayChangeItsSource(t *testing.T) {
	w := newWorld(t)
	w.ready()
	c := w.configMap(map[string]string{"k": "public"})
	w.secret("source", map[string]string{"k": "private"})
	e := w.entry("e", fromConfigMap("source", "k"))
	w.create(e)
	w.becomes(e, isWarm)
	update(w, e, fromSecret("source", "k"))
	w.becomes(e, isWarm)
	w.holds(e.Status.Key, "private")
	w.Expect(e.Status.WrittenDigest).To(BeEmpty())
	update(w, e, func(e *v1alpha1.CacheEntry) { e.Spec.ValueFrom, e.Spec.Value = nil, new("inline") })
	w.becomes(e, isWarm)
	w.holds(e.Status.Key, "inline")
	w.Expect(e.Status.SourceResourceVersion).To(BeEmpty())
	update(w, c, func(c *corev1.ConfigMap) { c.Data["k"] = "changed" })
	w.stores(e.Status.Key, "inline", time.Second)
}

func TestOneSourceMayFeedManyEntries(t *testing.T) {
	w := newWorld(t)
	w.ready(unwatched)
	c := w.configMap(map[string]string{"a": "1", "b": "2"})
	w.create(w.entry("a", fromConfigMap("source", "a")))
	w.create(w.entry("b", fromConfigMap("source", "b")))
	w.create(w.entry("also-b", fromConfigMap("source", "b")))
	w.holds(mainPrefix+"also-b", "2")
	update(w, c, func(c *corev1.ConfigMap) { c.Data = map[string]string{"a": "3", "b": "4"} })
	w.holds(mainPrefix+"a", "3")
	w.holds(mainPrefix+"b", "4")
	w.holds(mainPrefix+"also-b", "4")
}
