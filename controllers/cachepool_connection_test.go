// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"context"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// probes is long enough for several probes of a pool that fails.
const probes = 4 * time.Second

func TestAConnectedPoolTellsWhatItIsConnectedTo(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready()
	info := w.redis.InfoMap(t.Context(), "server")
	product, version := "redis", info.Item("Server", "redis_version")
	if valkey := info.Item("Server", "valkey_version"); valkey != "" {
		product, version = "valkey", valkey
	}
	w.Eventually(func() *v1alpha1.ServerStatus { w.reload(p); return p.Status.Server }).Should(Equal(&v1alpha1.ServerStatus{
		Product: product, Version: version, Topology: "Standalone", Nodes: 1, ChangeDetection: v1alpha1.DetectionTracking,
	}))
	w.Expect(p.Status.KeyPrefix).To(Equal(mainPrefix))
	w.Expect(p.Status.CredentialsResourceVersion).To(BeEmpty())
	w.rests(p, 2*time.Second)
}

func TestAPoolMayHaveAPrefixOfItsOwn(t *testing.T) {
	w := newWorld(t)
	p := w.ready(func(p *v1alpha1.CachePool) { p.Spec.KeyPrefix = "shop:*[é]:" })
	w.Expect(p.Status.KeyPrefix).To(Equal("shop:*[é]:"))
	w.create(w.entry("a"))
	w.holds("shop:*[é]:a", "value of a")
}

func TestAPoolWorksInItsDatabase(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(func(p *v1alpha1.CachePool) { p.Spec.Database = new(int32(3)) })
	w.create(w.entry("a"))
	three := redis.NewClient(&redis.Options{Addr: w.addr, DB: 3})
	defer func() { _ = three.Close() }()
	w.Eventually(func() string { return three.Get(t.Context(), mainPrefix+"a").Val() }).Should(Equal("value of a"))
	w.Expect(w.redis.DBSize(t.Context()).Val()).To(BeZero())
}

func TestAPoolThatCannotBeReachedRecoversByItself(t *testing.T) {
	w := newWorld(t)
	m := redistest.Miniredis(t)
	p := w.pool(func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{m.Addr()} })
	m.Close()
	w.create(p)
	w.becomes(p, waits("ConnectionFailed"))
	w.says(p, "Connection refused")
	w.Expect(p.Status.Server).To(BeNil())
	w.rests(p, probes)
	w.discreet(p, "127.0.0.1")
	w.tells(p, "Warning ConnectionFailed: Connection refused")

	w.Expect(m.Restart()).To(Succeed())
	w.becomes(p, connected)
	w.tells(p, "Normal Connected: Connected")
}

func TestAPoolThatGetsNoAnswerRecoversByItself(t *testing.T) {
	w := newWorld(t)
	hole := blackHole(t)
	p := w.pool(func(p *v1alpha1.CachePool) {
		p.Spec.Addresses, p.Spec.Timeout = []string{hole.Addr().String()}, &metav1.Duration{Duration: 200 * time.Millisecond}
	})
	w.create(p)
	w.becomes(p, waits("ConnectionFailed"))
	w.says(p, "Connection timed out")
	w.rests(p, probes)

	w.Expect(hole.Close()).To(Succeed())
	miniredisAt(t, hole.Addr().String())
	w.becomes(p, connected)
}

func TestAPoolWithANameThatDoesNotResolve(t *testing.T) {
	w := newWorld(t)
	p := w.pool(func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{"redis.invalid:6379"} })
	w.create(p)
	w.becomes(p, waits("ConnectionFailed"))
	update(w, p, func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{w.addr} })
	w.becomes(p, connected)
}

// What a server answers instead of serving, and what the pool says of it until that passes.
func TestAPoolSaysWhyItsServerDoesNotServe(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]struct{ conditions, message string }{
		"LOADING Redis is loading the dataset in memory":                {waits("Loading"), "The server is loading its data set"},
		"CLUSTERDOWN Hash slot not served":                              {waits("ClusterDown"), "The cluster is down"},
		"MASTERDOWN Link with MASTER is down":                           {waits("ReadOnlyReplica"), "The server is a replica that has lost its master"},
		"MISCONF Redis is configured to save RDB snapshots, but":        {waits("ConnectionFailed"), "The server refuses writes: it cannot save to disk"},
		"ERR max number of clients reached":                             {waits("ConnectionFailed"), "The server has reached its maximum number of clients"},
		"WRONGPASS invalid username-password pair or user is disabled.": {stalls("AuthenticationFailed"), "The server refuses the user name or password"},
		"MOVED 3999 127.0.0.1:6381":                                     {stalls("WrongTopology"), "The server is a node of a cluster, not a standalone server"},
		"NOPERM this user has no permissions to run the 'pttl' command": {stalls("PermissionDenied"), "The Redis user may not run PTTL; it needs the ACL rule +pttl"},
	} {
		name, _, _ := strings.Cut(answer, " ")
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			m := redistest.Miniredis(t)
			m.SetError(answer)
			p := w.pool(func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{m.Addr()} })
			w.create(p)
			w.becomes(p, want.conditions)
			if want.message != "" {
				w.says(p, want.message)
			}
			w.rests(p, probes/2)
			w.discreet(p, "127.0.0.1")
			m.SetError("")
			w.becomes(p, connected)
		})
	}
}

// What is wrong with a real server, and mended there only: nothing in Kubernetes tells the operator.
func TestAPoolRecoversWhenItsServerIsMended(t *testing.T) {
	t.Parallel()
	set := func(name, value string) func(context.Context, *redis.Client) error {
		return func(ctx context.Context, r *redis.Client) error { return r.ConfigSet(ctx, name, value).Err() }
	}
	replicaOf := func(host, port string) func(context.Context, *redis.Client) error {
		return func(ctx context.Context, r *redis.Client) error { return r.Do(ctx, "replicaof", host, port).Err() }
	}
	acl := func(rule string) func(context.Context, *redis.Client) error {
		return func(ctx context.Context, r *redis.Client) error {
			return r.Do(ctx, "acl", "setuser", "default", rule).Err()
		}
	}
	for name, test := range map[string]struct {
		hurt, mend          func(context.Context, *redis.Client) error
		conditions, message string
	}{
		"out of memory": {set("maxmemory", "1"), set("maxmemory", "0"), waits("OutOfMemory"), "The server refuses writes: it has used up its maxmemory"},
		"a replica":     {replicaOf("127.0.0.1", "1"), replicaOf("no", "one"), waits("ReadOnlyReplica"), "The server is a read-only replica"},
		"a password":    {set("requirepass", "hunter2"), set("requirepass", ""), stalls("AuthenticationFailed"), "The server asks for a password"},
		"an ACL":        {acl("-unlink"), acl("+unlink"), stalls("PermissionDenied"), "The Redis user may not run UNLINK; it needs the ACL rule +unlink"},
		"a key pattern": {acl("resetkeys"), acl("allkeys"), stalls("PermissionDenied"), "The Redis user may not use all keys under the pool's prefix; it needs the ACL rule ~glimr:cache:main:*"},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			w.Expect(test.hurt(t.Context(), w.redis)).To(Succeed())
			p := w.pool()
			w.create(p)
			w.becomes(p, test.conditions)
			w.Expect(message(p)).To(HavePrefix(test.message))
			w.rests(p, probes/2)
			w.discreet(p, "hunter2", "127.0.0.1")
			w.Expect(test.mend(t.Context(), w.redis)).To(Succeed())
			w.becomes(p, connected)
			w.says(p, "Connected")
		})
	}
}

// Rights may be withheld on purpose: what does not need them works, and the pool says what does not.
func TestAPoolIsReadyAndNamesTheRightsThatOnlySomeFeaturesNeed(t *testing.T) {
	w, _ := newRealWorld(t)
	acl := func(rule string) {
		w.Expect(w.redis.Do(t.Context(), "acl", "setuser", "default", rule).Err()).To(Succeed())
	}
	acl("-incrby")
	p := w.ready(seldom)
	w.says(p, "Connected; the Redis user lacks +incrby for counters")
	w.came(isWarm, "e")
	w.run("flush", all)
	acl("-client|tracking")
	w.look(p)
	w.says(p, "Connected; the Redis user lacks +incrby for counters; +client|tracking for noticing changes at once")
	w.tells(p, "Warning Connected: "+message(p))
	w.becomes(p, connected)
	acl("+@all")
	w.look(p)
	w.says(p, "Connected")
}

func TestAPoolNamesTheCommandThatItsUserMayNotRun(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.ready()
	for _, command := range []string{"exists", "pttl", "getrange", "scan", "unlink", "set"} {
		w.Expect(w.redis.Do(t.Context(), "acl", "setuser", "default", "-"+command).Err()).To(Succeed())
		w.look(p)
		w.becomes(p, stalls("PermissionDenied"))
		w.says(p, "The Redis user may not run "+strings.ToUpper(command)+"; it needs the ACL rule +"+command)
		w.Expect(w.redis.Do(t.Context(), "acl", "setuser", "default", "+"+command).Err()).To(Succeed())
		w.becomes(p, connected)
	}
	w.Expect(w.redis.Do(t.Context(), "acl", "setuser", "default", "-info").Err()).To(Succeed())
	w.look(p)
	w.Eventually(func() string { w.reload(p); return p.Status.Server.Version }).Should(BeEmpty(), "nothing but knowledge is lost without INFO")
	w.Expect(summary(p)).To(Equal(connected))
}

func TestANodeOfAClusterIsOfTheWrongTopology(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--cluster-enabled", "yes")
	w := worldAt(t, s.Addr)
	p := w.pool()
	w.create(p)
	w.becomes(p, stalls("WrongTopology"))
	w.says(p, "The server runs in cluster mode, not as a standalone server")
	w.rests(p, probes/2)

	s.Stop()
	miniredisAt(t, s.Addr)
	w.becomes(p, connected)
}

func TestADatabaseThatTheServerDoesNotHave(t *testing.T) {
	w, _ := newRealWorld(t)
	p := w.pool(func(p *v1alpha1.CachePool) { p.Spec.Database = new(int32(16)) })
	w.create(p)
	w.becomes(p, stalls("WrongTopology"))
	w.says(p, "The server has no database of this number")
	update(w, p, func(p *v1alpha1.CachePool) { p.Spec.Database = nil })
	w.becomes(p, connected)
}

// A pool is looked at every resyncPeriod, and found out when it breaks in between.
func TestAConnectedPoolNoticesThatItsServerHasGone(t *testing.T) {
	w, s := newRealWorld(t)
	p := w.ready()
	s.Stop()
	w.becomes(p, waits("ConnectionFailed"))
	w.says(p, "Connection refused")
	s.Restart()
	w.becomes(p, connected)
	w.says(p, "Connected")
}

// Nobody reads or writes a key, and no look is due: it is the events from the server that break off.
func TestAPoolThatNobodyUsesNoticesAtOnceThatItsServerHasGone(t *testing.T) {
	w, s := newRealWorld(t)
	p := w.ready(seldom)
	w.Eventually(func() v1alpha1.ChangeDetection { w.reload(p); return p.Status.Server.ChangeDetection }).Should(Equal(v1alpha1.DetectionTracking))
	s.Stop()
	w.becomes(p, waits("ConnectionFailed"))
	s.Restart()
	w.becomes(p, connected)
}

// A restart between two probes leaves dead connections, which have nothing to do with credentials.
func TestARestartIsNotTakenForWrongCredentials(t *testing.T) {
	w, s := newRealWorld(t)
	p := w.ready()
	s.Restart()
	w.look(p)
	w.Consistently(func() string { w.reload(p); return message(p) }, 12*time.Second, 20*time.Millisecond).ShouldNot(ContainSubstring("previous"))
	w.becomes(p, connected)
}

func TestTheRequestedAtAnnotationMeansLookNow(t *testing.T) {
	w := newWorld(t)
	m := redistest.Miniredis(t)
	p := w.ready(func(p *v1alpha1.CachePool) {
		p.Spec.Addresses, p.Spec.ResyncPeriod = []string{m.Addr()}, &metav1.Duration{Duration: time.Hour}
	})
	m.SetError("LOADING Redis is loading the dataset in memory")
	w.look(p)
	w.becomes(p, waits("Loading"))
}
