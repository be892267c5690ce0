// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/controlplane"
)

// author is a user who may do everything to the kinds of ours in a namespace, and get some Secrets.
func author(t *testing.T, in, name string, secrets ...string) client.Client {
	t.Helper()
	w := NewWithT(t)
	role := &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Namespace: in, Name: name},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"*"}, Verbs: []string{"*"}}},
	}
	if len(secrets) > 0 {
		role.Rules = append(role.Rules, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: secrets, Verbs: []string{"get"}})
	}
	w.Expect(server(t).Create(t.Context(), role)).To(Succeed())
	w.Expect(server(t).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: in, Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}},
	})).To(Succeed())
	user, err := env.AddUser(envtest.User{Name: name, Groups: []string{"system:authenticated"}}, nil)
	w.Expect(err).NotTo(HaveOccurred())
	c, err := client.New(user.Config(), client.Options{Scheme: server(t).Scheme()})
	w.Expect(err).NotTo(HaveOccurred())
	return c
}

// enforce the policies, and wait until they are.
func enforce(t *testing.T, in string, outsider client.Client) {
	t.Helper()
	w := NewWithT(t)
	for _, o := range render(t, "admission-policy") {
		w.Expect(server(t).Create(t.Context(), o)).To(Succeed())
		t.Cleanup(func() { w.Expect(server(t).Delete(context.WithoutCancel(t.Context()), o)).To(Succeed()) })
	}
	w.Eventually(func(g Gomega) {
		for _, o := range []client.Object{secretPool(in, "probe"), secretEntry(in, "probe")} {
			g.Expect(apierrors.IsForbidden(outsider.Create(t.Context(), o, client.DryRunAll))).To(BeTrue())
		}
	}, "30s", "100ms").Should(Succeed())
}

func secretPool(in, name string) *v1alpha1.CachePool {
	return &v1alpha1.CachePool{ObjectMeta: metav1.ObjectMeta{Namespace: in, Name: name}, Spec: v1alpha1.CachePoolSpec{
		Addresses: []string{"redis:6379"}, CredentialsSecretRef: &v1alpha1.CredentialsSecretReference{Name: "auth"},
	}}
}

func secretEntry(in, name string) *v1alpha1.CacheEntry {
	return &v1alpha1.CacheEntry{ObjectMeta: metav1.ObjectMeta{Namespace: in, Name: name}, Spec: v1alpha1.CacheEntrySpec{
		Key: "k", Forever: new(true),
		ValueFrom: &v1alpha1.ValueSource{SecretKeyRef: &v1alpha1.KeyReference{Name: "auth", Key: "password"}},
	}}
}

// Of two users with the same rights to our kinds, only the one who may get the Secret has the operator use it.
func TestOnlyWhoMayGetASecretReferencesIt(t *testing.T) {
	w := NewWithT(t)
	in := controlplane.Namespace(t, server(t))
	insider, outsider := author(t, in, "insider", "auth", "other"), author(t, in, "outsider", "other")
	enforce(t, in, outsider)

	for name, test := range map[string]struct {
		object                          client.Object
		untouched, elsewhere, reference func(client.Object)
		denied                          string
	}{
		"CachePool": {
			object:    secretPool(in, "main"),
			untouched: onPool(func(p *v1alpha1.CachePool) { p.Spec.Suspend = !p.Spec.Suspend }),
			elsewhere: onPool(func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{"mine:6379"} }),
			reference: onPool(func(p *v1alpha1.CachePool) { p.Spec.CredentialsSecretRef.PasswordKey = "token" }),
			denied:    "spec.credentialsSecretRef names a Secret that you may not get",
		},
		"CacheEntry": {
			object:    secretEntry(in, "main"),
			untouched: onEntry(func(e *v1alpha1.CacheEntry) { e.Spec.Suspend = !e.Spec.Suspend }),
			elsewhere: onEntry(func(e *v1alpha1.CacheEntry) { e.Spec.Key = "mine" }),
			reference: onEntry(func(e *v1alpha1.CacheEntry) { e.Spec.ValueFrom.SecretKeyRef.Key = "token" }),
			denied:    "spec.valueFrom.secretKeyRef names a Secret that you may not get",
		},
	} {
		refused := func(err error) {
			t.Helper()
			w.Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%s: %v", name, err)
			w.Expect(err.Error()).To(HaveSuffix(test.denied), name)
		}
		refused(outsider.Create(t.Context(), copied(test.object)))
		w.Expect(insider.Create(t.Context(), test.object)).To(Succeed(), name)
		for _, touch := range []func(client.Object){test.elsewhere, test.reference} {
			changed := copied(test.object)
			touch(changed)
			refused(outsider.Update(t.Context(), changed))
			w.Expect(insider.Update(t.Context(), changed, client.DryRunAll)).To(Succeed(), name)
		}
		test.untouched(test.object)
		w.Expect(outsider.Update(t.Context(), test.object)).To(Succeed(), name)

		// What the operator patches: metadata and status.
		before := copied(test.object)
		test.object.SetFinalizers([]string{"cachewright.dev/keys"})
		test.object.SetAnnotations(map[string]string{"cachewright.dev/written": "[]"})
		w.Expect(outsider.Patch(t.Context(), test.object, client.MergeFrom(before))).To(Succeed(), name)
		w.Expect(outsider.Status().Patch(t.Context(), test.object, client.RawPatch("application/merge-patch+json", []byte(`{"status":{"observedGeneration":2}}`)))).To(Succeed(), name)
		test.object.SetFinalizers(nil)
		w.Expect(outsider.Update(t.Context(), test.object)).To(Succeed(), name)
		w.Expect(outsider.Delete(t.Context(), test.object)).To(Succeed(), name)
	}
}

// Whoever uses no Secret, or one that he may get, notices nothing.
func TestObjectsWithoutForbiddenSecretsAreAdmitted(t *testing.T) {
	w := NewWithT(t)
	in := controlplane.Namespace(t, server(t))
	outsider := author(t, in, "stranger", "other")
	enforce(t, in, outsider)
	pool, entry := secretPool(in, "main"), secretEntry(in, "main")
	pool.Spec.CredentialsSecretRef.Name, entry.Spec.ValueFrom.SecretKeyRef.Name = "other", "other"
	w.Expect(outsider.Create(t.Context(), pool)).To(Succeed())
	w.Expect(outsider.Create(t.Context(), entry)).To(Succeed())
	pool.Spec.CredentialsSecretRef = nil
	w.Expect(outsider.Update(t.Context(), pool)).To(Succeed())
	pool.Spec.CredentialsSecretRef = &v1alpha1.CredentialsSecretReference{Name: "auth"}
	w.Expect(apierrors.IsForbidden(outsider.Update(t.Context(), pool))).To(BeTrue())
	entry.Spec.ValueFrom = &v1alpha1.ValueSource{ConfigMapKeyRef: &v1alpha1.KeyReference{Name: "auth", Key: "k"}}
	w.Expect(outsider.Update(t.Context(), entry)).To(Succeed())
	w.Expect(outsider.Create(t.Context(), &v1alpha1.CacheFlush{
		ObjectMeta: metav1.ObjectMeta{Namespace: in, Name: "all"}, Spec: v1alpha1.CacheFlushSpec{All: new(true)},
	})).To(Succeed())
}

// A reference to a Secret that the policies do not know would be a way around them.
func TestThePoliciesKnowEveryReferenceToASecret(t *testing.T) {
	var text strings.Builder
	for _, o := range render(t, "admission-policy") {
		fmt.Fprintln(&text, marshal(t, o.Object))
	}
	var paths []string
	for _, crd := range crds(t) {
		paths = append(paths, references(crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"], "spec")...)
	}
	for _, path := range slices.Compact(slices.Sorted(slices.Values(paths))) {
		reference := strings.ReplaceAll(strings.TrimSuffix(path, "/name"), "/", ".")
		if reference == "spec.poolRef" || reference == "spec.valueFrom.configMapKeyRef" {
			continue
		}
		if !strings.Contains(text.String(), "name(object."+reference+".name)") {
			t.Errorf("no policy checks %s", reference)
		}
	}
}

func onPool(change func(*v1alpha1.CachePool)) func(client.Object) {
	return func(o client.Object) {
		if p, ok := o.(*v1alpha1.CachePool); ok {
			change(p)
		}
	}
}

func onEntry(change func(*v1alpha1.CacheEntry)) func(client.Object) {
	return func(o client.Object) {
		if e, ok := o.(*v1alpha1.CacheEntry); ok {
			change(e)
		}
	}
}

func copied(o client.Object) client.Object {
	c, _ := o.DeepCopyObject().(client.Object)
	return c
}
