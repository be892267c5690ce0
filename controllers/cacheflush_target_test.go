// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/status"
)

// TestAFlushDeletesTheKeysOfItsTargetAndNoOther runs on a real server, whose globs are the ones that count.
func TestAFlushDeletesTheKeysOfItsTargetAndNoOther(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		target func(*v1alpha1.CacheFlush)
		goes   []string
		stays  []string
		text   string
	}{
		"all": {
			target: all,
			goes:   []string{"a", "b:c", "*", "ä", " ", "with\nnewline", "\x00zero"},
			text:   `all`,
		},
		"prefix": {
			target: prefixed("user:"),
			goes:   []string{"user:", "user:1", "user:1:profile", "user:*", "user:\n"},
			stays:  []string{"user", "users:1", "xuser:1", "USER:1", "u"},
			text:   `prefix "user:"`,
		},
		"a prefix that would be a glob": {
			target: prefixed("a[b]*"),
			goes:   []string{"a[b]*", "a[b]*c", "a[b]**"},
			stays:  []string{"ab", "abc", "a[b]", "a[b]c", "a[b", "ab*", "a[c]*", `a\[b]*`},
			text:   `prefix "a[b]*"`,
		},
		"a prefix that would match any": {
			target: prefixed("*"),
			goes:   []string{"*", "*a", "**"},
			stays:  []string{"a", "a*", "?"},
			text:   `prefix "*"`,
		},
		"a prefix with every special character": {
			target: prefixed(`*?[]\^-`),
			goes:   []string{`*?[]\^-`, `*?[]\^-x`},
			stays:  []string{`*?[]^-`, `x?[]\^-`, `*x[]\^-`, `**?[]\^-`, `*?[]\\^-`},
			text:   `prefix "*?[]\^-"`,
		},
		"a prefix that ends in a backslash": {
			target: prefixed(`a\`),
			goes:   []string{`a\`, `a\b`, `a\*`},
			stays:  []string{"a", "a*", "ab"},
			text:   `prefix "a\"`,
		},
		"match": {
			target: matching("user:*:profile"),
			goes:   []string{"user:1:profile", "user::profile", "user:1:2:profile"},
			stays:  []string{"user:1:profiles", "xuser:1:profile", "user:profile", "user:*"},
			text:   `match "user:*:profile"`,
		},
		"match with one character": {
			target: matching("h?llo"),
			goes:   []string{"hello", "hallo", "h?llo"},
			stays:  []string{"hllo", "heello", "hello1"},
			text:   `match "h?llo"`,
		},
		"match with classes": {
			target: matching(`h[a-ce]llo[^x]`),
			goes:   []string{"hallo1", "hbllo1", "hellox"[:5] + "y"},
			stays:  []string{"hellox", "hdllo1", "hallo", "hallo12"},
			text:   `match "h[a-ce]llo[^x]"`,
		},
		"match with an escape": {
			target: matching(`a\*b`),
			goes:   []string{"a*b"},
			stays:  []string{"axb", `a\*b`, "ab"},
			text:   `match "a\*b"`,
		},
		"keys": {
			target: named("a", "b*", "a", "missing", "a"),
			goes:   []string{"a", "b*"},
			stays:  []string{"ab", "bc", "b", "A"},
			text:   `5 keys`,
		},
		"one key": {
			target: named("only"),
			goes:   []string{"only"},
			stays:  []string{"onl", "only1"},
			text:   `key "only"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			w.ready()
			var want []string
			for _, key := range c.goes {
				w.set(mainPrefix+key, "v")
			}
			for _, key := range c.stays {
				w.set(mainPrefix+key, "v")
				want = append(want, mainPrefix+key)
			}
			// Nobody's business, whatever the target: it is not under the prefix of the pool.
			for _, key := range append(slices.Concat(c.goes, c.stays), "glimr:cache:mainly:a", "glimr:cache:main", "Glimr:cache:main:a", "x"+mainPrefix+"a") {
				w.set(key, "v")
				want = append(want, key)
			}
			slices.Sort(want)

			f := w.run("flush", c.target)
			w.Expect(w.keys("*")).To(Equal(slices.Compact(want)))
			w.Expect(f.Status.Target).To(Equal(c.text))
			n := strconv.Itoa(len(c.goes))
			w.Expect(progress(f)).To(Equal("100% matched " + n + " deleted " + n + " preserved 0"))
			w.Expect(f.Status.StartTime).NotTo(BeNil())
			w.Expect(f.Status.CompletionTime).NotTo(BeNil())
			w.Expect(f.Status.Sample).To(BeEmpty())
		})
	}
}

func TestAFlushStaysWithinThePrefixOfItsPool(t *testing.T) {
	t.Parallel()
	for name, prefix := range map[string]string{
		"the default":                     "",
		"a prefix that would be a glob":   "a[b]*?:",
		"a prefix that would match all":   "*",
		"a prefix that ends in an escape": `a\`,
		"a prefix with a caret":           "[^x]-",
		"a short prefix":                  "a",
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			p := w.ready(under(prefix))
			effective := p.EffectiveKeyPrefix()
			var others []string
			for _, key := range []string{"ab", "abx:1", "b", "a*", "[x", "y-1", "*", "x*", "glimr:cache:main", "glimr:cache:main2:1", "aab?:1", `b\1`} {
				if !strings.HasPrefix(key, effective) {
					w.set(key, "v")
					others = append(others, key)
				}
			}
			slices.Sort(others)
			for i, target := range []func(*v1alpha1.CacheFlush){all, prefixed("1"), matching("1*"), matching("*"), named("1", "2")} {
				w.set(effective+"1", "v")
				w.set(effective+"12", "v")
				w.run("flush-"+strconv.Itoa(i), target)
				w.Expect(w.keys("*")).To(ContainElements(others))
				w.lacks(effective + "1")
				w.Expect(w.redis.Del(t.Context(), effective+"12").Err()).To(Succeed())
			}
			w.Expect(w.keys("*")).To(Equal(others))
		})
	}
}

func TestAFlushLeavesAPoolAloneWhosePrefixOnlyBeginsAlike(t *testing.T) {
	w := newWorld(t)
	w.ready(under("app:"))
	other := w.pool(under("app"), func(p *v1alpha1.CachePool) { p.Name = "other" })
	w.create(other)
	w.becomes(other, connected)
	w.set("app:1", "v")
	w.set("apple", "v")
	w.set("app", "v")

	w.run("narrow", all)
	w.Expect(w.keys("*")).To(Equal([]string{"app", "apple"}))
	w.run("wide", all, func(f *v1alpha1.CacheFlush) { f.Spec.PoolRef.Name = "other" })
	w.Expect(w.keys("*")).To(BeEmpty())
}

func TestAFlushStaysInTheDatabaseOfItsPool(t *testing.T) {
	w, _ := newRealWorld(t)
	w.ready(func(p *v1alpha1.CachePool) { p.Spec.Database = new(int32(3)) })
	w.set(mainPrefix+"a", "v")
	w.Expect(w.redis.Copy(t.Context(), mainPrefix+"a", mainPrefix+"a", 3, false).Err()).To(Succeed())

	f := w.run("flush", all)
	w.Expect(progress(f)).To(Equal("100% matched 1 deleted 1 preserved 0"))
	w.Expect(w.keys("*")).To(Equal([]string{mainPrefix + "a"}))
}

func TestAFlushDeletesKeysOfEveryType(t *testing.T) {
	t.Parallel()
	for name, target := range map[string]func(*v1alpha1.CacheFlush){
		"all": all, "prefix": prefixed("t:"), "match": matching("t:*"), "keys": named("t:string", "t:hash", "t:list", "t:set", "t:zset", "t:stream", "t:short"),
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRealWorld(t)
			w.ready()
			ctx, prefix := t.Context(), mainPrefix+"t:"
			w.set(prefix+"string", "v")
			for _, command := range [][]any{
				{"hset", prefix + "hash", "f", "v"},
				{"rpush", prefix + "list", "v"},
				{"sadd", prefix + "set", "v"},
				{"zadd", prefix + "zset", 1, "v"},
				{"xadd", prefix + "stream", "*", "f", "v"},
				{"set", prefix + "short", "v", "ex", 1000},
			} {
				w.Expect(w.redis.Do(ctx, command...).Err()).To(Succeed())
			}
			f := w.run("flush", target)
			w.Expect(w.keys("*")).To(BeEmpty())
			w.Expect(progress(f)).To(Equal("100% matched 7 deleted 7 preserved 0"))
		})
	}
}

func TestAFlushWithNothingToDeleteIsComplete(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.set("elsewhere", "v")
	for name, target := range map[string]func(*v1alpha1.CacheFlush){"all": all, "prefix": prefixed("x"), "match": matching("x"), "keys": named("x")} {
		w.Expect(progress(w.run(name, target))).To(Equal("100% matched 0 deleted 0 preserved 0"))
	}
	w.Expect(w.keys("*")).To(Equal([]string{"elsewhere"}))
}

func TestTheCountsOfALargeFlushAreExact(t *testing.T) {
	w, _, proxy := newProxiedWorld(t)
	w.ready()
	proxy.Slow(slowAnswer)
	w.fill(mainPrefix+"user:", manyKeys)
	w.fill(mainPrefix+"other:", 5000)
	w.fill("foreign:", 5000)
	h := w.record()
	f := w.flush("flush", prefixed("user:"))
	w.create(f)
	w.midway(f)
	proxy.Slow(0)
	w.becomes(f, flushed)

	w.Expect(progress(f)).To(Equal("100% matched 300000 deleted 300000 preserved 0"))
	w.Expect(w.count(mainPrefix + "user:")).To(BeZero())
	w.Expect(w.count(mainPrefix + "other:")).To(Equal(5000))
	w.Expect(w.count("foreign:")).To(Equal(5000))
	w.Expect(w.calls("keys")).To(Equal(3), "this test's own")
	w.Expect(w.calls("flushdb") + w.calls("flushall") + w.calls("del")).To(BeZero())

	w.Eventually(h.ended).Should(ContainElement("flush"))
	deleted, last := int64(0), int32(0)
	for _, s := range h.all() {
		if p := s["flush"].Status.Progress; p != nil {
			w.Expect(p.Deleted).To(BeNumerically(">=", deleted))
			w.Expect(p.Percent).To(BeNumerically(">=", last))
			deleted, last = p.Deleted, p.Percent
		}
	}
	told := h.of(func(o status.Object) string { return progress(o.(*v1alpha1.CacheFlush)) }) //nolint:errcheck // it is one
	w.Expect(len(told)).To(BeNumerically(">", 3), "progress is told on the way")
}

func TestALongTargetIsToldInShort(t *testing.T) {
	w := newWorld(t)
	w.ready()
	f := w.run("flush", prefixed(strings.Repeat("ä", 500)))
	w.Expect(f.Status.Target).To(Equal(`prefix "` + strings.Repeat("ä", 79) + `…"`))
}
