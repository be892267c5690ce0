// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/controlplane"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

const (
	// tenantEntries of a namespace that is deleted as a whole.
	tenantEntries = 100
	// deletionTime is how long that may take, where a dead server may take its share.
	deletionTime = 30 * time.Second
)

// whole is a namespace with all that an application may have in it.
type whole struct {
	*WithT

	t       *testing.T
	space   string
	server  *redistest.Server
	redis   *redis.Client
	manager *manager
}

func newWhole(t *testing.T) *whole {
	t.Helper()
	server := redistest.Start(t, "--requirepass", "secret")
	w := &whole{WithT: expectations(t), t: t, space: namespace(t, "whole"), server: server}
	w.redis = redis.NewClient(&redis.Options{Addr: server.Addr, Password: "secret"})
	t.Cleanup(func() { _ = w.redis.Close() })
	w.manager = run(t, kubeconfig, "--namespaces="+w.space)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "auth", Namespace: w.space}, StringData: map[string]string{"password": "secret"}}
	w.Expect(k8s.Create(t.Context(), secret)).To(Succeed())
	pool := poolIn(w.space, server.Addr)
	pool.Spec.CredentialsSecretRef = &v1alpha1.CredentialsSecretReference{Name: "auth"}
	w.Expect(k8s.Create(t.Context(), pool)).To(Succeed())
	entries := make([]*v1alpha1.CacheEntry, tenantEntries)
	for i := range entries {
		entries[i] = entryIn(w.space, fmt.Sprintf("e%d", i))
		switch i % 4 {
		case 1:
			entries[i].Spec.Policy = v1alpha1.PolicyEnsurePresent
		case 2:
			entries[i].Spec.Policy = v1alpha1.PolicyWriteOnChange
		case 3:
			entries[i].Spec.Value, entries[i].Spec.Counter = nil, &v1alpha1.CounterSpec{Increment: 1, RunID: "r"}
			entries[i].Spec.DeletionPolicy = v1alpha1.DeletionDelete
		}
	}
	all(len(entries), func(i int) {
		if err := k8s.Create(t.Context(), entries[i]); err != nil {
			t.Error(err)
		}
	})
	for _, e := range entries {
		becomes(t, w.WithT, e, v1alpha1.ConditionReady)
	}
	controlplane.StartControllerManager(t, kubeconfig, "namespace-controller")
	return w
}

// delete the namespace, as kubectl does, and wait for its end.
func (w *whole) delete() {
	w.t.Helper()
	n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.space}}
	began := time.Now()
	w.Expect(k8s.Delete(w.t.Context(), n)).To(Succeed())
	w.Eventually(func() bool {
		return apierrors.IsNotFound(k8s.Get(w.t.Context(), client.ObjectKeyFromObject(n), n))
	}).WithTimeout(deletionTime).Should(BeTrue(), func() string { return fmt.Sprintf("%+v\n%s", n.Status.Conditions, w.manager.logged()) })
	w.t.Logf("the namespace was gone after %s", time.Since(began).Round(time.Millisecond))
}

// The namespace controller deletes everything at once, the Secret first maybe: what serves goes on serving.
func TestANamespaceIsDeletedWithAllItsKeys(t *testing.T) {
	w := newWhole(t)
	w.Expect(w.redis.Set(t.Context(), "foreign", "v", 0).Err()).To(Succeed())
	w.delete()
	w.Expect(w.redis.Keys(t.Context(), "*").Result()).To(Equal([]string{"foreign"}), "neither keys nor markers of counters")
}

// Nothing hangs when the server is away: what stays there is told.
func TestANamespaceIsDeletedWhileItsServerIsAway(t *testing.T) {
	w := newWhole(t)
	w.server.Stop()
	w.delete()
	w.Eventually(w.manager.logged).Should(ContainSubstring(`Key \"glimr:cache:main:e0\" stays in Redis`))
}
