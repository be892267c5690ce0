// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

const (
	// sweeps is long enough for two sweeps of a pool with the shortest resyncPeriod.
	sweeps = 24 * time.Second

	poolSuspended = "Suspended=True/PoolSuspended"
)

func suspendPool(p *v1alpha1.CachePool) { p.Spec.Suspend = true }

func resumePool(p *v1alpha1.CachePool) { p.Spec.Suspend = false }

func TestTheEntriesOfASuspendedPoolKeepTheirReadyConditionAndRest(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	warm, waiting := w.entry("warm"), w.entry("waiting", func(e *v1alpha1.CacheEntry) {
		e.Spec.Value, e.Spec.ValueFrom = nil, &v1alpha1.ValueSource{ConfigMapKeyRef: &v1alpha1.KeyReference{Name: "missing", Key: "k"}}
	})
	w.create(warm)
	w.create(waiting)
	w.becomes(warm, isWarm)
	w.becomes(waiting, waits("SourceNotFound"))

	update(w, p, suspendPool)
	w.becomes(p, isSuspended)
	w.becomes(warm, isWarm+" "+poolSuspended)
	w.says(warm, "The key holds the declared value")
	w.becomes(waiting, "Ready=False/SourceNotFound "+poolSuspended)

	w.set(mainPrefix+"warm", "drift")
	w.stores(mainPrefix+"warm", "drift", sweeps/2)

	update(w, p, resumePool)
	w.becomes(p, connected)
	w.becomes(warm, isWarm)
	w.becomes(waiting, waits("SourceNotFound"))
	w.holds(mainPrefix+"warm", "value of warm")
}

func TestAnEntryThatIsNewInASuspendedPoolWaitsForItsResumption(t *testing.T) {
	w := newWorld(t)
	p := w.pool(suspendPool)
	w.create(p)
	w.becomes(p, isSuspended)
	e := w.entry("new")
	w.create(e)
	w.becomes(e, "Ready=Unknown/Suspended "+poolSuspended)
	w.says(e, `CachePool "main" is suspended`)
	w.Expect(e.Finalizers).To(BeEmpty())
	w.lacks(mainPrefix + "new")

	update(w, p, resumePool)
	w.becomes(e, isWarm)
}

func TestAChangeInASuspendedPoolIsWrittenWhenItResumes(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	e := w.entry("changed")
	w.create(e)
	w.becomes(e, isWarm)
	update(w, p, suspendPool)
	w.becomes(e, isWarm+" "+poolSuspended)
	update(w, e, func(e *v1alpha1.CacheEntry) { e.Spec.Value = new("new") })
	w.becomes(e, "Ready=Unknown/Suspended "+poolSuspended)
	w.stores(mainPrefix+"changed", "value of changed", time.Second)
	update(w, p, resumePool)
	w.becomes(e, isWarm)
	w.holds(mainPrefix+"changed", "new")
}

func TestDeletingAnEntryOfASuspendedPoolLeavesItsKeyAndSaysSo(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	e := w.entry("left")
	w.create(e)
	w.becomes(e, isWarm)
	update(w, p, suspendPool)
	w.becomes(e, isWarm+" "+poolSuspended)
	w.delete(e)
	w.vanishes(e)
	w.holds(mainPrefix+"left", "value of left")
	w.tells(e, `Warning Released: Key "glimr:cache:main:left" stays in Redis, since CachePool "main" is suspended`)
}

// Another entry of the key cannot write while the pool is suspended, and does not hold the deletion up.
func TestAKeyOfASuspendedPoolPassesOnAndStays(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	holder, heir := w.rivals()
	w.becomes(heir, stalls("KeyConflict"))
	update(w, p, suspendPool)
	w.becomes(heir, stalls("KeyConflict")+" "+poolSuspended)
	w.delete(holder)
	w.vanishes(holder)
	w.Expect(w.events(holder)).NotTo(ContainElement(ContainSubstring("Released")))
	w.delete(heir)
	w.vanishes(heir)
	w.tells(heir, `Warning Released: Key "glimr:cache:main:k" stays in Redis, since CachePool "main" is suspended`)
	w.holds(mainPrefix+"k", "older")
}

// In a namespace that is terminating no event can be created.
func TestTheNamespaceTellsOfEachKeyThatStaysWhenItIsDeleted(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	one, two := w.came(isWarm, "one"), w.came(isWarm, "two")
	update(w, p, suspendPool)
	w.becomes(one, isWarm+" "+poolSuspended)
	w.becomes(two, isWarm+" "+poolSuspended)
	n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}
	w.delete(n)
	w.reload(n)
	for _, e := range []*v1alpha1.CacheEntry{one, two} {
		w.delete(e)
		w.vanishes(e)
		w.tells(n, `Warning Released: Key "glimr:cache:main:`+e.Name+`" stays in Redis, since CachePool "main" is suspended`)
	}
}

// How to uninstall without losing a key.
func TestASuspendedPoolIsDeletedWithItsEntriesAndEveryKeyStays(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	e := w.entry("left")
	w.create(e)
	w.becomes(e, isWarm)
	update(w, p, suspendPool)
	w.becomes(p, isSuspended)
	w.delete(p)
	w.delete(e)
	w.vanishes(e)
	w.vanishes(p)
	w.holds(mainPrefix+"left", "value of left")
}

func TestAPoolSuspendedWhileItFailsIsNotProbed(t *testing.T) {
	w := newWorld(t)
	hole := blackHole(t)
	p := w.pool(func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{hole.Addr().String()} }, suspendPool)
	w.create(p)
	w.becomes(p, isSuspended)
	w.stays(p, isSuspended, 2*time.Second)
	w.Expect(p.Status.Server).To(BeNil())
}
