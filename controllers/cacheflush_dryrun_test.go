// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

func TestADryRunCountsSamplesAndDeletesNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		target   func(*v1alpha1.CacheFlush)
		progress string
		sample   int
	}{
		"all":                {all, "100% matched 1005 deleted 0 preserved 1", 10},
		"prefix":             {prefixed("user:"), "100% matched 1000 deleted 0 preserved 0", 10},
		"match of few":       {matching("few:?"), "100% matched 4 deleted 0 preserved 0", 4},
		"keys":               {named("few:1", "few:2", "few:2", "missing", "declared"), "100% matched 3 deleted 0 preserved 1", 2},
		"many keys":          {named("user:1", "user:2", "user:3", "user:4", "user:5", "user:6", "user:7", "user:8", "user:9", "user:10", "user:11"), "100% matched 11 deleted 0 preserved 0", 10},
		"nothing to be seen": {prefixed("x"), "100% matched 0 deleted 0 preserved 0", 0},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			w.ready()
			w.fill(mainPrefix+"user:", 1000)
			w.fill(mainPrefix+"few:", 4)
			e := w.entry("declared")
			w.create(e)
			w.becomes(e, isWarm)
			before := w.keys("*")

			f := w.flush("dry", c.target, dryRun)
			w.create(f)
			w.becomes(f, counted)
			w.Expect(w.keys("*")).To(Equal(before))
			w.Expect(progress(f)).To(Equal(c.progress))
			w.Expect(f.Status.Sample).To(HaveLen(c.sample))
			for _, name := range f.Status.Sample {
				w.Expect(before).To(ContainElement(mainPrefix+name), "it is told as an entry would name it")
				w.Expect(name).NotTo(HaveSuffix("declared"), "it would not go")
			}
			w.Expect(slices.Compact(slices.Sorted(slices.Values(f.Status.Sample)))).To(HaveLen(c.sample), "no key twice")
		})
	}
}

func TestADryRunInSlicesHasASampleOfTenAndCountsAll(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	w.ready()
	proxy.Slow(slowAnswer)
	w.fill(mainPrefix+"user:", manyKeys)
	f := w.flush("dry", all, dryRun)
	w.create(f)
	w.midway(f)
	w.Expect(f.Status.Sample).To(HaveLen(10))
	proxy.Slow(0)
	w.becomes(f, counted)
	w.Expect(progress(f)).To(Equal("100% matched 300000 deleted 0 preserved 0"))
	w.Expect(f.Status.Sample).To(HaveLen(10))
	w.Expect(w.count(mainPrefix)).To(Equal(manyKeys))
}

func TestADryRunSamplesKeysThatAreNotText(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready()
	w.set(mainPrefix+"\xff\xfe", "v")
	w.set(mainPrefix+strings.Repeat("long", 1000), "v")
	f := w.flush("dry", all, dryRun)
	w.create(f)
	w.becomes(f, counted)
	w.Expect(f.Status.Sample).To(ConsistOf(
		"\ufffd\ufffd",
		And(HavePrefix("longlong"), HaveSuffix("…"))), "what JSON or the schema cannot hold is told as well as it can be")
	w.Expect(progress(f)).To(Equal("100% matched 2 deleted 0 preserved 0"))
}
