// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package command_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/command"
	"github.com/cachewright/cachewright/internal/testing/controlplane"
)

var (
	env *envtest.Environment
	k8s client.Client
	// kubeconfig of an administrator.
	kubeconfig string
)

// The tests play the operator themselves: they write the statuses that the command follows.
func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		println(err.Error())
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	log.SetLogger(logr.Discard())
	if env, err = controlplane.Start(); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, env.Stop()) }()
	if k8s, err = client.New(env.Config, client.Options{}); err != nil {
		return 1, err
	}
	if err := v1alpha1.AddToScheme(k8s.Scheme()); err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "cachewright-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	kubeconfig = filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, env.KubeConfig, 0o600); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// bench is a namespace, and what the command says.
type bench struct {
	*WithT

	t         *testing.T
	namespace string
	mu        sync.Mutex
	out       bytes.Buffer
}

func newBench(t *testing.T) *bench {
	t.Helper()
	t.Parallel()
	b := &bench{WithT: NewWithT(t), t: t, namespace: controlplane.Namespace(t, k8s)}
	b.SetDefaultEventuallyTimeout(30 * time.Second)
	return b
}

// Write is where the command writes to.
func (b *bench) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.Write(p)
}

func (b *bench) said() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.String()
}

// flush runs the command, and gives its exit code and error.
func (b *bench) flush(ctx context.Context, args ...string) (int, error) {
	c := command.NewFlush("cachewright") //nolint:contextcheck // ExecuteContext passes it on
	c.SetArgs(b.args(args...))
	c.SetOut(b)
	c.SetErr(b)
	c.SilenceErrors, c.SilenceUsage = true, true
	err := c.ExecuteContext(ctx)
	return command.ExitCode(err), err
}

// args of a command for the bench's namespace.
func (b *bench) args(args ...string) []string {
	return append([]string{"--kubeconfig", kubeconfig, "-n", b.namespace}, args...)
}

// hint is how to follow or to cancel flush f, which goes on.
func (b *bench) hint() string {
	cluster := " -n " + b.namespace + " --kubeconfig " + kubeconfig
	return "\nTo follow it: kubectl get cflush f" + cluster + " -w\nTo cancel it: kubectl delete cflush f" + cluster
}

// start the command; what it returns waits for its end.
func (b *bench) start(ctx context.Context, args ...string) func() (int, error) {
	var code int
	var err error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		code, err = b.flush(ctx, args...)
	}()
	return func() (int, error) {
		b.t.Helper()
		b.Eventually(ended).Should(BeClosed())
		return code, err
	}
}

// only is the flush that was created.
func (b *bench) only() *v1alpha1.CacheFlush {
	b.t.Helper()
	var list v1alpha1.CacheFlushList
	b.Eventually(func() int {
		b.Expect(k8s.List(b.t.Context(), &list, client.InNamespace(b.namespace))).To(Succeed())
		return len(list.Items)
	}).Should(Equal(1))
	return &list.Items[0]
}

// say in the status of a flush what the operator would.
func (b *bench) say(f *v1alpha1.CacheFlush, reason string, change func(*v1alpha1.CacheFlushStatus), types ...string) {
	b.t.Helper()
	b.Eventually(func() error {
		if err := k8s.Get(b.t.Context(), client.ObjectKeyFromObject(f), f); err != nil {
			return err
		}
		f.Status.ObservedGeneration = f.Generation
		f.Status.RunID = f.Spec.RunID
		for _, kind := range append(types, v1alpha1.ConditionReady) {
			apimeta.SetStatusCondition(&f.Status.Conditions, metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: reason, Message: "Because of " + reason})
		}
		if change != nil {
			change(&f.Status)
		}
		return k8s.Status().Update(b.t.Context(), f)
	}).Should(Succeed())
}

// waits for its pool, with this message.
func waits(message string) func(*v1alpha1.CacheFlushStatus) {
	return func(s *v1alpha1.CacheFlushStatus) {
		apimeta.SetStatusCondition(&s.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonPoolNotReady, Message: message,
		})
	}
}

func progress(percent int32, deleted int64) func(*v1alpha1.CacheFlushStatus) {
	return func(s *v1alpha1.CacheFlushStatus) {
		s.Progress = &v1alpha1.FlushProgress{Percent: percent, Matched: deleted + 2, Deleted: deleted, Preserved: 2}
	}
}
