// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// connect to the API server as kubectl does, or as a pod.
func (f *flush) connect() error {
	loader := f.cluster.loader()
	config, err := loader.ClientConfig()
	if err != nil {
		return &Error{Code: ExitUsage, Err: err}
	}
	if f.namespace, _, err = loader.Namespace(); err != nil {
		return &Error{Code: ExitUsage, Err: err}
	}
	// As kubectl shows them; the client would tell them to a log that nobody has set up.
	config.WarningHandler = rest.NewWarningWriter(f.warnings, rest.WarningWriterOptions{Deduplicate: true})
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return err
	}
	// Discovery would say the same, in requests that no --timeout ends.
	group := v1alpha1.GroupVersion
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{group})
	mapper.AddSpecific(group.WithKind("CacheFlush"), group.WithResource("cacheflushes"), group.WithResource("cacheflush"), meta.RESTScopeNamespace)
	f.client, err = client.NewWithWatch(config, client.Options{Scheme: scheme, Mapper: mapper})
	return err
}

// create the flush, or find the one of this name that is the same.
func (f *flush) create(ctx context.Context) (*v1alpha1.CacheFlush, error) {
	object := &v1alpha1.CacheFlush{ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: f.name}, Spec: f.spec}
	if f.name == "" {
		object.GenerateName = "flush-"
	}
	err := f.client.Create(ctx, object)
	switch {
	case err == nil:
		f.say("cacheflush/%s created", object.Name)
		return object, nil
	case apierrors.IsInvalid(err):
		return nil, &Error{Code: ExitUsage, Err: err}
	case !apierrors.IsAlreadyExists(err) || f.name == "":
		return nil, f.notCreated(ctx, err)
	}
	existing := &v1alpha1.CacheFlush{}
	if err := f.client.Get(ctx, client.ObjectKeyFromObject(object), existing); err != nil {
		return nil, f.notCreated(ctx, err)
	}
	if !existing.DeletionTimestamp.IsZero() {
		return nil, fmt.Errorf("cacheflush/%s is being deleted", existing.Name)
	}
	if !same(f.spec, existing.Spec) {
		return nil, usage("cacheflush/%s exists, and flushes something else or in another way; choose another --name", existing.Name)
	}
	f.say("cacheflush/%s exists with the same spec", existing.Name)
	return existing, nil
}

// same says whether two specs ask for the same. Suspending does not change what is asked for.
func same(a, b v1alpha1.CacheFlushSpec) bool {
	a.Suspend = b.Suspend
	return equality.Semantic.DeepEqual(a, b)
}

// notCreated says why, and what to do about it.
func (f *flush) notCreated(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return gaveUp(ctx, "%w before the API server answered; the flush may have been created all the same\nTo see it: %s", f.kubectl("get", f.name))
	case refused(err):
		return fmt.Errorf("%w\n%s", err, f.rights())
	case apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse) && apierrors.IsNotFound(err):
		return fmt.Errorf("the API server does not know the kind CacheFlush; is cachewright installed in this cluster? %w", err)
	}
	return err
}

// refused says whether the API server does not let us do what we asked for. Trying again is of no use.
func refused(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) }

// rights that this command needs.
func (f *flush) rights() string {
	return "You need the rights to create, get, list and watch cacheflushes.cachewright.dev in namespace " + f.namespace
}

// kubectl is a command for flushes of our namespace and cluster.
func (f *flush) kubectl(verb, name string, flags ...string) string {
	words := []string{"kubectl", verb, "cflush"}
	if name != "" {
		words = append(words, name)
	}
	words = append(words, "-n", f.namespace)
	if path := f.cluster.kubeconfig; path != "" {
		words = append(words, "--kubeconfig", path)
	}
	if name := f.cluster.overrides.CurrentContext; name != "" {
		words = append(words, "--context", name)
	}
	return strings.Join(append(words, flags...), " ")
}
