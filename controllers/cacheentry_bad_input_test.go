// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// The API server takes no larger Secret or ConfigMap than 1 MiB in all, so no source can be over the limit of an entry.
func TestASourceMayBeAsLargeAsTheAPIServerTakesIt(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	value := strings.Repeat("x", v1alpha1.MaxValueBytes)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "large"}, Data: map[string][]byte{"k": []byte(value)}}
	configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "large"}, Data: map[string]string{"k": value}}
	w.create(secret)
	w.create(configMap)
	is := map[string]string{"enforced": isWarm, "present": isWarm, "written": isWrittenOnce}
	for name, policy := range map[string]func(*v1alpha1.CacheEntry){"enforced": enforcing, "present": ensuringPresent, "written": writingOnChange} {
		entries := []*v1alpha1.CacheEntry{w.entry(name+"-config-map", policy, fromConfigMap("large", "k"))}
		if name != "written" { // which is not allowed with a Secret
			entries = append(entries, w.entry(name+"-secret", policy, fromSecret("large", "k")))
		}
		for _, e := range entries {
			w.create(e)
			w.becomes(e, is[name])
			w.holds(mainPrefix+e.Name, value)
		}
		for _, e := range entries {
			w.delete(e)
			w.vanishes(e)
			w.lacks(mainPrefix + e.Name)
		}
	}
	secret.Data["k"], configMap.Data["k"] = []byte(value+"x"), value+"x"
	w.Expect(k8s.Update(t.Context(), secret)).To(MatchError(apierrors.IsInvalid, "IsInvalid"))
	w.Expect(k8s.Update(t.Context(), configMap)).To(MatchError(apierrors.IsInvalid, "IsInvalid"))
}

// Under every policy, a key that the source lacks leaves the key in Redis as it is.
func TestAnEntryWhoseSourceLacksItsKeyDoesNothingUnderAnyPolicy(t *testing.T) {
	w := newWorld(t)
	w.ready(unwatched)
	c := w.configMap(map[string]string{"other": "v"})
	policies := map[string]struct {
		policy func(*v1alpha1.CacheEntry)
		then   string
		holds  string
	}{
		"enforced": {enforcing, isWarm, "v"},
		"present":  {ensuringPresent, isThereAlready, "as it was"},
		"written":  {writingOnChange, isWrittenOnce, "v"},
		"observed": {onlyObserving, "Ready=False/Differs", "as it was"},
	}
	entries := map[string]*v1alpha1.CacheEntry{}
	for name, of := range policies {
		w.set(mainPrefix+name, "as it was")
		e := w.entry(name, of.policy, fromConfigMap("source", "k"))
		w.create(e)
		w.becomes(e, waits("SourceNotFound"))
		w.says(e, `ConfigMap "source" has no key "k"; the key in Redis stays as it is`)
		w.Expect(e.Finalizers).To(BeEmpty())
		entries[name] = e
	}
	for name, e := range entries {
		w.rests(e, 500*time.Millisecond)
		w.holds(mainPrefix+name, "as it was")
	}
	update(w, c, func(c *corev1.ConfigMap) { c.BinaryData = map[string][]byte{"k": []byte("v")} })
	for name, of := range policies {
		w.becomes(entries[name], of.then)
		w.holds(mainPrefix+name, of.holds)
	}
	// It vanishes again, and is then deleted: what was written goes by its digest.
	update(w, c, func(c *corev1.ConfigMap) { c.BinaryData = nil })
	for name, e := range entries {
		w.becomes(e, waits("SourceNotFound"))
		w.delete(e)
		w.vanishes(e)
		if name == "enforced" || name == "written" {
			w.lacks(mainPrefix + name)
		} else {
			w.stores(mainPrefix+name, "as it was", 500*time.Millisecond)
		}
	}
}

// Whatever goes wrong with an entry, none of its states, messages and events shows anything of a Secret.
func TestNothingGoesWrongInAWayThatShowsASecret(t *testing.T) {
	t.Parallel()
	const password = "hunter2"
	wrongType := map[string]string{"Warm": "WrongType", "Present": "Present", "Matches": "Differs"}
	for is, policy := range map[string]func(*v1alpha1.CacheEntry){"Warm": enforcing, "Present": ensuringPresent, "Matches": onlyObserving} {
		t.Run(is, func(t *testing.T) {
			w, _ := newRealWorld(t)
			p := w.ready()
			seen := w.follow()
			s := w.secret("source", map[string]string{"k": password, "other": "x"})
			e := w.entry("e", policy, fromSecret("source", "k"))
			acl := func(rule string) {
				w.Expect(w.redis.Do(t.Context(), "acl", "setuser", "default", rule).Err()).To(Succeed())
			}
			// becomes waits for the next thing to go wrong, or right.
			becomes := func(reason string) {
				w.Eventually(func() string { w.look(e); return summary(e) }).WithPolling(200 * time.Millisecond).Should(ContainSubstring("/" + reason))
			}
			w.set(mainPrefix+"e", password)
			if is == "Present" {
				w.set(mainPrefix+"e", "theirs")
			}
			w.create(e)
			becomes(is)
			update(w, s, func(s *corev1.Secret) { delete(s.Data, "k") })
			becomes("SourceNotFound")
			update(w, s, func(s *corev1.Secret) { s.Data["k"] = []byte(password) })
			becomes(is)
			acl("resetkeys")
			acl("~" + mainPrefix + "cachewright-check-*")
			becomes("PermissionDenied")
			acl("allkeys")
			becomes(is)
			update(w, p, suspendPool)
			becomes("PoolSuspended")
			update(w, p, resumePool)
			becomes(is)
			w.Expect(w.redis.LPush(t.Context(), "list", password).Err()).To(Succeed())
			w.Expect(w.redis.Rename(t.Context(), "list", mainPrefix+"e").Err()).To(Succeed())
			becomes(wrongType[is])
			update(w, e, func(e *v1alpha1.CacheEntry) { e.Spec.ValueFrom.SecretKeyRef.Name = "gone" })
			becomes("SourceNotFound")
			w.delete(e)
			w.vanishes(e)
			w.secretive(e, seen(), password)
			w.reload(p)
			w.discreet(p, password)
		})
	}
}
