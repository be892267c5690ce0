// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/pools"
)

// An operator that starts anew does not know yet where the older pool is, and so leaves a conflict as it is until it has tried to
// connect that.
func TestAConflictOutlivesTheOperator(t *testing.T) {
	made := metav1.NewTime(time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC))
	pool := func(namespace, address string) *v1alpha1.CachePool {
		return &v1alpha1.CachePool{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "main", UID: types.UID(namespace), CreationTimestamp: made},
			Spec:       v1alpha1.CachePoolSpec{Addresses: []string{address}},
		}
	}
	conditions := []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonPrefixConflict}}
	for name, c := range map[string]struct {
		change    func(older, younger *v1alpha1.CachePool)
		attempted bool
		want      bool
	}{
		"not connected yet":        {change: func(_, y *v1alpha1.CachePool) { y.Status.Conditions = conditions }, want: true},
		"tried in vain":            {change: func(_, y *v1alpha1.CachePool) { y.Status.Conditions = conditions }, attempted: true},
		"suspended":                {change: func(o, y *v1alpha1.CachePool) { o.Spec.Suspend, y.Status.Conditions = true, conditions }},
		"not in conflict before":   {change: func(_, _ *v1alpha1.CachePool) {}},
		"the same address":         {change: func(o, y *v1alpha1.CachePool) { o.Spec.Addresses = y.Spec.Addresses }, attempted: true, want: true},
		"the same, other database": {change: func(o, y *v1alpha1.CachePool) { o.Spec.Addresses, o.Spec.Database = y.Spec.Addresses, new(int32(1)) }},
		"the same, younger":        {change: func(o, y *v1alpha1.CachePool) { o.Spec.Addresses, o.Namespace = y.Spec.Addresses, "c" }},
		"the same, admitted": {change: func(o, y *v1alpha1.CachePool) {
			o.Spec.Addresses, o.Spec.AllowedNamespaces = y.Spec.Addresses, &v1alpha1.AllowedNamespaces{From: v1alpha1.FromAll}
		}},
		"the same, younger admits it": {change: func(o, y *v1alpha1.CachePool) {
			o.Spec.Addresses, y.Spec.AllowedNamespaces = y.Spec.Addresses, &v1alpha1.AllowedNamespaces{From: v1alpha1.FromAll}
		}, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			older, younger := pool("a", "one:6379"), pool("b", "two:6379")
			c.change(older, younger)
			scheme := runtime.NewScheme()
			if err := v1alpha1.AddToScheme(scheme); err != nil {
				t.Fatal(err)
			}
			registry := pools.NewRegistry(clock.RealClock{}, pools.Listeners{})
			if c.attempted {
				registry.Attempted(client.ObjectKeyFromObject(older))
			}
			f := &poolFinder{client: fake.NewClientBuilder().WithScheme(scheme).WithObjects(older, younger).Build(), registry: registry}
			found, err := f.conflict(t.Context(), younger, pools.EndpointOf(destination(younger)), cache.Server{ID: "server"})
			if err != nil || (found != nil) != c.want {
				t.Errorf("in conflict with %v, %v; want %v", found, err, c.want)
			}
		})
	}
}
