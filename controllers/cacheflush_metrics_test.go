// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"testing"

	. "github.com/onsi/gomega"
)

func TestMetricsTellOfFlushes(t *testing.T) {
	w := newWorld(t)
	p := w.ready(unwatched)
	e := w.entry("e")
	w.create(e)
	w.becomes(e, isWarm)
	w.fill(mainPrefix, 10)

	dry := w.flush("dry", all, dryRun)
	w.create(dry)
	w.becomes(dry, counted)
	w.run("flush", named("1", "2", "none"))
	f := w.flush("many", all, noMore(1))
	w.create(f)
	w.becomes(f, tooMany)
	w.run("all", all, noMore(8))
	w.Eventually(w.measured).Should(And(
		HaveKeyWithValue("flush_keys_total main counted", 10.0),
		HaveKeyWithValue("flush_keys_total main deleted", 10.0),
		HaveKeyWithValue("flush_keys_total main preserved", 2.0),
		HaveKeyWithValue("flushes_total main Complete", 3.0),
		HaveKeyWithValue("flushes_total main Failed", 1.0),
		Not(HaveKey("flush_progress_ratio main")),
	))

	// Looks at what is finished count nothing.
	w.request(f, "now")
	update(w, f, suspend)
	w.becomes(f, tooMany)
	w.Expect(w.measured()).To(HaveKeyWithValue("flushes_total main Failed", 1.0))

	w.delete(e)
	w.delete(p)
	w.vanishes(p)
	w.Eventually(w.measured).Should(Not(Or(HaveKey("flush_keys_total main deleted"), HaveKey("flushes_total main Complete"))))
}

// While a flush is at work there is a gauge of how far it is, and afterwards none.
func TestAMetricTellsHowFarTheFlushAtWorkIs(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	w.ready(unwatched)
	f := w.halfway(proxy)
	w.Eventually(w.measured).Should(HaveKeyWithValue("flush_progress_ratio main", And(BeNumerically(">", 0), BeNumerically("<", 1))))
	update(w, f, suspend)
	w.becomes(f, isSuspended)
	w.Eventually(w.measured).ShouldNot(HaveKey("flush_progress_ratio main"))
	proxy.Slow(0)
	update(w, f, resume)
	w.becomes(f, flushed)
	w.Eventually(w.measured).Should(And(Not(HaveKey("flush_progress_ratio main")), HaveKeyWithValue("flush_keys_total main deleted", float64(manyKeys))))
}
