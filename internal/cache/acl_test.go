// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"

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
