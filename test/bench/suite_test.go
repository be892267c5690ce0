// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package bench_test measures the operator at work, as a process of its own, on a real API server and a real
// redis-server: see `make bench`.
package bench_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/redis/go-redis/v9"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/operator"
	"github.com/cachewright/cachewright/internal/testing/controlplane"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

const (
	// patience bounds every wait.
	patience = time.Minute
	// resyncPeriod is the shortest that a pool may have.
	resyncPeriod = 10 * time.Second
)

var (
	config *rest.Config
	// binary of the operator, and an administrator's kubeconfig for it.
	binary, kubeconfig string
)

func TestMain(m *testing.M) {
	if what := os.Getenv(readerEnv); what != "" {
		if err := read(what); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctrl.SetLogger(logr.Discard())
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "cachewright-bench-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	root, err := controlplane.Root()
	if err != nil {
		return 1, err
	}
	binary, kubeconfig = filepath.Join(dir, "cachewright"), filepath.Join(dir, "kubeconfig")
	build := exec.Command("go", "build", "-o", binary, "./cmd")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("building the operator: %w: %s", err, out)
	}
	env, err := controlplane.Start()
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, env.Stop()) }()
	config = env.Config
	if err := os.WriteFile(kubeconfig, env.KubeConfig, 0o600); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// bench is a pool, its entries, and the operator that keeps them.
type bench struct {
	*testing.B

	client    client.WithWatch
	api       discovery.DiscoveryInterface
	redis     *redis.Client
	namespace string
	operator  *exec.Cmd
	started   time.Time
	// network is what the operator reaches Redis through, if round trips are counted.
	network *redistest.Proxy
}

func newBench(b *testing.B) *bench {
	b.Helper()
	w := connect(b)
	server := redistest.Start(b)
	w.redis = server.Client(b)
	w.network = redistest.NewProxy(b, server.Addr, 0)
	w.createPool(w.network.Addr)
	return w
}

// connect to the API server, in a namespace of its own.
func connect(b *testing.B) *bench {
	b.Helper()
	w := &bench{B: b}
	scheme, err := operator.NewScheme()
	w.must(err)
	c := rest.CopyConfig(config)
	c.QPS = -1
	w.client, err = client.NewWithWatch(c, client.Options{Scheme: scheme})
	w.must(err)
	w.api, err = discovery.NewDiscoveryClientForConfig(c)
	w.must(err)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-"}}
	w.must(w.client.Create(b.Context(), namespace))
	w.namespace = namespace.Name
	return w
}

func (w *bench) createPool(address string) {
	w.Helper()
	w.must(w.client.Create(w.Context(), &v1alpha1.CachePool{
		ObjectMeta: metav1.ObjectMeta{Name: "main", Namespace: w.namespace},
		Spec:       v1alpha1.CachePoolSpec{Addresses: []string{address}, ResyncPeriod: &metav1.Duration{Duration: resyncPeriod}},
	}))
}

func (w *bench) must(err error) {
	if err != nil {
		w.Helper()
		w.Fatal(err)
	}
}

// report a figure.
func (w *bench) report(name string, value float64) {
	w.Helper()
	w.ReportMetric(value, name)
}

func (w *bench) startOperator() {
	w.Helper()
	w.operator = exec.Command(binary, "manager", "--kubeconfig", kubeconfig, "--health-probe-bind-address", "0")
	w.operator.Stderr = os.Stderr
	w.operator.Args = append(w.operator.Args, "--zap-log-level", "error")
	w.started = time.Now()
	w.must(w.operator.Start())
	w.Cleanup(func() { _ = w.operator.Process.Kill() })
}

func (w *bench) stopOperator() {
	w.Helper()
	w.must(w.operator.Process.Signal(syscall.SIGTERM))
	w.must(w.operator.Wait())
}

// entry number i.
func (w *bench) entry(i int) *v1alpha1.CacheEntry {
	key := w.key(i)
	return &v1alpha1.CacheEntry{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("key-%d", i), Namespace: w.namespace},
		Spec: v1alpha1.CacheEntrySpec{
			PoolRef: v1alpha1.PoolReference{Name: "main"}, Key: strings.TrimPrefix(key, "glimr:cache:main:"),
			Value: new(value(key)), TTL: &metav1.Duration{Duration: time.Hour},
		},
	}
}

func isReady(conditions []metav1.Condition) bool {
	return apimeta.IsStatusConditionTrue(conditions, v1alpha1.ConditionReady)
}

// value of a key in Redis; empty when it is not there.
func (w *bench) value(key string) string {
	text, err := w.redis.Get(w.Context(), key).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		w.Fatal(err)
	}
	return text
}

// parallel does n things, many at a time.
func (w *bench) parallel(n int, do func(i int) error) {
	w.Helper()
	const workers = 16
	var next atomic.Int64
	errs := make([]error, workers)
	var working sync.WaitGroup
	for worker := range workers {
		working.Go(func() {
			for errs[worker] == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				errs[worker] = do(i)
			}
		})
	}
	working.Wait()
	w.must(errors.Join(errs...))
}

// apiWrites is how many writes of our kinds, and of events, the API server has served.
func (w *bench) apiWrites() int {
	w.Helper()
	text, err := w.api.RESTClient().Get().AbsPath("/metrics").DoRaw(w.Context())
	w.must(err)
	total := 0
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		line := lines.Text()
		if !strings.HasPrefix(line, "apiserver_request_total{") || !strings.Contains(line, `group="cachewright.dev"`) && !strings.Contains(line, `resource="events"`) {
			continue
		}
		for _, verb := range []string{"POST", "PUT", "PATCH", "DELETE"} {
			if strings.Contains(line, `verb="`+verb+`"`) {
				n, err := strconv.ParseFloat(line[strings.LastIndex(line, " ")+1:], 64)
				w.must(err)
				total += int(n)
			}
		}
	}
	return total
}

// calls of a command.
func (w *bench) calls(command string) int {
	text := w.redis.InfoMap(w.Context(), "commandstats").Item("Commandstats", "cmdstat_"+command)
	calls, _, _ := strings.Cut(strings.TrimPrefix(text, "calls="), ",")
	n, _ := strconv.Atoi(calls)
	return n
}

// cpu seconds that the operator has used.
func (w *bench) cpu() float64 {
	w.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.operator.Process.Pid))
	w.must(err)
	const ticks = 100 // a second, on Linux
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, err := strconv.Atoi(fields[11])
	w.must(err)
	system, err := strconv.Atoi(fields[12])
	w.must(err)
	return float64(user+system) / ticks
}

// memory of the operator in MiB: VmRSS is what is resident now, VmHWM the most that ever was.
func (w *bench) memory(field string) float64 {
	w.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.operator.Process.Pid))
	w.must(err)
	_, rest, _ := strings.Cut(string(text), field+":")
	var kib float64
	_, err = fmt.Sscan(rest, &kib)
	w.must(err)
	return kib / 1024
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
