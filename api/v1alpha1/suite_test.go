// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/controlplane"
)

// api is an administrator's client.
var api client.Client

func TestMain(m *testing.M) {
	os.Exit(controlplane.Run(m, func(cfg *rest.Config) {
		var err error
		if api, err = client.New(cfg, client.Options{}); err != nil {
			panic(err)
		}
	}))
}

// row is an object, and what the API server says to it.
type row struct {
	// spec of an object "x" that is created, as YAML.
	spec string
	// update is the spec it gets then; the answer to that counts.
	update string
	// status it gets then; the answer to that counts.
	status string
	// want is the API server's text behind `… "x" is invalid: `; empty if it accepts.
	want string
}

// run asks the API server.
func run(t *testing.T, kind string, rows map[string]row) {
	t.Helper()
	namespace := controlplane.Namespace(t, api)
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() {
				if err := client.IgnoreNotFound(api.Delete(t.Context(), object(kind, namespace))); err != nil {
					t.Error(err)
				}
			})
			want := ""
			if row.want != "" {
				want = kind + `.cachewright.dev "x" is invalid: ` + row.want
			}
			got := ""
			if err := ask(t, object(kind, namespace), row); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the API server's answer (-want +got):\n%s", diff)
			}
		})
	}
}

func ask(t *testing.T, o *unstructured.Unstructured, row row) error {
	t.Helper()
	o.Object["spec"] = parse(t, row.spec)
	err := api.Create(t.Context(), o)
	if row.update == "" && row.status == "" {
		return err
	}
	if err != nil {
		t.Fatalf("creating what is to be updated: %v", err)
	}
	if row.update != "" {
		o.Object["spec"] = parse(t, row.update)
		return api.Update(t.Context(), o)
	}
	o.Object["status"] = parse(t, row.status)
	return api.Status().Update(t.Context(), o)
}

// object is an object "x" of a kind, without a spec.
func object(kind, namespace string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
	o.SetNamespace(namespace)
	o.SetName("x")
	return o
}

func parse(t *testing.T, text string) (value map[string]any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), &value); err != nil {
		t.Fatal(fmt.Errorf("%w: %.100s", err, text))
	}
	return value
}
