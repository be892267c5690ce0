// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/controlplane"
)

const notReadyPool = "Ready=False/ConnectionFailed Reconciling=True/ProgressingWithRetry"

func TestAFlushWaitsForItsPoolToBeThereAndReady(t *testing.T) {
	w := newWorld(t)
	w.set(mainPrefix+"a", "v")
	f := w.flush("flush", all)
	w.create(f)
	w.becomes(f, "Ready=False/PoolNotFound Reconciling=True/PoolNotFound")
	w.Expect(message(f)).To(Equal(`No CachePool "main" serves this namespace`))
	w.Expect(kstatusOf(t, f)).To(Equal("InProgress"))

	p := w.pool(func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{"127.0.0.1:1"} })
	w.create(p)
	w.becomes(p, notReadyPool)
	w.becomes(f, poolIsDown)
	w.Expect(message(f)).To(Equal(`CachePool "main" is not ready`))
	w.Expect(kstatusOf(t, f)).To(Equal("InProgress"))
	w.Expect(f.Status.StartTime).To(BeNil(), "waiting is no work")

	update(w, p, func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{w.addr} })
	w.becomes(f, flushed)
	w.Expect(f.Status.Failures).To(BeZero())
	w.Expect(kstatusOf(t, f)).To(Equal("Current"))
	w.lacks(mainPrefix + "a")
}

func TestANewFlushIsNeverTakenForDone(t *testing.T) {
	w := newWorld(t)
	f := w.flush("flush", all)
	w.create(f)
	w.Expect(f.Status.ObservedGeneration).To(BeEquivalentTo(-1))
	w.Expect(kstatusOf(t, f)).To(Equal("InProgress"))
}

func TestTheStatesOfARunAreWhatTheTableSays(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	w.ready()
	proxy.Slow(slowAnswer)
	w.fill(mainPrefix+"user:", manyKeys)
	h := w.record()
	f := w.flush("flush", all)
	w.create(f)
	w.becomes(f, isRunning)
	queued := w.flush("queued", all)
	w.create(queued)
	w.becomes(queued, isQueued)
	w.Expect(kstatusOf(t, f)).To(Equal("InProgress"))
	w.Expect(kstatusOf(t, queued)).To(Equal("InProgress"))
	update(w, f, suspend)
	w.becomes(f, isSuspended)
	w.Expect(kstatusOf(t, f)).To(Equal("InProgress"))
	proxy.Slow(0)
	update(w, f, resume)
	w.becomes(f, flushed)
	w.becomes(queued, flushed)
	dry := w.flush("dry", all, dryRun)
	w.create(dry)
	w.becomes(dry, counted)
	w.Expect(kstatusOf(t, dry)).To(Equal("Current"))

	w.Eventually(h.ended).Should(ContainElement("dry"))
	for _, s := range h.all() {
		for _, f := range s {
			w.consistent(f)
		}
	}
}

// consistent checks what holds for a flush at any time.
func (w *world) consistent(f *v1alpha1.CacheFlush) {
	w.t.Helper()
	ended := 0
	for _, c := range f.Status.Conditions {
		w.Expect(c.Type == v1alpha1.ConditionReady || c.Status == metav1.ConditionTrue).To(BeTrue(), "only Ready is ever anything but True: %v", c)
		w.Expect(c.ObservedGeneration).To(Equal(f.Status.ObservedGeneration), c.Type)
		w.Expect(len([]rune(c.Message))).To(BeNumerically("<=", 300))
		w.Expect(c.Message).To(MatchRegexp(`^[A-Z]([^\n]*[^.])?$`))
		if c.Type == v1alpha1.ConditionComplete || c.Type == v1alpha1.ConditionFailed {
			ended++
		}
	}
	w.Expect(ended).To(BeNumerically("<=", 1), "never both")
	w.Expect(f.Status.CompletionTime == nil).To(Equal(ended == 0))
	w.Expect(apimeta.FindStatusCondition(f.Status.Conditions, v1alpha1.ConditionReconciling) != nil &&
		apimeta.FindStatusCondition(f.Status.Conditions, v1alpha1.ConditionStalled) != nil).To(BeFalse(), "never together")
}

func TestTheEndOfAFlushIsNeverTakenBack(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	f := w.run("flush", all)
	end := f.DeepCopy()
	for _, change := range []func(*v1alpha1.CacheFlush){
		suspend,
		func(f *v1alpha1.CacheFlush) { f.Spec.TTLSecondsAfterFinished = new(int32(3600)) },
		resume,
		func(f *v1alpha1.CacheFlush) { f.Spec.TTLSecondsAfterFinished = nil },
	} {
		update(w, f, change)
		w.becomes(f, flushed) // at the new generation, all conditions
		w.Expect(f.Generation).To(BeNumerically(">", end.Generation))
		w.Expect(f.Status.CompletionTime).To(Equal(end.Status.CompletionTime))
		w.Expect(f.Status.Progress).To(Equal(end.Status.Progress))
		for _, c := range f.Status.Conditions {
			was := apimeta.FindStatusCondition(end.Status.Conditions, c.Type)
			w.Expect(c.LastTransitionTime).To(Equal(was.LastTransitionTime))
			w.Expect(c.Message).To(Equal(was.Message))
		}
	}
	w.Expect(k8s.Delete(t.Context(), p)).To(Succeed())
	w.vanishes(p)
	update(w, f, func(f *v1alpha1.CacheFlush) { f.Spec.TTLSecondsAfterFinished = new(int32(7200)) })
	w.becomes(f, flushed)
	w.Expect(kstatusOf(t, f)).To(Equal("Current"))
}

func TestKubectlWaitsForACompleteFlush(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	w.ready()
	proxy.Slow(slowAnswer)
	w.fill(mainPrefix+"user:", manyKeys)
	f := w.flush("flush", all)
	w.create(f)
	w.becomes(f, isRunning)
	proxy.Slow(0)
	w.Expect(w.kubectl("wait", "--for=condition=Complete", "cflush/flush", "--timeout=30s")).To(ContainSubstring("condition met"))
	w.reload(f)
	w.Expect(summary(f)).To(Equal(flushed))

	update(w, f, func(f *v1alpha1.CacheFlush) { f.Spec.TTLSecondsAfterFinished = new(int32(3600)) })
	w.Expect(w.kubectl("wait", "--for=condition=Complete", "cflush/flush", "--timeout=30s")).To(ContainSubstring("condition met"))
	w.becomes(f, flushed)
	w.Expect(strings.Fields(w.kubectl("get", "cflush"))).To(ContainElements(
		"NAME", "POOL", "TARGET", "STATUS", "PROGRESS", "DELETED", "STARTED", "COMPLETED", "AGE", "flush", "main", "all", "KeysFlushed", "100", "300000"))
}

// kubectl in the test's namespace.
func (w *world) kubectl(args ...string) string {
	w.t.Helper()
	root, err := controlplane.Root()
	w.Expect(err).NotTo(HaveOccurred())
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		assets = filepath.Join(root, "bin")
	}
	config := filepath.Join(w.t.TempDir(), "kubeconfig")
	w.Expect(os.WriteFile(config, kubeconfig, 0o600)).To(Succeed())
	command := exec.CommandContext(w.t.Context(), filepath.Join(assets, "kubectl"), append([]string{"--kubeconfig", config, "--namespace", w.namespace}, args...)...)
	out, err := command.CombinedOutput()
	w.Expect(err).NotTo(HaveOccurred(), string(out))
	return string(out)
}

func TestAFlushTellsItsEndInAnEvent(t *testing.T) {
	w := newWorld(t)
	w.ready()
	f := w.run("flush", all)
	w.Eventually(func() []string { return w.events(f) }).Should(Equal([]string{"Normal KeysFlushed: Every matching key that was there at the start is gone, unless it is declared or protected"}))
}

func TestAFinishedFlushDeletesNoKeyThatIsWrittenLater(t *testing.T) {
	w := newWorld(t)
	p := w.ready()
	w.set(mainPrefix+"a", "v")
	f := w.run("flush", all)
	w.set(mainPrefix+"later", "v")
	for i, touch := range []func(){
		func() { w.look(f) },
		func() { update(w, f, suspend); update(w, f, resume) },
		func() {
			update(w, f, func(f *v1alpha1.CacheFlush) { f.Spec.TTLSecondsAfterFinished = new(int32(1000)) })
		},
		func() {
			update(w, p, func(p *v1alpha1.CachePool) { p.Spec.Suspend = true })
			w.becomes(p, "Ready=Unknown/Suspended Suspended=True/Suspended")
			update(w, p, func(p *v1alpha1.CachePool) { p.Spec.Suspend = false })
			w.becomes(p, connected)
		},
	} {
		touch()
		w.run("after-"+string(rune('0'+i)), prefixed("none"))
		w.becomes(f, flushed)
		w.Expect(w.keys("*")).To(Equal([]string{mainPrefix + "later"}))
	}
	w.Expect(progress(f)).To(Equal("100% matched 1 deleted 1 preserved 0"))
}

func TestAFinishedFlushVanishesAfterItsTTL(t *testing.T) {
	w := newWorld(t)
	w.ready()
	short := func(f *v1alpha1.CacheFlush) { f.Spec.TTLSecondsAfterFinished = new(int32(10)) }
	early := w.flush("early", all, short)
	w.create(early)
	w.becomes(early, flushed)
	late := w.run("late", all)
	kept := w.run("kept", all)
	update(w, late, short)
	w.vanishes(early)
	w.Expect(time.Since(early.Status.CompletionTime.Time)).To(BeNumerically(">=", 10*time.Second))
	w.vanishes(late)
	w.Expect(time.Since(late.Status.CompletionTime.Time)).To(BeNumerically(">=", 10*time.Second))
	w.reload(kept)
}
