// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// released reads the event about key a of a tenant's entry that was deleted when no pool served it any more.
func (t *tenant) released() string {
	return fmt.Sprintf(`Warning Released: Key "a" stays in Redis, since CachePool "%s/main" is gone, or does not serve this namespace any more`, t.owner)
}

// Neither text nor time tells a pool that does not admit a namespace from one that does not exist.
func TestANamespaceThatIsNotAdmittedLearnsNothing(t *testing.T) {
	w := newWorld(t)
	strict, choice := w.ready(), w.pool(choosy("none"), under("choice:"), func(p *v1alpha1.CachePool) { p.Name = "choice" })
	w.create(choice)
	w.becomes(choice, connected)
	guest := w.tenant()
	said := map[string]string{}
	for _, name := range []string{"main", "choice", "missing"} {
		e, f := guest.entry(name), guest.flush(name, all)
		e.Spec.PoolRef.Name, f.Spec.PoolRef.Name = name, name
		guest.create(e)
		guest.create(f)
		guest.becomes(e, waits("PoolNotFound"))
		guest.becomes(f, excluded)
		w.Expect(message(f)).To(Equal(message(e)))
		w.Expect(message(e)).To(Equal(fmt.Sprintf(`No CachePool "%s/%s" serves this namespace`, w.namespace, name)))
		e.Status.Conditions[0].LastTransitionTime = metav1.Time{}
		said[fmt.Sprintf("%+v %v %v", e.Status.ObservedGeneration, e.Finalizers, e.Annotations)] = name
	}
	w.Expect(said).To(HaveLen(1))

	// Nothing that becomes of the pools tells either.
	e := guest.entry("main")
	guest.reload(e)
	update(w, strict, func(p *v1alpha1.CachePool) { p.Spec.Suspend = true })
	w.delete(choice)
	w.vanishes(choice)
	guest.rests(e, time.Second)
	w.Expect(w.keys("*")).To(BeEmpty())
}

// When entries of pools that do not admit them are deleted, the events say what those of missing pools do.
func TestADeletionTellsNoMoreThanThatNoPoolServes(t *testing.T) {
	w := newWorld(t)
	w.ready()
	guest := w.tenant()
	for _, name := range []string{"main", "missing"} {
		e := guest.entry(name, func(e *v1alpha1.CacheEntry) {
			e.Spec.PoolRef.Name = name
			e.Finalizers = []string{"cachewright.dev/keys"}
			e.Annotations = map[string]string{"cachewright.dev/written": fmt.Sprintf(`[{"pool":{"namespace":%q,"name":%q,"uid":""},"key":"a"}]`, w.namespace, name)}
		})
		w.set(guest.prefix+"a", "v")
		guest.create(e)
		guest.becomes(e, waits("PoolNotFound"))
		guest.delete(e)
		guest.vanishes(e)
		guest.tells(e, fmt.Sprintf(`Warning Released: Key "a" stays in Redis, since CachePool "%s/%s" is gone, or does not serve this namespace any more`, w.namespace, name))
	}
	w.holds(guest.prefix+"a", "v")
}

// The record cannot be edited to reach what its author's namespace must not.
func TestAnEditedRecordReachesNoForeignKeys(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	w.set(mainPrefix+"a", "owner's")
	guest := w.tenant()
	own := guest.ready(under("own:"))
	e := guest.world.entry("a", func(e *v1alpha1.CacheEntry) {
		e.Finalizers = []string{"cachewright.dev/keys"}
		e.Annotations = map[string]string{"cachewright.dev/written": fmt.Sprintf(`[{"pool":{"namespace":%q,"name":"main","uid":%q},"key":"a"}]`, w.namespace, p.UID)}
	})
	guest.create(e)
	guest.delete(e)
	guest.vanishes(e)
	update(w, p, open)
	guest.delete(own)
	guest.vanishes(own)
	w.stores(mainPrefix+"a", "owner's", time.Second)
}

func TestTheLabelsOfANamespaceDecide(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready(choosy("blue"))
	guest := w.tenant()
	guest.label("red")
	e, f := guest.entry("a"), guest.flush("f", all)
	guest.create(e)
	guest.create(f)
	guest.becomes(e, waits("PoolNotFound"))
	guest.becomes(f, excluded)

	guest.label("blue")
	guest.becomes(e, isWarm)
	guest.becomes(f, flushed)
	w.holds(guest.prefix+"a", "value of a")

	guest.label("red")
	guest.becomes(e, waits("PoolNotFound"))
	w.set(guest.prefix+"a", "drift")
	w.stores(guest.prefix+"a", "drift", time.Second)
	update(w, p, choosy("red"))
	guest.becomes(e, isWarm)
	w.holds(guest.prefix+"a", "value of a")

	guest.label("green")
	guest.becomes(e, waits("PoolNotFound"))
	guest.delete(e)
	guest.vanishes(e)
	guest.tells(e, guest.released())
	w.holds(guest.prefix+"a", "value of a")
}

func TestAPoolThatShutsLeavesTheKeysOfItsTenants(t *testing.T) {
	w := newWorld(t)
	p := w.ready(open)
	own := w.entry("own")
	w.create(own)
	guest := w.tenant()
	e := guest.entry("a")
	guest.create(e)
	guest.becomes(e, isWarm)
	update(w, p, shut)
	guest.becomes(e, waits("PoolNotFound"))
	w.becomes(own, isWarm)
	guest.delete(e)
	guest.vanishes(e)
	guest.tells(e, guest.released())
}

// What a schema does not see ends in a condition, and the pool's own namespace is served.
func TestAnInvalidSelectorAdmitsNobodyElse(t *testing.T) {
	w := newWorld(t)
	p := w.pool(choosy("blue"), func(p *v1alpha1.CachePool) {
		p.Spec.AllowedNamespaces.Selector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "team", Operator: "Like"}}
	})
	w.create(p)
	w.becomes(p, stalls("InvalidSelector"))
	w.says(p, `Only this namespace is served: the selector of allowedNamespaces is invalid: "Like" is not a valid label selector operator`)
	w.Expect(p.Status.Server).NotTo(BeNil())
	e, guest := w.entry("a"), w.tenant()
	w.create(e)
	w.becomes(e, isWarm)
	guest.label("blue")
	theirs := guest.entry("a")
	guest.create(theirs)
	guest.becomes(theirs, waits("PoolNotFound"))
	update(w, p, choosy("blue"))
	w.becomes(p, connected)
	guest.becomes(theirs, isWarm)
}

// One at a time, whosever they are. Who is behind another namespace's flush is not told which.
func TestFlushesOfAPoolQueueAcrossNamespaces(t *testing.T) {
	w, _, _ := newProxiedWorld(t)
	p := w.ready(open)
	guest := w.tenant()
	w.fill(mainPrefix+"k", 1000)
	first := w.flush("first", prefixed("k"), atMost(100))
	w.create(first)
	w.becomes(first, isRunning)
	w.later()
	second, third := guest.flush("second", all), guest.flush("third", all)
	guest.create(second)
	guest.becomes(second, isQueued)
	guest.says(second, "Waiting for a CacheFlush of another namespace")
	guest.create(third)
	guest.becomes(third, isQueued)
	guest.discreet(second, w.namespace, `"first"`)
	fourth := w.flush("fourth", all)
	w.later()
	w.create(fourth)
	w.becomes(fourth, isQueued)
	w.says(fourth, `Waiting for CacheFlush "first"`)
	w.delete(first)
	guest.becomes(second, flushed)
	guest.becomes(third, flushed)
	w.becomes(fourth, flushed)

	// Only the owner's are told of in the pool.
	w.Expect(w.recent(p, 1)).To(ConsistOf(HavePrefix(`fourth "" all: Complete`)))
}

// Who is not admitted, or no more, holds up nobody.
func TestAFlushThatIsNotAdmittedDoesNotQueue(t *testing.T) {
	w, _, _ := newProxiedWorld(t)
	p := w.ready()
	guest := w.tenant()
	w.fill(guest.prefix, 10_000)
	older := guest.flush("older", all, atMost(100))
	guest.create(older)
	guest.becomes(older, excluded)
	w.later()
	w.run("younger", prefixed("x"))

	update(w, p, open)
	guest.becomes(older, isRunning)
	behind := w.flush("behind", prefixed("x"))
	w.create(behind)
	w.becomes(behind, isQueued)
	update(w, p, shut)
	guest.becomes(older, excluded)
	w.becomes(behind, flushed)
}
