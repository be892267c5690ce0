// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"slices"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// tenants : a selector cannot be used without the right to read Namespaces, which the pool says; and a pool in a namespace that
// the operator does not work in is none.
func tenants(t *testing.T, g *WithT, server *redistest.Server, space string) {
	t.Helper()
	pool := poolIn(space, server.Addr)
	pool.Name, pool.Spec.CredentialsSecretRef = "choosy", &v1alpha1.CredentialsSecretReference{Name: "redis-auth"}
	pool.Spec.AllowedNamespaces = &v1alpha1.AllowedNamespaces{From: v1alpha1.FromSelector, Selector: &metav1.LabelSelector{}}
	g.Expect(k8s.Create(t.Context(), pool)).To(Succeed())
	becomes(t, g, pool, v1alpha1.ConditionStalled)
	g.Expect(apimeta.FindStatusCondition(pool.Status.Conditions, v1alpha1.ConditionReady).Reason).To(Equal(v1alpha1.ReasonInvalidSelector))
	for _, name := range []string{"own", "far"} {
		e := &v1alpha1.CacheEntry{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: space},
			Spec:       v1alpha1.CacheEntrySpec{PoolRef: v1alpha1.PoolReference{Name: pool.Name}, Key: name, Value: new("v"), Forever: new(true)},
		}
		if name == "own" {
			g.Expect(k8s.Create(t.Context(), e)).To(Succeed())
			becomes(t, g, e, v1alpha1.ConditionReady)
		} else {
			e.Spec.PoolRef.Namespace = "elsewhere"
			g.Expect(k8s.Create(t.Context(), e)).To(Succeed())
			g.Eventually(func() string {
				g.Expect(k8s.Get(t.Context(), client.ObjectKeyFromObject(e), e)).To(Succeed())
				if ready := apimeta.FindStatusCondition(e.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
					return ready.Message
				}
				return ""
			}).Should(Equal(`No CachePool "elsewhere/choosy" serves this namespace`))
		}
		g.Expect(k8s.Delete(t.Context(), e)).To(Succeed())
		vanishes(t, g, e)
	}
	g.Expect(k8s.Delete(t.Context(), pool)).To(Succeed())
	vanishes(t, g, pool)
}

// The install for one namespace makes no cluster-wide object, and the operator does all its work with the Roles that it
// gets, asks for nothing else, and leaves other namespaces alone.
func TestTheNamespacedInstallNeedsRolesOnly(t *testing.T) {
	g := expectations(t)
	server := redistest.Start(t, "--requirepass", "first")
	const space = "cachewright" // of the overlay
	g.Expect(k8s.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: space}})).To(Succeed())
	for _, o := range install(t, g, "namespaced") {
		mapping, err := k8s.RESTMapper().RESTMapping(o.GroupVersionKind().GroupKind(), o.GroupVersionKind().Version)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(mapping.Scope.Name()).To(Equal(apimeta.RESTScopeNameNamespace), "%s %s", o.GetKind(), o.GetName())
		g.Expect(o.GetNamespace()).To(Equal(space), "%s %s", o.GetKind(), o.GetName())
	}
	elsewhere := poolIn(namespace(t, "elsewhere"), server.Addr)
	g.Expect(k8s.Create(t.Context(), elsewhere)).To(Succeed())
	m := run(t, kubeconfigOf(t, g, serviceAccount, space), "--leader-elect", "--leader-election-namespace="+space, "--namespaces="+space)

	story(t, g, server, space)
	tenants(t, g, server, space)
	g.Expect(k8s.Get(t.Context(), client.ObjectKeyFromObject(elsewhere), elsewhere)).To(Succeed())
	g.Expect(elsewhere.Status.Conditions).To(BeEmpty())
	g.Expect(elsewhere.Finalizers).To(BeEmpty())
	g.Expect(m.logged()).NotTo(ContainSubstring(`"level":"error"`))
	m.stop()
	g.Expect(m.logged()).NotTo(ContainSubstring("forbidden"))
	used, refused := requests(t, "system:serviceaccount:"+space+":"+serviceAccount)
	g.Expect(refused).To(BeEmpty(), "the operator asked for what it has no right to")
	g.Expect(slices.Contains(used, "cachepools/status.cachewright.dev patch")).To(BeTrue(), "the requests are the operator's")
	g.Expect(k8s.Delete(t.Context(), &v1alpha1.CachePool{ObjectMeta: metav1.ObjectMeta{Name: elsewhere.Name, Namespace: elsewhere.Namespace}})).To(Succeed())
}
