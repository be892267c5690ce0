// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-logr/logr"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// Why we stop following a flush that goes on, or that is no more.
var (
	errTimeout     = errors.New("timed out")
	errInterrupted = errors.New("interrupted")
	errDeleted     = errors.New("deleted")
)

// follow the flush to its end, and say how it went.
func (f *flush) follow(ctx context.Context, object *v1alpha1.CacheFlush) error {
	last, err := f.watch(ctx, object)
	switch {
	case ended(last) != "": // perhaps deleted since
		return f.result(last)
	case errors.Is(err, errDeleted):
		return fmt.Errorf("cacheflush/%s was deleted before its end", object.Name)
	case refused(err):
		return fmt.Errorf("cacheflush/%s goes on, but cannot be followed: %w\n%s", object.Name, err, f.rights())
	case ctx.Err() != nil:
		return gaveUp(ctx, "%w; cacheflush/%s goes on\nTo follow it: %s\nTo cancel it: %s", object.Name,
			f.kubectl("get", object.Name, "-w"), f.kubectl("delete", object.Name))
	}
	return err
}

// gaveUp says that the context ended; the format begins with why.
func gaveUp(ctx context.Context, format string, args ...any) error {
	if errors.Is(context.Cause(ctx), errTimeout) {
		return &Error{Code: ExitTimeout, Err: fmt.Errorf(format, append([]any{errTimeout}, args...)...)}
	}
	return fmt.Errorf(format, append([]any{errInterrupted}, args...)...)
}

// watch a flush until it has ended or cannot be watched any more, and give what was seen last.
func (f *flush) watch(ctx context.Context, object *v1alpha1.CacheFlush) (last *v1alpha1.CacheFlush, err error) {
	ctx, stop := context.WithCancelCause(klog.NewContext(ctx, logr.Discard())) // the display tells what a log would
	defer stop(nil)
	d := newDisplay(f.out)
	defer d.wipe()
	last = object
	isThere := func(store cache.Store) (bool, error) {
		found, _, err := store.Get(object)
		if now, ok := found.(*v1alpha1.CacheFlush); err != nil || ok && now.UID == object.UID {
			return false, err
		}
		return false, errDeleted // before it could be watched: no event will tell
	}
	_, err = watchtools.UntilWithSync(ctx, f.watcher(object, d, stop), &v1alpha1.CacheFlush{}, isThere, func(e watch.Event) (bool, error) {
		now, ok := e.Object.(*v1alpha1.CacheFlush)
		switch {
		case !ok:
			return false, nil
		case now.UID != object.UID: // another one of its name
			return false, errDeleted
		}
		last = now
		switch {
		case ended(now) != "":
			return true, nil
		case e.Type == watch.Deleted:
			return false, errDeleted
		}
		d.show(now)
		return false, nil
	})
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return last, err
}

// watcher of one flush. It goes on after whatever breaks it, but not when it is refused.
func (f *flush) watcher(object *v1alpha1.CacheFlush, d *display, stop context.CancelCauseFunc) cache.ListerWatcher {
	options := func(o metav1.ListOptions) *client.ListOptions {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, object.Name).String()
		if o.ResourceVersion == "0" { // any version will do: also one before the flush was created
			o.ResourceVersion = ""
		}
		return &client.ListOptions{Namespace: object.Namespace, Raw: &o}
	}
	check := func(ctx context.Context, err error) error {
		switch {
		case refused(err):
			stop(err)
		case err != nil && ctx.Err() == nil:
			d.say(fmt.Sprintf("cacheflush/%s cannot be seen, trying again: %v", object.Name, err))
		}
		return err
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list := &v1alpha1.CacheFlushList{}
			return list, check(ctx, f.client.List(ctx, list, options(o)))
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			w, err := f.client.Watch(ctx, &v1alpha1.CacheFlushList{}, options(o))
			return w, check(ctx, err)
		},
	}
}

// stale says whether the status is of another run than the spec asks for.
func stale(o *v1alpha1.CacheFlush) bool { return o.Spec.RunID != o.Status.RunID }

// ended is the condition that says so, of the run that the spec asks for; empty while it goes on.
func ended(o *v1alpha1.CacheFlush) string {
	if stale(o) {
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
			f.say("  %s", printable(key))
		}
		return nil
	}
	f.say("cacheflush/%s complete: %s deleted, %d preserved", o.Name, keys(p.Deleted), p.Preserved)
	return nil
}

// message of Ready.
func message(o *v1alpha1.CacheFlush) string {
	if c := apimeta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		return printable(c.Message)
	}
	return ""
}
