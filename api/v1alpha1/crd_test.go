// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// installed is a CRD as the API server keeps it.
func installed(tb testing.TB, plural string) *apiextensionsv1.CustomResourceDefinition {
	tb.Helper()
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := api.Get(tb.Context(), client.ObjectKey{Name: plural + ".cachewright.dev"}, crd); err != nil {
		tb.Fatal(err)
	}
	return crd
}

// column is what kubectl shows under a header; wide ones by -o wide only.
type column struct {
	name, path string
	wide       bool
}

const (
	readyStatus = `.status.conditions[?(@.type=="Ready")].status`
	readyReason = `.status.conditions[?(@.type=="Ready")].reason`
)

func TestNamesAndColumns(t *testing.T) {
	for plural, want := range map[string]struct {
		names   apiextensionsv1.CustomResourceDefinitionNames
		columns []column
	}{
		"cachepools": {
			names: apiextensionsv1.CustomResourceDefinitionNames{Kind: "CachePool", Singular: "cachepool", ShortNames: []string{"cpool"}},
			columns: []column{
				{"Topology", ".status.server.topology", false},
				{"Prefix", ".status.keyPrefix", false},
				{"Ready", readyStatus, false},
				{"Status", readyReason, false},
				{"Age", ".metadata.creationTimestamp", false},
			},
		},
		"cacheentries": {
			names: apiextensionsv1.CustomResourceDefinitionNames{Kind: "CacheEntry", Singular: "cacheentry", ShortNames: []string{"centry"}},
			columns: []column{
				{"Pool", ".spec.poolRef.name", false},
				{"Key", ".spec.key", false},
				{"Ready", readyStatus, false},
				{"Status", readyReason, false},
				{"Policy", ".spec.policy", true},
				{"TTL", ".spec.ttl", true},
				{"Last Write", ".status.lastWriteTime", true},
				{"Age", ".metadata.creationTimestamp", false},
			},
		},
		"cacheflushes": {
			names: apiextensionsv1.CustomResourceDefinitionNames{Kind: "CacheFlush", Singular: "cacheflush", ShortNames: []string{"cflush"}},
			columns: []column{
				{"Pool", ".spec.poolRef.name", false},
				{"Target", ".status.target", false},
				{"Status", readyReason, false},
				{"Progress", ".status.progress.percent", false},
				{"Deleted", ".status.progress.deleted", false},
				{"Started", ".status.startTime", false},
				{"Completed", ".status.completionTime", false},
				{"Age", ".metadata.creationTimestamp", false},
			},
		},
	} {
		t.Run(plural, func(t *testing.T) {
			crd := installed(t, plural)
			want.names.Plural, want.names.ListKind, want.names.Categories = plural, want.names.Kind+"List", []string{"cachewright"}
			// Accepted, and not only asked for.
			if diff := gocmp.Diff(want.names, crd.Status.AcceptedNames); diff != "" {
				t.Errorf("names (-want +got):\n%s", diff)
			}
			if crd.Spec.Scope != apiextensionsv1.NamespaceScoped || len(crd.Spec.Versions) != 1 || crd.Spec.Versions[0].Name != "v1alpha1" ||
				crd.Spec.Versions[0].Subresources.Status == nil {
				t.Errorf("want one version, v1alpha1, namespaced, with a status subresource; got %v, %v", crd.Spec.Scope, crd.Spec.Versions)
			}
			var columns []column
			for _, c := range crd.Spec.Versions[0].AdditionalPrinterColumns {
				columns = append(columns, column{c.Name, c.JSONPath, c.Priority > 0})
			}
			if diff := gocmp.Diff(want.columns, columns, gocmp.AllowUnexported(column{})); diff != "" {
				t.Errorf("columns (-want +got):\n%s", diff)
			}
		})
	}
}

// kubectl explain has a word on everything.
func TestEverythingIsDescribed(t *testing.T) {
	for _, plural := range []string{"cachepools", "cacheentries", "cacheflushes"} {
		schema := installed(t, plural).Spec.Versions[0].Schema.OpenAPIV3Schema
		delete(schema.Properties, "metadata") // the API server describes that
		checkDescribed(t, plural, schema)
	}
}

func checkDescribed(t *testing.T, path string, s *apiextensionsv1.JSONSchemaProps) {
	t.Helper()
	if s.Description == "" {
		t.Errorf("%s has no description", path)
	}
	for name, property := range s.Properties {
		checkDescribed(t, path+"."+name, &property)
	}
	if s.Items != nil && s.Items.Schema.Type == "object" {
		checkDescribed(t, path+"[]", s.Items.Schema)
	}
}
