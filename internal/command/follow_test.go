// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package command_test

import (
	"context"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/command"
)

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

// Nobody waits for the operator to find out about a flush that ended long ago.
func TestAFlushThatEndedBeforeIsToldOfWithoutWaiting(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		reason, condition string
		code              int
		says, fails       string
	}{
		"running":  {reason: v1alpha1.ReasonRunning},
		"complete": {v1alpha1.ReasonKeysFlushed, v1alpha1.ConditionComplete, 0, "cacheflush/f complete: 1 key deleted, 2 preserved\n", ""},
		"failed":   {v1alpha1.ReasonDeadlineExceeded, v1alpha1.ConditionFailed, command.ExitFailed, "", "cacheflush/f failed after 1 key: Because of DeadlineExceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			_, err := b.flush(t.Context(), "--name", "f", "--all")
			b.Expect(err).NotTo(HaveOccurred())
			var conditions []string
			if tc.condition != "" {
				conditions = []string{tc.condition}
			}
			b.say(b.only(), tc.reason, progress(40, 1), conditions...)
			code, err := b.flush(t.Context(), "--name", "f", "--all")
			b.Expect(code).To(Equal(tc.code))
			if tc.fails != "" {
				b.Expect(err).To(MatchError(tc.fails))
			}
			b.Expect(b.said()).To(HaveSuffix("cacheflush/f exists with the same spec\n" + tc.says))
		})
	}
}

func TestAPoolThatIsDownIsToldOf(t *testing.T) {
	b := newBench(t)
	wait := b.start(t.Context(), "--name", "f", "--all", "--wait")
	f := b.only()
	for _, message := range []string{"CachePool main is not ready", "CachePool main is not ready: connection refused"} {
		b.say(f, v1alpha1.ReasonPoolNotReady, waits(message))
		b.Eventually(b.said).Should(HaveSuffix("cacheflush/f PoolNotReady: " + message + "\n"))
	}
	b.say(f, v1alpha1.ReasonKeysFlushed, nil, v1alpha1.ConditionComplete)
	_, err := wait()
	b.Expect(err).NotTo(HaveOccurred())
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
	b.Expect(err).To(MatchError("timed out; cacheflush/f goes on" + b.hint()))
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
	b.Expect(err).To(MatchError("interrupted; cacheflush/f goes on" + b.hint()))
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
		s.Sample = []string{"a", "b\033[2J\n"}
	}, v1alpha1.ConditionComplete)
	code, err := wait()
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(code).To(BeZero())
	b.Expect(b.said()).To(HaveSuffix("cacheflush/f would delete 9 keys, and preserve 3\n  a\n  b�[2J�\n"))
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
	b.Eventually(b.said).Should(HaveSuffix("cacheflush/f waits for the operator\n"))
	b.Consistently(b.said, 500*time.Millisecond).ShouldNot(Or(ContainSubstring("complete"), ContainSubstring(v1alpha1.ReasonKeysFlushed)))
	b.say(f, v1alpha1.ReasonKeysFlushed, nil, v1alpha1.ConditionComplete)
	_, err = wait()
	b.Expect(err).NotTo(HaveOccurred())
}
