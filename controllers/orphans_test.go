// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// orphanage of a patient's entries.
func (p *patient) orphanage() *orphans {
	return &orphans{cacheEntryReconciler: p.cacheEntryReconciler, found: make(names, 10)}
}

// deal with the next orphan that was found.
func (p *patient) deal(o *orphans) ctrl.Result {
	p.t.Helper()
	var next event.TypedGenericEvent[types.NamespacedName]
	p.Expect(o.found).To(Receive(&next))
	result, err := o.Reconcile(p.t.Context(), ctrl.Request{NamespacedName: next.Object})
	p.Expect(err).NotTo(HaveOccurred())
	if result.RequeueAfter > 0 {
		o.found <- next
	}
	return result
}

// The API server looks at the finalizers of an object, and then deletes it: one that is set in between is of no use.
func TestTheKeyOfAnEntryThatIsDeletedInSpiteOfItsFinalizerIsDeleted(t *testing.T) {
	p, m := newLate(t)
	o := p.orphanage()
	p.look()
	p.Expect(m.Exists(lateKey)).To(BeTrue())
	for _, name := range []string{"heir", "e"} {
		last := p.remove(name)
		p.claims.Delete(inNamespace(name), last.UID) // by the informer
		o.add(t.Context(), last)
		p.Expect(p.deal(o)).To(BeZero())
		p.Expect(m.Exists(lateKey)).To(Equal(name == "heir"), "the last one deletes the key")
	}
	p.Expect(p.left(o)).To(BeZero(), "nothing is kept of them")
}

// It is as patient as any deletion.
func TestAnOrphanWaitsForItsPool(t *testing.T) {
	m := redistest.Miniredis(t)
	p := newPatient(t, downSince(time.Now()), warmEntry())
	o := p.orphanage()
	p.Expect(m.Set(lateKey, "v")).To(Succeed())
	o.add(t.Context(), p.remove("e"))
	p.Expect(p.deal(o).RequeueAfter).To(Equal(deletionRetry))
	p.connect(m.Addr())
	p.Expect(p.deal(o)).To(BeZero())
	p.Expect(m.Exists(lateKey)).To(BeFalse())
}

// Another entry of its name has the key from now on, and its own end: the orphan is dealt with at once, and never again.
func TestANamesakeInheritsFromAnOrphan(t *testing.T) {
	p, m := newLate(t)
	o := p.orphanage()
	p.look()
	heir := p.remove("heir")
	p.claims.Delete(inNamespace("heir"), heir.UID)
	last := p.remove("e")
	p.claims.Delete(inNamespace("e"), last.UID)
	namesake := warmEntry()
	namesake.UID, namesake.Finalizers, namesake.Annotations = "4", nil, nil
	p.Expect(p.Create(t.Context(), namesake)).To(Succeed())
	p.claims.Set(claimOf(namesake))

	o.add(t.Context(), last)
	p.Expect(p.deal(o)).To(BeZero())
	p.Expect(m.Exists(lateKey)).To(BeTrue())
	p.Expect(p.left(o)).To(BeZero())
	p.Expect(p.Get(t.Context(), inNamespace("e"), namesake)).To(Succeed())
	p.Expect(recordOf(namesake)).To(Equal(recordOf(last)), "it has the key on record")
}

// left are the orphans that are remembered.
func (p *patient) left(o *orphans) (n int) {
	o.byName.Range(func(any, any) bool { n++; return true })
	return n
}

// What is deleted in good order is none: all was done while it was being deleted.
func TestOnlyAnEntryWhoseFinalizerCameTooLateIsAnOrphan(t *testing.T) {
	g, o := NewWithT(t), orphans{found: make(names, 1)}
	entry := warmEntry()
	entry.DeletionTimestamp = new(metav1.Now())
	o.add(t.Context(), entry) // it was deleted when the last finalizer was removed
	entry = warmEntry()
	entry.Finalizers = nil
	o.add(t.Context(), entry) // it never had ours, or somebody has taken that away
	g.Expect(o.found).NotTo(Receive())
}

// remove an entry at once, as it is.
func (p *patient) remove(name string) *v1alpha1.CacheEntry {
	p.t.Helper()
	entry := &v1alpha1.CacheEntry{}
	p.Expect(p.Get(p.t.Context(), inNamespace(name), entry)).To(Succeed())
	last := entry.DeepCopy()
	entry.Finalizers = nil
	p.Expect(p.Update(p.t.Context(), entry)).To(Succeed())
	p.Expect(p.Delete(p.t.Context(), entry)).To(Succeed())
	return last
}
