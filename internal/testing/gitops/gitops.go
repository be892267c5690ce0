// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package gitops looks at objects as the tools do that wait for them.
package gitops

import (
	"testing"

	kstatus "github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// Kstatus is what Flux and Helm 4 take an object of ours for.
func Kstatus(t *testing.T, o client.Object) kstatus.Status {
	t.Helper()
	result, err := kstatus.Compute(Unstructured(t, o))
	if err != nil {
		t.Fatal(err)
	}
	return result.Status
}

// Unstructured is an object of ours as the API server shows it, with its kind.
func Unstructured(t *testing.T, o client.Object) *unstructured.Unstructured {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	kind, err := apiutil.GVKForObject(o, scheme)
	if err != nil {
		t.Fatal(err)
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{Object: content}
	u.SetGroupVersionKind(kind)
	return u
}
