// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package argocd_test runs the script that teaches Argo CD the health of our kinds, as Argo CD does.
package argocd_test

import (
	"testing"
	"time"

	kstatus "github.com/fluxcd/cli-utils/pkg/kstatus/status"
	lua "github.com/yuin/gopher-lua"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/status"
	"github.com/cachewright/cachewright/internal/testing/gitops"
)

// Argo CD's words.
const (
	healthy     = "Healthy"
	progressing = "Progressing"
	degraded    = "Degraded"
	suspended   = "Suspended"
)

const (
	current    = kstatus.CurrentStatus
	inProgress = kstatus.InProgressStatus
	failed     = kstatus.FailedStatus
)

// row of a table of conditions: what an object went through, and what Argo CD and kstatus make of it.
type row struct {
	steps   []step
	health  string
	kstatus kstatus.Status
}

type step func(status.Object)

// is what the operator writes after a look.
func is(v *status.Verdict) step {
	return func(o status.Object) { status.Set(o, v, time.Now()) }
}

// changed by a user, and not looked at since.
func changed(o status.Object) { o.SetGeneration(o.GetGeneration() + 1) }

func (r row) check(t *testing.T, o status.Object) {
	t.Helper()
	for _, step := range r.steps {
		step(o)
	}
	if got, _ := health(t, gitops.Unstructured(t, o).Object); got != r.health {
		t.Errorf("Argo CD: %s, want %s", got, r.health)
	}
	if got := gitops.Kstatus(t, o); got != r.kstatus {
		t.Errorf("kstatus: %s, want %s", got, r.kstatus)
	}
}

func TestPoolsAndEntries(t *testing.T) {
	working := is(status.Progressing("w"))
	inSync := is(status.Ready("Warm", "i"))
	waiting := is(status.Waiting("PoolNotReady", "t"))
	stalled := is(status.Stalled("KeyConflict", "h"))
	suspend := is(status.Suspended("Suspended", "s"))
	for name, row := range map[string]row{
		"never looked at":                     {nil, progressing, inProgress},
		"working on a new generation":         {[]step{working}, progressing, inProgress},
		"in sync":                             {[]step{inSync}, healthy, current},
		"transient error":                     {[]step{waiting}, progressing, inProgress},
		"Observe: Differs":                    {[]step{is(status.NotReady("Differs", "d"))}, progressing, inProgress},
		"needs a human":                       {[]step{stalled}, degraded, failed},
		"suspended when new":                  {[]step{suspend}, suspended, inProgress},
		"suspended when in sync":              {[]step{inSync, suspend}, suspended, current},
		"suspended while waiting":             {[]step{waiting, suspend}, suspended, inProgress},
		"suspended when it needs a human":     {[]step{stalled, suspend}, degraded, failed},
		"suspended with a new generation":     {[]step{stalled, changed, suspend}, suspended, inProgress},
		"in sync, then changed":               {[]step{inSync, changed}, progressing, inProgress},
		"needs a human, then changed":         {[]step{stalled, changed}, progressing, inProgress},
		"suspended, then resumed, not looked": {[]step{inSync, suspend, changed}, progressing, inProgress},
	} {
		meta := metav1.ObjectMeta{Name: "x", Generation: 1}
		for _, o := range []status.Object{
			&v1alpha1.CachePool{ObjectMeta: meta, Status: v1alpha1.CachePoolStatus{ObservedGeneration: -1}},
			&v1alpha1.CacheEntry{ObjectMeta: meta, Status: v1alpha1.CacheEntryStatus{ObservedGeneration: -1}},
		} {
			t.Run(name+"/"+gitops.Unstructured(t, o).GetKind(), func(t *testing.T) { row.check(t, o) })
		}
	}
}

// A finished flush ignores spec.suspend: the operator says again, of the new generation, how it ended.
func TestFlushes(t *testing.T) {
	queued := is(status.Working(v1alpha1.ReasonQueued, "q"))
	running := is(status.Working(v1alpha1.ReasonRunning, "r"))
	suspend := is(&status.Verdict{Ready: metav1.ConditionUnknown, Reason: v1alpha1.ReasonSuspended, Suspended: v1alpha1.ReasonSuspended})
	waitsFor := func(reason string) step {
		return is(&status.Verdict{Ready: metav1.ConditionFalse, Reason: reason, Reconciling: reason})
	}
	done := func(reason string) step {
		return is(&status.Verdict{Ready: metav1.ConditionTrue, Reason: reason, Terminal: v1alpha1.ConditionComplete})
	}
	fails := func(reason string) step {
		return is(&status.Verdict{Ready: metav1.ConditionFalse, Reason: reason, Stalled: true, Terminal: v1alpha1.ConditionFailed})
	}
	for name, row := range map[string]row{
		"never looked at":              {nil, progressing, inProgress},
		"queued":                       {[]step{queued}, progressing, inProgress},
		"running":                      {[]step{queued, running}, progressing, inProgress},
		"waiting for its pool":         {[]step{waitsFor("PoolNotReady")}, progressing, inProgress},
		"waiting for a pool":           {[]step{waitsFor("PoolNotFound")}, progressing, inProgress},
		"retrying":                     {[]step{running, is(status.Waiting("FlushFailed", "t"))}, progressing, inProgress},
		"suspended":                    {[]step{running, changed, suspend}, suspended, inProgress},
		"done":                         {[]step{running, done("KeysFlushed")}, healthy, current},
		"done, DryRun":                 {[]step{running, done("KeysCounted")}, healthy, current},
		"failed: BackoffLimitExceeded": {[]step{running, fails("BackoffLimitExceeded")}, degraded, failed},
		"failed: DeadlineExceeded":     {[]step{running, fails("DeadlineExceeded")}, degraded, failed},
		"failed: TooManyKeys":          {[]step{running, fails("TooManyKeys")}, degraded, failed},
		"failed: PermissionDenied":     {[]step{running, fails("PermissionDenied")}, degraded, failed},
		"done, then suspended":         {[]step{done("KeysFlushed"), changed, done("KeysFlushed")}, healthy, current},
		"failed, then suspended":       {[]step{fails("DeadlineExceeded"), changed, fails("DeadlineExceeded")}, degraded, failed},
		"done, with a new runID":       {[]step{done("KeysFlushed"), changed}, progressing, inProgress},
		"failed, with a new runID":     {[]step{fails("DeadlineExceeded"), changed}, progressing, inProgress},
	} {
		t.Run(name, func(t *testing.T) {
			row.check(t, &v1alpha1.CacheFlush{
				ObjectMeta: metav1.ObjectMeta{Name: "x", Generation: 1}, Status: v1alpha1.CacheFlushStatus{ObservedGeneration: -1},
			})
		})
	}
}

// What Argo CD shows beside the health is what the operator says.
func TestTheMessageIsTheOneOfTheConditionThatDecides(t *testing.T) {
	for name, c := range map[string]struct {
		verdicts []*status.Verdict
		want     string
	}{
		"in sync":       {[]*status.Verdict{status.Ready("Warm", "Holds the value")}, "Holds the value"},
		"waiting":       {[]*status.Verdict{status.Waiting("PoolNotReady", "Waits")}, "Waits"},
		"needs a human": {[]*status.Verdict{status.Stalled("KeyConflict", "Taken")}, "Taken"},
		"suspended":     {[]*status.Verdict{status.Ready("Warm", "Holds the value"), status.Suspended("Suspended", "Suspended")}, "Suspended"},
		"not looked at": {nil, "The operator has not seen this change yet"},
	} {
		e := &v1alpha1.CacheEntry{ObjectMeta: metav1.ObjectMeta{Generation: 1}, Status: v1alpha1.CacheEntryStatus{ObservedGeneration: -1}}
		for _, v := range c.verdicts {
			is(v)(e)
		}
		if _, got := health(t, gitops.Unstructured(t, e).Object); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// Argo CD shows a script that fails as an error of the whole application.
func TestNoObjectIsTooBareForTheScript(t *testing.T) {
	seen := map[string]any{"generation": int64(1)}
	for name, obj := range map[string]map[string]any{
		"no status":                  {"metadata": seen},
		"no status, no generation":   {"metadata": map[string]any{}},
		"null for a status":          {"metadata": seen, "status": nil},
		"an empty status":            {"metadata": seen, "status": map[string]any{}},
		"the default status":         {"metadata": seen, "status": map[string]any{"observedGeneration": int64(-1)}},
		"no conditions":              {"metadata": seen, "status": map[string]any{"observedGeneration": int64(1)}},
		"null for conditions":        {"metadata": seen, "status": map[string]any{"observedGeneration": int64(1), "conditions": nil}},
		"an empty list of them":      {"metadata": seen, "status": map[string]any{"observedGeneration": int64(1), "conditions": []any{}}},
		"Ready without a message":    {"metadata": seen, "status": map[string]any{"observedGeneration": int64(1), "conditions": []any{map[string]any{"type": "Ready", "status": "False"}}}},
		"a condition that nobody is": {"metadata": seen, "status": map[string]any{"observedGeneration": int64(1), "conditions": []any{map[string]any{"type": "New", "status": "True"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			if got, _ := health(t, obj); got != progressing {
				t.Errorf("%s, want %s", got, progressing)
			}
		})
	}
}

// health runs the script with what Argo CD gives it: the object, and of Lua's libraries these.
func health(t *testing.T, obj map[string]any) (status, message string) {
	t.Helper()
	l := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer l.Close()
	for name, open := range map[string]lua.LGFunction{lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable} {
		if err := l.CallByParam(lua.P{Fn: l.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			t.Fatal(err)
		}
	}
	l.SetGlobal("obj", value(t, l, obj))
	if err := l.DoFile("health.lua"); err != nil {
		t.Fatal(err)
	}
	result, ok := l.Get(-1).(*lua.LTable)
	if !ok {
		t.Fatalf("the script returns %v", l.Get(-1))
	}
	for _, key := range []string{"status", "message"} {
		if kind := result.RawGetString(key).Type(); kind != lua.LTString {
			t.Fatalf("%s is a %s", key, kind)
		}
	}
	return result.RawGetString("status").String(), result.RawGetString("message").String()
}

// value of Lua for one of JSON.
func value(t *testing.T, l *lua.LState, v any) lua.LValue {
	t.Helper()
	switch v := v.(type) {
	case nil:
		return lua.LNil
	case bool:
		return lua.LBool(v)
	case string:
		return lua.LString(v)
	case int64:
		return lua.LNumber(v)
	case []any:
		table := l.NewTable()
		for _, item := range v {
			table.Append(value(t, l, item))
		}
		return table
	case map[string]any:
		table := l.NewTable()
		for key, item := range v {
			table.RawSetString(key, value(t, l, item))
		}
		return table
	}
	t.Fatalf("%T", v)
	return nil
}
