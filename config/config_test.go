// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package config_test holds the manifests against a real API server.
package config_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/operator"
	"github.com/cachewright/cachewright/internal/testing/controlplane"
)

const namespace = "cachewright-system"

var (
	env *envtest.Environment
	api client.Client
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if env, err = controlplane.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := env.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// A misspelled field fails too, and a field of a kind that this API server does not know cannot be checked.
func TestEverythingIsAccepted(t *testing.T) {
	createNamespace(t)
	for folder, unknown := range map[string][]string{
		"crd":              nil,
		"default":          nil,
		"namespaced":       nil,
		"samples":          nil,
		"samples/cronjob":  nil,
		"samples/gitops":   nil,
		"argocd":           nil,
		"admission-policy": nil,
		"network-policy":   nil,
		"prometheus":       {"ServiceMonitor"},
	} {
		for _, o := range render(t, folder) {
			t.Run(folder+"/"+o.GetKind()+"/"+o.GetName(), func(t *testing.T) {
				if o.GetNamespace() == "system" || folder == "namespaced" {
					o.SetNamespace(namespace) // an overlay that config/default includes
				}
				if strings.HasPrefix(folder, "samples") || folder == "argocd" {
					o.SetNamespace("default")
				}
				err := server(t).Apply(t.Context(), client.ApplyConfigurationFromUnstructured(o), client.DryRunAll, client.FieldOwner("test"), client.ForceOwnership)
				if slices.Contains(unknown, o.GetKind()) && meta.IsNoMatchError(err) {
					return
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// The samples are created, in the order of their files.
func TestSamples(t *testing.T) {
	in := controlplane.Namespace(t, server(t))
	var got []string
	for _, o := range render(t, "samples") {
		if o.GetNamespace() != "" {
			t.Errorf("%s %s has a namespace", o.GetKind(), o.GetName())
		}
		o.SetNamespace(in)
		if err := server(t).Create(t.Context(), o); err != nil {
			t.Error(err)
		}
		got = append(got, o.GetKind()+" "+o.GetName())
		if pool, found, _ := unstructured.NestedString(o.Object, "spec", "poolRef", "name"); found && pool != "main" {
			t.Errorf("%s %s is in pool %s, not main", o.GetKind(), o.GetName(), pool)
		}
	}
	slices.Sort(got)
	want := []string{
		"CacheEntry feature-flags", "CacheEntry greeting", "CacheEntry releases", "CacheEntry settings", "CacheFlush users", "CachePool main", "ConfigMap texts",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("samples (-want +got):\n%s", diff)
	}
}

func TestTheCronJobRunsTheOperatorsImage(t *testing.T) {
	cron := typed(t, find(t, "samples/cronjob", "CronJob", "nightly-flush"), &batchv1.CronJob{})
	want := deployment(t).Spec.Template.Spec.Containers[0].Image
	if got := cron.Spec.JobTemplate.Spec.Template.Spec.Containers[0].Image; got != want {
		t.Errorf("the CronJob runs %s, the operator is %s", got, want)
	}
}

func TestPodIsRestricted(t *testing.T) {
	createNamespace(t)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "manager", Namespace: namespace},
		Spec:       deployment(t).Spec.Template.Spec,
	}
	if err := server(t).Create(t.Context(), pod.DeepCopy(), client.DryRunAll); err != nil {
		t.Error(err)
	}

	pod.Spec.Containers[0].SecurityContext = nil
	err := server(t).Create(t.Context(), pod, client.DryRunAll)
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `violates PodSecurity "restricted:latest"`) {
		t.Errorf("without a security context: got %v, want that the namespace enforces the standard", err)
	}
}

func TestDeployment(t *testing.T) {
	d := deployment(t)
	pod := d.Spec.Template.Spec
	manager := pod.Containers[0]
	if *d.Spec.Replicas != 1 || *pod.TerminationGracePeriodSeconds != 35 || pod.PriorityClassName != "" || len(pod.Containers) != 1 {
		t.Errorf("got %d replicas, %v s to terminate, priority class %q, %d containers",
			*d.Spec.Replicas, pod.TerminationGracePeriodSeconds, pod.PriorityClassName, len(pod.Containers))
	}
	if !strings.HasPrefix(manager.Image, "ghcr.io/cachewright/cachewright:") {
		t.Errorf("image %s", manager.Image)
	}
	if !*manager.SecurityContext.ReadOnlyRootFilesystem {
		t.Error("the container may write to its root file system")
	}
	if manager.Resources.Requests.Memory().IsZero() || manager.Resources.Requests.Cpu().IsZero() || manager.Resources.Limits.Memory().IsZero() {
		t.Errorf("resources %v", manager.Resources)
	}

	if manager.Args[0] != "manager" {
		t.Fatalf("args %q", manager.Args)
	}
	var options operator.Options
	flags := pflag.NewFlagSet("manager", pflag.ContinueOnError)
	options.AddFlags(flags)
	if err := flags.Parse(manager.Args[1:]); err != nil {
		t.Fatal(err)
	}
	if !options.LeaderElect {
		t.Error("no leader election")
	}
	port := map[string]string{}
	for _, p := range manager.Ports {
		port[p.Name] = fmt.Sprintf(":%d", p.ContainerPort)
	}
	for path, probe := range map[string]*corev1.Probe{"/healthz": manager.LivenessProbe, "/readyz": manager.ReadinessProbe} {
		if probe.HTTPGet.Path != path || port[probe.HTTPGet.Port.String()] != options.ProbeAddress {
			t.Errorf("the operator serves %s at %s, the probe asks for %v", path, options.ProbeAddress, probe.HTTPGet)
		}
	}
	service := typed(t, find(t, "default", "Service", "cachewright-metrics"), &corev1.Service{})
	if target := service.Spec.Ports[0]; port[target.TargetPort.String()] != options.MetricsAddress || target.Port != 8443 {
		t.Errorf("the operator serves metrics at %s, the Service sends %v", options.MetricsAddress, target)
	}
}

// What selects by labels finds what it is for.
func TestSelectors(t *testing.T) {
	d := deployment(t)
	service := typed(t, find(t, "default", "Service", "cachewright-metrics"), &corev1.Service{})
	policy := typed(t, find(t, "network-policy", "NetworkPolicy", "allow-metrics"), &networkingv1.NetworkPolicy{})
	monitor, _, _ := unstructured.NestedStringMap(find(t, "prometheus", "ServiceMonitor", "metrics").Object, "spec", "selector", "matchLabels")
	for name, test := range map[string]struct{ selector, labels map[string]string }{
		"Deployment":     {d.Spec.Selector.MatchLabels, d.Spec.Template.Labels},
		"Service":        {service.Spec.Selector, d.Spec.Template.Labels},
		"NetworkPolicy":  {policy.Spec.PodSelector.MatchLabels, d.Spec.Template.Labels},
		"ServiceMonitor": {monitor, service.Labels},
	} {
		if len(test.selector) == 0 || !labels.SelectorFromSet(test.selector).Matches(labels.Set(test.labels)) {
			t.Errorf("the %s selects %v, there is %v", name, test.selector, test.labels)
		}
	}
	endpoints, _, _ := unstructured.NestedSlice(find(t, "prometheus", "ServiceMonitor", "metrics").Object, "spec", "endpoints")
	if endpoint, ok := endpoints[0].(map[string]any); !ok || endpoint["port"] != service.Spec.Ports[0].Name {
		t.Errorf("the ServiceMonitor scrapes %v, the Service has %v", endpoints, service.Spec.Ports)
	}
	if port := policy.Spec.Ingress[0].Ports[0].Port.IntVal; port != service.Spec.Ports[0].Port {
		t.Errorf("the NetworkPolicy allows port %d", port)
	}
}

// A name that kustomize did not change along with the others would leave the operator without rights.
func TestBindings(t *testing.T) {
	const account = "cachewright-manager"
	find(t, "default", "ServiceAccount", account)
	if got := deployment(t).Spec.Template.Spec.ServiceAccountName; got != account {
		t.Errorf("the Deployment runs as %s, not %s", got, account)
	}
	bound := map[string]bool{}
	for _, o := range render(t, "default") {
		if o.GetKind() != "ClusterRoleBinding" && o.GetKind() != "RoleBinding" {
			continue
		}
		binding := typed(t, o, &rbacv1.RoleBinding{})
		find(t, "default", binding.RoleRef.Kind, binding.RoleRef.Name)
		bound[binding.RoleRef.Name] = true
		want := []rbacv1.Subject{{Kind: "ServiceAccount", Name: account, Namespace: namespace}}
		if diff := cmp.Diff(want, binding.Subjects); diff != "" {
			t.Errorf("%s (-want +got):\n%s", binding.Name, diff)
		}
	}
	want := map[string]bool{"cachewright-manager-role": true, "cachewright-leader-election-role": true, "cachewright-metrics-auth-role": true}
	if diff := cmp.Diff(want, bound); diff != "" {
		t.Errorf("roles of the operator (-want +got):\n%s", diff)
	}
}

// The rights of people come by way of Kubernetes' own view, edit and admin.
func TestAggregatedRoles(t *testing.T) {
	const prefix = "rbac.authorization.k8s.io/aggregate-to-"
	read := []string{"get", "list", "watch"}
	for name, want := range map[string]struct {
		roles []string
		verbs []string
	}{
		"cachewright-viewer": {[]string{"view"}, read},
		"cachewright-editor": {[]string{"admin", "edit"}, append(slices.Clone(read), "create", "update", "patch", "delete", "deletecollection")},
	} {
		role := typed(t, find(t, "default", "ClusterRole", name), &rbacv1.ClusterRole{})
		var into []string
		for label, value := range role.Labels {
			if to, ok := strings.CutPrefix(label, prefix); ok && value == "true" {
				into = append(into, to)
			}
		}
		slices.Sort(into)
		if diff := cmp.Diff(want.roles, into); diff != "" {
			t.Errorf("%s is aggregated to (-want +got):\n%s", name, diff)
		}
		rules := []rbacv1.PolicyRule{
			{APIGroups: []string{"cachewright.dev"}, Resources: []string{"cachepools", "cacheentries", "cacheflushes"}, Verbs: want.verbs},
			{APIGroups: []string{"cachewright.dev"}, Resources: []string{"cachepools/status", "cacheentries/status", "cacheflushes/status"}, Verbs: []string{"get"}},
		}
		if diff := cmp.Diff(rules, role.Rules); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// Every CRD there is gets installed.
func TestEveryCRD(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("crd", "bases", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if got := len(render(t, "crd")); got != len(files) {
		t.Errorf("config/crd renders %d CRDs, its bases are %d", got, len(files))
	}
}

// server is an administrator's client that refuses unknown and repeated fields.
func server(t *testing.T) client.Client {
	t.Helper()
	if api == nil {
		c, err := client.New(env.Config, client.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := v1alpha1.AddToScheme(c.Scheme()); err != nil {
			t.Fatal(err)
		}
		api = client.WithFieldValidation(c, metav1.FieldValidationStrict)
	}
	return api
}

func createNamespace(t *testing.T) {
	t.Helper()
	err := server(t).Create(t.Context(), find(t, "default", "Namespace", namespace))
	if err := client.IgnoreAlreadyExists(err); err != nil {
		t.Fatal(err)
	}
}

func deployment(t *testing.T) *appsv1.Deployment {
	t.Helper()
	return typed(t, find(t, "default", "Deployment", "cachewright-manager"), &appsv1.Deployment{})
}

func find(t *testing.T, folder, kind, name string) *unstructured.Unstructured {
	t.Helper()
	for _, o := range render(t, folder) {
		if o.GetKind() == kind && o.GetName() == name {
			return o
		}
	}
	t.Fatalf("config/%s has no %s %s", folder, kind, name)
	return nil
}

func typed[T any](t *testing.T, o *unstructured.Unstructured, into *T) *T {
	t.Helper()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o.Object, into, true); err != nil {
		t.Fatal(err)
	}
	return into
}

// render asks kubectl for a folder's objects, as make deploy does.
func render(t *testing.T, folder string) []*unstructured.Unstructured {
	t.Helper()
	if strings.HasPrefix(folder, "samples") && folder != "samples/gitops" {
		return samples(t, folder)
	}
	command := exec.CommandContext(t.Context(), env.ControlPlane.KubectlPath, "kustomize", folder)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	text, err := command.Output()
	if err != nil {
		t.Fatalf("kubectl kustomize config/%s: %v: %s", folder, err, &stderr)
	}
	return decode(t, text)
}

// samples are for kubectl apply -f, which takes every file in the folder for objects, a kustomization.yaml too.
func samples(t *testing.T, folder string) (objects []*unstructured.Unstructured) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, decode(t, text)...)
	}
	return objects
}

func decode(t *testing.T, text []byte) (objects []*unstructured.Unstructured) {
	t.Helper()
	for decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096); ; {
		o := &unstructured.Unstructured{}
		if err := decoder.Decode(o); errors.Is(err, io.EOF) {
			return objects
		} else if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, o)
	}
}
