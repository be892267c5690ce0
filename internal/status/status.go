// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package status turns the end of a reconcile into conditions: it is the only place that writes them.
package status

import (
	"cmp"
	"fmt"
	"time"
	"unicode/utf8"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// Object is a kind of ours.
type Object interface {
	client.Object
	// Conditions in the status.
	Conditions() *[]metav1.Condition
	// ObservedGeneration in the status.
	ObservedGeneration() *int64
}

// Verdict says what a reconcile came to. A step that cannot go on returns it as its error; an error that is no
// Verdict is tried again with back-off and changes no condition.
//
//nolint:errname // it is an error only to a step that cannot go on
type Verdict struct {
	// Ready is the status of the Ready condition; empty leaves it as it is, unless the generation is new.
	Ready metav1.ConditionStatus
	// Reason and Message of Ready, and of the other conditions where they have none of their own.
	Reason, Message string
	// Reconciling is the reason of that condition; empty: there is none.
	Reconciling string
	// Stalled says that only a human can help.
	Stalled bool
	// Suspended is the reason of that condition; empty: there is none.
	Suspended string
	// Terminal is the type of a condition that stays for good, Complete or Failed; empty: none is added.
	Terminal string
	// Update changes the other fields of the status; nil: they stay as they are.
	Update func()
	// Silent leaves the status as it is: what is there is still the best that can be said.
	Silent bool
	// After says when to look again; 0: something will tell.
	After time.Duration
	// Warning says that the event is one, although Ready is True.
	Warning bool
	// Written is set once the API server has it.
	Written bool
}

func (v *Verdict) Error() string { return v.Reason + ": " + v.Message }

// In gives the verdict with a time to look again.
func (v *Verdict) In(after time.Duration) *Verdict {
	v.After = after
	return v
}

// Warn gives the verdict as one that people should know of, although all works.
func (v *Verdict) Warn() *Verdict {
	v.Warning = true
	return v
}

// Also changes something else of the status when the verdict is written.
func (v *Verdict) Also(update func()) *Verdict {
	first := v.Update
	v.Update = func() {
		if first != nil {
			first()
		}
		update()
	}
	return v
}

// Ready : the object does what it declares.
func Ready(reason, format string, args ...any) *Verdict {
	return &Verdict{Ready: metav1.ConditionTrue, Reason: reason, Message: message(format, args)}
}

// Progressing : a new generation cannot be finished in one go.
func Progressing(format string, args ...any) *Verdict {
	return Working(v1alpha1.ReasonProgressing, format, args...)
}

// Working : under way, and well.
func Working(reason, format string, args ...any) *Verdict {
	return &Verdict{Ready: metav1.ConditionUnknown, Reason: reason, Reconciling: reason, Message: message(format, args)}
}

// Waiting : it does not work now, and is expected to without anybody's help.
func Waiting(reason, format string, args ...any) *Verdict {
	return &Verdict{Ready: metav1.ConditionFalse, Reason: reason, Reconciling: v1alpha1.ReasonProgressingWithRetry, Message: message(format, args)}
}

// NotReady : it is not as declared, and nothing is going to be done about it.
func NotReady(reason, format string, args ...any) *Verdict {
	return &Verdict{Ready: metav1.ConditionFalse, Reason: reason, Message: message(format, args)}
}

// Stalled : only a human can help.
func Stalled(reason, format string, args ...any) *Verdict {
	return &Verdict{Ready: metav1.ConditionFalse, Reason: reason, Stalled: true, Message: message(format, args)}
}

// Suspended : a human wants it to stop.
func Suspended(reason, format string, args ...any) *Verdict {
	return &Verdict{Reason: v1alpha1.ReasonSuspended, Suspended: reason, Message: message(format, args)}
}

// Silent : nothing new to say, look again.
func Silent(after time.Duration) *Verdict {
	return &Verdict{Reason: "Silent", Silent: true, After: after}
}

// Set writes the conditions and the observed generation of a verdict.
func Set(obj Object, v *Verdict, now time.Time) {
	if v.Silent {
		return
	}
	if v.Update != nil {
		v.Update()
	}
	fresh := *obj.ObservedGeneration() != obj.GetGeneration()
	*obj.ObservedGeneration() = obj.GetGeneration()
	w := writer{obj: obj, verdict: v, now: metav1.NewTime(now)}
	w.mark(v1alpha1.ConditionReconciling, v.Reconciling)
	w.mark(v1alpha1.ConditionSuspended, v.Suspended)
	if v.Terminal != "" {
		w.mark(v.Terminal, v.Reason)
	}
	if v.Ready == "" && !fresh && apimeta.FindStatusCondition(*obj.Conditions(), v1alpha1.ConditionReady) != nil {
		return // Ready and Stalled keep what they say
	}
	w.set(v1alpha1.ConditionReady, cmp.Or(v.Ready, metav1.ConditionUnknown), v.Reason)
	stalled := ""
	if v.Stalled {
		stalled = v.Reason
	}
	w.mark(v1alpha1.ConditionStalled, stalled)
}

// writer of the conditions of one object.
type writer struct {
	obj     Object
	verdict *Verdict
	now     metav1.Time
}

// mark a condition that is there only while it is True; without a reason it goes.
func (w writer) mark(kind, reason string) {
	if reason == "" {
		apimeta.RemoveStatusCondition(w.obj.Conditions(), kind)
		return
	}
	w.set(kind, metav1.ConditionTrue, reason)
}

func (w writer) set(kind string, status metav1.ConditionStatus, reason string) {
	apimeta.SetStatusCondition(w.obj.Conditions(), metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: w.verdict.Message,
		ObservedGeneration: w.obj.GetGeneration(), LastTransitionTime: w.now,
	})
}

// maxMessage is the length of the longest message of a condition, in characters.
const maxMessage = 300

func message(format string, args []any) string {
	text := fmt.Sprintf(format, args...)
	if utf8.RuneCountInString(text) <= maxMessage {
		return text
	}
	return string([]rune(text)[:maxMessage-1]) + "…"
}
