// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/status"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// previously is what a pool says while its old client serves.
func previously(why string) string {
	return "Connected with the previous settings, since the new ones do not work: " + why
}

// failures follows every write to objects of a kind in the test's namespace, and gives those that say Ready=False.
func failures[T status.Object](w *world, list client.ObjectList) func() []string {
	w.t.Helper()
	watcher, err := k8s.Watch(w.t.Context(), list, client.InNamespace(w.namespace))
	w.Expect(err).NotTo(HaveOccurred())
	w.t.Cleanup(watcher.Stop)
	var mu sync.Mutex
	var failed []string
	go func() {
		for event := range watcher.ResultChan() {
			o, ok := event.Object.(T)
			if !ok {
				continue
			}
			if c := apimeta.FindStatusCondition(*o.Conditions(), v1alpha1.ConditionReady); c != nil && c.Status == metav1.ConditionFalse {
				mu.Lock()
				failed = append(failed, fmt.Sprintf("%s %s: %s", o.GetName(), c.Reason, c.Message))
				mu.Unlock()
			}
		}
	}()
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(failed)
	}
}

// writer creates entries and counters, one after the other, until it is stopped.
type writer struct {
	w    *world
	stop context.CancelFunc
	done sync.WaitGroup
	made []string
}

func (w *world) writes() *writer {
	w.t.Helper()
	ctx, stop := context.WithCancel(w.t.Context())
	r := &writer{w: w, stop: stop}
	r.done.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			<-tick.C
			name := "e" + strconv.Itoa(i)
			e := w.entry(name)
			if i%2 == 0 {
				e = w.entry(name, func(e *v1alpha1.CacheEntry) {
					e.Spec.Value, e.Spec.Counter = nil, &v1alpha1.CounterSpec{Increment: 1, RunID: "once"}
				})
			}
			if k8s.Create(ctx, e) == nil {
				r.made = append(r.made, name)
			}
		}
	})
	return r
}

// all that was created is there, and every increment was made once.
func (r *writer) check() {
	r.w.t.Helper()
	r.stop()
	r.done.Wait()
	r.w.Expect(len(r.made)).To(BeNumerically(">", 10))
	for i, name := range r.made {
		e, want, value := r.w.entry(name), isWarm, "value of "+name
		if i%2 == 0 {
			want, value = "Ready=True/Applied", "1"
		}
		r.w.becomes(e, want)
		r.w.holds(mainPrefix+name, value)
	}
}

// The password is rotated while entries are written, and the server may break all connections then.
func TestRotatingThePasswordWhileEntriesAreWritten(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ secretFirst, kill bool }{
		"Secret first":                       {true, false},
		"Secret first, connections are cut":  {true, true},
		"server first":                       {false, false},
		"server first, connections are cut ": {false, true},
	} {
		t.Run(name, func(t *testing.T) {
			w, server := newRealWorld(t)
			server.User(t, "wright", "0ld")
			s := w.secret("redis-auth", map[string]string{"username": "wright", "password": "0ld"})
			p := w.ready(credentials, seldom)
			w.watched(p)
			broken, failed := failures[*v1alpha1.CachePool](w, &v1alpha1.CachePoolList{}), failures[*v1alpha1.CacheEntry](w, &v1alpha1.CacheEntryList{})
			wrote := w.writes()
			some := func(n int64) {
				w.Eventually(func() int64 { return w.redis.DBSize(t.Context()).Val() }).Should(BeNumerically(">", n))
			}
			onServer := func() {
				server.User(t, "wright", "n3w")
				if test.kill {
					w.Expect(w.redis.Do(t.Context(), "client", "kill", "user", "wright").Err()).To(Succeed())
				}
			}
			some(20)
			if test.secretFirst {
				setPassword(w, s, "n3w")
				w.says(p, previously("The server refuses the user name or password"))
				some(w.redis.DBSize(t.Context()).Val() + 20)
				onServer()
			} else {
				onServer()
				if !test.kill {
					some(w.redis.DBSize(t.Context()).Val() + 20)
				}
				setPassword(w, s, "n3w")
			}
			w.Eventually(func() string { w.reload(p); return p.Status.CredentialsResourceVersion }).Should(Equal(s.ResourceVersion))
			w.says(p, "Connected")
			some(w.redis.DBSize(t.Context()).Val() + 20)
			wrote.check()
			if !test.kill {
				w.Expect(broken()).To(BeEmpty())
			}
			for _, f := range failed() {
				w.Expect(f).To(And(ContainSubstring("PoolNotReady"), Satisfy(func(string) bool { return test.kill })))
			}
			w.discreet(p, "0ld", "n3w", "wright")
		})
	}
}

func TestRotatingCertificates(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		secretFirst bool
		ca          func(*v1alpha1.CachePool)
	}{
		"Secret first":    {true, func(*v1alpha1.CachePool) {}},
		"ConfigMap first": {true, caInConfigMap},
		"server first":    {false, func(*v1alpha1.CachePool) {}},
	} {
		t.Run(name, func(t *testing.T) {
			w, server, ca := tlsWorld(t)
			other := redistest.NewAuthority(t)
			secret, configMap, own := w.ca(ca), w.configMap(map[string]string{"ca.crt": ca.PEM}), w.client(ca.Sign(t))
			p := w.ready(secured(server), test.ca, seldom)
			w.watched(p)
			broken := failures[*v1alpha1.CachePool](w, &v1alpha1.CachePoolList{})
			trust := func() {
				update(w, secret, func(s *corev1.Secret) { s.Data["ca.crt"] = []byte(other.PEM) })
				update(w, configMap, func(c *corev1.ConfigMap) { c.Data["ca.crt"] = other.PEM })
			}
			if test.secretFirst {
				trust()
				w.says(p, previously("The server's certificate is signed by an unknown authority: caRef must name the certificate of the one that has signed it"))
				w.tells(p, "Warning Connected: "+message(p))
			}
			w.create(w.entry("between"))
			w.holds(mainPrefix+"between", "value of between")
			server.Trust(t, other, other.Sign(t))
			if !test.secretFirst {
				trust()
			}
			w.says(p, previously("The server refuses the client certificate: it does not know the authority that has signed it"))
			w.Expect(summary(p)).To(Equal(connected))
			setClient(w, own, other.Sign(t))
			w.says(p, "Connected")
			w.create(w.entry("after"))
			w.holds(mainPrefix+"after", "value of after")
			w.Expect(broken()).To(BeEmpty())
			w.discreet(p, "127.0.0.1", "CERTIFICATE")
			w.delete(p)
		})
	}
}

// One client at a time stays connected, and none is left when the pool is gone.
func TestRotationLeavesNoConnection(t *testing.T) {
	w, server := newRealWorld(t)
	server.User(t, "wright", "0ld")
	s := w.secret("redis-auth", map[string]string{"username": "wright", "password": "0ld"})
	p := w.ready(credentials, seldom)
	users := func() int { return strings.Count(w.redis.ClientList(t.Context()).Val(), "user=wright") }
	for _, password := range []string{"fir5t", "s3cond", "th1rd"} {
		setPassword(w, s, password)
		w.says(p, previously("The server refuses the user name or password"))
		server.User(t, "wright", password)
		w.Eventually(func() string { w.reload(p); return p.Status.CredentialsResourceVersion }).Should(Equal(s.ResourceVersion))
		w.watched(p)
	}
	w.Eventually(users).Should(BeNumerically("<=", 6), "what one pool needs at most")
	w.delete(p)
	w.vanishes(p)
	w.Eventually(users).Should(BeZero())
}

func TestAChangeOfTLSInTheSpecThatDoesNotWorkIsAFailure(t *testing.T) {
	w, server, ca := tlsWorld(t)
	w.ca(ca)
	w.client(ca.Sign(t))
	p := w.ready(secured(server), seldom)
	update(w, p, func(p *v1alpha1.CachePool) { p.Spec.TLS.ServerName = "redis.shop.svc" })
	w.becomes(p, stalls("InvalidTLS"))
	update(w, p, func(p *v1alpha1.CachePool) { p.Spec.TLS = nil })
	w.becomes(p, stalls("InvalidTLS"))
	update(w, p, secured(server))
	w.becomes(p, connected)
}

// A real server that reads its data set, and a database that it does not have.
func TestAPoolWaitsWhileItsServerLoads(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024")
	w := worldAt(t, server.Addr)
	for i := range 200 {
		w.set("some:"+strconv.Itoa(i), strings.Repeat("v", 1024))
	}
	w.Expect(w.redis.Save(t.Context()).Err()).To(Succeed())
	p := w.ready()
	loaded := make(chan struct{})
	go func() { defer close(loaded); server.Restart() }()
	w.becomes(p, waits("Loading"))
	w.says(p, "The server is loading its data set")
	<-loaded
	w.becomes(p, connected)
}

func TestAURLWithADatabaseThatTheServerDoesNotHave(t *testing.T) {
	w, _ := newRealWorld(t)
	s := w.url("redis://" + w.addr + "/16")
	p := w.pool(byURL)
	w.create(p)
	w.becomes(p, stalls("WrongTopology"))
	w.says(p, "The server has no database of this number")
	setURL(w, s, "redis://"+w.addr+"/15")
	w.becomes(p, connected)
}

func TestAURLThatLeadsToABlackHole(t *testing.T) {
	w := newWorld(t)
	hole := blackHole(t)
	s := w.url("redis://" + w.addr)
	p := w.ready(byURL, func(p *v1alpha1.CachePool) { p.Spec.Timeout = &metav1.Duration{Duration: 200 * time.Millisecond} })
	setURL(w, s, "redis://"+hole.Addr().String())
	w.says(p, previously("Connection timed out"))
	w.create(w.entry("meanwhile"))
	w.holds(mainPrefix+"meanwhile", "value of meanwhile")
	w.Expect(summary(p)).To(Equal(connected))
}
