// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// resyncs is long enough for three resyncs.
const resyncs = 35 * time.Second

// In the steady state nothing is written to the API server, whatever the policies, while lifetimes are renewed, run out
// and are written again: the API server's own watch shows every write there is.
func TestNothingIsWrittenInTheSteadyState(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready()
	w.detects(p, v1alpha1.DetectionTracking)
	w.configMap(map[string]string{"k": "v"})
	w.secret("source", map[string]string{"k": "v"})
	kinds := []struct {
		want   string
		change func(*v1alpha1.CacheEntry)
	}{
		{isWarm, living(time.Hour)},
		{isWarm, living(10 * time.Second)},
		{isWarm, fromConfigMap("source", "k")},
		{isWarm, fromSecret("source", "k")},
		{isPresent, ensuring},
		{isWarm, func(e *v1alpha1.CacheEntry) { ensuring(e); living(5 * time.Second)(e) }},
		{isWritten, func(e *v1alpha1.CacheEntry) { writingOnce(e); living(5 * time.Second)(e) }},
		{isMissing, observing},
		{isWarm, retained},
		{"Ready=True/Applied", func(e *v1alpha1.CacheEntry) {
			e.Spec.Value, e.Spec.Counter = nil, &v1alpha1.CounterSpec{Increment: 5, RunID: "run"}
		}},
	}
	const keys = 200
	var entries []*v1alpha1.CacheEntry
	for i := range keys {
		e := w.entry(fmt.Sprintf("e%d", i), kinds[i%len(kinds)].change)
		if i%len(kinds) == 4 {
			w.set(mainPrefix+e.Name, "foreign")
		}
		w.create(e)
		entries = append(entries, e)
	}
	for i, e := range entries {
		w.becomes(e, kinds[i%len(kinds)].want)
	}
	for _, e := range entries[:len(kinds)] {
		w.rests(e, 300*time.Millisecond)
	}
	w.reload(p)
	pool, told := p.ResourceVersion, w.allEvents()
	seen, looks, renewals := w.follow(), w.calls("getrange"), w.measured()["renewals_total main"]
	w.Eventually(seen).Should(HaveLen(keys))
	w.Consistently(func() []string {
		var written []string
		for _, e := range seen()[keys:] {
			written = append(written, e.Name+" "+summary(e))
		}
		return written
	}, resyncs, time.Second).Should(BeEmpty(), "as they were")
	w.reload(p)
	w.Expect(p.ResourceVersion).To(Equal(pool))
	w.Expect(w.allEvents()).To(Equal(told))
	w.Expect(w.calls("getrange")-looks).To(BeNumerically(">=", 3*keys*8/10), "the sweeps did look")
	w.Expect(w.measured()["renewals_total main"]-renewals).To(BeNumerically(">=", keys/len(kinds)), "and lifetimes were renewed")
	for i, e := range entries {
		if i%len(kinds) != 6 && i%len(kinds) != 7 {
			// One that has just run out is there again in a moment.
			w.Eventually(func() int64 { return w.redis.Exists(t.Context(), e.Status.Key).Val() }).Should(BeEquivalentTo(1), e.Name)
		}
	}
}

// allEvents counts the events of the test's namespace.
func (w *world) allEvents() int {
	w.t.Helper()
	var list corev1.EventList
	w.Expect(k8s.List(w.t.Context(), &list, client.InNamespace(w.namespace))).To(Succeed())
	return len(list.Items)
}
