// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/controlplane"
)

// Each kind has its key, with the tested script.
func TestArgoCDLearnsTheHealthOfEveryKind(t *testing.T) {
	script, err := os.ReadFile(filepath.Join("argocd", "health.lua"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, crd := range crds(t) {
		want[fmt.Sprintf("resource.customizations.health.%s_%s", crd.Spec.Group, crd.Spec.Names.Kind)] = string(script)
	}
	got, _, err := unstructured.NestedStringMap(find(t, "argocd", "ConfigMap", "argocd-cm").Object, "data")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The health comes to what is in Argo CD's ConfigMap already, both by server-side apply, and as a patch where Argo CD is
// deployed by kustomize.
func TestTheHealthIsAddedToTheConfigOfArgoCD(t *testing.T) {
	health := find(t, "argocd", "ConfigMap", "argocd-cm")
	had := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "argocd-cm", Namespace: controlplane.Namespace(t, server(t))}, Data: map[string]string{"url": "there"}}

	folder := t.TempDir()
	write(t, folder, "health.yaml", marshal(t, health.Object))
	write(t, folder, "install.yaml", marshal(t, map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": had.Name}, "data": had.Data}))
	write(t, folder, "kustomization.yaml", "{namespace: argocd, resources: [install.yaml], patches: [{path: health.yaml}]}")
	patched := typed(t, find(t, folder, "ConfigMap", had.Name), &corev1.ConfigMap{})

	if err := server(t).Create(t.Context(), had); err != nil {
		t.Fatal(err)
	}
	health.SetNamespace(had.Namespace)
	if err := server(t).Apply(t.Context(), client.ApplyConfigurationFromUnstructured(health), client.FieldOwner("cachewright")); err != nil {
		t.Fatal(err)
	}
	applied := typed(t, health, &corev1.ConfigMap{})

	for by, data := range map[string]map[string]string{"kustomize": patched.Data, "apply": applied.Data} {
		if len(data) != 1+len(crds(t)) || data["url"] != "there" {
			t.Errorf("%s: the keys are %v", by, slices.Sorted(maps.Keys(data)))
		}
	}
}

func TestARelease(t *testing.T) {
	const folder = "samples/gitops"
	var source string
	for _, o := range render(t, folder) {
		if o.GetKind() == "ConfigMap" {
			source = o.GetName()
		}
		if !strings.HasPrefix(o.GetName(), "shop-") {
			t.Errorf("%s %s lacks the prefix", o.GetKind(), o.GetName())
		}
	}
	if !strings.HasPrefix(source, "shop-settings-") {
		t.Errorf("the ConfigMap %q lacks a hash", source)
	}
	entry := typed(t, find(t, folder, "CacheEntry", "shop-settings"), &v1alpha1.CacheEntry{})
	if entry.Spec.ValueFrom.ConfigMapKeyRef.Name != source || entry.Spec.PoolRef.Name != "shop-main" {
		t.Errorf("the entry takes the value of %q and writes to %q", entry.Spec.ValueFrom.ConfigMapKeyRef.Name, entry.Spec.PoolRef.Name)
	}
	flush := typed(t, find(t, folder, "CacheFlush", "shop-users"), &v1alpha1.CacheFlush{})
	if flush.Spec.PoolRef.Name != "shop-main" {
		t.Errorf("the flush is of %q", flush.Spec.PoolRef.Name)
	}
	image := typed(t, find(t, folder, "Deployment", "shop-web"), &appsv1.Deployment{}).Spec.Template.Spec.Containers[0].Image
	if flush.Spec.RunID != "v1.4.2" || !strings.HasSuffix(image, ":"+flush.Spec.RunID) {
		t.Errorf("the flush has the runID %q, the image is %s", flush.Spec.RunID, image)
	}
	pool := typed(t, find(t, folder, "CachePool", "shop-main"), &v1alpha1.CachePool{})
	if pool.Spec.KeyPrefix != "glimr:cache:main:" {
		t.Errorf("the pool's keys begin with %q", pool.Spec.KeyPrefix)
	}
}

// A reference that config/kustomize does not know would be left behind by a namePrefix. Fields that name an object are
// those whose name ends in Ref, by the conventions of Kubernetes.
func TestKustomizeFollowsEveryReference(t *testing.T) {
	var known struct {
		NameReference []struct {
			FieldSpecs []struct{ Kind, Path string } `json:"fieldSpecs"`
		} `json:"nameReference"`
	}
	text, err := os.ReadFile(filepath.Join("kustomize", "namereference.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &known); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, to := range known.NameReference {
		for _, field := range to.FieldSpecs {
			got[field.Kind+" "+field.Path] = true
		}
	}
	want := map[string]bool{}
	for _, crd := range crds(t) {
		for _, path := range references(crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"], "spec") {
			want[crd.Spec.Names.Kind+" "+path] = true
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the CRDs' references (-) and those that kustomize follows (+):\n%s", diff)
	}
}

// references are the paths of all names of other objects under a schema.
func references(schema apiextensionsv1.JSONSchemaProps, path string) (paths []string) {
	for name, property := range schema.Properties {
		at := path + "/" + name
		if _, named := property.Properties["name"]; named && strings.HasSuffix(name, "Ref") {
			at += "/name"
			paths = append(paths, at)
			continue
		}
		paths = append(paths, references(property, at)...)
	}
	return paths
}

// What the sample does not have: Secrets.
func TestKustomizeFollowsReferencesToSecrets(t *testing.T) {
	folder := t.TempDir()
	component, err := filepath.Abs("kustomize")
	if err != nil {
		t.Fatal(err)
	}
	if folder, err = filepath.EvalSymlinks(folder); err != nil {
		t.Fatal(err)
	}
	if component, err = filepath.Rel(folder, component); err != nil {
		t.Fatal(err)
	}
	write(t, folder, "cache.yaml", `
{apiVersion: cachewright.dev/v1alpha1, kind: CachePool, metadata: {name: main}, spec: {credentialsSecretRef: {name: auth}}}
---
{apiVersion: cachewright.dev/v1alpha1, kind: CacheEntry, metadata: {name: token}, spec: {valueFrom: {secretKeyRef: {name: auth, key: token}}}}
`)
	write(t, folder, "kustomization.yaml", fmt.Sprintf(`
{namePrefix: pre-, components: [%s], resources: [cache.yaml], secretGenerator: [{name: auth, literals: [password=p, token=t]}]}`, component))
	var secret string
	for _, o := range render(t, folder) {
		if o.GetKind() == "Secret" {
			secret = o.GetName()
		}
	}
	pool := typed(t, find(t, folder, "CachePool", "pre-main"), &v1alpha1.CachePool{})
	entry := typed(t, find(t, folder, "CacheEntry", "pre-token"), &v1alpha1.CacheEntry{})
	names := []string{pool.Spec.CredentialsSecretRef.Name, entry.Spec.ValueFrom.SecretKeyRef.Name}
	if !strings.HasPrefix(secret, "pre-auth-") || !slices.Equal(names, []string{secret, secret}) {
		t.Errorf("the Secret is %s, the references are %v", secret, names)
	}
}

func crds(t *testing.T) (crds []*apiextensionsv1.CustomResourceDefinition) {
	t.Helper()
	for _, o := range render(t, "crd") {
		crds = append(crds, typed(t, o, &apiextensionsv1.CustomResourceDefinition{}))
	}
	return crds
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	text, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t *testing.T, folder, file, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(folder, file), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The namespace of a kustomization is that of its objects, not of the pools that serve them.
func TestKustomizeLeavesTheNamespaceOfAPoolRefAlone(t *testing.T) {
	folder := t.TempDir()
	write(t, folder, "entry.yaml", "{apiVersion: cachewright.dev/v1alpha1, kind: CacheEntry, metadata: {name: guest}, spec: {poolRef: {name: main, namespace: platform}}}")
	write(t, folder, "kustomization.yaml", "{namespace: shop, resources: [entry.yaml]}")
	entry := typed(t, find(t, folder, "CacheEntry", "guest"), &v1alpha1.CacheEntry{})
	if entry.Namespace != "shop" || entry.Spec.PoolRef.Namespace != "platform" {
		t.Errorf("the entry of %q names a pool in %q", entry.Namespace, entry.Spec.PoolRef.Namespace)
	}
}
