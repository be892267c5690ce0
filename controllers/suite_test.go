// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/operator"
	"github.com/cachewright/cachewright/internal/status"
	"github.com/cachewright/cachewright/internal/testing/controlplane"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// patience bounds every wait. It is long, since it is only ever used up by a test that fails.
const patience = 30 * time.Second

// k8s is an administrator's client, without a cache.
var k8s client.WithWatch

// kubeconfig is an administrator's, for kubectl.
var kubeconfig []byte

// TestMain runs one API server and one operator for all tests. Each test has a namespace of its own.
func TestMain(m *testing.M) {
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	flag.Parse()
	// Most of their time the tests wait.
	if err := flag.Set("test.parallel", strconv.Itoa(4*runtime.GOMAXPROCS(0))); err != nil {
		return 1, err
	}
	ctrl.SetLogger(logr.Discard())
	env, err := controlplane.Start()
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, env.Stop()) }()
	scheme, err := operator.NewScheme()
	if err != nil {
		return 1, err
	}
	kubeconfig = env.KubeConfig
	if k8s, err = client.NewWithWatch(env.Config, client.Options{Scheme: scheme}); err != nil {
		return 1, err
	}
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() {
		stopped <- operator.Run(ctx, env.Config, operator.Options{MetricsAddress: "0", ProbeAddress: "0"})
	}()
	defer func() { stop(); err = errors.Join(err, <-stopped) }()
	return m.Run(), nil
}

// world is what a test works in: a namespace, and a Redis of its own.
type world struct {
	*WithT

	t         *testing.T
	namespace string
	addr      string
	redis     *redis.Client
}

// newWorld runs on miniredis, which every machine has.
func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	return worldAt(t, redistest.Miniredis(t).Addr())
}

// newRealWorld runs on a redis-server, for what miniredis cannot show.
func newRealWorld(t *testing.T) (*world, *redistest.Server) {
	t.Helper()
	t.Parallel()
	server := redistest.Start(t)
	return worldAt(t, server.Addr), server
}

func worldAt(t *testing.T, addr string) *world {
	t.Helper()
	w := (&world{
		addr: addr, namespace: space(t),
		redis: redis.NewClient(&redis.Options{Addr: addr, PipelinePoolSize: -1}),
	}).sub(t)
	t.Cleanup(func() { _ = w.redis.Close() })
	return w
}

// space creates a namespace. When the test is over its pools go, or else they would be older pools on the server of a test that
// gets the same port later.
func space(t *testing.T) string {
	t.Helper()
	namespace := controlplane.Namespace(t, k8s)
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		var pools v1alpha1.CachePoolList
		if err := k8s.List(ctx, &pools, client.InNamespace(namespace)); err != nil {
			t.Error(err)
		}
		for i := range pools.Items {
			free := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
			for _, err := range []error{k8s.Delete(ctx, &pools.Items[i]), k8s.Patch(ctx, &pools.Items[i], free)} {
				if client.IgnoreNotFound(err) != nil {
					t.Error(err)
				}
			}
		}
	})
	return namespace
}

// sub gives the world of a subtest that shares this one's.
func (w *world) sub(t *testing.T) *world {
	t.Helper()
	shared := *w
	shared.t, shared.WithT = t, NewWithT(t)
	shared.SetDefaultEventuallyTimeout(patience)
	shared.SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	return &shared
}

// create an object in the test's namespace.
func (w *world) create(o client.Object) {
	w.t.Helper()
	o.SetNamespace(w.namespace)
	w.Expect(k8s.Create(w.t.Context(), o)).To(Succeed())
}

// update an object to what change makes of it, as often as it takes.
func update[T client.Object](w *world, o T, change func(T)) {
	w.t.Helper()
	w.Eventually(func() error {
		if err := k8s.Get(w.t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
			return err
		}
		change(o)
		return k8s.Update(w.t.Context(), o)
	}).Should(Succeed())
}

// reload an object from the API server.
func (w *world) reload(o client.Object) {
	w.t.Helper()
	w.Expect(k8s.Get(w.t.Context(), client.ObjectKeyFromObject(o), o)).To(Succeed())
}

// becomes waits until the conditions of an object read as given: see summary.
func (w *world) becomes(o status.Object, want string) {
	w.t.Helper()
	w.Eventually(func(g Gomega) {
		g.Expect(k8s.Get(w.t.Context(), client.ObjectKeyFromObject(o), o)).To(Succeed())
		g.Expect(summary(o)).To(Equal(want))
	}).Should(Succeed())
}

// vanishes waits until an object is gone.
func (w *world) vanishes(o client.Object) {
	w.t.Helper()
	there, ok := o.DeepCopyObject().(client.Object)
	w.Expect(ok).To(BeTrue())
	w.Eventually(func() bool {
		return apierrors.IsNotFound(k8s.Get(w.t.Context(), client.ObjectKeyFromObject(o), there))
	}).Should(BeTrue(), "%s is still there", o.GetName())
}

// holds waits until a key in Redis has a value.
func (w *world) holds(key, value string) {
	w.t.Helper()
	w.Eventually(func() (string, error) { return w.redis.Get(w.t.Context(), key).Result() }).Should(Equal(value))
}

// lacks waits until a key is not in Redis.
func (w *world) lacks(key string) {
	w.t.Helper()
	w.Eventually(func() (int64, error) { return w.redis.Exists(w.t.Context(), key).Result() }).Should(BeZero())
}

// set a key behind the operator's back.
func (w *world) set(key, value string) {
	w.t.Helper()
	w.Expect(w.redis.Set(w.t.Context(), key, value, 0).Err()).To(Succeed())
}

// events gives the notes of the events about an object, with reasons. Those about a Namespace are in namespace default.
func (w *world) events(o client.Object) []string {
	w.t.Helper()
	var list corev1.EventList
	w.Expect(k8s.List(w.t.Context(), &list, client.InNamespace(cmp.Or(o.GetNamespace(), metav1.NamespaceDefault)))).To(Succeed())
	var notes []string
	for _, e := range list.Items {
		if e.InvolvedObject.UID == o.GetUID() {
			notes = append(notes, e.Type+" "+e.Reason+": "+e.Message)
		}
	}
	return notes
}

// summary of the conditions of an object at its present generation, in a line: Ready first, the others by name.
// A line that is not up to date begins with "stale".
func summary(o status.Object) string {
	var parts []string
	for _, kind := range []string{
		v1alpha1.ConditionReady, v1alpha1.ConditionComplete, v1alpha1.ConditionFailed,
		v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled, v1alpha1.ConditionSuspended,
	} {
		if c := apimeta.FindStatusCondition(*o.Conditions(), kind); c != nil {
			if c.ObservedGeneration != o.GetGeneration() {
				return "stale " + kind
			}
			parts = append(parts, fmt.Sprintf("%s=%s/%s", kind, c.Status, c.Reason))
		}
	}
	if *o.ObservedGeneration() != o.GetGeneration() {
		return "stale"
	}
	return strings.Join(parts, " ")
}

// message of the Ready condition.
func message(o status.Object) string {
	if c := apimeta.FindStatusCondition(*o.Conditions(), v1alpha1.ConditionReady); c != nil {
		return c.Message
	}
	return ""
}

// What the conditions of healthy objects read.
const (
	connected = "Ready=True/Connected"
	isWarm    = "Ready=True/Warm"
	flushed   = "Ready=True/KeysFlushed Complete=True/KeysFlushed"
)

// pool makes a CachePool named main on the test's Redis.
func (w *world) pool(change ...func(*v1alpha1.CachePool)) *v1alpha1.CachePool {
	p := &v1alpha1.CachePool{
		ObjectMeta: metav1.ObjectMeta{Name: "main", Namespace: w.namespace},
		Spec:       v1alpha1.CachePoolSpec{Addresses: []string{w.addr}, ResyncPeriod: &metav1.Duration{Duration: 10 * time.Second}},
	}
	return with(p, change)
}

// entry makes a CacheEntry in pool main whose key is its name, with a value and forever.
func (w *world) entry(name string, change ...func(*v1alpha1.CacheEntry)) *v1alpha1.CacheEntry {
	e := &v1alpha1.CacheEntry{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.namespace},
		Spec: v1alpha1.CacheEntrySpec{
			PoolRef: v1alpha1.PoolReference{Name: "main"}, Key: name, Value: new("value of " + name), Forever: new(true),
		},
	}
	return with(e, change)
}

// flush makes a CacheFlush in pool main.
func (w *world) flush(name string, change ...func(*v1alpha1.CacheFlush)) *v1alpha1.CacheFlush {
	f := &v1alpha1.CacheFlush{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.namespace},
		Spec:       v1alpha1.CacheFlushSpec{PoolRef: v1alpha1.PoolReference{Name: "main"}},
	}
	return with(f, change)
}

func with[T any](o *T, change []func(*T)) *T {
	for _, c := range change {
		c(o)
	}
	return o
}

// ready creates the pool of the test and waits until it is connected.
func (w *world) ready(change ...func(*v1alpha1.CachePool)) *v1alpha1.CachePool {
	w.t.Helper()
	p := w.pool(change...)
	w.create(p)
	w.becomes(p, connected)
	return p
}
