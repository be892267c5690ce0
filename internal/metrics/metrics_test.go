// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"regexp"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/cachewright/cachewright/internal/testing/metricsdoc"
)

var (
	shape = regexp.MustCompile(`fqName: "(cachewright_\w+)", help: "(.*?)",.*? constLabels: \{(.*?)\}, variableLabels: \{(.*?)\}`)
	value = regexp.MustCompile(`="[^"]*"`)
)

// registered are the families of ours: those of a pool, and what does not belong to a live one.
func registered(t *testing.T) map[string]metricsdoc.Family {
	t.Helper()
	all, ok := metrics.Registry.(prometheus.Collector)
	if !ok {
		t.Fatal("the registry does not tell what is registered")
	}
	descriptions := make(chan *prometheus.Desc)
	go func() {
		defer close(descriptions)
		for _, c := range append(newPool(types.NamespacedName{}).collectors, all, NewEntries()) {
			c.Describe(descriptions)
		}
	}()
	families := map[string]metricsdoc.Family{}
	for d := range descriptions {
		if parts := shape.FindStringSubmatch(d.String()); parts != nil {
			labels := strings.Trim(value.ReplaceAllString(parts[3], "")+","+parts[4], ",")
			families[parts[1]] = metricsdoc.Family{Meaning: parts[2], Labels: strings.Split(labels, ",")}
		}
	}
	return families
}

// Their types are compared in the controllers' tests, where the operator produces them all.
func TestTheDocsListEveryMetricAndNoOther(t *testing.T) {
	documented := metricsdoc.Families(t)
	for name, family := range documented {
		family.Type = ""
		documented[name] = family
	}
	NewWithT(t).Expect(documented).To(Equal(registered(t)))
}

// Every name that an alert uses is a metric, or a part of a histogram, and every label that it selects or sums by is one of its labels.
func TestTheDocumentedAlertsSpeakOfMetricsThatExist(t *testing.T) {
	g, families := NewWithT(t), metricsdoc.Families(t)
	alerts := metricsdoc.Alerts(t)
	g.Expect(alerts).To(HaveLen(8))
	for _, alert := range alerts {
		used := regexp.MustCompile(`(cachewright_\w+)(?:\{(\w+)=)?`).FindAllStringSubmatch(alert, -1)
		g.Expect(used).NotTo(BeEmpty(), alert)
		for _, metric := range used {
			name, isBucket := strings.CutSuffix(metric[1], "_bucket")
			family, ok := families[name]
			g.Expect(ok).To(BeTrue(), "%s in %s", name, alert)
			g.Expect(isBucket).To(Equal(family.Type == "histogram"), alert)
			labels := append([]string{"", "le"}, family.Labels...)
			g.Expect(labels).To(ContainElement(metric[2]), alert)
			for _, by := range regexp.MustCompile(`(?:by|on) \((.*?)\)`).FindAllStringSubmatch(alert, -1) {
				for label := range strings.SplitSeq(by[1], ", ") {
					g.Expect(labels).To(ContainElement(label), alert)
				}
			}
		}
	}
}

// series of a pool that the registry has.
func series(g Gomega, pool types.NamespacedName) (names []string) {
	families, err := metrics.Registry.Gather()
	g.Expect(err).NotTo(HaveOccurred())
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "pool" && l.GetValue() == pool.Name {
					names = append(names, family.GetName())
				}
			}
		}
	}
	return names
}

func TestADeletedPoolHasNoSeriesEvenIfSomebodyStillCounts(t *testing.T) {
	g, name := NewWithT(t), types.NamespacedName{Namespace: "ns", Name: "deleted"}
	use := func(p *Pool) {
		p.Up(true)
		p.Took("set", time.Millisecond)
		p.Failed("Key", "WrongType")
		p.Verified(time.Now())
		p.Repairs.WithLabelValues("missing").Inc()
		FlushKeys(name, Deleted, 1)
		FlushProgress(name, 50)
		FlushFinished(name, "Complete")
	}
	p := Of(name)
	use(p)
	g.Expect(series(g, name)).To(ContainElements("cachewright_pool_up", "cachewright_command_duration_seconds", "cachewright_flush_progress_ratio"))
	Delete(name)
	g.Expect(series(g, name)).To(BeEmpty())
	use(p)
	g.Expect(series(g, name)).To(BeEmpty())
}

func TestKeysThatWereLeftAreCountedByNamespace(t *testing.T) {
	g := NewWithT(t)
	left.Reset()
	Left("a")
	Left("b")
	Left("a")
	families, err := metrics.Registry.Gather()
	g.Expect(err).NotTo(HaveOccurred())
	counts := map[string]float64{}
	for _, family := range families {
		if family.GetName() == "cachewright_keys_left_total" {
			for _, m := range family.GetMetric() {
				counts[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	g.Expect(counts).To(Equal(map[string]float64{"a": 2, "b": 1}))
}

// The latency of each command is measured, so that must cost next to nothing.
func TestToMeasureACommandAllocatesNothing(t *testing.T) {
	p := newPool(types.NamespacedName{Name: "pool"})
	NewWithT(t).Expect(testing.AllocsPerRun(100, func() { p.Took("set", time.Millisecond) })).To(BeZero())
}
