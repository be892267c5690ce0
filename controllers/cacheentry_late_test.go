// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/claims"
	"github.com/cachewright/cachewright/internal/keeper"
	"github.com/cachewright/cachewright/internal/plan"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

const lateKey = "glimr:cache:main:k"

// newLate has two entries that claim key k, both of which have put it on record: e, the older, and its heir. The pool is
// connected, and nothing is looked at but by the test.
func newLate(t *testing.T) (*patient, *miniredis.Miniredis) {
	t.Helper()
	m := redistest.Miniredis(t)
	pool, holder, heir := downSince(time.Now()), warmEntry(), warmEntry()
	pool.Spec.Addresses, pool.Spec.ResyncPeriod = []string{m.Addr()}, &metav1.Duration{Duration: time.Hour}
	heir.Name, heir.UID = "heir", "3"
	p := newPatient(t, pool, holder, heir)
	p.claims.Left = func(entry types.NamespacedName) { p.registry.Drop(entry) }
	p.connect(m.Addr())
	p.claims.Set(claimOf(holder))
	p.claims.Set(claimOf(heir))
	return p, m
}

func inNamespace(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: "ns", Name: name}
}

// keep key k for an entry, as the second half of Registry.Keep does.
func (p *patient) keep(entry string) {
	p.t.Helper()
	live, _ := p.registry.Get(inNamespace("main"))
	_, done := live.Keeper.Keep(p.t.Context(), inNamespace(entry), keeper.Declaration{Key: "k", Value: "v", Digest: keeper.Digest("v"), Policy: plan.Enforce}, nil)
	p.Expect(done).To(BeTrue())
}

// A look at the holder of a key that began before its deletion hands the key to the keeper after the informer has dropped it.
// The heir that it passes on to must be able to delete the key all the same.
func TestALookThatIsLateDoesNotKeepAKeyWhoseEntriesAreGone(t *testing.T) {
	p, m := newLate(t)
	_, holder, _ := p.look()
	p.Expect(readyReason(holder)).To(Equal("Warm"))

	p.registry.Settle(inNamespace("main"), inNamespace("e")) // the first half of Registry.Keep
	p.claims.Delete(inNamespace("e"), holder.UID)            // by the informer
	p.keep("e")

	p.Expect(p.Delete(t.Context(), holder)).To(Succeed())
	_, _, there := p.look()
	p.Expect(there).To(BeFalse(), "the key passes on")
	p.Expect(m.Exists(lateKey)).To(BeTrue())
	_, heir, _ := p.lookAt("heir")
	p.Expect(readyReason(heir)).To(Equal("Warm"))
	p.Expect(p.Delete(t.Context(), heir)).To(Succeed())
	_, _, there = p.lookAt("heir")
	p.Expect(there).To(BeFalse())
	p.Expect(m.Exists(lateKey)).To(BeFalse())
}

// A look at the former holder of a key that began before it went may take the key from its heir, which has it already. The
// heir must hear of it, or else nobody would keep the key.
func TestWhoeverAKeyIsTakenFromLooksAgain(t *testing.T) {
	p, _ := newLate(t)
	var told []claims.Place
	p.tellRivals = func(_ context.Context, entry types.NamespacedName, changed []claims.Place) {
		p.Expect(entry).To(Equal(inNamespace("e")))
		told = append(told, changed...)
	}
	p.look()
	p.look()
	p.Expect(told).To(BeEmpty(), "nobody else was at work there")
	p.registry.Settle(inNamespace("main"), inNamespace("heir"))
	p.keep("heir")
	p.look()
	p.Expect(told).To(Equal([]claims.Place{{Pool: inNamespace("main"), Key: "k"}}))
	p.look()
	p.Expect(told).To(HaveLen(1))
}

// The API server looks at the finalizers of an object, and then deletes it: one that is set in between is of no use.
func TestTheKeyOfAnEntryThatIsDeletedInSpiteOfItsFinalizerIsDeleted(t *testing.T) {
	p, m := newLate(t)
	p.look()
	p.Expect(m.Exists(lateKey)).To(BeTrue())
	for _, name := range []string{"heir", "e"} {
		last := p.remove(name)
		p.Expect(p.orphans.add(last)).To(BeTrue())
		_, _, there := p.lookAt(name)
		p.Expect(there).To(BeFalse())
		p.Expect(m.Exists(lateKey)).To(Equal(name == "heir"), "the last one deletes the key")
	}
}

// It is as patient as any deletion.
func TestAnOrphanWaitsForItsPool(t *testing.T) {
	m := redistest.Miniredis(t)
	p := newPatient(t, downSince(time.Now()), warmEntry())
	p.Expect(m.Set(lateKey, "v")).To(Succeed())
	p.orphans.add(p.remove("e"))
	result, _, _ := p.look()
	p.Expect(result.RequeueAfter).To(Equal(deletionRetry))
	p.connect(m.Addr())
	p.look()
	p.Expect(m.Exists(lateKey)).To(BeFalse())
	result, _, _ = p.look()
	p.Expect(result.RequeueAfter).To(BeZero(), "it is dealt with")
}

// What is deleted in good order is none: all was done while it was being deleted.
func TestOnlyAnEntryWhoseFinalizerCameTooLateIsAnOrphan(t *testing.T) {
	var o orphans
	entry := warmEntry()
	entry.DeletionTimestamp = new(metav1.Now())
	NewWithT(t).Expect(o.add(entry)).To(BeFalse(), "deleted when the last finalizer was removed")
	entry = warmEntry()
	entry.Finalizers = nil
	NewWithT(t).Expect(o.add(entry)).To(BeFalse(), "it was never ours, or somebody has taken the finalizer away")
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
