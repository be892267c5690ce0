// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

func withTTL(seconds int32) func(*v1alpha1.CacheFlush) {
	return func(f *v1alpha1.CacheFlush) { f.Spec.TTLSecondsAfterFinished = &seconds }
}

func (b *bench) gone() bool {
	b.t.Helper()
	err := b.api.Get(b.t.Context(), types.NamespacedName{Namespace: benchPool.Namespace, Name: "flush"}, &v1alpha1.CacheFlush{})
	return apierrors.IsNotFound(err)
}

func TestAFinishedFlushIsDeletedAfterItsTTLAndNotBefore(t *testing.T) {
	b := newBench(t, benchFlush("flush", withTTL(60)))
	b.once("flush")
	if after := b.once("flush").RequeueAfter; after != time.Minute {
		t.Errorf("the next look is in %s", after)
	}
	b.clock.Step(59 * time.Second)
	if after := b.once("flush").RequeueAfter; after != time.Second || b.gone() {
		t.Errorf("a second before its time, the flush is gone (%v), or is looked at again in %s", b.gone(), after)
	}
	b.clock.Step(time.Second)
	b.once("flush")
	if !b.gone() {
		t.Error("the flush is still there")
	}
	b.once("flush")
}

func TestATTLThatIsSetAfterTheEndCountsFromTheEnd(t *testing.T) {
	b := newBench(t, benchFlush("flush"))
	b.once("flush")
	if after := b.once("flush").RequeueAfter; after != 0 {
		t.Errorf("without a TTL, the next look is in %s", after)
	}
	b.clock.Step(time.Hour)
	b.once("flush")
	if b.gone() {
		t.Fatal("the flush is gone, without a TTL")
	}
	b.change(withTTL(7200))
	if after := b.once("flush").RequeueAfter; after != time.Hour {
		t.Errorf("the next look is in %s", after)
	}
	b.change(withTTL(10))
	b.once("flush")
	if !b.gone() {
		t.Error("the flush is still there")
	}
}

func TestATTLDoesNotConcernAFlushThatHasNotFinished(t *testing.T) {
	b := newBench(t, benchFlush("flush", withTTL(10), func(f *v1alpha1.CacheFlush) { f.Spec.Suspend = true }))
	b.once("flush")
	b.clock.Step(time.Hour)
	b.once("flush")
	if b.gone() {
		t.Error("the flush is gone")
	}
}

func TestAFlushWhoseTTLHasJustBeenRemovedIsNotDeleted(t *testing.T) {
	b := newBench(t, benchFlush("flush", withTTL(10)))
	b.once("flush")
	b.stale = b.flush("flush")
	b.change(func(f *v1alpha1.CacheFlush) { f.Spec.TTLSecondsAfterFinished = nil })
	b.clock.Step(time.Minute)
	b.once("flush")
	if b.gone() {
		t.Error("the flush is gone: a cache that lags must not delete it")
	}
}

func TestAFailedFlushIsDeletedAfterItsTTLToo(t *testing.T) {
	b := newBench(t, benchFlush("flush", withTTL(10)))
	b.redis.Server().SetPreHook(refuse("UNLINK", "NOPERM User default has no permissions to run the 'unlink' command"))
	b.once("flush")
	if got, want := seen(b.flush("flush")), "Failed=True/PermissionDenied Ready=False/PermissionDenied Stalled=True/PermissionDenied"; got != want {
		t.Errorf("the flush is %s, want %s", got, want)
	}
	b.clock.Step(10 * time.Second)
	b.once("flush")
	if !b.gone() {
		t.Error("the flush is still there")
	}
}
