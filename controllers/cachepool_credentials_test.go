// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"
	corev1 "k8s.io/api/core/v1"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// credentials makes a pool log in with Secret redis-auth.
func credentials(p *v1alpha1.CachePool) {
	p.Spec.CredentialsSecretRef = &v1alpha1.CredentialsSecretReference{Name: "redis-auth"}
}

// protectedWorld is a real server with a password, and who knows it.
func protectedWorld(t *testing.T, password string) *world {
	t.Helper()
	t.Parallel()
	s := redistest.Start(t, "--requirepass", password)
	w := worldAt(t, s.Addr)
	_ = w.redis.Close()
	w.redis = redis.NewClient(&redis.Options{Addr: s.Addr, Password: password, PipelinePoolSize: -1})
	t.Cleanup(func() { _ = w.redis.Close() })
	return w
}

// setPassword of a Secret.
func setPassword(w *world, s *corev1.Secret, password string) {
	w.t.Helper()
	update(w, s, func(s *corev1.Secret) { s.Data["password"] = []byte(password) })
}

func TestAPoolWaitsForItsSecret(t *testing.T) {
	w := protectedWorld(t, "hunter2")
	p := w.pool(credentials)
	w.create(p)
	w.becomes(p, waits("SecretNotFound"))
	w.says(p, `Secret "redis-auth" does not exist`)
	w.rests(p, probes/2)

	s := w.secret("redis-auth", map[string]string{"password": "hunter2"})
	w.becomes(p, connected)
	w.Expect(p.Status.CredentialsResourceVersion).To(Equal(s.ResourceVersion))
	w.discreet(p, "hunter2")
}

func TestASecretWithoutThePasswordIsInvalid(t *testing.T) {
	w := protectedWorld(t, "hunter2")
	s := w.secret("redis-auth", map[string]string{"passwort": "hunter2"})
	p := w.pool(credentials)
	w.create(p)
	w.becomes(p, stalls("InvalidSecret"))
	w.says(p, `Secret "redis-auth" has no key "password"`)
	w.rests(p, probes/2)
	setPassword(w, s, "hunter2")
	w.becomes(p, connected)
}

func TestThePoolNamesTheKeysOfItsSecret(t *testing.T) {
	w, _ := newRealWorld(t)
	w.Expect(w.redis.Do(t.Context(), "acl", "setuser", "wright", "on", ">hunter2", "~*", "+@all").Err()).To(Succeed())
	w.Expect(w.redis.ConfigSet(t.Context(), "requirepass", "other").Err()).To(Succeed())
	w.secret("redis-auth", map[string]string{"user": "wright", "pass": "hunter2", "username": "nobody", "password": "wrong"})
	p := w.pool(credentials, func(p *v1alpha1.CachePool) {
		p.Spec.CredentialsSecretRef.UsernameKey, p.Spec.CredentialsSecretRef.PasswordKey = "user", "pass"
	})
	w.create(p)
	w.becomes(p, connected)
	w.Expect(w.redis.Do(t.Context(), "client", "list").Text()).To(ContainSubstring("user=wright"))
}

func TestWrongCredentialsStallAPoolUntilTheyAreRight(t *testing.T) {
	w := protectedWorld(t, "hunter2")
	s := w.secret("redis-auth", map[string]string{"password": "wr0ng"})
	p := w.pool(credentials)
	w.create(p)
	w.becomes(p, stalls("AuthenticationFailed"))
	w.says(p, "The server refuses the user name or password")
	w.rests(p, probes/2)
	w.discreet(p, "wr0ng", "hunter2")

	// Mended on the server only.
	w.Expect(w.redis.ConfigSet(t.Context(), "requirepass", "wr0ng").Err()).To(Succeed())
	w.becomes(p, connected)
	w.Expect(p.Status.CredentialsResourceVersion).To(Equal(s.ResourceVersion))
}

func TestAPasswordForAServerWithout(t *testing.T) {
	w, _ := newRealWorld(t)
	w.secret("redis-auth", map[string]string{"username": "wright", "password": "hunter2"})
	p := w.pool(credentials)
	w.create(p)
	w.becomes(p, stalls("AuthenticationFailed"))
	w.discreet(p, "wright", "hunter2")
}

// rotated is a connected pool whose Secret then gets a password that the server does not know yet.
func rotated(w *world) (*v1alpha1.CachePool, *corev1.Secret) {
	w.t.Helper()
	s := w.secret("redis-auth", map[string]string{"password": "0ld"})
	p := w.ready(credentials)
	setPassword(w, s, "n3w")
	w.says(p, "Connected with the previous settings, since the new ones do not work: The server refuses the user name or password")
	w.Expect(summary(p)).To(Equal(connected))
	w.Expect(p.Status.CredentialsResourceVersion).NotTo(Equal(s.ResourceVersion))
	return p, s
}

func TestTheOldClientServesUntilTheNewOneWorks(t *testing.T) {
	w := protectedWorld(t, "0ld")
	p, s := rotated(w)
	e := w.entry("meanwhile")
	w.create(e)
	w.becomes(e, isWarm)
	w.holds(mainPrefix+"meanwhile", "value of meanwhile")
	w.rests(p, probes/2)
	w.discreet(p, "0ld", "n3w")

	w.Expect(w.redis.ConfigSet(t.Context(), "requirepass", "n3w").Err()).To(Succeed())
	w.says(p, "Connected")
	w.Expect(p.Status.CredentialsResourceVersion).To(Equal(s.ResourceVersion))
	w.rests(e, time.Second)
}

func TestTheOldClientGoesOnSweeping(t *testing.T) {
	w := protectedWorld(t, "0ld")
	s := w.secret("redis-auth", map[string]string{"password": "0ld"})
	p := w.ready(credentials)
	e := w.entry("kept")
	w.create(e)
	w.becomes(e, isWarm)
	setPassword(w, s, "n3w")
	w.Eventually(func() string { w.reload(p); return message(p) }).Should(ContainSubstring("previous"))
	w.set(mainPrefix+"kept", "drift")
	w.holds(mainPrefix+"kept", "value of kept")
}

func TestTheOldClientServesWhenTheSecretIsGone(t *testing.T) {
	w := protectedWorld(t, "0ld")
	s := w.secret("redis-auth", map[string]string{"password": "0ld"})
	p := w.ready(credentials)
	w.delete(s)
	w.says(p, `Connected with the previous settings, since the new ones do not work: Secret "redis-auth" does not exist`)
	w.Expect(summary(p)).To(Equal(connected))
	w.create(w.entry("meanwhile"))
	w.holds(mainPrefix+"meanwhile", "value of meanwhile")
}

func TestTheOldClientIsCheckedToo(t *testing.T) {
	w := protectedWorld(t, "0ld")
	p, _ := rotated(w)
	w.Expect(w.redis.ConfigSet(t.Context(), "maxmemory", "1").Err()).To(Succeed())
	w.Eventually(func() string { w.reload(p); return summary(p) }).Should(HavePrefix("Ready=False/"))
	w.Expect(w.redis.ConfigSet(t.Context(), "maxmemory", "0").Err()).To(Succeed())
	w.becomes(p, connected)
}

func TestAChangeOfTheSpecToCredentialsThatDoNotWorkIsAFailure(t *testing.T) {
	w := protectedWorld(t, "0ld")
	w.secret("redis-auth", map[string]string{"password": "0ld"})
	w.secret("other", map[string]string{"password": "n3w"})
	p := w.ready(credentials)
	update(w, p, func(p *v1alpha1.CachePool) { p.Spec.CredentialsSecretRef.Name = "other" })
	w.becomes(p, stalls("AuthenticationFailed"))
	update(w, p, func(p *v1alpha1.CachePool) { p.Spec.CredentialsSecretRef.Name = "missing" })
	w.becomes(p, waits("SecretNotFound"))
	update(w, p, func(p *v1alpha1.CachePool) { p.Spec.CredentialsSecretRef.Name = "redis-auth" })
	w.becomes(p, connected)
}
