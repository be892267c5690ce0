// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// open to all namespaces is a pool.
func open(p *v1alpha1.CachePool) {
	p.Spec.AllowedNamespaces = &v1alpha1.AllowedNamespaces{From: v1alpha1.FromAll}
}

// shut to all namespaces but its own is a pool.
func shut(p *v1alpha1.CachePool) { p.Spec.AllowedNamespaces = nil }

// choosy is a pool that is open to namespaces with the label team=<team>.
func choosy(team string) func(*v1alpha1.CachePool) {
	return func(p *v1alpha1.CachePool) {
		p.Spec.AllowedNamespaces = &v1alpha1.AllowedNamespaces{
			From: v1alpha1.FromSelector, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": team}},
		}
	}
}

// tenant is another namespace, whose entries and flushes work in pool main of the world.
type tenant struct {
	*world

	owner string
	// prefix of its keys in pool main.
	prefix string
}

func (w *world) tenant() *tenant {
	w.t.Helper()
	there := w.sub(w.t)
	there.namespace = space(w.t)
	return &tenant{world: there, owner: w.namespace, prefix: mainPrefix + there.namespace + ":"}
}

func (t *tenant) entry(name string, change ...func(*v1alpha1.CacheEntry)) *v1alpha1.CacheEntry {
	e := t.world.entry(name, change...)
	e.Spec.PoolRef.Namespace = t.owner
	return e
}

func (t *tenant) flush(name string, change ...func(*v1alpha1.CacheFlush)) *v1alpha1.CacheFlush {
	f := t.world.flush(name, change...)
	f.Spec.PoolRef.Namespace = t.owner
	return f
}

// label the tenant's namespace.
func (t *tenant) label(team string) {
	t.t.Helper()
	update(t.world, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: t.namespace}}, func(n *corev1.Namespace) { n.Labels["team"] = team })
}

// later waits until objects that are created now are younger than those that were.
func (w *world) later() {
	w.t.Helper()
	next := time.Now().Truncate(time.Second).Add(time.Second)
	w.Eventually(time.Now).Should(BeTemporally(">", next))
}

// excluded reads the conditions of a flush that no pool serves.
const excluded = "Ready=False/PoolNotFound Reconciling=True/PoolNotFound"

func TestAnEntryOfAnotherNamespaceIsKeptBehindItsFence(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready(open, seldom)
	guest := w.tenant()
	w.watched(p)
	e := guest.entry("a")
	guest.create(e)
	guest.becomes(e, isWarm)
	w.Expect(e.Status.Pool).To(Equal(w.namespace + "/main"))
	w.Expect(e.Status.Key).To(Equal(guest.prefix + "a"))
	w.holds(guest.prefix+"a", "value of a")
	w.Expect(w.keys("*:a")).To(Equal([]string{guest.prefix + "a"}))

	w.set(guest.prefix+"a", "drift")
	w.holds(guest.prefix+"a", "value of a")
	update(guest.world, e, func(e *v1alpha1.CacheEntry) { e.Spec.Key = "b" })
	w.holds(guest.prefix+"b", "value of a")
	w.lacks(guest.prefix + "a")
	guest.delete(e)
	guest.vanishes(e)
	w.Expect(w.keys(mainPrefix + "*")).To(BeEmpty())
}

// A poolRef that spells its own namespace out means the same as one that does not.
func TestAPoolRefMaySpellOutItsOwnNamespace(t *testing.T) {
	w := newWorld(t)
	w.ready()
	e, f := w.entry("a"), w.flush("all", all)
	e.Spec.PoolRef.Namespace, f.Spec.PoolRef.Namespace = w.namespace, w.namespace
	w.create(e)
	w.becomes(e, isWarm)
	w.Expect(e.Status.Key).To(Equal(mainPrefix + "a"))
	w.create(f)
	w.becomes(f, flushed)
	w.holds(mainPrefix+"a", "value of a")
}

func TestTheLongestKeyOfATenant(t *testing.T) {
	w := newWorld(t)
	prefix := strings.Repeat("p", 320)
	w.ready(open, under(prefix))
	guest := w.tenant()
	e := guest.entry("longest", keyed(strings.Repeat("é", 512)))
	guest.create(e)
	guest.becomes(e, isWarm)
	w.holds(prefix+guest.namespace+":"+e.Spec.Key, "value of longest")
}

func TestACounterOfATenant(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(open)
	guest := w.tenant()
	e := guest.entry("n", deleting, func(e *v1alpha1.CacheEntry) {
		e.Spec.Value, e.Spec.Counter = nil, &v1alpha1.CounterSpec{Increment: 5, RunID: "v1"}
	})
	guest.create(e)
	guest.becomes(e, "Ready=True/Applied")
	w.holds(guest.prefix+"n", "5")
	guest.delete(e)
	guest.vanishes(e)
	w.Expect(w.keys("*")).To(BeEmpty())
}

// A dry run names keys as the tenant would.
func TestTheSampleOfATenantIsWithoutItsFence(t *testing.T) {
	w := newWorld(t)
	w.ready(open)
	guest := w.tenant()
	w.set(guest.prefix+"k", "v")
	f := guest.flush("dry", all, dryRun)
	guest.create(f)
	guest.becomes(f, counted)
	w.Expect(f.Status.Sample).To(Equal([]string{"k"}))
}

// Whatever a tenant's flush takes, it takes of its own keys only.
func TestTheFlushOfATenantReachesItsOwnKeysOnly(t *testing.T) {
	t.Parallel()
	for name, target := range map[string]func(*v1alpha1.CacheFlush){
		"all":                all,
		"prefix":             prefixed("k"),
		"match":              matching("*"),
		"match with classes": matching("[^x]*"),
		"keys":               named("k", "../k", "*"),
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			w.ready(open)
			guest, other := w.tenant(), w.tenant()
			foreign := []string{mainPrefix + "k", mainPrefix + guest.namespace, other.prefix + "k", guest.namespace + ":k", "k"}
			for _, key := range append(foreign, guest.prefix+"k") {
				w.set(key, "v")
			}
			f := guest.flush("f", target)
			guest.create(f)
			guest.becomes(f, flushed)
			w.lacks(guest.prefix + "k")
			w.Expect(f.Status.Progress.Deleted).To(BeEquivalentTo(1))
			w.Expect(w.keys("*")).To(ConsistOf(foreign))
		})
	}
}

// A tenant that names another's namespace in its keys comes no further.
func TestTheKeysOfATenantCannotLeaveItsFence(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(open)
	guest, other := w.tenant(), w.tenant()
	w.set(other.prefix+"k", "v")
	e := guest.entry("e", keyed(other.namespace+":k"))
	guest.create(e)
	guest.becomes(e, isWarm)
	w.holds(guest.prefix+other.namespace+":k", "value of e")
	f := guest.flush("f", prefixed(other.namespace+":"))
	guest.create(f)
	guest.becomes(f, flushed)
	guest.delete(e)
	guest.vanishes(e)
	w.Expect(w.keys("*")).To(Equal([]string{other.prefix + "k"}))
	w.holds(other.prefix+"k", "v")
}

// The pool is its owner's, with all that is in it; but declared keys are kept from all flushes.
func TestTheOwnersFlushPreservesWhatTenantsDeclare(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(open)
	guest := w.tenant()
	e := guest.entry("a")
	guest.create(e)
	guest.becomes(e, isWarm)
	w.set(guest.prefix+"b", "v")
	f := w.run("f", all)
	w.Expect(f.Status.Progress.Preserved).To(BeEquivalentTo(1))
	w.Expect(w.keys(mainPrefix + "*")).To(Equal([]string{guest.prefix + "a"}))

	again := guest.flush("f", all, func(f *v1alpha1.CacheFlush) { f.Spec.DeclaredEntries = v1alpha1.DeclaredRewrite })
	guest.create(again)
	guest.becomes(again, flushed)
	w.Expect(again.Status.Progress.Deleted).To(BeEquivalentTo(1))
	w.holds(guest.prefix+"a", "value of a")
}

func TestProtectedPrefixesAreRelativeToTheTenantsFence(t *testing.T) {
	w, _ := newRealWorld(t)
	guest := w.tenant()
	w.ready(open, limited(v1alpha1.FlushLimits{ProtectedPrefixes: []string{"session:", guest.namespace + ":cart:"}}))
	kept := []string{guest.prefix + "cart:1", guest.prefix + "session:1"}
	for _, key := range append(kept, guest.prefix+"user:session:1") {
		w.set(key, "v")
	}
	f := guest.flush("f", all)
	guest.create(f)
	guest.becomes(f, flushed)
	w.Expect(w.keys("*")).To(Equal(kept))
	w.run("owners", prefixed(guest.namespace+":"))
	w.Expect(w.keys("*")).To(Equal(kept[:1]))
}

// What is left in a pool of another namespace is deleted there, as long as that pool serves the entry's.
func TestAnEntryMovesBetweenThePoolsOfTwoNamespaces(t *testing.T) {
	w := newWorld(t)
	p := w.ready(open)
	guest := w.tenant()
	own := guest.ready(under("own:"))
	e := guest.entry("a")
	guest.create(e)
	guest.becomes(e, isWarm)
	update(guest.world, e, func(e *v1alpha1.CacheEntry) { e.Spec.PoolRef.Namespace = "" })
	w.holds("own:a", "value of a")
	w.lacks(guest.prefix + "a")
	guest.becomes(e, isWarm)
	w.Expect(e.Status.Pool).To(Equal(guest.namespace + "/" + own.Name))

	update(guest.world, e, func(e *v1alpha1.CacheEntry) { e.Spec.PoolRef.Namespace = w.namespace })
	w.holds(guest.prefix+"a", "value of a")
	w.lacks("own:a")
	guest.becomes(e, isWarm)
	update(w, p, shut)
	guest.becomes(e, waits("PoolNotFound"))
	update(guest.world, e, func(e *v1alpha1.CacheEntry) { e.Spec.PoolRef.Namespace = "" })
	guest.becomes(e, isWarm)
	guest.tells(e, guest.released())
	w.Expect(w.keys("*a")).To(Equal([]string{guest.prefix + "a", "own:a"}))
}

func TestOwnerAndTenantMayDeclareTheSameKey(t *testing.T) {
	w := newWorld(t)
	p := w.ready(open)
	guest := w.tenant()
	older := guest.entry("a")
	guest.create(older)
	guest.becomes(older, isWarm)
	w.later()
	younger := w.entry("b", keyed(guest.namespace+":a"))
	w.create(younger)
	w.becomes(younger, stalls("KeyConflict"))
	w.says(younger, "An older CacheEntry of another namespace declares the same key")
	w.discreet(younger, guest.namespace, `"a"`)

	// Who is not admitted declares nothing.
	update(w, p, shut)
	w.becomes(younger, isWarm)
	w.holds(guest.prefix+"a", "value of b")
	guest.becomes(older, waits("PoolNotFound"))
	update(w, p, open)
	w.becomes(younger, stalls("KeyConflict"))
	guest.becomes(older, isWarm)
	w.holds(guest.prefix+"a", "value of a")
}

func TestAPoolThatIsDeletedDoesNotWaitForTenants(t *testing.T) {
	w := newWorld(t)
	p := w.ready(open)
	guest := w.tenant()
	e := guest.entry("a")
	guest.create(e)
	guest.becomes(e, isWarm)
	w.delete(p)
	w.vanishes(p)
	guest.becomes(e, waits("PoolNotFound"))
	guest.delete(e)
	guest.vanishes(e)
	guest.tells(e, fmt.Sprintf(`Warning Released: Key "a" stays in Redis, since CachePool "%s/main" is gone, or does not serve this namespace any more`, w.namespace))
	w.holds(guest.prefix+"a", "value of a")
}

func TestAPoolThatIsDeletedDoesNotWaitForTheFlushOfATenant(t *testing.T) {
	w, _, _ := newProxiedWorld(t)
	p := w.ready(open)
	guest := w.tenant()
	w.fill(guest.prefix, 10_000)
	f := guest.flush("slow", all, atMost(100))
	guest.create(f)
	guest.becomes(f, isRunning)
	w.delete(p)
	w.vanishes(p)
	guest.becomes(f, excluded)
}

// The Secret is the owner's: one of the same name in the tenant's namespace is not looked at.
func TestTheSecretOfAPoolIsThatOfItsNamespace(t *testing.T) {
	t.Parallel()
	w := worldAt(t, redistest.Start(t, "--requirepass", "right").Addr)
	guest := w.tenant()
	guest.secret("auth", map[string]string{"password": "wrong"})
	w.secret("auth", map[string]string{"password": "right"})
	p := w.ready(open, func(p *v1alpha1.CachePool) {
		p.Spec.CredentialsSecretRef = &v1alpha1.CredentialsSecretReference{Name: "auth"}
	})
	e := guest.entry("a")
	guest.create(e)
	guest.becomes(e, isWarm)
	guest.secret("other", map[string]string{"password": "right"})
	update(w, p, func(p *v1alpha1.CachePool) { p.Spec.CredentialsSecretRef.Name = "other" })
	w.says(p, `Secret "other" does not exist`)
}
