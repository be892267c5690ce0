// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/claims"
	"github.com/cachewright/cachewright/internal/pools"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// bench runs the reconciler of flushes by hand, to see what it does in which order. Its API server is a fake, its
// clock stands still, and its Redis is miniredis.
type bench struct {
	*cacheFlushReconciler

	t     *testing.T
	api   client.WithWatch
	redis *miniredis.Miniredis
	clock *clocktesting.FakeClock
	// stale is what the operator's cache answers instead of the API server's truth.
	stale *v1alpha1.CacheFlush
	// beforeWrite is called before each write of a status.
	beforeWrite func()
	// ended are the runs that pools were told of.
	ended []v1alpha1.RecentFlush

	mu  sync.Mutex
	log []string
}

// benchPool is in every bench, and connected.
var benchPool = types.NamespacedName{Namespace: "shop", Name: "main"}

func newBench(t *testing.T, objects ...client.Object) *bench {
	t.Helper()
	b := &bench{t: t, redis: redistest.Miniredis(t), clock: clocktesting.NewFakeClock(time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC))}
	pool := &v1alpha1.CachePool{
		ObjectMeta: metav1.ObjectMeta{Namespace: benchPool.Namespace, Name: benchPool.Name, UID: "pool"},
		Spec:       v1alpha1.CachePoolSpec{Addresses: []string{b.redis.Addr()}},
	}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	b.api = fake.NewClientBuilder().WithScheme(scheme).
		WithStatusSubresource(&v1alpha1.CacheFlush{}, &v1alpha1.CachePool{}).
		WithIndex(&v1alpha1.CacheFlush{}, poolIndex, poolNames).
		WithObjects(append(objects, pool)...).Build()
	cached := interceptor.NewClient(b.api, interceptor.Funcs{Get: b.getCached, SubResourcePatch: b.patchStatus})
	live := interceptor.NewClient(b.api, interceptor.Funcs{Get: b.getLive})

	registry := pools.NewRegistry(b.clock, pools.Listeners{
		Entry:  func(context.Context, types.NamespacedName) {},
		Pool:   func(context.Context, types.NamespacedName) {},
		Opened: func(context.Context, types.NamespacedName) {},
	})
	t.Cleanup(func() {
		ended, end := context.WithCancel(context.Background()) //nolint:usetesting // the test has ended
		end()
		_ = registry.Start(ended)
	})
	options := cache.Options{Addresses: []string{b.redis.Addr()}, Prefix: pool.EffectiveKeyPrefix(), Timeout: 5 * time.Second}
	if _, err := registry.Connect(t.Context(), pools.Identity{Name: benchPool, UID: pool.UID}, options); err != nil {
		t.Fatal(err)
	}
	index := claims.NewIndex()
	b.cacheFlushReconciler = &cacheFlushReconciler{
		Client:   cached,
		finisher: finisher{client: cached, recorder: &events.FakeRecorder{}, clock: b.clock},
		reader:   live,
		pools:    &poolFinder{client: cached, registry: registry, claims: index, synced: func() bool { return true }, clock: b.clock},
		registry: registry,
		claims:   index,
		tellEnd: func(_ context.Context, _ types.NamespacedName, record v1alpha1.RecentFlush) {
			b.ended = append(b.ended, record)
		},
	}
	registry.Attempted(benchPool)
	b.redis.Server().SetPreHook(func(_ *server.Peer, command string, args ...string) bool {
		if command == "SCAN" || command == "UNLINK" && !slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, "cachewright-check") }) {
			b.note(strings.ToLower(command))
		}
		return false
	})
	t.Cleanup(func() { b.redis.Server().SetPreHook(nil) })
	for _, key := range []string{"a", "b"} {
		b.set(key)
	}
	return b
}

// benchFlush is a flush of all keys that the API server has just accepted.
func benchFlush(name string, change ...func(*v1alpha1.CacheFlush)) *v1alpha1.CacheFlush {
	f := &v1alpha1.CacheFlush{
		ObjectMeta: metav1.ObjectMeta{Namespace: benchPool.Namespace, Name: name, UID: types.UID("uid-of-" + name), Generation: 1},
		Spec:       v1alpha1.CacheFlushSpec{PoolRef: v1alpha1.PoolReference{Name: benchPool.Name}, All: new(true), Mode: v1alpha1.FlushDelete},
		Status:     v1alpha1.CacheFlushStatus{ObservedGeneration: -1},
	}
	for _, c := range change {
		c(f)
	}
	return f
}

func (b *bench) note(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, what)
}

// noted since the last call.
func (b *bench) noted() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	log := strings.Join(b.log, " ")
	b.log = nil
	return log
}

func (b *bench) getCached(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
	if f, ok := o.(*v1alpha1.CacheFlush); ok && b.stale != nil && b.stale.Name == key.Name {
		b.stale.DeepCopyInto(f)
		return nil
	}
	return c.Get(ctx, key, o, options...)
}

func (b *bench) getLive(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
	b.note("read")
	return c.Get(ctx, key, o, options...)
}

func (b *bench) patchStatus(ctx context.Context, c client.Client, sub string, o client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
	b.note("write")
	if b.beforeWrite != nil {
		b.beforeWrite()
	}
	return c.SubResource(sub).Patch(ctx, o, patch, options...)
}

func (b *bench) set(key string) {
	b.t.Helper()
	if err := b.redis.Set("glimr:cache:main:"+key, "v"); err != nil {
		b.t.Fatal(err)
	}
}

// keys in Redis.
func (b *bench) keys() int { return len(b.redis.Keys()) }

// reconcile once.
func (b *bench) once(name string) ctrl.Result {
	b.t.Helper()
	result, err := b.Reconcile(b.t.Context(), ctrl.Request{NamespacedName: types.NamespacedName{Namespace: benchPool.Namespace, Name: name}})
	if err != nil {
		b.t.Fatal(err)
	}
	return result
}

// flush as the API server has it.
func (b *bench) flush(name string) *v1alpha1.CacheFlush {
	b.t.Helper()
	f := &v1alpha1.CacheFlush{}
	if err := b.api.Get(b.t.Context(), types.NamespacedName{Namespace: benchPool.Namespace, Name: name}, f); err != nil {
		b.t.Fatal(err)
	}
	return f
}

// change the flush named flush in the API server, as others do.
func (b *bench) change(change func(*v1alpha1.CacheFlush)) {
	b.t.Helper()
	f := b.flush("flush")
	change(f)
	f.Generation++
	if err := b.api.Update(b.t.Context(), f); err != nil {
		b.t.Fatal(err)
	}
}

// seen is what the conditions of a flush read, in a line.
func seen(f *v1alpha1.CacheFlush) string {
	var parts []string
	for _, c := range f.Status.Conditions {
		parts = append(parts, c.Type+"="+string(c.Status)+"/"+c.Reason)
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

// onceOn does something at the first command of a name.
func onceOn(name string, do func()) server.Hook {
	var once sync.Once
	return func(_ *server.Peer, command string, _ ...string) bool {
		if command == name {
			once.Do(do)
		}
		return false
	}
}

// refuse a command with an error.
func refuse(name, text string) server.Hook {
	return func(peer *server.Peer, command string, _ ...string) bool {
		if command == name {
			peer.WriteError(text)
		}
		return command == name
	}
}

// eventually waits for what other goroutines do.
func (b *bench) eventually(done func() bool, what string) {
	b.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !done(); <-tick.C {
		if time.Now().After(deadline) {
			b.t.Fatalf("not in time: %s", what)
		}
	}
}
