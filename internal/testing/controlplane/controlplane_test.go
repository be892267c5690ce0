// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controlplane_test

import (
	"context"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/cachewright/cachewright/internal/testing/controlplane"
)

func start(t *testing.T, options ...controlplane.Option) *envtest.Environment {
	t.Helper()
	env, err := controlplane.Start(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	return env
}

func TestTwoAtOnceAreTwo(t *testing.T) {
	first, second := start(t), start(t, controlplane.WithoutCRDs())
	for env, want := range map[*envtest.Environment]bool{first: true, second: false} {
		_, err := kubernetes.NewForConfigOrDie(env.Config).Discovery().ServerResourcesForGroupVersion("cachewright.dev/v1alpha1")
		if got := !apierrors.IsNotFound(err); got != want {
			t.Errorf("serves the CRDs: %t (%v), want %t", got, err, want)
		}
	}

	c, err := client.New(first.Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	name := controlplane.Namespace(t, c)
	if other := controlplane.Namespace(t, c); other == name {
		t.Errorf("two namespaces have the name %s", name)
	}
	_, err = kubernetes.NewForConfigOrDie(second.Config).CoreV1().Namespaces().Get(t.Context(), name, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("the second control plane knows the first one's namespace: %v", err)
	}
}

func TestFlagsRBACAndTokens(t *testing.T) {
	env := start(t, controlplane.WithoutCRDs(), controlplane.WithFlag("service-cluster-ip-range", "10.9.0.0/24"))
	admin := kubernetes.NewForConfigOrDie(env.Config)
	ctx := t.Context()

	service, err := admin.CoreV1().Services("default").Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "somewhere"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	if err != nil || !strings.HasPrefix(service.Spec.ClusterIP, "10.9.0.") {
		t.Errorf("a service got the address %q (%v), want one of the flag's range", service.Spec.ClusterIP, err)
	}

	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "somebody"}}
	if _, err := admin.CoreV1().ServiceAccounts("default").Create(ctx, account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	token, err := admin.CoreV1().ServiceAccounts("default").
		CreateToken(ctx, "somebody", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := listNamespaces(ctx, env.Config, token.Status.Token); !apierrors.IsForbidden(err) ||
		!strings.Contains(err.Error(), "system:serviceaccount:default:somebody") {
		t.Errorf("a ServiceAccount without a role got %v, want that it is known, and refused", err)
	}
}

func listNamespaces(ctx context.Context, cfg *rest.Config, token string) error {
	cfg = rest.AnonymousClientConfig(cfg)
	cfg.BearerToken = token
	_, err := kubernetes.NewForConfigOrDie(cfg).CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	return err
}

func TestTheControllerManagerRunsTheControllersThatItIsToldTo(t *testing.T) {
	env := start(t, controlplane.WithoutCRDs())
	controlplane.StartControllerManager(t, env.KubeConfig, "namespace-controller")
	c, err := client.New(env.Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: controlplane.Namespace(t, c)}}
	if err := c.Delete(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	NewWithT(t).Eventually(func() bool {
		return apierrors.IsNotFound(c.Get(t.Context(), client.ObjectKeyFromObject(namespace), namespace))
	}, time.Minute).Should(BeTrue(), "the namespace stays")
	accounts := &corev1.ServiceAccountList{}
	if err := c.List(t.Context(), accounts); err != nil || len(accounts.Items) > 0 {
		t.Errorf("another controller has made %d ServiceAccounts (%v)", len(accounts.Items), err)
	}
}

func TestMissingProgramsAreNamed(t *testing.T) {
	t.Setenv("KUBEBUILDER_ASSETS", t.TempDir())
	_, err := controlplane.Start()
	if err == nil || !strings.Contains(err.Error(), "run `make controlplane`") {
		t.Errorf("got %v, want an error that says what to run", err)
	}
}
