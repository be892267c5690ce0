// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package status_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/status"
	"github.com/cachewright/cachewright/internal/testing/gitops"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// kinds are those whose conditions the table below is about, new and never looked at.
func kinds() map[string]status.Object {
	meta := metav1.ObjectMeta{Name: "x", Namespace: "ns", Generation: 1}
	return map[string]status.Object{
		"CachePool":  &v1alpha1.CachePool{ObjectMeta: meta, Status: v1alpha1.CachePoolStatus{ObservedGeneration: -1}},
		"CacheEntry": &v1alpha1.CacheEntry{ObjectMeta: meta, Status: v1alpha1.CacheEntryStatus{ObservedGeneration: -1}},
	}
}

// conditions in a line, sorted by the order of their making but for Ready, which comes first.
func conditions(o status.Object) string {
	var ready string
	var others []string
	for _, c := range *o.Conditions() {
		text := fmt.Sprintf("%s=%s/%s", c.Type, c.Status, c.Reason)
		if c.ObservedGeneration != o.GetGeneration() {
			text += " stale"
		}
		if c.Type == v1alpha1.ConditionReady {
			ready = text
			continue
		}
		others = append(others, text)
	}
	return strings.Join(append([]string{ready}, others...), " ")
}

func TestANewObjectIsInProgress(t *testing.T) {
	for kind, o := range kinds() {
		if got := gitops.Kstatus(t, o).String(); got != "InProgress" {
			t.Errorf("%s: %s", kind, got)
		}
	}
}

// The table of the contract, row by row, and what comes after what.
func TestEveryRowOfTheConditionsTable(t *testing.T) {
	const nextGeneration = "next generation"
	working := status.Progressing("w")
	inSync := status.Ready("Warm", "i")
	waiting := status.Waiting("PoolNotReady", "t")
	stalled := status.Stalled("KeyConflict", "h")
	suspended := status.Suspended("Suspended", "s")
	poolSuspended := status.Suspended("PoolSuspended", "p")
	for name, row := range map[string]struct {
		steps               []any
		conditions, kstatus string
	}{
		"working on a new generation":      {[]any{working}, "Ready=Unknown/Progressing Reconciling=True/Progressing", "InProgress"},
		"in sync":                          {[]any{inSync}, "Ready=True/Warm", "Current"},
		"transient error":                  {[]any{waiting}, "Ready=False/PoolNotReady Reconciling=True/ProgressingWithRetry", "InProgress"},
		"Observe: Differs":                 {[]any{status.NotReady("Differs", "d")}, "Ready=False/Differs", "InProgress"},
		"needs a human":                    {[]any{stalled}, "Ready=False/KeyConflict Stalled=True/KeyConflict", "Failed"},
		"suspended when new":               {[]any{suspended}, "Ready=Unknown/Suspended Suspended=True/Suspended", "InProgress"},
		"suspended when in sync":           {[]any{inSync, poolSuspended}, "Ready=True/Warm Suspended=True/PoolSuspended", "Current"},
		"suspended while waiting":          {[]any{waiting, poolSuspended}, "Ready=False/PoolNotReady Suspended=True/PoolSuspended", "InProgress"},
		"suspended while working":          {[]any{working, poolSuspended}, "Ready=Unknown/Progressing Suspended=True/PoolSuspended", "InProgress"},
		"suspended when stalled":           {[]any{stalled, poolSuspended}, "Ready=False/KeyConflict Stalled=True/KeyConflict Suspended=True/PoolSuspended", "Failed"},
		"suspended with a new generation":  {[]any{inSync, nextGeneration, suspended}, "Ready=Unknown/Suspended Suspended=True/Suspended", "InProgress"},
		"stalled, then changed, suspended": {[]any{stalled, nextGeneration, suspended}, "Ready=Unknown/Suspended Suspended=True/Suspended", "InProgress"},
		"suspended for another reason":     {[]any{inSync, poolSuspended, suspended}, "Ready=True/Warm Suspended=True/Suspended", "Current"},
		"a new generation not looked at":   {[]any{inSync, nextGeneration}, "Ready=True/Warm stale", "InProgress"},
		"resumed":                          {[]any{suspended, inSync}, "Ready=True/Warm", "Current"},
		"recovered":                        {[]any{waiting, inSync}, "Ready=True/Warm", "Current"},
		"mended":                           {[]any{stalled, inSync}, "Ready=True/Warm", "Current"},
		"from waiting to stalled":          {[]any{waiting, stalled}, "Ready=False/KeyConflict Stalled=True/KeyConflict", "Failed"},
		"from stalled to waiting":          {[]any{stalled, waiting}, "Ready=False/PoolNotReady Reconciling=True/ProgressingWithRetry", "InProgress"},
		"nothing new to say":               {[]any{inSync, status.Silent(0)}, "Ready=True/Warm", "Current"},
		"nothing to say yet":               {[]any{status.Silent(0)}, "", "InProgress"},
	} {
		for kind, o := range kinds() {
			for _, step := range row.steps {
				if v, ok := step.(*status.Verdict); ok {
					status.Set(o, v, noon)
				} else {
					o.SetGeneration(o.GetGeneration() + 1)
				}
			}
			if diff := cmp.Diff(row.conditions, conditions(o)); diff != "" {
				t.Errorf("%s, %s: %s", kind, name, diff)
			}
			if got := gitops.Kstatus(t, o).String(); got != row.kstatus {
				t.Errorf("%s, %s: kstatus %s, want %s", kind, name, got, row.kstatus)
			}
		}
	}
}

func TestSetKeepsTheTimeOfTheLastTransition(t *testing.T) {
	o := kinds()["CacheEntry"]
	status.Set(o, status.Ready("Warm", "one"), noon)
	o.SetGeneration(2)
	status.Set(o, status.Ready("Warm", "two"), noon.Add(time.Hour))
	c := (*o.Conditions())[0]
	if !c.LastTransitionTime.Time.Equal(noon) || c.Message != "two" || c.ObservedGeneration != 2 || *o.ObservedGeneration() != 2 {
		t.Errorf("%+v", c)
	}
	status.Set(o, status.Waiting("PoolNotReady", "three"), noon.Add(time.Hour))
	if c := (*o.Conditions())[0]; !c.LastTransitionTime.Time.Equal(noon.Add(time.Hour)) {
		t.Errorf("%+v", c)
	}
}

func TestTheSameVerdictTwiceIsNoChange(t *testing.T) {
	for _, v := range []*status.Verdict{status.Ready("Warm", "m"), status.Waiting("W", "m"), status.Stalled("S", "m"), status.Suspended("Suspended", "m"), status.Progressing("m")} {
		o := kinds()["CacheEntry"]
		status.Set(o, v, noon)
		before := o.DeepCopyObject()
		status.Set(o, v, noon.Add(time.Hour))
		if diff := cmp.Diff(before, any(o)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestAVerdictMayUpdateTheRestOfTheStatus(t *testing.T) {
	e := &v1alpha1.CacheEntry{}
	v := status.Ready("Warm", "m")
	v.Update = func() { e.Status.Key = "k" }
	status.Set(e, v, noon)
	if e.Status.Key != "k" {
		t.Error("it did not")
	}
}

func TestMessagesHaveAtMost300Characters(t *testing.T) {
	for length, want := range map[int]int{299: 299, 300: 300, 301: 300, 5000: 300} {
		got := status.Waiting("R", "%s", strings.Repeat("ü", length)).Message
		if n := utf8.RuneCountInString(got); n != want || strings.HasSuffix(got, "…") != (length > 300) {
			t.Errorf("%d characters become %d: …%s", length, n, string([]rune(got)[n-3:]))
		}
	}
}
