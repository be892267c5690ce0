// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"errors"
	"testing"
	"time"

	kstatus "github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/status"
	"github.com/cachewright/cachewright/internal/testing/gitops"
)

// somewhere is the result of a slice that is not the last.
var somewhere = cache.ScanResult{Checkpoint: cache.Checkpoint{Nodes: []cache.NodeCheckpoint{{Node: "n", ServerID: "s", Cursor: 1}}}}

// TestTheConditionsOfAFlushAreThoseOfItsState has a row for each row of the table of states.
func TestTheConditionsOfAFlushAreThoseOfItsState(t *testing.T) {
	done := somewhere
	done.Checkpoint.Done = true
	failedOften := func(f *v1alpha1.CacheFlush) { f.Status.Failures = f.EffectiveBackoffLimit() }
	dry := func(f *v1alpha1.CacheFlush) { f.Spec.Mode = v1alpha1.FlushDryRun }
	serverError := &cache.Error{Class: cache.Failed, Reason: cache.ReasonCommandFailed, Message: "SCAN failed"}
	for name, c := range map[string]struct {
		flush   func(*v1alpha1.CacheFlush)
		verdict func(*v1alpha1.CacheFlush) error
		want    string
		kstatus kstatus.Status
	}{
		"new": {want: "", kstatus: kstatus.InProgressStatus},
		"queued": {
			verdict: func(f *v1alpha1.CacheFlush) error {
				return queued(f, types.NamespacedName{Namespace: f.Namespace, Name: "first"})
			},
			want: "Ready=Unknown/Queued Reconciling=True/Queued", kstatus: kstatus.InProgressStatus,
		},
		"running": {
			verdict: func(f *v1alpha1.CacheFlush) error { return conclude(f, somewhere, nil) },
			want:    "Ready=Unknown/Running Reconciling=True/Running", kstatus: kstatus.InProgressStatus,
		},
		"running, and the connection is lost": {
			verdict: func(f *v1alpha1.CacheFlush) error {
				return conclude(f, somewhere, &cache.Error{Class: cache.Unavailable})
			},
			want: "Ready=Unknown/Running Reconciling=True/Running", kstatus: kstatus.InProgressStatus,
		},
		"running, and the password is refused": {
			verdict: func(f *v1alpha1.CacheFlush) error { return conclude(f, somewhere, &cache.Error{Class: cache.Refused}) },
			want:    "Ready=Unknown/Running Reconciling=True/Running", kstatus: kstatus.InProgressStatus,
		},
		"waiting for its pool": {
			verdict: func(*v1alpha1.CacheFlush) error { return asFlush(status.Waiting(v1alpha1.ReasonPoolNotReady, "No")) },
			want:    "Ready=False/PoolNotReady Reconciling=True/PoolNotReady", kstatus: kstatus.InProgressStatus,
		},
		"waiting for a pool to be there": {
			verdict: func(*v1alpha1.CacheFlush) error { return asFlush(status.Waiting(v1alpha1.ReasonPoolNotFound, "No")) },
			want:    "Ready=False/PoolNotFound Reconciling=True/PoolNotFound", kstatus: kstatus.InProgressStatus,
		},
		"retrying": {
			verdict: func(f *v1alpha1.CacheFlush) error { return conclude(f, somewhere, serverError) },
			want:    "Ready=False/FlushFailed Reconciling=True/ProgressingWithRetry", kstatus: kstatus.InProgressStatus,
		},
		"suspended": {
			verdict: func(*v1alpha1.CacheFlush) error { return suspended(v1alpha1.ReasonSuspended, "Suspended") },
			want:    "Ready=Unknown/Suspended Suspended=True/Suspended", kstatus: kstatus.InProgressStatus,
		},
		"suspended with its pool": {
			verdict: func(*v1alpha1.CacheFlush) error {
				return asFlush(status.Suspended(v1alpha1.ReasonPoolSuspended, "Suspended"))
			},
			want: "Ready=Unknown/Suspended Suspended=True/PoolSuspended", kstatus: kstatus.InProgressStatus,
		},
		"done": {
			verdict: func(f *v1alpha1.CacheFlush) error { return conclude(f, done, nil) },
			want:    "Complete=True/KeysFlushed Ready=True/KeysFlushed", kstatus: kstatus.CurrentStatus,
		},
		"counted": {
			flush: dry, verdict: func(f *v1alpha1.CacheFlush) error { return conclude(f, done, nil) },
			want: "Complete=True/KeysCounted Ready=True/KeysCounted", kstatus: kstatus.CurrentStatus,
		},
		"failed too often": {
			flush: failedOften, verdict: func(f *v1alpha1.CacheFlush) error { return conclude(f, somewhere, serverError) },
			want: "Failed=True/BackoffLimitExceeded Ready=False/BackoffLimitExceeded Stalled=True/BackoffLimitExceeded", kstatus: kstatus.FailedStatus,
		},
		"failed at once, since no retry is wanted": {
			flush:   func(f *v1alpha1.CacheFlush) { f.Spec.BackoffLimit = new(int32(0)) },
			verdict: func(f *v1alpha1.CacheFlush) error { return conclude(f, somewhere, serverError) },
			want:    "Failed=True/BackoffLimitExceeded Ready=False/BackoffLimitExceeded Stalled=True/BackoffLimitExceeded", kstatus: kstatus.FailedStatus,
		},
		"retrying, once": {
			flush:   func(f *v1alpha1.CacheFlush) { f.Spec.BackoffLimit = new(int32(1)) },
			verdict: func(f *v1alpha1.CacheFlush) error { return conclude(f, somewhere, serverError) },
			want:    "Ready=False/FlushFailed Reconciling=True/ProgressingWithRetry", kstatus: kstatus.InProgressStatus,
		},
		"failed after its only retry": {
			flush: func(f *v1alpha1.CacheFlush) {
				f.Spec.BackoffLimit, f.Status.Failures = new(int32(1)), 1
			},
			verdict: func(f *v1alpha1.CacheFlush) error { return conclude(f, somewhere, serverError) },
			want:    "Failed=True/BackoffLimitExceeded Ready=False/BackoffLimitExceeded Stalled=True/BackoffLimitExceeded", kstatus: kstatus.FailedStatus,
		},
		"failed for lack of time": {
			flush: func(f *v1alpha1.CacheFlush) { f.Spec.ActiveDeadlineSeconds = new(int64(1)) },
			verdict: func(f *v1alpha1.CacheFlush) error {
				return (&cacheFlushReconciler{finisher: finisher{clock: clock.RealClock{}}}).exceeded(f)
			},
			want: "Failed=True/DeadlineExceeded Ready=False/DeadlineExceeded Stalled=True/DeadlineExceeded", kstatus: kstatus.FailedStatus,
		},
		"failed for lack of rights": {
			verdict: func(f *v1alpha1.CacheFlush) error { return conclude(f, somewhere, &cache.Error{Class: cache.Denied}) },
			want:    "Failed=True/PermissionDenied Ready=False/PermissionDenied Stalled=True/PermissionDenied", kstatus: kstatus.FailedStatus,
		},
	} {
		// Whatever the state before, only this one is left of it.
		for before, verdict := range map[string]*status.Verdict{
			"nothing": nil, "suspension": suspended("Suspended", "Suspended"), "a retry": status.Waiting("FlushFailed", "No"), "a run": status.Working("Running", "Yes"),
		} {
			t.Run(name+" after "+before, func(t *testing.T) {
				f := benchFlush("flush")
				if verdict != nil && c.verdict != nil {
					status.Set(f, verdict, time.Now())
				}
				if c.flush != nil {
					c.flush(f)
				}
				f.Generation = 2
				if c.verdict != nil {
					v, ok := errors.AsType[*status.Verdict](c.verdict(f))
					if !ok {
						t.Fatal("not a verdict")
					}
					status.Set(f, v, time.Now())
				}
				if diff := cmp.Diff(c.want, seen(f)); diff != "" {
					t.Error(diff)
				}
				for _, condition := range f.Status.Conditions {
					if condition.ObservedGeneration != 2 {
						t.Errorf("condition %s is of generation %d", condition.Type, condition.ObservedGeneration)
					}
				}
				if got := gitops.Kstatus(t, f); got != c.kstatus {
					t.Errorf("kstatus is %s, want %s", got, c.kstatus)
				}
			})
		}
	}
}

// Whoever asks why it takes so long comes later than in that second.
func TestAScanThatStartedAgainIsToldOfAsLongAsItGoesOn(t *testing.T) {
	again := somewhere
	again.Restarted = true
	for name, mode := range map[string]v1alpha1.FlushMode{"deleted": v1alpha1.FlushDelete, "counted": v1alpha1.FlushDryRun} {
		f := benchFlush("flush", running1, func(f *v1alpha1.CacheFlush) { f.Spec.Mode = mode })
		var told []string
		for _, result := range []cache.ScanResult{somewhere, again, somewhere} {
			v := conclude(f, result, nil)
			status.Set(f, v, time.Now())
			told = append(told, v.Message)
		}
		was, is := "Keys are being "+name, "Keys are being "+name+", again from the start, since the server was restarted or replaced"
		if diff := cmp.Diff([]string{was, is, is}, told); diff != "" {
			t.Error(diff)
		}
	}
}

func TestAFlushFailsWhenSlicesHaveFailedMoreOftenThanTheLimit(t *testing.T) {
	b := newBench(t, benchFlush("flush"))
	b.redis.Server().SetPreHook(refuse("SCAN", "ERR something"))
	var waits []time.Duration
	for range 6 { // the default
		after := b.once("flush").RequeueAfter
		if f := b.flush("flush"); finished(f) || seen(f) != "Ready=False/FlushFailed Reconciling=True/ProgressingWithRetry" {
			t.Fatalf("after %d failures the flush is %s", f.Status.Failures, seen(f))
		}
		waits = append(waits, after)
		// Whatever wakes it before its time is sent away.
		b.noted()
		b.clock.Step(after - time.Millisecond)
		if again := b.once("flush").RequeueAfter; again != time.Millisecond || b.noted() != "" {
			t.Fatalf("a look before the retry is followed by another in %s", again)
		}
		b.clock.Step(time.Millisecond)
	}
	want := []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 320 * time.Second}
	if diff := cmp.Diff(want, waits); diff != "" {
		t.Error(diff)
	}
	b.once("flush")
	f := b.flush("flush")
	if got := seen(f); got != "Failed=True/BackoffLimitExceeded Ready=False/BackoffLimitExceeded Stalled=True/BackoffLimitExceeded" {
		t.Errorf("the flush is %s", got)
	}
	if f.Status.Failures != 7 || f.Status.CompletionTime == nil {
		t.Errorf("%d failures, completed at %v", f.Status.Failures, f.Status.CompletionTime)
	}
	if b.keys() != 2 {
		t.Errorf("%d keys of 2 are left", b.keys())
	}
}

func TestTheFlushWhoseTurnItIsRunsOrIsTheOldest(t *testing.T) {
	at := func(second int) func(*v1alpha1.CacheFlush) {
		return func(f *v1alpha1.CacheFlush) {
			f.CreationTimestamp = metav1.NewTime(time.Date(2026, 11, 22, 10, 0, second, 0, time.UTC))
		}
	}
	is := func(v *status.Verdict) func(*v1alpha1.CacheFlush) {
		return func(f *v1alpha1.CacheFlush) { status.Set(f, v, time.Now()) }
	}
	runs := is(status.Working(v1alpha1.ReasonRunning, "Running"))
	waits := is(status.Working(v1alpha1.ReasonQueued, "Queued"))
	flush := func(name string, change ...func(*v1alpha1.CacheFlush)) v1alpha1.CacheFlush {
		return *benchFlush(name, change...)
	}
	for name, c := range map[string]struct {
		flush  v1alpha1.CacheFlush
		others []v1alpha1.CacheFlush
		want   string
	}{
		"alone":                        {flush("a"), nil, "a"},
		"the oldest":                   {flush("a", at(1)), []v1alpha1.CacheFlush{flush("a", at(1)), flush("b", at(2)), flush("c", at(3))}, "a"},
		"not the oldest":               {flush("c", at(3)), []v1alpha1.CacheFlush{flush("b", at(2)), flush("a", at(1)), flush("c", at(3))}, "a"},
		"as old, told apart by name":   {flush("b", at(1)), []v1alpha1.CacheFlush{flush("a", at(1), waits)}, "a"},
		"a younger one runs":           {flush("a", at(1)), []v1alpha1.CacheFlush{flush("b", at(2), runs)}, "b"},
		"it runs itself":               {flush("b", at(2), runs), []v1alpha1.CacheFlush{flush("a", at(1), waits)}, "b"},
		"both run: the older goes on":  {flush("b", at(2), runs), []v1alpha1.CacheFlush{flush("a", at(1), runs)}, "a"},
		"the older one is done":        {flush("b", at(2)), []v1alpha1.CacheFlush{flush("a", at(1), func(f *v1alpha1.CacheFlush) { is(complete(f))(f) })}, "b"},
		"the older one has failed":     {flush("b", at(2)), []v1alpha1.CacheFlush{flush("a", at(1), is(fail("PermissionDenied", "No")))}, "b"},
		"the older one is suspended":   {flush("b", at(2)), []v1alpha1.CacheFlush{flush("a", at(1), waits, func(f *v1alpha1.CacheFlush) { f.Spec.Suspend = true })}, "b"},
		"the older one backs off":      {flush("b", at(2)), []v1alpha1.CacheFlush{flush("a", at(1), is(status.Waiting("FlushFailed", "No")))}, "b"},
		"the older one names its keys": {flush("b", at(2)), []v1alpha1.CacheFlush{flush("a", at(1), runs, func(f *v1alpha1.CacheFlush) { f.Spec.All, f.Spec.Keys = nil, []string{"k"} })}, "b"},
		"the older one is being deleted": {flush("b", at(2)), []v1alpha1.CacheFlush{flush("a", at(1), runs, func(f *v1alpha1.CacheFlush) {
			f.DeletionTimestamp = &metav1.Time{Time: time.Now()}
		})}, "b"},
		"it has backed off, and another runs": {flush("a", at(1), is(status.Waiting("FlushFailed", "No"))), []v1alpha1.CacheFlush{flush("b", at(2), runs)}, "b"},
		"it has backed off, and none runs":    {flush("a", at(1), is(status.Waiting("FlushFailed", "No"))), []v1alpha1.CacheFlush{flush("b", at(2), waits)}, "a"},
		"an older copy of itself runs":        {flush("a", at(2)), []v1alpha1.CacheFlush{flush("a", at(2), runs)}, "a"},
		"a namesake of long ago was replaced": {flush("a", at(2), func(f *v1alpha1.CacheFlush) { f.UID = types.UID("new") }), []v1alpha1.CacheFlush{flush("b", at(1))}, "b"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := firstInQueue(&c.flush, c.others).Name; got != c.want {
				t.Errorf("it is the turn of %q, want %q", got, c.want)
			}
		})
	}
}

func TestACheckpointThatNobodyCanReadMeansTheStart(t *testing.T) {
	for name, c := range map[string]struct {
		saved []v1alpha1.FlushCheckpoint
		want  cache.Checkpoint
	}{
		"none":     {nil, cache.Checkpoint{}},
		"saved":    {[]v1alpha1.FlushCheckpoint{{Node: "n", ServerID: "s", Cursor: "18446744073709551615"}}, cache.Checkpoint{Nodes: []cache.NodeCheckpoint{{Node: "n", ServerID: "s", Cursor: 1<<64 - 1}}}},
		"negative": {[]v1alpha1.FlushCheckpoint{{Node: "n", ServerID: "s", Cursor: "-1"}}, cache.Checkpoint{}},
		"no digit": {[]v1alpha1.FlushCheckpoint{{Node: "n", ServerID: "s", Cursor: "x", Done: true}}, cache.Checkpoint{}},
		"too much": {[]v1alpha1.FlushCheckpoint{{Node: "n", ServerID: "s", Cursor: "18446744073709551616"}}, cache.Checkpoint{}},
	} {
		t.Run(name, func(t *testing.T) {
			f := benchFlush("flush", func(f *v1alpha1.CacheFlush) { f.Status.Checkpoints = c.saved })
			if diff := cmp.Diff(c.want, checkpoint(f)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAStatusThatWasEditedByHandDoesNotStopAFlush(t *testing.T) {
	b := newBench(t, benchFlush("flush", running1, func(f *v1alpha1.CacheFlush) { f.Status.Progress = nil }))
	b.once("flush")
	if got := seen(b.flush("flush")); got != benchDone {
		t.Errorf("the flush is %s", got)
	}
}
