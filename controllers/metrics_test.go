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
	dto "github.com/prometheus/client_model/go"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/metricsdoc"
)

// families of the operator's own metrics that have series of the test's namespace, with these only.
func (w *world) families() map[string]*dto.MetricFamily {
	w.t.Helper()
	all, err := metrics.Registry.Gather()
	w.Expect(err).NotTo(HaveOccurred())
	families := map[string]*dto.MetricFamily{}
	for _, family := range all {
		family.Metric = slices.DeleteFunc(family.GetMetric(), func(m *dto.Metric) bool { return labelsOf(m)["namespace"] != w.namespace })
		if strings.HasPrefix(family.GetName(), "cachewright_") && len(family.GetMetric()) > 0 {
			families[family.GetName()] = family
		}
	}
	return families
}

func labelsOf(m *dto.Metric) map[string]string {
	labels := map[string]string{}
	for _, l := range m.GetLabel() {
		labels[l.GetName()] = l.GetValue()
	}
	return labels
}

// measured are the operator's own metrics of the test's namespace: "name pool", and the other labels' values in the order of
// their names. Of a histogram it is how many there were.
func (w *world) measured() map[string]float64 {
	w.t.Helper()
	values := map[string]float64{}
	for name, family := range w.families() {
		for _, m := range family.GetMetric() {
			parts := []string{strings.TrimPrefix(name, "cachewright_"), labelsOf(m)["pool"]}
			for _, l := range m.GetLabel() { // in the order of their names
				if l.GetName() != "namespace" && l.GetName() != "pool" {
					parts = append(parts, l.GetValue())
				}
			}
			values[strings.Join(parts, " ")] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
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

// What docs/metrics.md promises is there while a pool, entries and a flush are, with the types and labels that it says.
func TestEveryDocumentedMetricIsProduced(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	p := w.ready()
	w.detects(p, v1alpha1.DetectionTracking)
	repaired, left := w.came(isWarm, "repaired"), w.came(isWarm, "left")
	w.unset(repaired.Status.Key)
	update(w, left, suspendEntry)
	w.becomes(left, isSuspended)
	w.delete(left)
	f := w.halfway(proxy)
	documented, found := metricsdoc.Families(t), map[string]metricsdoc.Family{}
	for _, family := range documented {
		slices.Sort(family.Labels)
	}
	w.Eventually(func() map[string]metricsdoc.Family {
		for name, family := range w.families() {
			for _, m := range family.GetMetric() {
				labels := slices.Sorted(maps.Keys(labelsOf(m)))
				found[name] = metricsdoc.Family{Type: strings.ToLower(family.GetType().String()), Labels: labels, Meaning: family.GetHelp()}
			}
		}
		return found
	}).Should(Equal(documented))
	w.delete(f)
}

func TestWhetherAPoolServesIsToldUnlessItIsSuspended(t *testing.T) {
	w, server := newRealWorld(t)
	p := w.ready(seldom)
	w.Expect(w.measured()).To(HaveKeyWithValue("pool_up main", 1.0))
	server.Stop()
	w.look(p)
	w.becomes(p, waits("ConnectionFailed"))
	w.Expect(w.measured()).To(And(
		HaveKeyWithValue("pool_up main", 0.0),
		HaveKeyWithValue("command_errors_total main Unavailable ConnectionFailed", BeNumerically(">=", 1)),
	))
	update(w, p, suspendPool)
	w.becomes(p, isSuspended)
	w.Eventually(w.measured).ShouldNot(HaveKey("pool_up main"))
	server.Restart()
	update(w, p, resumePool)
	w.becomes(p, connected)
	w.Eventually(w.measured).Should(HaveKeyWithValue("pool_up main", 1.0))

	never := w.pool(seldom, under("never:"), func(p *v1alpha1.CachePool) { p.Name, p.Spec.Addresses = "never", []string{"127.0.0.1:1"} })
	w.create(never)
	w.becomes(never, waits("ConnectionFailed"))
	w.Expect(w.measured()).To(And(HaveKeyWithValue("pool_up never", 0.0), HaveKeyWithValue("pool_connections never", 0.0)))
	w.delete(never)
	w.vanishes(never)
	w.Eventually(w.measured).ShouldNot(Or(HaveKey("pool_up never"), HaveKey("command_errors_total never Unavailable ConnectionFailed")))
}

// Whatever becomes of an entry, it counts once, as kubectl shows it.
func TestEntriesAreCountedByWhatTheirReadyConditionSays(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(seldom)
	warm := w.came(isWarm, "warm")
	w.came(isWarm, "another")
	w.came(isMissing, "observed", observing)
	lost := w.entry("lost", in("none"))
	w.create(lost)
	w.becomes(lost, waits("PoolNotFound"))
	counts := func() map[string]float64 {
		entries := map[string]float64{}
		for name, value := range w.measured() {
			if rest, ok := strings.CutPrefix(name, "entries "); ok {
				entries[rest] = value
			}
		}
		return entries
	}
	w.Eventually(counts).Should(Equal(map[string]float64{"main true Warm": 2, "main false Missing": 1, "none false PoolNotFound": 1}))
	w.delete(lost)
	update(w, warm, observing)
	w.Eventually(counts).Should(Equal(map[string]float64{"main true Warm": 1, "main true Matches": 1, "main false Missing": 1}))
	w.delete(warm)
	w.Eventually(counts).Should(Equal(map[string]float64{"main true Warm": 1, "main false Missing": 1}))
}

// The pool's own connections, and two that wait for news.
func TestTheConnectionsAndCommandsOfAPoolAreMeasured(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready(seldom)
	w.detects(p, v1alpha1.DetectionTracking)
	w.came(isWarm, "e")
	w.run("flush", all)
	connections := func() float64 {
		list, err := w.redis.ClientList(t.Context()).Result()
		w.Expect(err).NotTo(HaveOccurred())
		return float64(strings.Count(list, "id=")) - 1 // the test's
	}
	w.Eventually(func() float64 { return w.measured()["pool_connections main"] - connections() }).Should(BeZero())
	w.Expect(connections()).To(BeNumerically(">=", 3))
	for _, command := range []string{"info", "exists", "getrange", "set", "scan"} {
		w.Expect(w.measured()).To(HaveKeyWithValue("command_duration_seconds main "+command, BeNumerically(">=", 1)))
	}
}
