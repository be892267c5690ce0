// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// at makes a pool lead to an address, as redistest gives it.
func at(addr string) func(*v1alpha1.CachePool) {
	return func(p *v1alpha1.CachePool) {
		o := redistest.Options(addr)
		p.Spec.Addresses, p.Spec.Topology = o.Addrs, v1alpha1.TopologyStandalone
		switch {
		case o.IsClusterMode:
			p.Spec.Topology = v1alpha1.TopologyCluster
		case o.MasterName != "":
			p.Spec.Topology, p.Spec.Sentinel = v1alpha1.TopologySentinel, &v1alpha1.SentinelSpec{MasterName: o.MasterName}
		}
	}
}

// store n keys <prefix>0, <prefix>1, … wherever they belong.
func (w *world) store(c redis.UniversalClient, prefix string, n int) {
	w.t.Helper()
	const portion = 5000
	for from := 0; from < n; from += portion {
		_, err := c.Pipelined(w.t.Context(), func(pipe redis.Pipeliner) error {
			for i := from; i < min(n, from+portion); i++ {
				pipe.Set(w.t.Context(), prefix+strconv.Itoa(i), "v", 0)
			}
			return nil
		})
		w.Expect(err).NotTo(HaveOccurred())
	}
}

// left counts the keys under a prefix, on all masters.
func (w *world) left(c redis.UniversalClient, prefix string) int {
	w.t.Helper()
	n := 0
	w.Expect(redistest.Each(w.t.Context(), c, func(m *redis.Client) error {
		names, err := m.Keys(w.t.Context(), prefix+"*").Result()
		n += len(names)
		return err
	})).To(Succeed())
	return n
}

func TestEachTopologyServesAllThatIsDeclared(t *testing.T) {
	t.Parallel()
	for name, nodes := range map[string]int32{"sentinel": 1, "cluster": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var addr string // of servers of its own: on shared ones, the entries of the last test may hold the keys still
			if name == "cluster" {
				addr = redistest.StartCluster(t, 3, false).Address()
			} else {
				addr = redistest.StartSentinels(t, "down-after-milliseconds 60000").Address()
			}
			w, c := worldAt(t, "127.0.0.1:1"), redistest.Client(t, addr)
			p := w.ready(at(addr), unwatched)
			w.watched(p)
			w.Expect(*p.Status.Server).To(And(
				HaveField("Topology", strings.ToUpper(name[:1])+name[1:]), HaveField("Nodes", nodes), HaveField("ChangeDetection", v1alpha1.DetectionTracking),
			))
			w.Expect(c.Set(t.Context(), mainPrefix+"observe", "value of observe", 0).Err()).To(Succeed())
			var entries []*v1alpha1.CacheEntry
			for key, policy := range map[string]v1alpha1.EntryPolicy{
				"enforce": v1alpha1.PolicyEnforce, "{tag}enforce": v1alpha1.PolicyEnforce, "present": v1alpha1.PolicyEnsurePresent, "once": v1alpha1.PolicyWriteOnChange, "observe": v1alpha1.PolicyObserve,
			} {
				e := w.entry(strings.Trim(strings.NewReplacer("{", "", "}", "-").Replace(key), "-"), func(e *v1alpha1.CacheEntry) {
					e.Spec.Key, e.Spec.Policy, e.Spec.Value = key, policy, new("value of "+key)
				})
				entries = append(entries, e)
				w.create(e)
			}
			counter := w.entry("counter", func(e *v1alpha1.CacheEntry) {
				e.Spec.Value, e.Spec.Policy, e.Spec.Counter = nil, "", &v1alpha1.CounterSpec{Increment: 5, RunID: "v1"}
			})
			w.create(counter)
			for _, e := range append(entries, counter) {
				w.Eventually(func() string { w.reload(e); return summary(e) }).Should(HavePrefix("Ready=True/"), e.Name)
			}
			w.Expect(c.Get(t.Context(), mainPrefix+"counter").Val()).To(Equal("5"))
			for _, key := range []string{"enforce", "{tag}enforce", "present"} {
				w.Expect(c.Del(t.Context(), mainPrefix+key).Err()).To(Succeed())
				w.Eventually(func() string { return c.Get(t.Context(), mainPrefix+key).Val() }).Should(Equal("value of " + key))
			}

			w.store(c, mainPrefix+"user:", 100_000)
			f := w.run("flush", all)
			w.Expect(progress(f)).To(And(HavePrefix("100% matched "), ContainSubstring(" deleted 100000 ")))
			w.Expect(f.Status.Checkpoints).To(HaveLen(int(nodes)))
			w.Expect(w.left(c, mainPrefix)).To(Equal(6), "the declared keys")
		})
	}
}

// Renewals and a flush go on with whoever takes the place of a server.
func TestAServerIsReplacedUnderRenewalsAndAFlush(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) (addr string, lose func()){
		"sentinel": func(t *testing.T) (string, func()) {
			t.Helper()
			s := redistest.StartSentinels(t, "down-after-milliseconds 500")
			return s.Address(), s.Lose
		},
		"sentinel, in good order": func(t *testing.T) (string, func()) {
			t.Helper()
			s := redistest.StartSentinels(t, "down-after-milliseconds 500")
			return s.Address(), s.FailOver
		},
		"cluster": func(t *testing.T) (string, func()) {
			t.Helper()
			c := redistest.StartCluster(t, 3, true)
			return c.Address(), func() { c.Lose(1) }
		},
		"cluster, a slot moves": func(t *testing.T) (string, func()) {
			t.Helper()
			c := redistest.StartCluster(t, 3, false)
			return c.Address(), func() { c.Move(0, c.Masters[0], c.Masters[2]) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, lose := start(t)
			w, c := worldAt(t, "127.0.0.1:1"), redistest.Client(t, addr)
			p := w.ready(at(addr))
			var entries []*v1alpha1.CacheEntry
			for i := range 20 {
				e := w.entry(fmt.Sprint("e", i), func(e *v1alpha1.CacheEntry) {
					e.Spec.Forever, e.Spec.TTL = nil, &metav1.Duration{Duration: 5 * time.Second}
				})
				entries = append(entries, e)
				w.create(e)
				w.becomes(e, isWarm)
			}
			w.store(c, mainPrefix+"user:", 40_000)
			f := w.flush("flush", prefixed("user:"), atMost(10_000))
			w.create(f)
			w.begun(f)
			lose()
			w.Eventually(func() string { w.reload(f); return summary(f) }, 2*patience).Should(Equal(flushed))
			w.Expect(w.left(c, mainPrefix+"user:")).To(BeZero())
			w.becomes(p, connected)
			for _, e := range entries {
				w.becomes(e, isWarm)
			}
			w.Consistently(func() int { return w.left(c, mainPrefix+"e") }, 8*time.Second, 50*time.Millisecond).Should(Equal(len(entries)), "a reader misses a key")
		})
	}
}

// The sentinels have a user of their own, whose password is rotated as the server's is.
func TestRotatingTheSentinelsPassword(t *testing.T) {
	t.Parallel()
	for name, secretFirst := range map[string]bool{"Secret first": true, "sentinels first": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set := redistest.StartSentinels(t, "down-after-milliseconds 60000")
			onSentinels := func(password string) {
				for _, s := range set.Sentinels {
					s.User(t, "wright", password)
				}
			}
			onSentinels("0ld")
			w := worldAt(t, set.Master().Addr)
			secret := w.secret("sentinel-auth", map[string]string{"username": "wright", "password": "0ld"})
			p := w.ready(at(set.Address()), unwatched, func(p *v1alpha1.CachePool) {
				p.Spec.Sentinel.CredentialsSecretRef = &v1alpha1.CredentialsSecretReference{Name: secret.Name}
			})
			broken := failures[*v1alpha1.CachePool](w, &v1alpha1.CachePoolList{})
			if secretFirst {
				setPassword(w, secret, "n3w")
				w.says(p, previously("The sentinels refuse the user name or password, or ask for one"))
				onSentinels("n3w")
			} else {
				onSentinels("n3w")
				setPassword(w, secret, "n3w")
			}
			w.says(p, "Connected")
			w.Expect(broken()).To(BeEmpty())
			e := w.entry("flags")
			w.create(e)
			w.becomes(e, isWarm)
			w.run("flush", prefixed("other")) // which asks the sentinels before and after
			set.FailOver()
			w.look(p)
			w.Eventually(func() (string, error) { return set.Master().Client(t).Get(t.Context(), mainPrefix+"flags").Result() }).Should(Equal("value of flags"))
			w.becomes(p, connected)
			w.discreet(p, "0ld", "n3w", "wright")
		})
	}
}
