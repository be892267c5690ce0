// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/cachewright/cachewright/api/v1alpha1"
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
	var told []types.NamespacedName
	p.tell = func(_ context.Context, entry types.NamespacedName) { told = append(told, entry) }
	p.look()
	p.look()
	p.Expect(told).To(BeEmpty(), "nobody else was at work there")
	p.registry.Settle(inNamespace("main"), inNamespace("heir"))
	p.keep("heir")
	p.look()
	p.Expect(told).To(ConsistOf(inNamespace("heir")))
	p.look()
	p.Expect(told).To(HaveLen(1))
}

// newHeir is an entry that has nothing on record.
func newHeir() *v1alpha1.CacheEntry {
	heir := warmEntry()
	heir.Name, heir.UID, heir.Finalizers, heir.Annotations = "heir", "3", nil, nil
	return heir
}

// An entry that no pool serves declares nothing, so that there is nobody to pass the key on to.
func TestAKeyWhosePoolIsGoneIsTold(t *testing.T) {
	holder, heir := warmEntry(), newHeir()
	p := newPatient(t, holder, heir)
	p.claims.Set(claimOf(holder))
	p.claims.Set(claimOf(heir))
	p.Expect(p.Delete(t.Context(), holder)).To(Succeed())
	_, _, there := p.look()
	p.Expect(there).To(BeFalse())
	p.Expect(p.events).To(Receive(ContainSubstring(`stays in Redis, since CachePool "main" is gone`)))
}

// Nobody can keep others from deleting their entries, by a policy for example that refuses changes of his own.
func TestADeletionDoesNotHangOnAnHeirThatCannotBeChanged(t *testing.T) {
	holder, heir := warmEntry(), newHeir()
	p := newPatient(t, downSince(time.Now()), holder, heir)
	c, ok := p.Client.(client.WithWatch)
	p.Expect(ok).To(BeTrue())
	p.finisher.client = interceptor.NewClient(c, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, patch client.Patch, options ...client.PatchOption) error {
			if o.GetName() == "heir" {
				return apierrors.NewForbidden(schema.GroupResource{}, "heir", errors.New("frozen"))
			}
			return c.Patch(ctx, o, patch, options...)
		},
	})
	p.claims.Set(claimOf(holder))
	p.claims.Set(claimOf(heir))
	p.Expect(p.Delete(t.Context(), holder)).To(Succeed())
	p.Expect(p.Get(t.Context(), client.ObjectKeyFromObject(holder), holder)).To(Succeed())
	p.fake.SetTime(holder.DeletionTimestamp.Time)
	result, holder, there := p.look()
	p.Expect(there).To(BeTrue())
	p.Expect(result.RequeueAfter).To(Equal(deletionRetry))
	p.Expect(readyReason(holder)).To(Equal(v1alpha1.ReasonWriteFailed))
	p.fake.SetTime(holder.DeletionTimestamp.Add(deletionPatience))
	_, _, there = p.look()
	p.Expect(there).To(BeFalse())
	p.Eventually(p.events).Should(Receive(ContainSubstring("could not be told to delete it")))
}
