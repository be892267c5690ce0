// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	testingclock "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/claims"
	"github.com/cachewright/cachewright/internal/pools"
)

// patient is a reconciler of entries with a clock that only the test moves, and a pool main that is not connected.
type patient struct {
	*WithT
	*cacheEntryReconciler

	t      *testing.T
	fake   *testingclock.FakeClock
	events chan string
}

func newPatient(t *testing.T, objects ...client.Object) *patient {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithStatusSubresource(&v1alpha1.CachePool{}, &v1alpha1.CacheEntry{}).Build()
	p := &patient{WithT: NewWithT(t), t: t, fake: testingclock.NewFakeClock(time.Now().Truncate(time.Second))}
	recorder := events.NewFakeRecorder(10)
	p.events = recorder.Events
	tell := func(context.Context, types.NamespacedName) {}
	registry := pools.NewRegistry(p.fake, pools.Listeners{Entry: tell, Pool: tell, Opened: tell})
	index := claims.NewIndex()
	p.cacheEntryReconciler = &cacheEntryReconciler{
		Client: c, reader: c, registry: registry, claims: index,
		finisher:   finisher{client: c, recorder: recorder, clock: p.fake},
		pools:      &poolFinder{client: c, registry: registry, claims: index, clock: p.fake, synced: func() bool { return true }},
		tell:       func(context.Context, types.NamespacedName) {},
		tellRivals: func(context.Context, types.NamespacedName, []claims.Place) {},
	}
	return p
}

// look at entry e once; false when it is gone.
func (p *patient) look() (ctrl.Result, *v1alpha1.CacheEntry, bool) {
	p.t.Helper()
	return p.lookAt("e")
}

func (p *patient) lookAt(entry string) (ctrl.Result, *v1alpha1.CacheEntry, bool) {
	p.t.Helper()
	name := types.NamespacedName{Namespace: "ns", Name: entry}
	result, err := p.Reconcile(p.t.Context(), ctrl.Request{NamespacedName: name})
	p.Expect(err).NotTo(HaveOccurred())
	found := &v1alpha1.CacheEntry{}
	err = p.Get(p.t.Context(), name, found)
	return result, found, err == nil
}

// connect pool main to a server, until the test is over.
func (p *patient) connect(addr string) {
	p.t.Helper()
	_, err := p.registry.Connect(p.t.Context(), pools.Identity{Name: types.NamespacedName{Namespace: "ns", Name: "main"}, UID: "1", Generation: 1},
		cache.Options{Addresses: []string{addr}, Prefix: "glimr:cache:main:", Timeout: 5 * time.Second})
	p.Expect(err).NotTo(HaveOccurred())
	p.t.Cleanup(func() {
		over, end := context.WithCancel(context.Background())
		end()
		if err := p.registry.Start(over); err != nil {
			p.t.Error(err)
		}
	})
}

// downSince makes a pool whose Ready condition has been False for a while.
func downSince(since time.Time) *v1alpha1.CachePool {
	return &v1alpha1.CachePool{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "main", UID: "1", Generation: 1},
		Spec:       v1alpha1.CachePoolSpec{Addresses: []string{"127.0.0.1:1"}},
		Status: v1alpha1.CachePoolStatus{ObservedGeneration: 1, Conditions: []metav1.Condition{{
			Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonConnectionFailed,
			ObservedGeneration: 1, LastTransitionTime: metav1.NewTime(since),
		}}},
	}
}

func warmEntry() *v1alpha1.CacheEntry {
	return &v1alpha1.CacheEntry{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: "e", UID: "2", Generation: 1, Finalizers: []string{finalizer},
			Annotations: map[string]string{recordAnnotation: `[{"pool":{"namespace":"ns","name":"main","uid":"1"},"key":"k"}]`},
		},
		Spec: v1alpha1.CacheEntrySpec{PoolRef: v1alpha1.PoolReference{Name: "main"}, Key: "k", Value: new("v"), Forever: new(true)},
		Status: v1alpha1.CacheEntryStatus{ObservedGeneration: 1, Conditions: []metav1.Condition{{
			Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonWarm, ObservedGeneration: 1,
			LastTransitionTime: metav1.NewTime(time.Unix(0, 0)),
		}}},
	}
}

func TestADeletionIsTriedForFiveMinutes(t *testing.T) {
	p := newPatient(t, downSince(time.Now()), warmEntry())
	_, entry, _ := p.look()
	p.Expect(p.Delete(t.Context(), entry)).To(Succeed())
	p.Expect(p.Get(t.Context(), client.ObjectKeyFromObject(entry), entry)).To(Succeed())
	deleted := entry.DeletionTimestamp.Time
	for _, after := range []time.Duration{0, time.Minute, 5*time.Minute - time.Second} {
		p.fake.SetTime(deleted.Add(after))
		result, entry, there := p.look()
		p.Expect(there).To(BeTrue(), "after %s", after)
		p.Expect(result.RequeueAfter).To(Equal(5 * time.Second))
		p.Expect(ready(&v1alpha1.CachePool{Status: v1alpha1.CachePoolStatus{Conditions: entry.Status.Conditions}})).To(Equal("False"))
	}
	for len(p.events) > 0 {
		<-p.events
	}
	p.fake.SetTime(deleted.Add(5 * time.Minute))
	_, _, there := p.look()
	p.Expect(there).To(BeFalse())
	p.Expect(p.events).To(Receive(Equal(`Warning Released Key "glimr:cache:main:k" stays in Redis, since CachePool "main" cannot serve`)))
}

// Entries follow a pool that is down after 60 s, spread over another 60 s.
func TestAWarmEntryFollowsItsPoolAfterAMinute(t *testing.T) {
	since := time.Now().Truncate(time.Second)
	p := newPatient(t, downSince(since), warmEntry())
	for _, after := range []time.Duration{0, 30 * time.Second, 59 * time.Second} {
		p.fake.SetTime(since.Add(after))
		result, entry, _ := p.look()
		p.Expect(entry.Status.Conditions).To(HaveLen(1))
		p.Expect(entry.Status.Conditions[0].Reason).To(Equal(v1alpha1.ReasonWarm))
		left := time.Minute - after
		p.Expect(result.RequeueAfter).To(And(BeNumerically(">=", left), BeNumerically("<=", 2*left)))
	}
	p.fake.SetTime(since.Add(time.Minute))
	_, entry, _ := p.look()
	p.Expect(entry.Status.Conditions[0].Reason).To(Equal(v1alpha1.ReasonPoolNotReady))
}

func TestANewEntryFollowsItsPoolAtOnce(t *testing.T) {
	entry := warmEntry()
	entry.Generation = 2
	p := newPatient(t, downSince(time.Now()), entry)
	_, entry, _ = p.look()
	p.Expect(entry.Status.Conditions[0].Reason).To(Equal(v1alpha1.ReasonPoolNotReady))
}
