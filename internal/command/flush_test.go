// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package command_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/gomega"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

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
	if env, err = controlplane.Start(); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, env.Stop()) }()
	scheme := runtime.NewScheme()
	if err := errors.Join(v1alpha1.AddToScheme(scheme), metav1.AddMetaToScheme(scheme)); err != nil {
		return 1, err
	}
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
	c.SetArgs(append([]string{"--kubeconfig", kubeconfig, "-n", b.namespace}, args...))
	c.SetOut(b)
	c.SetErr(b)
	c.SilenceErrors, c.SilenceUsage = true, true
	err := c.ExecuteContext(ctx)
	return command.ExitCode(err), err
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

func progress(percent int32, deleted int64) func(*v1alpha1.CacheFlushStatus) {
	return func(s *v1alpha1.CacheFlushStatus) {
		s.Progress = &v1alpha1.FlushProgress{Percent: percent, Matched: deleted + 2, Deleted: deleted, Preserved: 2}
	}
}

func TestEveryFlagIsInTheSpec(t *testing.T) {
	b := newBench(t)
	code, err := b.flush(t.Context(), "--name", "full", "--pool", "main", "--match", "user:*", "--max-keys-per-second", "10", "--max-keys", "100", "--declared-entries", "Rewrite",
		"--active-deadline-seconds", "60", "--backoff-limit", "0", "--suspend", "--run-id", "v1")
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(code).To(BeZero())
	b.Expect(b.said()).To(Equal("cacheflush/full created\n"))
	want := v1alpha1.CacheFlushSpec{
		PoolRef: v1alpha1.PoolReference{Name: "main"}, Match: "user:*", Mode: v1alpha1.FlushDelete, MaxKeysPerSecond: new(int64(10)),
		MaxKeys: new(int64(100)), DeclaredEntries: v1alpha1.DeclaredRewrite,
		ActiveDeadlineSeconds: new(int64(60)), BackoffLimit: new(int32(0)), Suspend: true, RunID: "v1",
	}
	b.Expect(cmp.Diff(want, b.only().Spec)).To(BeEmpty())
}

func TestTargets(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		want v1alpha1.CacheFlushSpec
	}{
		"all":    {[]string{"--all", "--ttl-seconds-after-finished", "60"}, v1alpha1.CacheFlushSpec{All: new(true), TTLSecondsAfterFinished: new(int32(60))}},
		"prefix": {[]string{"--prefix", "a,b*"}, v1alpha1.CacheFlushSpec{Prefix: "a,b*"}},
		"keys":   {[]string{"--key", "a,b", "--key", "c"}, v1alpha1.CacheFlushSpec{Keys: []string{"a,b", "c"}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			_, err := b.flush(t.Context(), tc.args...)
			b.Expect(err).NotTo(HaveOccurred())
			tc.want.PoolRef.Name, tc.want.Mode, tc.want.DeclaredEntries, tc.want.BackoffLimit = "default", v1alpha1.FlushDelete, v1alpha1.DeclaredPreserve, new(int32(6))
			created := b.only()
			b.Expect(cmp.Diff(tc.want, created.Spec)).To(BeEmpty())
			b.Expect(b.said()).To(Equal("cacheflush/" + created.Name + " created\n"))
		})
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no target":              {nil, "set exactly one of --all, --prefix, --match, --key"},
		"two targets":            {[]string{"--all", "--prefix", "a"}, "set exactly one of --all, --prefix, --match, --key"},
		"an argument":            {[]string{"user:"}, `unknown command "user:"`},
		"unknown flag":           {[]string{"--al"}, "unknown flag: --al"},
		"timeout without wait":   {[]string{"--all", "--timeout", "1s"}, "--timeout needs --wait"},
		"an empty prefix":        {[]string{"--prefix", ""}, "must be set"},
		"an unclosed bracket":    {[]string{"--match", "a["}, "must be a complete Redis glob"},
		"run ID and ttl":         {[]string{"--all", "--run-id", "1", "--ttl-seconds-after-finished", "60"}, "must not be set together with runID"},
		"all=false":              {[]string{"--all=false"}, "must be true"},
		"no such kubeconfig":     {[]string{"--all", "--kubeconfig", "/does/not/exist"}, "/does/not/exist"},
		"no such context":        {[]string{"--all", "--context", "nowhere"}, "nowhere"},
		"a negative rate":        {[]string{"--all", "--max-keys-per-second", "-1"}, "should be greater than or equal to 1"},
		"a duration as a number": {[]string{"--all", "--wait", "--timeout", "5"}, "must be a duration"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			code, err := b.flush(t.Context(), tc.args...)
			b.Expect(err).To(MatchError(ContainSubstring(tc.want)))
			b.Expect(code).To(Equal(command.ExitUsage))
		})
	}
}

func TestAFlushThatExistsIsFollowed(t *testing.T) {
	b := newBench(t)
	args := []string{"--name", "nightly", "--prefix", "report:"}
	_, err := b.flush(t.Context(), args...)
	b.Expect(err).NotTo(HaveOccurred())
	first := b.only()
	b.say(first, v1alpha1.ReasonKeysFlushed, progress(100, 5), v1alpha1.ConditionComplete)

	code, err := b.flush(t.Context(), append(args, "--wait")...)
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(code).To(BeZero())
	b.Expect(b.only().UID).To(Equal(first.UID))
	b.Expect(b.said()).To(HaveSuffix("cacheflush/nightly exists with the same spec\ncacheflush/nightly complete: 5 keys deleted, 2 preserved\n"))

	code, err = b.flush(t.Context(), "--name", "nightly", "--prefix", "other:")
	b.Expect(err).To(MatchError("cacheflush/nightly exists, and flushes something else or in another way; choose another --name"))
	b.Expect(code).To(Equal(command.ExitUsage))
}

func TestWait(t *testing.T) {
	b := newBench(t)
	wait := b.start(t.Context(), "--name", "f", "--all", "--wait", "--timeout", "1m")
	f := b.only()
	b.Eventually(b.said).Should(ContainSubstring("cacheflush/f waits for the operator\n"))
	b.say(f, v1alpha1.ReasonQueued, nil)
	b.Eventually(b.said).Should(ContainSubstring("cacheflush/f Queued: Because of Queued\n"))
	b.say(f, v1alpha1.ReasonRunning, progress(40, 7))
	b.Eventually(b.said).Should(ContainSubstring("cacheflush/f 40%, 7 keys deleted\n"))
	b.say(f, v1alpha1.ReasonKeysFlushed, progress(100, 9), v1alpha1.ConditionComplete)
	code, err := wait()
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(code).To(BeZero())
	b.Expect(b.said()).To(HaveSuffix("cacheflush/f complete: 9 keys deleted, 2 preserved\n"))
}

func TestAFlushThatFails(t *testing.T) {
	b := newBench(t)
	wait := b.start(t.Context(), "--name", "f", "--all", "--wait")
	b.say(b.only(), v1alpha1.ReasonDeadlineExceeded, progress(40, 7), v1alpha1.ConditionFailed)
	code, err := wait()
	b.Expect(err).To(MatchError("cacheflush/f failed after 7 keys: Because of DeadlineExceeded"))
	b.Expect(code).To(Equal(command.ExitFailed))
}

func TestATimeoutLeavesTheFlush(t *testing.T) {
	b := newBench(t)
	code, err := b.flush(t.Context(), "--name", "f", "--all", "--wait", "--timeout", "1s")
	b.Expect(err).To(MatchError("cacheflush/f: timed out waiting for the flush, which goes on"))
	b.Expect(code).To(Equal(command.ExitTimeout))
	b.Expect(b.only().DeletionTimestamp).To(BeNil())
}

func TestAnInterruptLeavesTheFlush(t *testing.T) {
	b := newBench(t)
	ctx, interrupt := context.WithCancel(t.Context())
	wait := b.start(ctx, "--name", "f", "--all", "--wait")
	b.Eventually(b.said).Should(ContainSubstring("waits"))
	interrupt()
	code, err := wait()
	b.Expect(err).To(MatchError("interrupted; cacheflush/f goes on"))
	b.Expect(code).To(Equal(command.ExitFailed))
	b.Expect(b.only().DeletionTimestamp).To(BeNil())
}

func TestAFlushThatIsDeleted(t *testing.T) {
	b := newBench(t)
	wait := b.start(t.Context(), "--name", "f", "--all", "--wait")
	b.Eventually(b.said).Should(ContainSubstring("waits"))
	b.Expect(k8s.Delete(t.Context(), b.only())).To(Succeed())
	code, err := wait()
	b.Expect(err).To(MatchError("cacheflush/f was deleted before its end"))
	b.Expect(code).To(Equal(command.ExitFailed))
}

func TestADryRunShowsCountAndSample(t *testing.T) {
	b := newBench(t)
	wait := b.start(t.Context(), "--name", "f", "--all", "--dry-run")
	f := b.only()
	b.Expect(f.Spec.Mode).To(Equal(v1alpha1.FlushDryRun))
	b.say(f, v1alpha1.ReasonKeysCounted, func(s *v1alpha1.CacheFlushStatus) {
		s.Progress = &v1alpha1.FlushProgress{Percent: 100, Matched: 12, Preserved: 3}
		s.Sample = []string{"a", "b"}
	}, v1alpha1.ConditionComplete)
	code, err := wait()
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(code).To(BeZero())
	b.Expect(b.said()).To(HaveSuffix("cacheflush/f would delete 9 keys, and preserve 3\n  a\n  b\n"))
}

// A status of the last run says nothing about the one that is asked for.
func TestTheRunThatIsAskedForIsFollowed(t *testing.T) {
	b := newBench(t)
	args := []string{"--name", "f", "--all", "--run-id", "v1"}
	_, err := b.flush(t.Context(), args...)
	b.Expect(err).NotTo(HaveOccurred())
	f := b.only()
	b.say(f, v1alpha1.ReasonKeysFlushed, func(s *v1alpha1.CacheFlushStatus) { s.RunID = "v0" }, v1alpha1.ConditionComplete)
	wait := b.start(t.Context(), append(args, "--wait")...)
	b.Eventually(b.said).Should(ContainSubstring("exists"))
	b.Consistently(b.said, 500*time.Millisecond).ShouldNot(ContainSubstring("complete"))
	b.say(f, v1alpha1.ReasonKeysFlushed, nil, v1alpha1.ConditionComplete)
	_, err = wait()
	b.Expect(err).NotTo(HaveOccurred())
}

func TestHelpSpeaksOfTheProgram(t *testing.T) {
	help := command.NewFlush("kubectl cachewright").Example
	if !strings.Contains(help, "  kubectl cachewright flush --pool") {
		t.Error(help)
	}
}
