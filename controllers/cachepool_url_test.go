// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"
	corev1 "k8s.io/api/core/v1"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// byURL makes a pool connect to what key url of Secret redis-url says.
func byURL(p *v1alpha1.CachePool) {
	p.Spec.Addresses, p.Spec.URLSecretRef = nil, &v1alpha1.KeyReference{Name: "redis-url", Key: "url"}
}

// url creates Secret redis-url.
func (w *world) url(url string) *corev1.Secret {
	w.t.Helper()
	return w.secret("redis-url", map[string]string{"url": url})
}

func setURL(w *world, s *corev1.Secret, url string) {
	w.t.Helper()
	update(w, s, func(s *corev1.Secret) { s.Data["url"] = []byte(url) })
}

func TestAURLHasAddressUserPasswordAndDatabase(t *testing.T) {
	w, server := newRealWorld(t)
	server.User(t, "wright", "hunt/er2")
	w.Expect(w.redis.ConfigSet(t.Context(), "requirepass", "other").Err()).To(Succeed())
	s := w.url("redis://wright:hunt%2Fer2@" + w.addr + "/3\n")
	p := w.ready(byURL, seldom)
	w.Expect(p.Status.CredentialsResourceVersion).To(Equal(s.ResourceVersion))
	w.Expect(w.redis.Do(t.Context(), "client", "list").Text()).To(ContainSubstring("user=wright"))
	w.create(w.entry("a"))
	three := redis.NewClient(&redis.Options{Addr: w.addr, DB: 3, Password: "other"})
	t.Cleanup(func() { _ = three.Close() })
	w.Eventually(func() string { return three.Get(t.Context(), mainPrefix+"a").Val() }).Should(Equal("value of a"))
	w.discreet(p, "hunt", "er2", "127.0.0.1")
}

func TestAPoolWaitsForTheSecretOfItsURL(t *testing.T) {
	w := newWorld(t)
	p := w.pool(byURL)
	w.create(p)
	w.becomes(p, waits("SecretNotFound"))
	w.says(p, `Secret "redis-url" does not exist`)
	w.rests(p, probes/2)
	s := w.secret("redis-url", map[string]string{"uri": "redis://" + w.addr})
	w.becomes(p, stalls("InvalidSecret"))
	w.says(p, `Secret "redis-url" has no key "url"`)
	setURL(w, s, "redis://"+w.addr)
	w.becomes(p, connected)
}

func TestAPoolSaysWhatWouldBeRightInsteadOfItsURL(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"http://wright:hunter2@%s":          "it must begin with redis://, or with rediss:// for TLS",
		"redis://wright:hun/ter2@%s":        "it must look like redis://user:password@host:6379/0, with special characters in user and password percent-encoded",
		"%s":                                "it must look like redis://user:password@host:6379/0, with special characters in user and password percent-encoded",
		"redis://hunter2@%s":                "a user needs a password, and a password alone a colon before it, as in redis://:password@host:6379",
		"redis://%s/hunter2":                "what follows the host must be the number of a database, as in redis://redis.shop.svc:6379/5",
		"redis://%s?password=hunter2":       "it must have no options behind a question mark (one in a password is written %3F)",
		"redis://wright:hun#ter2@127.0.0.1": "it must look like redis://user:password@host:6379/0, with special characters in user and password percent-encoded",
	} {
		t.Run(want, func(t *testing.T) {
			w := newWorld(t)
			s := w.url(strings.ReplaceAll(url, "%s", w.addr))
			p := w.pool(byURL)
			w.create(p)
			w.becomes(p, stalls("InvalidURL"))
			w.says(p, `Key "url" of Secret "redis-url" has no valid URL: `+want)
			w.rests(p, probes/2)
			w.discreet(p, "hunter2", "ter2", "127.0.0.1", "http")
			setURL(w, s, "redis://"+w.addr)
			w.becomes(p, connected)
		})
	}
}

func TestTheOldURLServesUntilTheNewOneWorks(t *testing.T) {
	w := newWorld(t)
	elsewhere := redistest.Miniredis(t)
	elsewhere.RequireAuth("hunter2")
	s := w.url("redis://" + w.addr)
	p := w.ready(byURL, seldom)
	version := p.Status.CredentialsResourceVersion
	e := w.entry("a")
	w.create(e)
	w.becomes(e, isWarm)

	for url, why := range map[string]string{
		"redis://" + elsewhere.Addr():        "The server asks for a password",
		"http://hunter2@" + elsewhere.Addr(): `Key "url" of Secret "redis-url" has no valid URL: it must begin with redis://, or with rediss:// for TLS`,
	} {
		setURL(w, s, url)
		w.says(p, "Connected with the previous settings, since the new ones do not work: "+why)
		w.Expect(summary(p)).To(Equal(connected))
		w.tells(p, "Warning Connected: "+message(p))
	}
	w.Expect(p.Status.CredentialsResourceVersion).To(Equal(version))
	w.create(w.entry("meanwhile"))
	w.holds(mainPrefix+"meanwhile", "value of meanwhile")

	setURL(w, s, "redis://:hunter2@"+elsewhere.Addr()+"/2")
	w.says(p, "Connected")
	w.Expect(p.Status.CredentialsResourceVersion).To(Equal(s.ResourceVersion))
	w.Eventually(func() (string, error) { return elsewhere.DB(2).Get(mainPrefix + "a") }).Should(Equal("value of a"))
	w.holds(mainPrefix+"a", "value of a")
	w.tells(p, `Normal ServerChanged: Entries are written to the server and database that Secret "redis-url" names; keys on the former server or database stay there`)
	w.discreet(p, "hunter2", "127.0.0.1", elsewhere.Port())
}

func TestAURLThatTheSpecNamesAndThatDoesNotWorkIsAFailure(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	w.url("http://" + w.addr)
	update(w, p, byURL)
	w.becomes(p, stalls("InvalidURL"))
	w.create(w.entry("meanwhile"))
	update(w, p, func(p *v1alpha1.CachePool) { p.Spec.Addresses, p.Spec.URLSecretRef = []string{w.addr}, nil })
	w.becomes(p, connected)
	w.holds(mainPrefix+"meanwhile", "value of meanwhile")
}

// Two pools are on one server, however each says where it is.
func TestAKeyIsTheSameByAddressAndByURL(t *testing.T) {
	w := newWorld(t)
	s := w.url("redis://" + w.addr)
	shared := func(p *v1alpha1.CachePool) { p.Spec.KeyPrefix = "shared:" }
	w.ready(shared)
	other := w.pool(byURL, shared, func(p *v1alpha1.CachePool) { p.Name = "other" })
	w.create(other)
	w.becomes(other, connected)
	older, younger := w.entry("older"), w.entry("younger")
	older.Spec.Key, younger.Spec.Key, younger.Spec.PoolRef.Name = "k", "k", "other"
	w.create(older)
	w.becomes(older, isWarm)
	w.create(younger)
	w.becomes(younger, stalls("KeyConflict"))
	w.delete(older)
	w.vanishes(older)
	w.becomes(younger, isWarm)
	w.holds("shared:k", "value of younger")

	// In another database it is another key.
	youngest := w.entry("youngest", func(e *v1alpha1.CacheEntry) { e.Spec.Key = "k" })
	w.create(youngest)
	w.becomes(youngest, stalls("KeyConflict"))
	setURL(w, s, "redis://"+w.addr+"/1")
	w.becomes(youngest, isWarm)
	w.becomes(younger, isWarm)
}
