// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega" //nolint:revive,staticcheck // the assertions read as sentences
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

func TestAnEntryIsStoredUnderThePrefixOfItsPool(t *testing.T) {
	w := newWorld(t)
	w.ready()
	e := w.entry("feature-flags")
	w.create(e)

	w.becomes(e, isWarm)
	w.holds("glimr:cache:main:feature-flags", "value of feature-flags")
	w.Expect(e.Status.Key).To(Equal("glimr:cache:main:feature-flags"))
	w.Expect(e.Status.Pool).To(Equal(w.namespace + "/main"))
	w.Expect(e.Status.LastWriteTime).NotTo(BeNil())
	w.Expect(e.Status.WrittenDigest).To(HavePrefix("sha256:"))
	w.Expect(w.redis.PTTL(t.Context(), e.Status.Key).Val()).To(Equal(time.Duration(-1)), "forever means no TTL at all")
}

func TestAnEntryWithATTLHasThatLifetime(t *testing.T) {
	w := newWorld(t)
	w.ready()
	e := w.entry("short", func(e *v1alpha1.CacheEntry) {
		e.Spec.Forever, e.Spec.TTL = nil, &metav1.Duration{Duration: 10 * time.Minute}
	})
	w.create(e)
	w.becomes(e, isWarm)
	w.Expect(w.redis.PTTL(t.Context(), e.Status.Key).Val()).To(And(BeNumerically(">", 9*time.Minute), BeNumerically("<=", 10*time.Minute)))
}

func TestDeletingAnEntryDeletesItsKey(t *testing.T) {
	w := newWorld(t)
	w.ready()
	e := w.entry("gone")
	w.create(e)
	w.becomes(e, isWarm)

	w.Expect(k8s.Delete(t.Context(), e)).To(Succeed())
	w.vanishes(e)
	w.lacks("glimr:cache:main:gone")
}
