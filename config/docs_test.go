// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/command"
	"github.com/cachewright/cachewright/internal/status"
	"github.com/cachewright/cachewright/internal/testing/controlplane"
)

// manifest finds what a reader of a page would apply: blocks of YAML, and what is piped into kubectl.
var manifest = regexp.MustCompile("(?s)\n```yaml\n(.*?)\n```\n|\nkubectl apply -f - <<'EOF'\n(.*?)\nEOF\n")

// documented are the objects on a page, as they come into a namespace.
func documented(t *testing.T, page, in string) (objects []*unstructured.Unstructured) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range manifest.FindAllStringSubmatch(string(text), -1) {
		chart := strings.ReplaceAll(block[1]+block[2], "{{ .Release.Namespace }}", in)
		for _, o := range decode(t, []byte(chart)) {
			if o.GetAPIVersion() == "" || o.GetKind() == "" || o.GetName() == "" {
				t.Errorf("%s: no object: %v", page, o.Object)
				continue
			}
			o.SetNamespace(in)
			objects = append(objects, o)
		}
	}
	return objects
}

// Every object that a page tells to apply is accepted, down to the last field.
func TestDocumentedObjectsAreAccepted(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join("..", "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	in := controlplane.Namespace(t, server(t))
	for _, page := range append(pages, filepath.Join("..", "README.md")) {
		for i, o := range documented(t, page, in) {
			t.Run(fmt.Sprintf("%s/%d %s %s", filepath.Base(page), i, o.GetKind(), o.GetName()), func(t *testing.T) {
				if err := server(t).Create(t.Context(), o, client.DryRunAll); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// The Job for Helm: a pod that the strictest namespaces admit, a command that exists, and the rights that it needs.
func TestTheHookJobOfTheDocs(t *testing.T) {
	w := NewWithT(t)
	in := controlplane.Namespace(t, server(t))
	var job *batchv1.Job
	for _, o := range documented(t, filepath.Join("..", "docs", "gitops.md"), in) {
		switch o.GetKind() {
		case "Job":
			job = typed(t, o, &batchv1.Job{})
		case "ServiceAccount", "Role", "RoleBinding":
			w.Expect(server(t).Create(t.Context(), o)).To(Succeed())
		}
	}
	w.Expect(server(t).Create(t.Context(), job)).To(Succeed())
	template := job.Spec.Template
	w.Expect(template.Spec.Containers[0].Image).To(Equal(deployment(t).Spec.Template.Spec.Containers[0].Image))
	w.Expect(template.Labels).To(HaveKeyWithValue(batchv1.ControllerUidLabel, string(job.UID)), "what JOB_UID is taken from")

	createNamespace(t)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "job", Namespace: namespace}, Spec: template.Spec}
	w.Expect(server(t).Create(t.Context(), pod, client.DryRunAll)).To(Succeed())

	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	w.Expect(os.WriteFile(kubeconfig, env.KubeConfig, 0o600)).To(Succeed())
	account := fmt.Sprintf("system:serviceaccount:%s:%s", in, template.Spec.ServiceAccountName)
	args := template.Spec.Containers[0].Args
	w.Expect(args[0]).To(Equal("flush"))
	args = append(slices.Clone(args[1:]), "--kubeconfig", kubeconfig, "--namespace", in, "--as", account)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "$(JOB_UID)", string(job.UID))
	}
	flush := command.NewFlush("cachewright")
	flush.SetArgs(args)
	flush.SetOut(io.Discard)
	flush.SilenceErrors, flush.SilenceUsage = true, true
	ended := make(chan error, 1)
	go func() { ended <- flush.ExecuteContext(t.Context()) }()

	created := &v1alpha1.CacheFlush{ObjectMeta: metav1.ObjectMeta{Namespace: in, Name: "users-" + string(job.UID)}}
	w.Eventually(func() error { return server(t).Get(t.Context(), client.ObjectKeyFromObject(created), created) }, "30s").Should(Succeed())
	status.Set(created, &status.Verdict{Ready: metav1.ConditionTrue, Reason: v1alpha1.ReasonKeysFlushed, Terminal: v1alpha1.ConditionComplete}, time.Now())
	w.Expect(server(t).Status().Update(t.Context(), created)).To(Succeed())
	w.Eventually(ended, "30s").Should(Receive(BeNil()))
}
