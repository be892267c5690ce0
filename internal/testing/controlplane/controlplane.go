// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package controlplane starts a real kube-apiserver and etcd for tests, with the CRDs of this repository.
package controlplane

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// startTimeout of etcd and of the API server, each: a loaded machine takes its time.
const startTimeout = time.Minute

// Option changes the control plane before it starts.
type Option func(*envtest.Environment)

// WithFlag gives the API server a flag (its name without dashes), instead of envtest's default for it. RBAC is on,
// and ServiceAccount tokens work, without any.
func WithFlag(name string, values ...string) Option {
	return func(env *envtest.Environment) {
		env.ControlPlane.GetAPIServer().Configure().Set(name, values...)
	}
}

// WithoutCRDs leaves the CRDs out.
func WithoutCRDs() Option {
	return func(env *envtest.Environment) { env.CRDDirectoryPaths = nil }
}

// Start runs a control plane of its own: etcd, and a kube-apiserver with the CRDs in config/crd/bases. Config of what
// it returns is an administrator's; AddUser makes others. The caller stops it.
func Start(options ...Option) (*envtest.Environment, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	env := &envtest.Environment{
		UseExistingCluster:       new(false),
		CRDDirectoryPaths:        []string{filepath.Join(root, "config", "crd", "bases")},
		ErrorIfCRDPathMissing:    true,
		ControlPlaneStartTimeout: startTimeout,
	}
	env.ControlPlane.Etcd = &envtest.Etcd{}
	for name, path := range map[string]*string{
		"kube-apiserver": &env.ControlPlane.GetAPIServer().Path,
		"etcd":           &env.ControlPlane.Etcd.Path,
		"kubectl":        &env.ControlPlane.KubectlPath,
	} {
		if *path, err = Program(name); err != nil {
			return nil, err
		}
	}
	for _, option := range options {
		option(env)
	}
	if _, err := env.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the control plane: %w", err), env.Stop())
	}
	return env, nil
}

// Program of the control plane: kube-apiserver, etcd, kube-controller-manager, or kubectl.
func Program(name string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cmp.Or(os.Getenv("KUBEBUILDER_ASSETS"), filepath.Join(root, "bin")), name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("no %s for the tests: run `make controlplane`, which puts it into bin/: %w", name, err)
	}
	return path, nil
}

// Run is TestMain's body: it starts a control plane, hands its administrator's configuration to setup, runs the tests,
// stops the control plane, and returns the exit code.
func Run(m *testing.M, setup func(cfg *rest.Config), options ...Option) (code int) {
	env, err := Start(options...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := env.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping the control plane:", err)
			code = max(code, 1)
		}
	}()
	setup(env.Config)
	return m.Run()
}

// Namespace creates a namespace with a generated name. It stays until the control plane stops: without a
// kube-controller-manager nothing would empty it.
func Namespace(t *testing.T, c client.Client) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	if err := c.Create(t.Context(), namespace); err != nil {
		t.Fatalf("creating a namespace: %v", err)
	}
	return namespace.Name
}

// Root is the repository's top folder: the first above the working directory that holds a go.mod.
func Root() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod in %s or above", start)
		}
	}
}
