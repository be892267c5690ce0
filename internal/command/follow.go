// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// follow the flush to its end, and say how it went.
func (f *flush) follow(ctx context.Context, object *v1alpha1.CacheFlush) error {
	if f.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, f.timeout, errTimeout)
		defer cancel()
	}
	show := f.progress()
	last := object
	_, err := watchtools.UntilWithSync(ctx, f.watcher(object), &v1alpha1.CacheFlush{}, nil, func(e watch.Event) (bool, error) {
		now, ok := e.Object.(*v1alpha1.CacheFlush)
		if !ok || now.UID != object.UID {
			return false, nil
		}
		last = now
		if e.Type == watch.Deleted {
			return true, fmt.Errorf("cacheflush/%s was deleted before its end", object.Name)
		}
		show(now)
		return ended(now) != "", nil
	})
	switch {
	case timedOut(ctx):
		return &Error{Code: ExitTimeout, Err: fmt.Errorf("cacheflush/%s: %w", object.Name, errTimeout)}
	case ctx.Err() != nil:
		return fmt.Errorf("interrupted; cacheflush/%s goes on", object.Name)
	case err != nil:
		return err
	}
	return f.result(last)
}

// watcher of one flush. It goes on after whatever breaks it.
func (f *flush) watcher(object *v1alpha1.CacheFlush) cache.ListerWatcher {
	options := func(o metav1.ListOptions) *client.ListOptions {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, object.Name).String()
		return &client.ListOptions{Namespace: object.Namespace, Raw: &o}
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list := &v1alpha1.CacheFlushList{}
			return list, f.client.List(ctx, list, options(o))
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return f.client.Watch(ctx, &v1alpha1.CacheFlushList{}, options(o))
		},
	}
}

// ended is the condition that says so, of the run that the spec asks for; empty while it goes on.
func ended(o *v1alpha1.CacheFlush) string {
	if o.Spec.RunID != o.Status.RunID {
		return ""
	}
	for _, condition := range []string{v1alpha1.ConditionComplete, v1alpha1.ConditionFailed} {
		if apimeta.IsStatusConditionTrue(o.Status.Conditions, condition) {
			return condition
		}
	}
	return ""
}

// result says what came of it.
func (f *flush) result(o *v1alpha1.CacheFlush) error {
	p := o.Status.Progress
	if p == nil {
		p = &v1alpha1.FlushProgress{}
	}
	if ended(o) == v1alpha1.ConditionFailed {
		return fmt.Errorf("cacheflush/%s failed after %s: %s", o.Name, keys(p.Deleted), message(o))
	}
	if o.Spec.Mode == v1alpha1.FlushDryRun {
		f.say("cacheflush/%s would delete %s, and preserve %d", o.Name, keys(p.Matched-p.Preserved), p.Preserved)
		for _, key := range o.Status.Sample {
			f.say("  %s", key)
		}
		return nil
	}
	f.say("cacheflush/%s complete: %s deleted, %d preserved", o.Name, keys(p.Deleted), p.Preserved)
	return nil
}

// message of Ready.
func message(o *v1alpha1.CacheFlush) string {
	if c := apimeta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		return c.Message
	}
	return ""
}

// progress shows how far a flush is: a bar on a terminal, lines elsewhere.
func (f *flush) progress() func(*v1alpha1.CacheFlush) {
	if file, ok := f.out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return f.bar
	}
	said := ""
	return func(o *v1alpha1.CacheFlush) {
		if line := describe(o); line != said && ended(o) == "" {
			said = line
			f.say("cacheflush/%s %s", o.Name, line)
		}
	}
}

// width of the bar.
const width = 30

func (f *flush) bar(o *v1alpha1.CacheFlush) {
	const wipe = "\r\033[K"
	if ended(o) != "" {
		_, _ = fmt.Fprint(f.out, wipe)
		return
	}
	done := 0
	if o.Status.Progress != nil {
		done = int(o.Status.Progress.Percent) * width / 100
	}
	_, _ = fmt.Fprintf(f.out, "%s[%s%s] %s", wipe, strings.Repeat("#", done), strings.Repeat("-", width-done), describe(o))
}

// describe in words how far a flush is.
func describe(o *v1alpha1.CacheFlush) string {
	ready := apimeta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionReady)
	switch p := o.Status.Progress; {
	case ready == nil:
		return "waits for the operator"
	case ready.Reason == v1alpha1.ReasonRunning && (p == nil || *p == v1alpha1.FlushProgress{}): // it may be counting first
		return ready.Message
	case ready.Reason == v1alpha1.ReasonRunning && o.Spec.Mode == v1alpha1.FlushDryRun:
		return fmt.Sprintf("%d%%, %s counted", p.Percent, keys(p.Matched))
	case ready.Reason == v1alpha1.ReasonRunning:
		return fmt.Sprintf("%d%%, %s deleted", p.Percent, keys(p.Deleted))
	default:
		return ready.Reason + ": " + ready.Message
	}
}

func keys(n int64) string {
	if n == 1 {
		return "1 key"
	}
	return fmt.Sprintf("%d keys", n)
}

// ExitCode of the program after an error; nil is 0.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ExitFailed
}
