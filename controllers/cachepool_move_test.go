// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// seldom keeps the sweep out of a test, so that what happens does not happen by it.
func seldom(p *v1alpha1.CachePool) { p.Spec.ResyncPeriod = &metav1.Duration{Duration: time.Hour} }

func TestEntriesAreWrittenToTheNewServerAndKeysOnTheOldOneStay(t *testing.T) {
	w := newWorld(t)
	p := w.ready(seldom)
	e := w.entry("a")
	w.create(e)
	w.becomes(e, isWarm)

	elsewhere := redistest.Miniredis(t)
	update(w, p, func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{elsewhere.Addr()} })
	w.Eventually(func() (string, error) { return elsewhere.Get("glimr:cache:main:a") }).Should(Equal("value of a"))
	w.becomes(p, connected)
	w.becomes(e, isWarm)
	w.holds("glimr:cache:main:a", "value of a")
	w.Eventually(func() []string { return w.events(p) }).Should(ContainElement(
		"Normal ServerChanged: Entries are written to " + elsewhere.Addr() + ", database 0; keys on the former server or database stay there"))
}

func TestEntriesAreWrittenToTheNewDatabase(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready(seldom)
	e := w.entry("a")
	w.create(e)
	w.becomes(e, isWarm)

	update(w, p, func(p *v1alpha1.CachePool) { p.Spec.Database = new(int32(3)) })
	third := redis.NewClient(&redis.Options{Addr: w.addr, DB: 3, PipelinePoolSize: -1})
	t.Cleanup(func() { _ = third.Close() })
	w.Eventually(func() (string, error) { return third.Get(t.Context(), "glimr:cache:main:a").Result() }).Should(Equal("value of a"))
	w.holds("glimr:cache:main:a", "value of a")
}

func TestARestartThatNobodyNoticedIsFoundOutByTheNextCheck(t *testing.T) {
	w, server := newRealWorld(t)
	p := w.ready(seldom)
	e := w.entry("a")
	w.create(e)
	w.becomes(e, isWarm)

	server.Restart()
	// Anything that has the pool checked will do.
	update(w, p, func(p *v1alpha1.CachePool) { p.Labels = map[string]string{"touched": "yes"} })
	w.holds("glimr:cache:main:a", "value of a")
}

func TestAPoolThatIsDeletedWaitsForTheKeysThatEntriesHaveLeftInIt(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	other := w.pool(func(p *v1alpha1.CachePool) { p.Name = "other" })
	w.create(other)
	w.becomes(other, connected)
	e := w.entry("a")
	w.create(e)
	w.becomes(e, isWarm)

	update(w, e, func(e *v1alpha1.CacheEntry) { e.Spec.PoolRef.Name = "other" })
	w.Expect(k8s.Delete(t.Context(), p)).To(Succeed())
	w.vanishes(p)
	w.becomes(e, isWarm)
	w.holds("glimr:cache:other:a", "value of a")
	w.lacks("glimr:cache:main:a")
	w.Expect(w.events(e)).NotTo(ContainElement(ContainSubstring("stays in Redis")))
}

func TestADeletionThatWasAskedForIsGivenUpWhenTheKeyIsToStay(t *testing.T) {
	w := newWorld(t)
	server := redistest.Miniredis(t)
	p := w.ready(seldom, func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{server.Addr()} })
	e := w.entry("a")
	w.create(e)
	w.becomes(e, isWarm)

	// The server hangs for a moment: the deletion is under way, and fails.
	server.SetError("LOADING Redis is loading the dataset in memory")
	w.Expect(k8s.Delete(t.Context(), e)).To(Succeed())
	w.becomes(p, "Ready=False/Loading Reconciling=True/ProgressingWithRetry")
	update(w, e, func(e *v1alpha1.CacheEntry) { e.Spec.Suspend = true })
	w.vanishes(e)
	server.SetError("")
	w.becomes(p, connected)
	w.Consistently(func() bool { return server.Exists("glimr:cache:main:a") }, "1s").Should(BeTrue())
}

func TestGoingBackToAKeyKeepsIt(t *testing.T) {
	w := newWorld(t)
	w.ready(seldom)
	e := w.entry("a")
	w.create(e)
	w.becomes(e, isWarm)

	for range 5 {
		update(w, e, func(e *v1alpha1.CacheEntry) { e.Spec.Key = "b" })
		update(w, e, func(e *v1alpha1.CacheEntry) { e.Spec.Key = "a" })
	}
	w.becomes(e, isWarm)
	w.lacks("glimr:cache:main:b")
	w.holds("glimr:cache:main:a", "value of a")
	w.Consistently(func() int64 { return w.redis.Exists(t.Context(), "glimr:cache:main:a").Val() }, "1s").Should(Equal(int64(1)))
}

func TestAnEntryThatNeverWroteDeletesNothing(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.set("glimr:cache:main:a", "somebody else's")
	e := w.entry("a", func(e *v1alpha1.CacheEntry) {
		e.Spec.Value, e.Spec.ValueFrom = nil, &v1alpha1.ValueSource{ConfigMapKeyRef: &v1alpha1.KeyReference{Name: "mistyped", Key: "k"}}
	})
	w.create(e)
	w.becomes(e, "Ready=False/SourceNotFound Reconciling=True/ProgressingWithRetry")
	w.Expect(k8s.Delete(t.Context(), e)).To(Succeed())
	w.vanishes(e)
	w.Consistently(func() string { return w.redis.Get(t.Context(), "glimr:cache:main:a").Val() }, "500ms").Should(Equal("somebody else's"))
}

func TestADeadPoolThatIsDeletedIsNotHeldByAKeyThatWasLeftInIt(t *testing.T) {
	w := newWorld(t)
	dead := redistest.Miniredis(t)
	p := w.ready(func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{dead.Addr()} })
	other := w.pool(func(p *v1alpha1.CachePool) { p.Name = "other" })
	w.create(other)
	w.becomes(other, connected)
	e := w.entry("a")
	w.create(e)
	w.becomes(e, isWarm)

	dead.Close()
	update(w, e, func(e *v1alpha1.CacheEntry) { e.Spec.PoolRef.Name = "other" })
	w.holds("glimr:cache:other:a", "value of a")
	w.Expect(k8s.Delete(t.Context(), p)).To(Succeed())
	w.vanishes(p)
	w.Eventually(func() []string { return w.events(e) }).Should(ContainElement(ContainSubstring("stays in Redis")))
}

func TestADeletionThatWasAskedForIsGivenUpBySuspension(t *testing.T) {
	w := newWorld(t)
	server := redistest.Miniredis(t)
	p := w.ready(seldom, func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{server.Addr()} })
	other := w.pool(func(p *v1alpha1.CachePool) { p.Name = "other" })
	w.create(other)
	w.becomes(other, connected)
	e := w.entry("a")
	w.create(e)
	w.becomes(e, isWarm)

	server.SetError("LOADING Redis is loading the dataset in memory")
	update(w, e, func(e *v1alpha1.CacheEntry) { e.Spec.PoolRef.Name = "other" })
	w.becomes(p, "Ready=False/Loading Reconciling=True/ProgressingWithRetry")
	update(w, e, func(e *v1alpha1.CacheEntry) { e.Spec.Suspend = true })
	w.Eventually(func() string { w.reload(e); return summary(e) }).Should(ContainSubstring("Suspended=True"))
	server.SetError("")
	w.becomes(p, connected)
	w.Consistently(func() bool { return server.Exists("glimr:cache:main:a") }, "1s").Should(BeTrue())
}
