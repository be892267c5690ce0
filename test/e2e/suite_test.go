// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package e2e_test runs the operator as a process of its own, as a cluster does.
package e2e_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	authorizationv1 "k8s.io/api/authorization/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/operator"
	"github.com/cachewright/cachewright/internal/status"
	"github.com/cachewright/cachewright/internal/testing/controlplane"
)

// patience bounds every wait. It is long, since it is only ever used up by a test that fails.
const patience = 60 * time.Second

// auditPolicy has every request told, without its content.
const auditPolicy = `{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}`

var (
	// k8s is an administrator's client, without a cache.
	k8s client.Client
	// config and kubeconfig are an administrator's.
	config     *rest.Config
	kubeconfig []byte
	// binary of the operator, and auditLog of the API server.
	binary, auditLog string
)

func TestMain(m *testing.M) {
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	ctrl.SetLogger(logr.Discard())
	dir, err := os.MkdirTemp("", "cachewright-e2e-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := build(dir); err != nil {
		return 1, err
	}
	env, err := start(dir)
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, env.Stop()) }()
	config, kubeconfig = env.Config, env.KubeConfig
	scheme, err := operator.NewScheme()
	if err != nil {
		return 1, err
	}
	if err := errors.Join(rbacv1.AddToScheme(scheme), batchv1.AddToScheme(scheme), authorizationv1.AddToScheme(scheme)); err != nil {
		return 1, err
	}
	if k8s, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

func build(dir string) error {
	root, err := controlplane.Root()
	if err != nil {
		return err
	}
	binary = filepath.Join(dir, "cachewright")
	command := exec.Command("go", "build", "-o", binary, "./cmd")
	command.Dir = root
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("building the operator: %w: %s", err, out)
	}
	return nil
}

func start(dir string) (*envtest.Environment, error) {
	policy := filepath.Join(dir, "audit.yaml")
	auditLog = filepath.Join(dir, "audit.log")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return nil, err
	}
	return controlplane.Start(controlplane.WithFlag("audit-policy-file", policy), controlplane.WithFlag("audit-log-path", auditLog))
}

// expectations that wait as long as it takes.
func expectations(t *testing.T) *WithT {
	t.Helper()
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(patience)
	g.SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	return g
}

// manager is the operator as a process.
type manager struct {
	t       *testing.T
	process *exec.Cmd
	log     string
	exited  chan struct{}
}

// run the operator with a kubeconfig until the end of the test.
func run(t *testing.T, kubeconfig []byte, args ...string) *manager {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(file, kubeconfig, 0o600); err != nil {
		t.Fatal(err)
	}
	m := &manager{t: t, log: filepath.Join(dir, "log"), exited: make(chan struct{})}
	log, err := os.Create(m.log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	m.process = exec.Command(binary, append([]string{"manager", "--health-probe-bind-address=0"}, args...)...)
	m.process.Env = append(os.Environ(), "KUBECONFIG="+file)
	m.process.Stdout, m.process.Stderr = log, log
	if err := m.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = m.process.Wait(); close(m.exited) }()
	t.Cleanup(func() {
		m.kill()
		if t.Failed() {
			t.Log(m.logged())
		}
	})
	return m
}

// kill the operator: it has no time to put anything in order.
func (m *manager) kill() { m.end(syscall.SIGKILL) }

// stop the operator in good order.
func (m *manager) stop() { m.end(syscall.SIGTERM) }

func (m *manager) end(signal syscall.Signal) {
	m.signal(signal)
	<-m.exited
}

// freeze the operator where it is, until it thaws. It cannot notice.
func (m *manager) freeze() { m.signal(syscall.SIGSTOP) }

func (m *manager) thaw() { m.signal(syscall.SIGCONT) }

func (m *manager) signal(signal syscall.Signal) { _ = m.process.Process.Signal(signal) }

func (m *manager) logged() string {
	text, err := os.ReadFile(m.log)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(text)
}

// freeAddress on the loopback interface.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// poolIn makes a CachePool named main.
func poolIn(namespace, addr string) *v1alpha1.CachePool {
	return &v1alpha1.CachePool{
		ObjectMeta: metav1.ObjectMeta{Name: "main", Namespace: namespace},
		Spec:       v1alpha1.CachePoolSpec{Addresses: []string{addr}},
	}
}

func flushIn(namespace, name string) *v1alpha1.CacheFlush {
	return &v1alpha1.CacheFlush{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec:       v1alpha1.CacheFlushSpec{PoolRef: v1alpha1.PoolReference{Name: "main"}},
	}
}

// entryIn makes a CacheEntry of pool main whose key is its name, and whose value that of the key.
func entryIn(namespace, name string) *v1alpha1.CacheEntry {
	return &v1alpha1.CacheEntry{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec: v1alpha1.CacheEntrySpec{
			PoolRef: v1alpha1.PoolReference{Name: "main"}, Key: name, Value: new("value of " + name), Forever: new(true),
		},
	}
}

// entriesIn a namespace, as the API server has them now.
func entriesIn(t *testing.T, g Gomega, namespace string) []v1alpha1.CacheEntry {
	t.Helper()
	var list v1alpha1.CacheEntryList
	g.Expect(k8s.List(t.Context(), &list, client.InNamespace(namespace))).To(Succeed())
	return list.Items
}

// isReady says whether the status shows that an entry is as its spec wants it.
func isReady(e *v1alpha1.CacheEntry) bool {
	ready := apimeta.FindStatusCondition(e.Status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && ready.Status == metav1.ConditionTrue && ready.ObservedGeneration == e.Generation
}

// all does something for each number below n, some at a time, and waits for the end.
func all(n int, do func(int)) {
	var work sync.WaitGroup
	next := make(chan int)
	for range 16 {
		work.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	work.Wait()
}

// pause for a time that matters to what is tested.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// chance is a source of random numbers that the variable SEED repeats.
func chance(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// audit is what the API server has noted since some time.
type audit struct {
	t    *testing.T
	from int64
}

// auditFromNow begins to look at what the API server notes.
func auditFromNow(t *testing.T) *audit {
	t.Helper()
	info, err := os.Stat(auditLog)
	if err != nil {
		t.Fatal(err)
	}
	return &audit{t: t, from: info.Size()}
}

// writes of operators to objects in a namespace, as "verb resource name".
func (a *audit) writes(namespace string) []string {
	a.t.Helper()
	file, err := os.Open(auditLog)
	if err != nil {
		a.t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Seek(a.from, io.SeekStart); err != nil {
		a.t.Fatal(err)
	}
	found := []string{}
	for lines := bufio.NewReader(file); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil { // the last line is still being written
			return found
		}
		var e struct {
			Verb      string `json:"verb"`
			UserAgent string `json:"userAgent"`
			ObjectRef struct {
				Namespace   string `json:"namespace"`
				Resource    string `json:"resource"`
				Name        string `json:"name"`
				Subresource string `json:"subresource"`
			} `json:"objectRef"`
		}
		if err := json.Unmarshal(line, &e); err != nil {
			a.t.Fatal(err)
		}
		o := e.ObjectRef
		if o.Namespace != namespace || !strings.HasPrefix(e.UserAgent, filepath.Base(binary)+"/") {
			continue
		}
		switch e.Verb {
		case "get", "list", "watch":
		default:
			found = append(found, strings.Join([]string{e.Verb, strings.TrimSuffix(o.Resource+"/"+o.Subresource, "/"), o.Name}, " "))
		}
	}
}

// becomes waits until a condition of an object is True.
func becomes(t *testing.T, g *WithT, o status.Object, condition string) {
	t.Helper()
	g.Eventually(func(g Gomega) {
		g.Expect(k8s.Get(t.Context(), client.ObjectKeyFromObject(o), o)).To(Succeed())
		g.Expect(apimeta.IsStatusConditionTrue(*o.Conditions(), condition)).To(BeTrue(), "%v", *o.Conditions())
	}).Should(Succeed(), "%s is not %s", o.GetName(), condition)
}

// vanishes waits until an object is gone.
func vanishes(t *testing.T, g *WithT, o client.Object) {
	t.Helper()
	g.Eventually(func() string {
		err := k8s.Get(t.Context(), client.ObjectKeyFromObject(o), o)
		if err != nil {
			return err.Error()
		}
		return ""
	}).Should(ContainSubstring("not found"), "%s is still there", o.GetName())
}

// namespace with a name that begins with a word.
func namespace(t *testing.T, word string) string {
	t.Helper()
	n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: strings.ToLower(word) + "-"}}
	if err := k8s.Create(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	return n.Name
}
