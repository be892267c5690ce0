// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"
	authorizationv1 "k8s.io/api/authorization/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/controlplane"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// nights are a CronJob as the sample declares it, in a namespace that takes hardened pods only.
type nights struct {
	kubelet

	space string
	redis *redis.Client
	cron  *batchv1.CronJob
}

// The sample is applied as it is, and a real kube-controller-manager makes its Jobs and Pods.
func startNights(t *testing.T) *nights {
	t.Helper()
	n := &nights{kubelet: kubelet{WithT: expectations(t), t: t}, space: namespace(t, "nights")}
	n.Expect(k8s.Patch(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n.space}},
		client.RawPatch(client.Merge.Type(), []byte(`{"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}`)))).To(Succeed())
	root, err := controlplane.Root()
	n.Expect(err).NotTo(HaveOccurred())
	sample, err := os.ReadFile(filepath.Join(root, "config", "samples", "cronjob", "nightly-flush.yaml"))
	n.Expect(err).NotTo(HaveOccurred())
	strict := client.WithFieldValidation(client.NewNamespacedClient(k8s, n.space), metav1.FieldValidationStrict)
	for _, o := range decode(t, sample) {
		n.Expect(strict.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("test"))).To(Succeed())
	}
	n.cron = &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "nightly-flush", Namespace: n.space}}
	n.Expect(k8s.Get(t.Context(), client.ObjectKeyFromObject(n.cron), n.cron)).To(Succeed())
	return n
}

// due has the CronJob missed its time: its controller makes up for that at once.
func (n *nights) due(lastTime time.Time) {
	n.t.Helper()
	before := n.cron.DeepCopy()
	n.cron.Status.LastScheduleTime = &metav1.Time{Time: lastTime}
	n.Expect(k8s.Status().Patch(n.t.Context(), n.cron, client.MergeFrom(before))).To(Succeed())
}

// everyMinute is a night from now on, and the last one was missed.
func (n *nights) everyMinute() {
	n.t.Helper()
	before := n.cron.DeepCopy()
	n.cron.Spec.Schedule = "* * * * *"
	n.Expect(k8s.Patch(n.t.Context(), n.cron, client.MergeFrom(before))).To(Succeed())
	n.due(time.Now().Add(-2 * time.Minute))
}

// job that the CronJob has made after others.
func (n *nights) job(others ...*batchv1.Job) *batchv1.Job {
	n.t.Helper()
	var list batchv1.JobList
	n.Eventually(func() int {
		n.Expect(k8s.List(n.t.Context(), &list, client.InNamespace(n.space))).To(Succeed())
		return len(list.Items)
	}).Should(Equal(len(others) + 1))
	for i := range list.Items {
		if job := &list.Items[i]; len(others) == 0 || job.Name != others[0].Name {
			n.Expect(metav1.IsControlledBy(job, n.cron)).To(BeTrue())
			return job
		}
	}
	n.t.Fatal("the Jobs have one name")
	return nil
}

// pod of a Job that waits for a node.
func (n *nights) pod(job *batchv1.Job) *corev1.Pod {
	n.t.Helper()
	var pod corev1.Pod
	n.Eventually(func(g Gomega) {
		var list corev1.PodList
		g.Expect(k8s.List(n.t.Context(), &list, client.InNamespace(n.space), client.MatchingLabels{batchv1.JobNameLabel: job.Name})).To(Succeed())
		for _, pod = range list.Items {
			if pod.Status.Phase == corev1.PodPending {
				return
			}
		}
		g.Expect(list.Items).To(ContainElement(HaveField("Status.Phase", corev1.PodPending)))
	}).Should(Succeed())
	return &pod
}

// ends waits for a condition of a Job.
func (n *nights) ends(job *batchv1.Job, condition batchv1.JobConditionType) {
	n.t.Helper()
	n.Eventually(func(g Gomega) {
		g.Expect(k8s.Get(n.t.Context(), client.ObjectKeyFromObject(job), job)).To(Succeed())
		g.Expect(job.Status.Conditions).To(ContainElement(And(HaveField("Type", condition), HaveField("Status", corev1.ConditionTrue))))
	}).Should(Succeed())
}

// flushes there are, by name.
func (n *nights) flushes() (names []string) {
	n.t.Helper()
	var list v1alpha1.CacheFlushList
	n.Expect(k8s.List(n.t.Context(), &list, client.InNamespace(n.space))).To(Succeed())
	for _, f := range list.Items {
		names = append(names, f.Name)
	}
	return names
}

// waitsFor what the reason says.
func (n *nights) waitsFor(flush, reason string) {
	n.t.Helper()
	f := &v1alpha1.CacheFlush{}
	n.Eventually(func(g Gomega) {
		g.Expect(k8s.Get(n.t.Context(), client.ObjectKey{Namespace: n.space, Name: flush}, f)).To(Succeed())
		g.Expect(f.Status.Conditions).To(ContainElement(And(HaveField("Type", v1alpha1.ConditionReady), HaveField("Reason", reason))))
	}).Should(Succeed())
}

// leave keys in the cache.
func (n *nights) leave(keys ...string) {
	n.t.Helper()
	for _, key := range keys {
		n.Expect(n.redis.Set(n.t.Context(), "glimr:cache:main:"+key, "v", 0).Err()).To(Succeed())
	}
}

// keys of the cache, without the pool's prefix.
func (n *nights) keys() (keys []string) {
	n.t.Helper()
	found, err := n.redis.Keys(n.t.Context(), "*").Result()
	n.Expect(err).NotTo(HaveOccurred())
	for _, key := range found {
		keys = append(keys, strings.TrimPrefix(key, "glimr:cache:main:"))
	}
	return keys
}

func TestTheSampleCronJobFlushesEachNightOnce(t *testing.T) {
	n := startNights(t)
	server := redistest.Start(t)
	n.redis = server.Client(t)
	run(t, kubeconfig, "--namespaces="+n.space)
	controlplane.StartControllerManager(t, kubeconfig, "cronjob-controller", "job-controller")
	n.leave("report:1", "report:2", "user:1")

	// Three o'clock comes while the pool is not there. The pod gives up in time; its flush waits.
	n.due(time.Now().Add(-48 * time.Hour))
	first := n.job()
	pod := n.pod(first)
	code, said := n.run(pod, "--timeout=30m", "--timeout=3s")
	n.Expect(code).To(Equal(3), said)
	n.Expect(said).To(And(ContainSubstring("created"), ContainSubstring("error: timed out; cacheflush/"+first.Name+" goes on\n")))
	n.Expect(n.flushes()).To(Equal([]string{first.Name}))
	n.waitsFor(first.Name, v1alpha1.ReasonPoolNotFound)
	n.report(pod, code)

	// The next night does not begin before this one is over.
	n.everyMinute()
	n.Eventually(func(g Gomega) {
		var events corev1.EventList
		g.Expect(k8s.List(t.Context(), &events, client.InNamespace(n.space))).To(Succeed())
		g.Expect(events.Items).To(ContainElement(HaveField("Reason", "JobAlreadyActive")))
	}).Should(Succeed())
	n.job()

	// The pool is back. The Job's next pod follows the flush of the first one, to its end.
	n.Expect(k8s.Create(t.Context(), poolIn(n.space, server.Addr))).To(Succeed())
	again := n.pod(first)
	n.Expect(again.Name).NotTo(Equal(pod.Name))
	n.Expect(again.Spec.Containers[0].Args).To(Equal(pod.Spec.Containers[0].Args))
	code, said = n.run(again)
	n.Expect(code).To(BeZero(), said)
	n.Expect(said).To(And(ContainSubstring("exists with the same spec"), ContainSubstring("complete: 2 keys deleted, 0 preserved")))
	n.Expect(n.keys()).To(ConsistOf("user:1"))

	// Once more the same command: nothing is flushed twice.
	n.leave("report:1")
	code, said = n.run(again)
	n.Expect(code).To(BeZero(), said)
	n.Expect(n.flushes()).To(Equal([]string{first.Name}))
	n.Expect(n.keys()).To(ConsistOf("report:1", "user:1"))
	n.report(again, code)
	n.ends(first, batchv1.JobComplete)

	// Another night is another Job, and another flush.
	second := n.job(first)
	pod = n.pod(second)
	code, said = n.run(pod)
	n.Expect(code).To(BeZero(), said)
	n.Expect(said).To(And(ContainSubstring("created"), ContainSubstring("complete: 1 key deleted")))
	n.Expect(n.flushes()).To(ConsistOf(first.Name, second.Name))
	n.Expect(n.keys()).To(ConsistOf("user:1"))
	n.report(pod, code)
	n.ends(second, batchv1.JobComplete)

	used, refused := requests(t, "system:serviceaccount:"+n.space+":nightly-flush")
	n.Expect(refused).To(BeEmpty(), "the pods asked for what they have no right to")
	n.Expect(used).To(ContainElement("cacheflushes.cachewright.dev create"), "the requests are the pods'")
}

// as a ServiceAccount of the namespace.
func (n *nights) as(account string) client.Client {
	n.t.Helper()
	c := rest.AnonymousClientConfig(config)
	c.BearerToken = tokenOf(n.t, n.WithT, account, n.space)
	as, err := client.New(c, client.Options{Scheme: k8s.Scheme(), Mapper: k8s.RESTMapper()})
	n.Expect(err).NotTo(HaveOccurred())
	return as
}

// rulesIn a namespace say what a client may do there.
func (n *nights) rulesIn(space string, as client.Client) []authorizationv1.ResourceRule {
	n.t.Helper()
	review := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: space}}
	n.Expect(as.Create(n.t.Context(), review)).To(Succeed())
	n.Expect(review.Status.Incomplete).To(BeFalse())
	return review.Status.ResourceRules
}

func TestTheSampleCronJobMayCreateAndFollowFlushesAndNothingElse(t *testing.T) {
	n := startNights(t)
	n.Expect(k8s.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "stranger", Namespace: n.space}})).To(Succeed())
	account := n.as("nightly-flush")
	may, everybody := n.rulesIn(n.space, account), n.rulesIn(n.space, n.as("stranger"))
	want := slices.Concat(everybody, []authorizationv1.ResourceRule{{
		Verbs: []string{"create", "get", "list", "watch"}, APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"cacheflushes"},
	}})
	n.Expect(may).To(ConsistOf(want), cmp.Diff(want, may))
	n.Expect(n.rulesIn("default", account)).To(ConsistOf(everybody), "nothing in another namespace")

	// What the API server says is what it does.
	flush := flushIn(n.space, "somebodys")
	flush.Spec.All = new(true)
	n.Expect(k8s.Create(t.Context(), flush)).To(Succeed())
	n.Expect(account.Get(t.Context(), client.ObjectKeyFromObject(flush), flush)).To(Succeed())
	for what, err := range map[string]error{
		"cancel a flush":    account.Delete(t.Context(), flush),
		"change a flush":    account.Update(t.Context(), flush),
		"create an entry":   account.Create(t.Context(), entryIn(n.space, "entry")),
		"read Secrets":      account.List(t.Context(), &corev1.SecretList{}, client.InNamespace(n.space)),
		"flush in default":  account.Create(t.Context(), flushIn("default", "flush")),
		"read other spaces": account.List(t.Context(), &v1alpha1.CacheFlushList{}, client.InNamespace("default")),
	} {
		n.Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%s: %v", what, err)
	}
}
