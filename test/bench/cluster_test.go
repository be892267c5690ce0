// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/operator"
	"github.com/cachewright/cachewright/internal/testing/controlplane"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// Names of the pool and its namespace.
const (
	poolName  = "main"
	namespace = "bench"
)

// resyncPeriod is the shortest that a pool may have.
const resyncPeriod = 10 * time.Second

// prefix of the pool's keys. It has no character that a glob or a shell takes as special.
const prefix = "glimr:cache:main:"

// batch is how many keys a command names, or a pipeline carries, where nothing else is said.
const batch = 1000

// bench is an API server and a Redis of its own, with a pool and an operator: what one measurement leaves behind does
// not weigh on the next one.
type bench struct {
	*testing.B

	kubeconfig string
	config     *rest.Config
	client     client.WithWatch
	api        rest.Interface
	etcdURL    string
	// value of the entries.
	value  string
	server *redistest.Server
	redis  *redis.Client
	// network is what the operator reaches Redis through. It counts round trips.
	network  *redistest.Proxy
	operator *operatorProcess
}

func newBench(b *testing.B, options ...controlplane.Option) *bench {
	b.Helper()
	w := &bench{B: b, value: value, kubeconfig: filepath.Join(b.TempDir(), "kubeconfig")}
	env, err := controlplane.Start(options...)
	w.must(err)
	b.Cleanup(func() { w.must(env.Stop()) })
	w.etcdURL = env.ControlPlane.Etcd.URL.String()
	w.must(os.WriteFile(w.kubeconfig, env.KubeConfig, 0o600))
	scheme, err := operator.NewScheme()
	w.must(err)
	w.config = rest.CopyConfig(env.Config)
	w.config.QPS = -1
	w.client, err = client.NewWithWatch(w.config, client.Options{Scheme: scheme})
	w.must(err)
	discover, err := discovery.NewDiscoveryClientForConfig(w.config)
	w.must(err)
	w.api = discover.RESTClient()
	w.must(w.client.Create(b.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}))

	w.server = redistest.Start(b)
	w.redis = w.server.Client(b).WithTimeout(patience)
	w.network = redistest.NewProxy(b, w.server.Addr, 0)
	w.practice()
	return w
}

func (b *bench) createPool(address string) {
	b.Helper()
	b.must(b.client.Create(b.Context(), &v1alpha1.CachePool{
		ObjectMeta: metav1.ObjectMeta{Name: poolName, Namespace: namespace},
		Spec:       v1alpha1.CachePoolSpec{Addresses: []string{address}, ResyncPeriod: &metav1.Duration{Duration: resyncPeriod}},
	}))
}

func (b *bench) must(err error) {
	if err != nil {
		b.Helper()
		b.Fatal(err)
	}
}

// pipelined sends a command or more for each of n keys.
func (b *bench) pipelined(n int, prefix string, command func(p redis.Pipeliner, name string, i int)) {
	b.Helper()
	for from := 0; from < n; from += batch {
		_, err := b.redis.Pipelined(b.Context(), func(p redis.Pipeliner) error {
			for i := from; i < min(n, from+batch); i++ {
				command(p, prefix+key(i), i)
			}
			return nil
		})
		b.must(err)
	}
}

// key number i.
func key(i int) string { return fmt.Sprintf("key-%06d", i) }

// value that all keys have where nothing else is said: 100 bytes.
var value = strings.Repeat("v", 100)

// entry number i.
func (b *bench) entry(i int) *v1alpha1.CacheEntry {
	return &v1alpha1.CacheEntry{
		ObjectMeta: metav1.ObjectMeta{Name: key(i), Namespace: namespace},
		Spec: v1alpha1.CacheEntrySpec{
			PoolRef: v1alpha1.PoolReference{Name: poolName}, Key: key(i),
			Value: new(b.value), TTL: &metav1.Duration{Duration: time.Hour},
		},
	}
}

func isReady(conditions []metav1.Condition) bool {
	return apimeta.IsStatusConditionTrue(conditions, v1alpha1.ConditionReady)
}

// writes of our kinds, and of events, that the API server has served.
func (b *bench) writes() int {
	b.Helper()
	text, err := b.api.Get().AbsPath("/metrics").DoRaw(b.Context())
	b.must(err)
	total := 0
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		line := lines.Text()
		if !strings.HasPrefix(line, "apiserver_request_total{") || !strings.Contains(line, `group="cachewright.dev"`) && !strings.Contains(line, `resource="events"`) {
			continue
		}
		for _, verb := range []string{"POST", "PUT", "PATCH", "DELETE"} {
			if strings.Contains(line, `verb="`+verb+`"`) {
				n, err := strconv.ParseFloat(line[strings.LastIndex(line, " ")+1:], 64)
				b.must(err)
				total += int(n)
			}
		}
	}
	return total
}
