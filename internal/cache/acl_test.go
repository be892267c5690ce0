// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"context"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	miniserver "github.com/alicebob/miniredis/v2/server"
	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// documented rules for the pool's user, in docs/operations.md, with the prefix of these tests.
func documented(t *testing.T, isCluster bool) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/operations.md")
	ok(t, err)
	_, line, _ := strings.Cut(string(text), "ACL SETUSER cachewright on >password ")
	line, _, found := strings.Cut(line, "```")
	more := regexp.MustCompile("In a cluster it also needs `([^`]+)`").FindSubmatch(text)
	if !found || more == nil {
		t.Fatal("docs/operations.md has no rules for the pool's user")
	}
	if isCluster {
		line += " " + string(more[1])
	}
	return strings.Fields(strings.ReplaceAll(line, "~glimr:cache:main:*", "~"+prefix+"*"))
}

// The docs promise that a user with these rights and no others can do all that is asked of a pool.
func TestTheDocumentedRightsAreEnough(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, isReal := start(t)
			if !isReal {
				t.Skip("miniredis has no users with rights of their own")
			}
			rules := documented(t, name == "cluster")
			each(t, addr, func(c *redis.Client) error {
				return c.ACLSetUser(t.Context(), "documented", append([]string{"on", ">" + marker}, rules...)...).Err()
			})
			p := open(t, addr, as("documented", marker))
			if lacks := must[cache.Server](t)(p.Check(t.Context())).Lacks; lacks != "" {
				t.Errorf("the user lacks %s", lacks)
			}
			for what, do := range operations {
				if what == "watch" {
					continue // it ends with an error only
				}
				if err := do(t.Context(), p); cache.Is(err, cache.ReasonPermissionDenied) || cache.ServerWide(err) {
					t.Errorf("%s: %v", what, err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			detects := make(chan cache.Detection, 1)
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = p.Watch(ctx, cache.Listener{Began: func(how cache.Detection) { detects <- how }, Changed: func([]string) {}, Flushed: func() {}})
				close(detects)
			}()
			if how := <-detects; how != cache.Tracking {
				t.Errorf("changes are noticed by %q", how)
			}
			cancel()
			<-done
		})
	}
}

// features that need a right, which a user may lack all the same. What is not here is needed for everything.
var features = map[string]string{
	"+get":                   "counters, and deletions under EnsurePresent and WriteOnChange",
	"+eval":                  "counters, and deletions under EnsurePresent and WriteOnChange",
	"+incrby":                "counters",
	"+pexpire":               "counters",
	"~cachewright:counter:*": "counters",
	"+ping":                  "noticing changes at once",
	"+client|id":             "noticing changes at once",
	"+client|tracking":       "noticing changes at once",
	"+info":                  "telling versions and restarts apart",
}

// A user who lacks one of the documented rights is told so when the pool connects, by the rule that gives it.
func TestEachMissingRightIsNamedAtOnce(t *testing.T) {
	for name, start := range redistest.Servers {
		t.Run(name, func(t *testing.T) {
			addr, isReal := start(t)
			if !isReal {
				t.Skip("miniredis has no users with rights of their own")
			}
			rules := documented(t, isCluster(addr))
			for _, more := range [][]string{nil, {"+acl|dryrun"}} {
				for _, rule := range rules {
					if strings.Trim(rule, "+~") == rule {
						continue // it gives no right
					} else if rule == "+select" && isCluster(addr) {
						continue // it has one database only
					}
					t.Run(strings.Join(append(more, "without "+rule), " "), func(t *testing.T) {
						g := NewWithT(t)
						rest := slices.DeleteFunc(slices.Concat(rules, more), func(r string) bool { return r == rule })
						each(t, addr, func(c *redis.Client) error {
							return c.ACLSetUser(t.Context(), "restricted", append([]string{"reset", "on", ">" + marker}, rest...)...).Err()
						})
						p := open(t, addr, as("restricted", marker), func(o *cache.Options) {
							if rule == "+select" {
								o.Database = 1
							}
						})
						server, err := p.Check(t.Context())
						if feature, ok := features[rule]; ok {
							g.Expect(err).NotTo(HaveOccurred())
							g.Expect(server.Lacks).To(Equal(rule + " for " + feature))
							return
						}
						may := "run " + strings.ToUpper(strings.ReplaceAll(rule[1:], "|", " "))
						if rule[0] == '~' {
							may = "use all keys under the pool's prefix"
						}
						denied, _ := errors.AsType[*cache.Error](err)
						g.Expect(denied).To(HaveField("Class", cache.Denied))
						g.Expect(denied).To(HaveField("Reason", cache.ReasonPermissionDenied))
						g.Expect(denied).To(MatchError("The Redis user may not " + may + "; it needs the ACL rule " + rule))
					})
				}
			}
		})
	}
}

func TestTheMessageNamesAllMissingRights(t *testing.T) {
	server := redistest.Start(t)
	for name, tc := range map[string]struct {
		rules       []string
		err, lacked string
	}{
		"nothing":              {[]string{"+@all", "~*"}, "", ""},
		"two commands":         {[]string{"+@all", "-scan", "-unlink", "~*"}, "The Redis user may not run SCAN, UNLINK; it needs the ACL rules +scan +unlink", ""},
		"a command and keys":   {[]string{"+@all", "-scan", "~other:*"}, `The Redis user may not run SCAN, or use all keys under the pool's prefix; it needs the ACL rules ~\[1]:* +scan`, ""},
		"keys to be written":   {[]string{"+@all", "%R~*"}, `The Redis user may not use all keys under the pool's prefix; it needs the ACL rule ~\[1]:*`, ""},
		"keys to be read":      {[]string{"+@all", "%W~*"}, `The Redis user may not use all keys under the pool's prefix; it needs the ACL rule ~\[1]:*`, ""},
		"a part of the prefix": {[]string{"+@all", `~\[1]:a*`}, `The Redis user may not use all keys under the pool's prefix; it needs the ACL rule ~\[1]:*`, ""},
		"what features need": {
			[]string{"+@all", "-@scripting", "-incrby", "-client", `~\[1]:*`},
			"",
			"+eval for counters, and deletions under EnsurePresent and WriteOnChange; +incrby ~cachewright:counter:* for counters; +client|id +client|tracking for noticing changes at once",
		},
		"markers to be written": {[]string{"+@all", `~\[1]:*`, "%R~cachewright:counter:*"}, "", "~cachewright:counter:* for counters"},
		"markers to be read":    {[]string{"+@all", `~\[1]:*`, "%W~cachewright:counter:*"}, "", "~cachewright:counter:* for counters"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			for _, more := range []string{"+acl", "-acl"} {
				ok(t, server.Client(t).ACLSetUser(t.Context(), "app", append(append([]string{"reset", "on", ">" + marker}, tc.rules...), more)...).Err())
				got, err := open(t, server.Addr, as("app", marker), under("[1]:")).Check(t.Context())
				if tc.err == "" {
					g.Expect(err).NotTo(HaveOccurred())
				} else {
					g.Expect(err).To(MatchError(tc.err))
				}
				g.Expect(got.Lacks).To(Equal(tc.lacked))
			}
		})
	}
}

// A right that is missing is told of again as long as it is, and no longer.
func TestARightThatIsGivenIsMissedNoMore(t *testing.T) {
	g, server := NewWithT(t), redistest.Start(t)
	admin := server.Client(t)
	ok(t, admin.ACLSetUser(t.Context(), "app", "on", ">"+marker, "+@all", "-acl", "-scan", "-incrby", "~*").Err())
	p := open(t, server.Addr, as("app", marker))
	g.Expect(check(t, p)()).To(MatchError(ContainSubstring("+scan")))
	ok(t, admin.ACLSetUser(t.Context(), "app", "+scan").Err())
	for range 2 {
		g.Expect(p.Check(t.Context())).To(HaveField("Lacks", "+incrby for counters"))
	}
	ok(t, admin.ACLSetUser(t.Context(), "app", "+incrby").Err())
	g.Expect(p.Check(t.Context())).To(HaveField("Lacks", ""))
}

// Rights are tried with every check, so that must cost little, and must not fill the server's log of denials, nor look as if
// commands failed.
func TestToTryRightsIsCheapAndQuiet(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.NewProxy(t, server.Addr, 0)
	admin := server.Client(t)
	for name, tc := range map[string]struct {
		rules    []string
		first    int
		refusals int
		failures []string
	}{
		"a user who may ask for his rights": {append(documented(t, false), "+acl|dryrun"), 1, 0, nil},
		"the documented user":               {documented(t, false), 2, 1, nil},
		"a user without a right":            {append(documented(t, false), "-scan"), 1, 1, []string{"Denied/PermissionDenied"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			ok(t, admin.ACLLogReset(t.Context()).Err())
			ok(t, admin.ACLSetUser(t.Context(), "app", append([]string{"reset", "on", ">" + marker}, tc.rules...)...).Err())
			p, o := observing(t, proxy.Addr, as("app", marker))
			_, _ = p.Get(t.Context(), "k") // so that it is connected
			o.told()
			for _, most := range []int{tc.first, 1} {
				before := proxy.Trips()
				_, _ = p.Check(t.Context())
				g.Expect(proxy.Trips()-before).To(BeNumerically("<=", 1+most), "one is for INFO")
				_, failures := o.told()
				g.Expect(failures).To(Equal(tc.failures))
			}
			var denials []string
			for _, entry := range must[[]*redis.ACLLogEntry](t)(admin.ACLLog(t.Context(), 100).Result()) {
				denials = append(denials, entry.Object)
			}
			slices.Sort(denials)
			g.Expect(len(slices.Compact(denials))).To(BeNumerically("<=", tc.refusals+len(tc.failures)), "%q", denials)
		})
	}
}

// Some providers withhold commands from everybody, and know no users. What is only missing for a feature stops nobody.
func TestCommandsThatNobodyHas(t *testing.T) {
	for name, tc := range map[string]struct {
		command string
		want    string
	}{
		"for users":          {"acl", ""},
		"for counters":       {"incrby", ""},
		"for news":           {"client", ""},
		"for everything":     {"scan", cache.ReasonCommandFailed},
		"for all but writes": {"set", cache.ReasonCommandFailed},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t, "--rename-command", tc.command, "")
			got, err := open(t, server.Addr).Check(t.Context())
			if g := NewWithT(t); tc.want == "" {
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(got.Lacks).To(BeEmpty())
			} else {
				g.Expect(err).To(Satisfy(func(err error) bool { return cache.Is(err, tc.want) }))
				g.Expect(err).To(MatchError(HavePrefix(strings.ToUpper(tc.command))))
			}
		})
	}
}

// Not every server says in Redis's words that a user lacks a right. What is needed for everything is missed all the same.
func TestADenialInOtherWordsIsOne(t *testing.T) {
	server := redistest.Miniredis(t)
	server.Server().SetPreHook(func(peer *miniserver.Peer, command string, _ ...string) bool {
		if command == "SCAN" {
			peer.WriteError("NOPERM app has no ACL permissions")
		}
		return command == "SCAN"
	})
	want := cache.Error{Class: cache.Denied, Reason: cache.ReasonPermissionDenied, Message: "The Redis user may not run SCAN"}
	NewWithT(t).Expect(failure(t, check(t, open(t, server.Addr())))).To(Equal(want))
}

// Redis Software answers as a cluster, but never sends anybody to ask another node, and does not know how to be asked.
func TestAClusterThatDoesNotKnowAskingServes(t *testing.T) {
	server := redistest.Miniredis(t)
	server.Server().SetPreHook(func(peer *miniserver.Peer, command string, _ ...string) bool {
		if command == "ASKING" {
			peer.WriteError("ERR unknown command 'asking'")
		}
		return command == "ASKING"
	})
	p := open(t, server.Addr(), func(o *cache.Options) { o.Topology = cache.Cluster })
	ok(t, check(t, p)())
}

// A check that fails tells nothing of the server if the node that describes it does not: what was known of it is still the best guess.
func TestRightsAreNotAllThatIsKnownOfAServer(t *testing.T) {
	g, c := NewWithT(t), redistest.StartCluster(t, 2, false)
	first, other := c.Masters[0], c.Masters[1]
	if other.Addr < first.Addr {
		first, other = other, first
	}
	ok(t, other.Client(t).ACLSetUser(t.Context(), "app", "on", ">"+marker, "+@all", "-incrby", "~*").Err())
	got, err := open(t, other.Address(), as("app", marker), func(o *cache.Options) { o.Topology = cache.Cluster }).Check(t.Context())
	g.Expect(err).To(MatchError("The server refuses the user name or password"), "the first has no such user")
	g.Expect(got).To(BeZero(), first.Addr)
}

// While the slot of the prefix is on its way, a key that nobody has may be anywhere.
func TestRightsAreTriedWhileASlotMoves(t *testing.T) {
	c := redistest.StartCluster(t, 2, false)
	p := open(t, c.Address(), under("{tag}:"))
	slot := c.SlotOf("{tag}:")
	from, to := c.Masters[0], c.Masters[1]
	if slot >= 8192 {
		from, to = to, from
	}
	c.Migrate(slot, from, to)
	ok(t, check(t, p)())
}

func TestTheSentinelsUserIsToldWhatItMayNot(t *testing.T) {
	s := redistest.StartSentinels(t)
	for _, sentinel := range s.Sentinels {
		ok(t, sentinel.Client(t).ACLSetUser(t.Context(), "app", "on", ">"+marker, "+@all", "-sentinel|get-master-addr-by-name", "allchannels").Err())
	}
	p := open(t, s.Address(), func(o *cache.Options) { o.SentinelUsername, o.SentinelPassword = "app", marker })
	want := cache.Error{
		Class: cache.Refused, Reason: cache.ReasonPermissionDenied,
		Message: "The sentinels' user may not run SENTINEL GET-MASTER-ADDR-BY-NAME; it needs the ACL rule +sentinel|get-master-addr-by-name",
	}
	NewWithT(t).Expect(failure(t, check(t, p))).To(Equal(want))
}

func TestTheDocumentedRightsOfTheSentinelsUserAreEnough(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/operations.md")
	ok(t, err)
	rights := regexp.MustCompile("The user of the sentinels needs `([^`]+)`").FindSubmatch(text)
	if rights == nil {
		t.Fatal("docs/operations.md has no rules for the sentinels' user")
	}
	s := redistest.StartSentinels(t)
	rules := append([]string{"on", ">" + marker, "-@all"}, strings.Fields(string(rights[1]))...)
	for _, sentinel := range s.Sentinels {
		ok(t, sentinel.Client(t).ACLSetUser(t.Context(), "documented", rules...).Err())
		ok(t, sentinel.Client(t).ACLSetUser(t.Context(), "default", "off").Err())
	}
	p := open(t, s.Address(), func(o *cache.Options) { o.SentinelUsername, o.SentinelPassword = "documented", marker })
	_, err = p.Check(t.Context())
	ok(t, err)
	if deleted := must[int64](t)(p.Flush(t.Context())); deleted != 0 {
		t.Errorf("deleted %d keys of none", deleted)
	}
}
