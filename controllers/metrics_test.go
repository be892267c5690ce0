// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// measured are the operator's own metrics of the test's namespace: "name pool cause or result", without what is not there.
func (w *world) measured() map[string]float64 {
	w.t.Helper()
	families, err := metrics.Registry.Gather()
	w.Expect(err).NotTo(HaveOccurred())
	values := map[string]float64{}
	for _, family := range families {
		name, ours := strings.CutPrefix(family.GetName(), "cachewright_")
		for _, m := range family.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if !ours || labels["namespace"] != w.namespace {
				continue
			}
			w.Expect(slices.Collect(maps.Keys(labels))).To(Or(ConsistOf("namespace", "pool"), ConsistOf("namespace", "pool", "cause"), ConsistOf("namespace", "pool", "result")), "never a key")
			key := strings.TrimSpace(name + " " + labels["pool"] + " " + labels["cause"] + labels["result"])
			values[key] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return values
}

// Freshness is told by metrics: what is declared, when it was last looked at, what was renewed and repaired, and why.
func TestMetricsTellHowAPoolIsKept(t *testing.T) {
	w, _ := newRealWorld(t)
	before := float64(time.Now().Unix())
	p := w.ready()
	w.detects(p, v1alpha1.DetectionTracking)
	w.create(w.pool(seldom, under("another:"), func(p *v1alpha1.CachePool) { p.Name = "another" }))
	missing, changed, lifetime := w.came(isWarm, "missing"), w.came(isWarm, "changed"), w.came(isWarm, "lifetime")
	w.came(isWarm, "renewed", living(2*time.Second))
	w.came(isWarm, "expired", living(2*time.Second), ensuring)
	w.came(isWritten, "once", writingOnce)
	w.came(isMissing, "observed", observing)
	w.came(isWarm, "elsewhere", in("another"))

	w.unset(missing.Status.Key)
	w.set(changed.Status.Key, "foreign")
	w.Expect(w.redis.Expire(t.Context(), lifetime.Status.Key, time.Hour).Err()).To(Succeed())
	w.Eventually(w.measured).Should(And(
		HaveKeyWithValue("declared_keys main", 7.0),
		HaveKeyWithValue("declared_keys another", 1.0),
		HaveKeyWithValue("contested_keys main", 0.0),
		HaveKeyWithValue("repairs_total main missing", 1.0),
		HaveKeyWithValue("repairs_total main changed", 1.0),
		HaveKeyWithValue("repairs_total main lifetime", 1.0),
		HaveKeyWithValue("repairs_total main expired", BeNumerically(">=", 1)),
		HaveKeyWithValue("renewals_total main", BeNumerically(">=", 1)),
		HaveKeyWithValue("renewals_total another", 0.0),
		HaveKeyWithValue("last_verified_timestamp_seconds main", BeNumerically(">=", before)),
	))
	verified := w.measured()["last_verified_timestamp_seconds main"]
	w.Eventually(w.measured).Should(HaveKeyWithValue("last_verified_timestamp_seconds main", BeNumerically(">", verified)), "by sweeps")

	w.Expect(w.redis.FlushAll(t.Context()).Err()).To(Succeed())
	w.Eventually(w.measured).Should(And(
		HaveKeyWithValue("repairs_total main lost", BeNumerically("~", 5, 1)), // the living ones may just have been on their way
		HaveKeyWithValue("repairs_total another lost", 1.0),
	))
	w.unset(missing.Status.Key) // for the second time
	w.becomes(missing, waits("Contested"))
	w.Expect(w.measured()).To(HaveKeyWithValue("contested_keys main", 1.0))
	w.delete(missing)
	w.vanishes(missing)
	w.Eventually(w.measured).Should(And(HaveKeyWithValue("contested_keys main", 0.0), HaveKeyWithValue("declared_keys main", 6.0)))
	update(w, changed, suspendEntry)
	w.Eventually(w.measured).Should(HaveKeyWithValue("declared_keys main", 5.0))
	update(w, changed, in("another"))
	update(w, changed, resumeEntry)
	w.Eventually(w.measured).Should(And(HaveKeyWithValue("declared_keys main", 5.0), HaveKeyWithValue("declared_keys another", 2.0)))
}

func TestTheMetricsOfAPoolVanishWithIt(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready(seldom)
	w.detects(p, v1alpha1.DetectionTracking)
	e := w.came(isWarm, "e")
	w.unset(e.Status.Key)
	w.Eventually(w.measured).Should(HaveKeyWithValue("repairs_total main missing", 1.0))
	w.delete(e)
	w.vanishes(e)
	w.delete(p)
	w.vanishes(p)
	w.Eventually(w.measured).Should(BeEmpty())

	// One that comes back begins anew.
	p = w.ready(seldom)
	w.detects(p, v1alpha1.DetectionTracking)
	w.came(isWarm, "e")
	w.Expect(w.measured()).To(And(HaveKeyWithValue("declared_keys main", 1.0), Not(HaveKey("repairs_total main missing"))))
}
