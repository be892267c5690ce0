// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"os"
	"path/filepath"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// definition is a CRD of this repository.
type definition struct {
	apiextensionsv1.CustomResourceDefinition
}

func crd(t testing.TB, plural string) definition {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "config", "crd", "bases", "cachewright.dev_"+plural+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var d definition
	if err := yaml.UnmarshalStrict(text, &d.CustomResourceDefinition); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d definition) schema() *apiextensionsv1.JSONSchemaProps {
	return d.Spec.Versions[0].Schema.OpenAPIV3Schema
}
