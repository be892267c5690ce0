// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// limited gives a pool limits.
func limited(limits v1alpha1.FlushLimits) func(*v1alpha1.CachePool) {
	return func(p *v1alpha1.CachePool) { p.Spec.FlushLimits = &limits }
}

func TestProtectedKeysAreNeverDeleted(t *testing.T) {
	t.Parallel()
	protected := []string{"session:", "session:1", "s*[1", "s*["}
	others := []string{"sessio", "session", "sessions:1", "sx[1", "s*1", "a", "xsession:1", "Session:1"}
	for name, c := range map[string]struct {
		target func(*v1alpha1.CacheFlush)
		gone   []string
		want   string
	}{
		"all":             {all, others, "100% matched 12 deleted 8 preserved 4"},
		"a prefix":        {prefixed("s"), []string{"sessio", "session", "sessions:1", "sx[1", "s*1"}, "100% matched 9 deleted 5 preserved 4"},
		"the same prefix": {prefixed("session:"), nil, "100% matched 2 deleted 0 preserved 2"},
		"a match":         {matching("*1"), []string{"sessions:1", "sx[1", "s*1", "xsession:1", "Session:1"}, "100% matched 7 deleted 5 preserved 2"},
		"keys":            {named("session:1", "sessions:1", "s*[1", "session:none"), []string{"sessions:1"}, "100% matched 3 deleted 1 preserved 2"},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			w.ready(limited(v1alpha1.FlushLimits{ProtectedPrefixes: []string{"session:", "s*["}}))
			var want []string
			for _, key := range slices.Concat(protected, others) {
				w.set(mainPrefix+key, "v")
				if !slices.Contains(c.gone, key) {
					want = append(want, mainPrefix+key)
				}
			}
			slices.Sort(want)
			dry := w.flush("dry", c.target, dryRun)
			w.create(dry)
			w.becomes(dry, counted)
			w.Expect(dry.Status.Sample).NotTo(ContainElement(HavePrefix("session:")))
			f := w.run("flush", c.target)
			w.Expect(progress(f)).To(Equal(c.want))
			w.Expect(dry.Status.Progress.Matched).To(Equal(f.Status.Progress.Matched))
			w.Expect(dry.Status.Progress.Preserved).To(Equal(f.Status.Progress.Preserved))
			w.Expect(w.keys("*")).To(Equal(want))
		})
	}
}

func TestTheLimitsOfAPoolApplyToARunThatIsUnderWay(t *testing.T) {
	w := newWorld(t)
	p := w.ready(limited(v1alpha1.FlushLimits{MaxKeysPerSecond: new(int64(2))}))
	w.fill(mainPrefix+"a", 100)
	f := w.flush("flush", all, atMost(1_000_000))
	w.create(f)
	w.begun(f)
	w.set(mainPrefix+"kept", "v")
	update(w, p, limited(v1alpha1.FlushLimits{ProtectedPrefixes: []string{"kept"}}))
	w.becomes(f, flushed)
	w.Expect(w.keys("*")).To(Equal([]string{mainPrefix + "kept"}))
	w.Expect(f.Status.Progress.Deleted).To(BeEquivalentTo(100))
}

func TestTheLimitOfAFlushMayChangeWhileItRuns(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.fill(mainPrefix, 100)
	f := w.flush("flush", all, atMost(2))
	w.create(f)
	w.begun(f)
	started := f.Status.StartTime
	w.stays(f, isRunning, 500*time.Millisecond)
	update(w, f, atMost(1000))
	w.becomes(f, flushed)
	w.Expect(f.Status.StartTime).To(Equal(started), "it is the same run")
	w.Expect(progress(f)).To(Equal("100% matched 100 deleted 100 preserved 0"))
	w.Expect(time.Since(started.Time)).To(BeNumerically("<", 25*time.Second), "100 keys would have taken 50 s")
}

func TestLimitedFlushesOfNamedAndScannedKeysTakeTheirTime(t *testing.T) {
	t.Parallel()
	for name, target := range map[string]func(*v1alpha1.CacheFlush){"all": all, "keys": named("1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12")} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			w.ready(limited(v1alpha1.FlushLimits{MaxKeysPerSecond: new(int64(6)), ProtectedPrefixes: []string{"7"}}))
			w.fill(mainPrefix, 12)
			began := time.Now()
			f := w.run("flush", target, atMost(100))
			w.Expect(time.Since(began)).To(BeNumerically(">=", 11*time.Second/6))
			w.Expect(progress(f)).To(Equal("100% matched 12 deleted 11 preserved 1"))
			w.Expect(w.keys("*")).To(Equal([]string{mainPrefix + "7"}))
		})
	}
}
