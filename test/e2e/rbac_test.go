// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/controlplane"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

const (
	systemNamespace = "cachewright-system"
	serviceAccount  = "cachewright-manager"
	username        = "system:serviceaccount:" + systemNamespace + ":" + serviceAccount
	// secretContent is what neither logs nor metrics may show.
	secretContent = "hunter2"
)

// rights are all that the operator may do, each with what it is for. A right that nothing needs must go.
var rights = map[string]string{
	"configmaps get":                                   "sources of entries are read when they change",
	"configmaps list":                                  "their names and versions are watched, not their contents",
	"configmaps watch":                                 "a changed source is written at once",
	"secrets get":                                      "credentials of pools and sources of entries are read when they change",
	"secrets list":                                     "their names and versions are watched, not their contents",
	"secrets watch":                                    "a rotated password is used at once",
	"cachepools.cachewright.dev list":                  "the cache of the operator",
	"cachepools.cachewright.dev watch":                 "the cache of the operator",
	"cachepools.cachewright.dev patch":                 "the finalizer",
	"cachepools/status.cachewright.dev patch":          "the status",
	"cacheentries.cachewright.dev list":                "the cache of the operator",
	"cacheentries.cachewright.dev watch":               "the cache of the operator",
	"cacheentries.cachewright.dev patch":               "the finalizer, and the record of what was written",
	"cacheentries/status.cachewright.dev patch":        "the status",
	"cacheflushes.cachewright.dev get":                 "the live read before each slice",
	"cacheflushes.cachewright.dev list":                "the cache of the operator",
	"cacheflushes.cachewright.dev watch":               "the cache of the operator",
	"cacheflushes.cachewright.dev delete":              "ttlSecondsAfterFinished",
	"cacheflushes/status.cachewright.dev patch":        "the status",
	"namespaces list":                                  "the labels that pools admit namespaces by",
	"namespaces watch":                                 "a changed label counts at once",
	"events.events.k8s.io create":                      "what happened",
	"events.events.k8s.io patch":                       "that it happened again",
	"leases.coordination.k8s.io get":                   "who leads",
	"leases.coordination.k8s.io create":                "the first leader",
	"leases.coordination.k8s.io update":                "the leader's sign of life",
	"events create":                                    "who leads; the library uses the older events for that",
	"events patch":                                     "the same again",
	"tokenreviews.authentication.k8s.io create":        "who asks for metrics",
	"subjectaccessreviews.authorization.k8s.io create": "whether they may have them",
}

// seldom are the rights that the story below makes no use of.
var seldom = []string{
	"events patch", "events.events.k8s.io patch", // only for what happens again and again within minutes
	// Where the API server can, a watch begins with what is there.
	"cachepools.cachewright.dev list", "cacheentries.cachewright.dev list", "cacheflushes.cachewright.dev list", "configmaps list", "secrets list", "namespaces list",
}

func TestTheOperatorWorksWithTheRightsThatItsManifestsGiveIt(t *testing.T) {
	g := expectations(t)
	server := redistest.Start(t, "--requirepass", "first")
	manifests := install(t, g, "default")
	metrics := freeAddress(t)
	m := run(t, kubeconfigOf(t, g, serviceAccount, systemNamespace),
		"--leader-elect", "--leader-election-namespace="+systemNamespace, "--metrics-bind-address="+metrics)

	story(t, g, server, namespace(t, "shop"))
	g.Expect(m.logged()).NotTo(Or(ContainSubstring("forbidden"), ContainSubstring("Unauthorized"), ContainSubstring(`"level":"error"`)))
	scrape(t, g, metrics)
	m.stop()
	g.Expect(m.logged()).NotTo(Or(ContainSubstring("forbidden"), ContainSubstring(secretContent)))

	granted := grantedBy(manifests)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(rights)), granted); diff != "" {
		t.Errorf("the manifests grant other rights than the operator is known to need:\n%s", diff)
	}
	used, refused := requests(t, username)
	g.Expect(refused).To(BeEmpty(), "the operator asked for what it has no right to")
	for _, right := range granted {
		if !slices.Contains(used, right) && !slices.Contains(seldom, right) {
			t.Errorf("right %q was never used", right)
		}
	}
}

// install what `kubectl apply -k config/<overlay>` does, but for the CRDs, which are there.
func install(t *testing.T, g *WithT, overlay string) []*unstructured.Unstructured {
	t.Helper()
	root, err := controlplane.Root()
	g.Expect(err).NotTo(HaveOccurred())
	command := exec.Command("go", "tool", "-modfile=hack/tools/go.mod", "kustomize", "build", "config/"+overlay)
	command.Dir = root
	var stderr bytes.Buffer
	command.Stderr = &stderr
	rendered, err := command.Output()
	g.Expect(err).NotTo(HaveOccurred(), stderr.String())
	var objects []*unstructured.Unstructured
	for _, object := range decode(t, rendered) {
		if object.GroupVersionKind().Group == apiextensionsv1.GroupName {
			continue
		}
		g.Expect(k8s.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("test"))).To(Succeed())
		objects = append(objects, object)
	}
	return objects
}

// decode the objects of a manifest.
func decode(t *testing.T, text []byte) (objects []*unstructured.Unstructured) {
	t.Helper()
	for decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096); ; {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(object); errors.Is(err, io.EOF) {
			return objects
		} else if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, object)
	}
}

// kubeconfigOf a ServiceAccount, with a token of its own.
func kubeconfigOf(t *testing.T, g *WithT, name, namespace string) []byte {
	t.Helper()
	c, err := clientcmd.Load(kubeconfig)
	g.Expect(err).NotTo(HaveOccurred())
	for _, user := range c.AuthInfos {
		*user = api.AuthInfo{Token: tokenOf(t, g, name, namespace)}
	}
	text, err := clientcmd.Write(*c)
	g.Expect(err).NotTo(HaveOccurred())
	return text
}

func tokenOf(t *testing.T, g *WithT, name, namespace string) string {
	t.Helper()
	clientset, err := kubernetes.NewForConfig(config)
	g.Expect(err).NotTo(HaveOccurred())
	request, err := clientset.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	return request.Status.Token
}

// story has the operator do everything that it can.
func story(t *testing.T, g *WithT, server *redistest.Server, space string) {
	t.Helper()
	ctx := t.Context()
	create := func(o client.Object) {
		t.Helper()
		o.SetNamespace(space)
		g.Expect(k8s.Create(ctx, o)).To(Succeed())
	}
	auth := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "redis-auth"}, StringData: map[string]string{"password": "first"}}
	create(auth)
	create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "source"}, StringData: map[string]string{"k": secretContent}})
	create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "source"}, Data: map[string]string{"k": "from a config map"}})
	pool := poolIn(space, server.Addr)
	pool.Spec.CredentialsSecretRef = &v1alpha1.CredentialsSecretReference{Name: "redis-auth"}
	create(pool)
	becomes(t, g, pool, v1alpha1.ConditionReady)

	redis := server.Client(t)
	g.Expect(redis.Do(ctx, "auth", "first").Err()).To(Succeed())
	entries := map[string]func(*v1alpha1.CacheEntrySpec){
		"on":       func(s *v1alpha1.CacheEntrySpec) { s.Value = new("on") },
		`{"a":1}`:  func(s *v1alpha1.CacheEntrySpec) { s.JSON = json.RawMessage(`{"a": 1}`) },
		"\x00\x01": func(s *v1alpha1.CacheEntrySpec) { s.Binary = []byte{0, 1} },
		"from a config map": func(s *v1alpha1.CacheEntrySpec) {
			s.ValueFrom = &v1alpha1.ValueSource{ConfigMapKeyRef: &v1alpha1.KeyReference{Name: "source", Key: "k"}}
		},
		"from a secret": func(s *v1alpha1.CacheEntrySpec) {
			s.ValueFrom = &v1alpha1.ValueSource{SecretKeyRef: &v1alpha1.KeyReference{Name: "source", Key: "k"}}
		},
	}
	var created []*v1alpha1.CacheEntry
	for value, change := range entries {
		e := &v1alpha1.CacheEntry{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "entry-"},
			Spec:       v1alpha1.CacheEntrySpec{PoolRef: v1alpha1.PoolReference{Name: "main"}, Key: "key of " + value, Forever: new(true)},
		}
		if strings.Contains(value, "\x00") {
			e.Spec.Key = "binary"
		}
		change(&e.Spec)
		create(e)
		becomes(t, g, e, v1alpha1.ConditionReady)
		created = append(created, e)
	}
	flush := flushIn(space, "flush")
	flush.Spec.All, flush.Spec.TTLSecondsAfterFinished = new(true), new(int32(10))
	create(flush)
	becomes(t, g, flush, v1alpha1.ConditionComplete)
	g.Expect(flush.Status.Progress.Preserved).To(BeEquivalentTo(len(created)))
	vanishes(t, g, flush)
	for _, e := range created {
		g.Expect(k8s.Delete(ctx, e)).To(Succeed())
		vanishes(t, g, e)
	}
	g.Expect(k8s.Delete(ctx, pool)).To(Succeed())
	vanishes(t, g, pool)
}

// scrape the metrics: only those may whom the API server lets.
func scrape(t *testing.T, g *WithT, addr string) {
	t.Helper()
	space := namespace(t, "monitoring")
	for _, name := range []string{"stranger", "prometheus"} {
		g.Expect(k8s.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: space}})).To(Succeed())
	}
	g.Expect(k8s.Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "prometheus-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cachewright-metrics-reader"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "prometheus", Namespace: space}},
	})).To(Succeed())
	get := func(token string) (int, string) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+addr+"/metrics", http.NoBody)
		g.Expect(err).NotTo(HaveOccurred())
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		http1 := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // it signs its own
		response, err := http1.Do(request)
		if err != nil {
			return 0, err.Error()
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		g.Expect(err).NotTo(HaveOccurred())
		return response.StatusCode, string(body)
	}
	g.Eventually(func() int { code, _ := get(""); return code }).Should(Equal(http.StatusUnauthorized))
	code, body := get("nonsense")
	g.Expect(code).To(BeNumerically(">=", http.StatusBadRequest))
	g.Expect(body).NotTo(ContainSubstring("controller_runtime"))
	code, _ = get(tokenOf(t, g, "stranger", space))
	g.Expect(code).To(Equal(http.StatusForbidden))
	code, body = get(tokenOf(t, g, "prometheus", space))
	g.Expect(code).To(Equal(http.StatusOK), body)
	g.Expect(body).To(ContainSubstring("controller_runtime_reconcile_total"))
	g.Expect(body).NotTo(ContainSubstring(secretContent))
	plain, err := http.Get("http://" + addr + "/metrics")
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = plain.Body.Close() }()
	g.Expect(plain.StatusCode).To(Equal(http.StatusBadRequest), "nothing is told in the clear")
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = conn.Close() }()
	g.Expect(conn.ConnectionState().NegotiatedProtocol).To(Equal("http/1.1"), "one connection of a stranger asks for one thing at a time")
}

// grantedBy the roles that the manifests bind to the operator, as "resource[.group] verb", sorted.
func grantedBy(manifests []*unstructured.Unstructured) []string {
	bound := map[string]bool{}
	for _, o := range manifests {
		if !strings.HasSuffix(o.GetKind(), "RoleBinding") {
			continue
		}
		subjects, _, _ := unstructured.NestedSlice(o.Object, "subjects")
		for _, s := range subjects {
			if subject, ok := s.(map[string]any); ok && subject["name"] == serviceAccount {
				role, _, _ := unstructured.NestedString(o.Object, "roleRef", "name")
				bound[role] = true
			}
		}
	}
	var granted []string
	for _, o := range manifests {
		if !strings.HasSuffix(o.GetKind(), "Role") || !bound[o.GetName()] {
			continue
		}
		rules, _, _ := unstructured.NestedSlice(o.Object, "rules")
		for _, r := range rules {
			rule, _ := r.(map[string]any)
			groups, _, _ := unstructured.NestedStringSlice(rule, "apiGroups")
			resources, _, _ := unstructured.NestedStringSlice(rule, "resources")
			verbs, _, _ := unstructured.NestedStringSlice(rule, "verbs")
			for _, group := range groups {
				for _, resource := range resources {
					for _, verb := range verbs {
						granted = append(granted, right(group, resource, verb))
					}
				}
			}
		}
	}
	slices.Sort(granted)
	return slices.Compact(granted)
}

func right(group, resource, verb string) string {
	if group != "" {
		resource += "." + group
	}
	return resource + " " + verb
}

// requests of an operator that the API server has noted: rights that were used, and requests that were refused.
func requests(t *testing.T, username string) (used, refused []string) {
	t.Helper()
	file, err := os.Open(auditLog)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct {
			Verb string `json:"verb"`
			User struct {
				Username string `json:"username"`
			} `json:"user"`
			ObjectRef *struct {
				APIGroup    string `json:"apiGroup"`
				Resource    string `json:"resource"`
				Subresource string `json:"subresource"`
			} `json:"objectRef"`
			ResponseStatus struct {
				Code int `json:"code"`
			} `json:"responseStatus"`
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if e.User.Username != username || e.ObjectRef == nil || e.ObjectRef.Resource == "" {
			continue
		}
		resource := e.ObjectRef.Resource
		if e.ObjectRef.Subresource != "" {
			resource += "/" + e.ObjectRef.Subresource
		}
		used = append(used, right(e.ObjectRef.APIGroup, resource, e.Verb))
		if e.ResponseStatus.Code == http.StatusForbidden || e.ResponseStatus.Code == http.StatusUnauthorized {
			refused = append(refused, used[len(used)-1])
		}
	}
	return used, refused
}
