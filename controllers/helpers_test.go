// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/status"
)

// waits reads the conditions of an object that waits for something to pass by itself.
func waits(reason string) string {
	return "Ready=False/" + reason + " Reconciling=True/ProgressingWithRetry"
}

// stalls reads the conditions of an object that needs a human.
func stalls(reason string) string { return "Ready=False/" + reason + " Stalled=True/" + reason }

// says waits until Ready has a message.
func (w *world) says(o status.Object, want string) {
	w.t.Helper()
	w.Eventually(func() string { w.reload(o); return message(o) }).Should(Equal(want))
}

// rests checks that an object is not written for a while.
func (w *world) rests(o client.Object, while time.Duration) {
	w.t.Helper()
	w.reload(o)
	version := o.GetResourceVersion()
	w.Consistently(func() string { w.reload(o); return o.GetResourceVersion() }, while, 100*time.Millisecond).Should(Equal(version))
}

// stays checks that the conditions of an object read as given for a while.
func (w *world) stays(o status.Object, want string, while time.Duration) {
	w.t.Helper()
	w.Consistently(func() string { w.reload(o); return summary(o) }, while, 100*time.Millisecond).Should(Equal(want))
}

// stores checks that a key in Redis has a value for a while.
func (w *world) stores(key, value string, while time.Duration) {
	w.t.Helper()
	w.Consistently(func() (string, error) { return w.redis.Get(w.t.Context(), key).Result() }, while, 50*time.Millisecond).Should(Equal(value))
}

// delete an object, and do not wait.
func (w *world) delete(o client.Object) {
	w.t.Helper()
	w.Expect(k8s.Delete(w.t.Context(), o)).To(Succeed())
}

// tells waits for an event about an object.
func (w *world) tells(o client.Object, want string) {
	w.t.Helper()
	w.Eventually(func() []string { return w.events(o) }).Should(ContainElement(want))
}

// discreet checks that neither status nor events of an object show a text.
func (w *world) discreet(o status.Object, texts ...string) {
	w.t.Helper()
	w.reload(o)
	shown := w.events(o)
	for _, c := range *o.Conditions() {
		shown = append(shown, c.Message)
	}
	for _, text := range texts {
		w.Expect(strings.Join(shown, "\n")).NotTo(ContainSubstring(text))
	}
}

// look makes the operator look at an object now.
func (w *world) look(o client.Object) {
	w.t.Helper()
	w.reload(o)
	w.request(o, o.GetAnnotations()["cachewright.dev/requestedAt"]+"x")
}

// secret creates a Secret.
func (w *world) secret(name string, data map[string]string) *corev1.Secret {
	w.t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: data}
	w.create(s)
	return s
}

// configMap creates a ConfigMap named source.
func (w *world) configMap(data map[string]string) *corev1.ConfigMap {
	w.t.Helper()
	c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "source"}, Data: data}
	w.create(c)
	return c
}

// follow the writes to the entries of the test's namespace. What it returns gives those seen so far, oldest first.
func (w *world) follow() func() []*v1alpha1.CacheEntry {
	w.t.Helper()
	watcher, err := k8s.Watch(w.t.Context(), &v1alpha1.CacheEntryList{}, client.InNamespace(w.namespace))
	w.Expect(err).NotTo(HaveOccurred())
	w.t.Cleanup(watcher.Stop)
	var mu sync.Mutex
	var seen []*v1alpha1.CacheEntry
	go func() {
		for event := range watcher.ResultChan() {
			if entry, ok := event.Object.(*v1alpha1.CacheEntry); ok {
				mu.Lock()
				seen = append(seen, entry)
				mu.Unlock()
			}
		}
	}()
	return func() []*v1alpha1.CacheEntry {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(seen)
	}
}

// isThere says whether an object is still there.
func isThere(t *testing.T, o client.Object) bool {
	t.Helper()
	err := k8s.Get(t.Context(), client.ObjectKeyFromObject(o), o)
	return !apierrors.IsNotFound(err)
}

// miniredisAt starts a miniredis at an address.
func miniredisAt(t *testing.T, addr string) {
	t.Helper()
	m := miniredis.NewMiniRedis()
	if err := m.StartAddr(addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
}

// blackHole takes connections and never answers.
func blackHole(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// watched waits until the operator knows how the server of a pool tells of changes.
func (w *world) watched(p *v1alpha1.CachePool) {
	w.t.Helper()
	w.Eventually(func() bool {
		w.reload(p)
		return p.Status.Server != nil && p.Status.Server.ChangeDetection != ""
	}).Should(BeTrue())
}

// retained entries leave their keys.
func retained(e *v1alpha1.CacheEntry) { e.Spec.DeletionPolicy = v1alpha1.DeletionRetain }

// deleting entries delete their keys.
func deleting(e *v1alpha1.CacheEntry) { e.Spec.DeletionPolicy = v1alpha1.DeletionDelete }

// deletions of keys on a real server, as its keyspace notifications tell them: those since the call.
func (w *world) deletions() func() []string {
	w.t.Helper()
	w.Expect(w.redis.ConfigSet(w.t.Context(), "notify-keyspace-events", "Eg").Err()).To(Succeed())
	subscription := w.redis.Subscribe(w.t.Context(), "__keyevent@0__:del", "__keyevent@0__:unlink")
	w.t.Cleanup(func() { _ = subscription.Close() })
	_, err := subscription.Receive(w.t.Context())
	w.Expect(err).NotTo(HaveOccurred())
	return func() []string {
		w.Expect(w.redis.Publish(w.t.Context(), "__keyevent@0__:del", "end").Err()).To(Succeed())
		var gone []string
		for message := range subscription.Channel() {
			if message.Payload == "end" {
				break
			}
			if !strings.Contains(message.Payload, "cachewright-probe-") { // the operator's own, to see whether changes are told
				gone = append(gone, message.Payload)
			}
		}
		return gone
	}
}
