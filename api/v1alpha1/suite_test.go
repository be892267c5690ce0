// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"cmp"
	"encoding/json"
	"os"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	v1alpha1 "github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/controlplane"
)

var (
	scheme = runtime.NewScheme()
	// api is an administrator's client.
	api client.Client
)

func TestMain(m *testing.M) {
	os.Exit(controlplane.Run(m, func(cfg *rest.Config) {
		for _, add := range []func(*runtime.Scheme) error{
			clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, v1alpha1.AddToScheme,
		} {
			if err := add(scheme); err != nil {
				panic(err)
			}
		}
		var err error
		if api, err = client.New(cfg, client.Options{Scheme: scheme}); err != nil {
			panic(err)
		}
	}))
}

// row is an object, and what the API server says to it.
type row struct {
	// spec of an object "x" that is created, as YAML; a minimal one if there is none.
	spec string
	// update is the spec it gets then; the answer to that counts.
	update string
	// status it gets then; the answer to that counts.
	status string
	// want is the API server's text behind `… "x" is invalid: `; empty if it accepts.
	want string
}

var minimal = map[string]string{
	"CachePool":  `{addresses: ["redis:6379"]}`,
	"CacheEntry": `{key: k, value: v, ttl: 1m}`,
	"CacheFlush": `{all: true}`,
}

// uncheckedToo is an answer with the API server's remark that it left out the rules in CEL.
func uncheckedToo(text string) string {
	return "[" + text + ", <nil>: Invalid value: null: some validation rules were not checked because the object was " +
		"invalid; correct the existing errors to complete validation]"
}

// run asks the API server. What it accepts, Go's types must be able to read.
func run(t *testing.T, kind string, rows map[string]row) {
	t.Helper()
	namespace := controlplane.Namespace(t, api)
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			o := object(kind, namespace)
			defer remove(t, o)
			want, got := "", ""
			if row.want != "" {
				want = kind + `.cachewright.dev "x" is invalid: ` + row.want
			}
			if err := ask(t, o, row); err != nil {
				got = err.Error()
			} else {
				typed(t, o)
			}
			if diff := gocmp.Diff(want, got); diff != "" {
				t.Errorf("the API server's answer (-want +got):\n%s", diff)
			}
		})
	}
}

func ask(t *testing.T, o *unstructured.Unstructured, row row) error {
	t.Helper()
	o.Object["spec"] = parse(t, cmp.Or(row.spec, minimal[o.GetKind()]))
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

// create an object "x" in a namespace of its own.
func create(t *testing.T, kind, spec string) *unstructured.Unstructured {
	t.Helper()
	o := object(kind, controlplane.Namespace(t, api))
	if err := ask(t, o, row{spec: spec}); err != nil {
		t.Fatal(err)
	}
	return o
}

// object is an object "x" of a kind, without a spec.
func object(kind, namespace string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
	o.SetNamespace(namespace)
	o.SetName("x")
	return o
}

func remove(t *testing.T, o *unstructured.Unstructured) {
	t.Helper()
	if err := client.IgnoreNotFound(api.Delete(t.Context(), o)); err != nil {
		t.Error(err)
	}
}

// typed is the object as this package's type.
func typed(t *testing.T, o *unstructured.Unstructured) runtime.Object {
	t.Helper()
	object, err := scheme.New(o.GroupVersionKind())
	if err != nil {
		t.Fatal(err)
	}
	text, err := o.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, object); err != nil {
		t.Fatalf("the API server accepts what this package cannot read: %v", err)
	}
	return object
}

// parse keeps integers of 64 bits exact, as kubectl does.
func parse(t *testing.T, text string) (value map[string]any) {
	t.Helper()
	inJSON, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatalf("%v: %.100s", err, text)
	}
	if err := utiljson.Unmarshal(inJSON, &value); err != nil {
		t.Fatalf("%v: %.100s", err, text)
	}
	return value
}
