// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// accountFiles is where a pod finds its ServiceAccount.
const accountFiles = "/var/run/secrets/kubernetes.io/serviceaccount"

// mounted runs a program, given after an assignment for each of its variables, with the files of a folder at a place
// below /var/run, and with no other variables.
const mounted = `mount -t tmpfs none /var/run && mkdir -p "$0" && cp "$1"/* "$0" && shift && exec env -i "$@"`

// kubelet does for a pod what the one of its node would: there is neither node nor kubelet.
type kubelet struct {
	*WithT

	t *testing.T
}

// run the pod's container, which has the operator's image, and give its exit code and what it said. What replace names
// is another text in its arguments.
func (k *kubelet) run(pod *corev1.Pod, replace ...string) (int, string) {
	k.t.Helper()
	k.Expect(pod.Spec.Containers).To(HaveLen(1))
	container := pod.Spec.Containers[0]
	k.Expect(container.Command).To(BeEmpty(), "the image says which program it is")
	environment := k.environment(pod)
	command := []string{binary}
	for _, arg := range container.Args {
		command = append(command, strings.NewReplacer(replace...).Replace(expand(arg, environment)))
	}
	ctx, cancel := context.WithTimeout(k.t.Context(), patience)
	defer cancel()
	process := k.process(ctx, k.account(pod), environment, command)
	var said bytes.Buffer
	process.Stdout, process.Stderr = &said, &said
	err := process.Run()
	if exit := (&exec.ExitError{}); err != nil && !errors.As(err, &exit) {
		k.t.Fatal(err)
	}
	k.Expect(ctx.Err()).NotTo(HaveOccurred(), said.String())
	k.t.Logf("%s\n%s", strings.Join(command[1:], " "), &said)
	return process.ProcessState.ExitCode(), said.String()
}

// environment of the pod's container.
func (k *kubelet) environment(pod *corev1.Pod) map[string]string {
	k.t.Helper()
	label := regexp.MustCompile(`^metadata\.labels\['(.*)'\]$`)
	values := map[string]string{}
	for _, v := range pod.Spec.Containers[0].Env {
		values[v.Name] = v.Value
		if v.ValueFrom == nil {
			continue
		}
		k.Expect(v.ValueFrom.FieldRef).NotTo(BeNil(), "this kubelet knows the labels of a pod only")
		field := label.FindStringSubmatch(v.ValueFrom.FieldRef.FieldPath)
		k.Expect(field).NotTo(BeNil(), "this kubelet knows the labels of a pod only")
		values[v.Name] = pod.Labels[field[1]]
	}
	return values
}

// expand $(NAME) where there is such a variable.
func expand(arg string, environment map[string]string) string {
	return regexp.MustCompile(`\$\(\w+\)`).ReplaceAllStringFunc(arg, func(reference string) string {
		if value, ok := environment[reference[2:len(reference)-1]]; ok {
			return value
		}
		return reference
	})
}

// account is a folder with the token of the pod's ServiceAccount, the API server's CA, and the namespace.
func (k *kubelet) account(pod *corev1.Pod) string {
	k.t.Helper()
	dir := k.t.TempDir()
	for name, content := range map[string][]byte{
		"token":     []byte(k.token(pod)),
		"ca.crt":    config.CAData,
		"namespace": []byte(pod.Namespace),
	} {
		k.Expect(os.WriteFile(filepath.Join(dir, name), content, 0o600)).To(Succeed())
	}
	return dir
}

// token that ends with the pod.
func (k *kubelet) token(pod *corev1.Pod) string {
	k.t.Helper()
	k.Expect(pod.Spec.AutomountServiceAccountToken).To(BeNil(), "the pod gets its token")
	clientset, err := kubernetes.NewForConfig(config)
	k.Expect(err).NotTo(HaveOccurred())
	request, err := clientset.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(k.t.Context(), pod.Spec.ServiceAccountName,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
		}}, metav1.CreateOptions{})
	k.Expect(err).NotTo(HaveOccurred())
	return request.Status.Token
}

// process that finds its account where every pod does: /var/run is its own. Where the system lets nobody but a real
// root mount anything, as in many containers, a kubeconfig says the same.
func (k *kubelet) process(ctx context.Context, account string, environment map[string]string, command []string) *exec.Cmd {
	k.t.Helper()
	var variables []string
	for name, value := range environment {
		variables = append(variables, name+"="+value)
	}
	unshare := []string{"--user", "--map-root-user", "--mount", "sh", "-c", mounted, accountFiles, account}
	probe := exec.CommandContext(ctx, "unshare", append(slices.Clone(unshare), "true")...)
	if out, err := probe.CombinedOutput(); err != nil {
		k.t.Logf("the pod has a kubeconfig, since nothing can be mounted here: %v: %s", err, out)
		process := exec.CommandContext(ctx, command[0], command[1:]...)
		process.Env = slices.Concat(variables, []string{"KUBECONFIG=" + k.kubeconfig(account)})
		return process
	}
	server, err := url.Parse(config.Host)
	k.Expect(err).NotTo(HaveOccurred())
	variables = append(variables, "KUBERNETES_SERVICE_HOST="+server.Hostname(), "KUBERNETES_SERVICE_PORT="+server.Port())
	return exec.CommandContext(ctx, "unshare", slices.Concat(unshare, variables, command)...)
}

// kubeconfig that says what the files of a ServiceAccount say.
func (k *kubelet) kubeconfig(account string) string {
	k.t.Helper()
	namespace, err := os.ReadFile(filepath.Join(account, "namespace"))
	k.Expect(err).NotTo(HaveOccurred())
	c, err := clientcmd.Load(kubeconfig)
	k.Expect(err).NotTo(HaveOccurred())
	for _, user := range c.AuthInfos {
		*user = api.AuthInfo{TokenFile: filepath.Join(account, "token")}
	}
	c.Contexts[c.CurrentContext].Namespace = string(namespace)
	file := filepath.Join(account, "kubeconfig")
	k.Expect(clientcmd.WriteToFile(*c, file)).To(Succeed())
	return file
}

// report how the pod's container ended.
func (k *kubelet) report(pod *corev1.Pod, code int) {
	k.t.Helper()
	before := pod.DeepCopy()
	pod.Status.Phase = corev1.PodSucceeded
	if code != 0 {
		pod.Status.Phase = corev1.PodFailed
	}
	container := pod.Spec.Containers[0]
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: container.Name, Image: container.Image,
		State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: int32(code), FinishedAt: metav1.Now()}},
	}}
	k.Expect(k8s.Status().Patch(k.t.Context(), pod, client.MergeFrom(before))).To(Succeed())
}
