// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"regexp"
	"strings"
	"testing"
)

// The rule of match, which the API server keeps, accepts exactly what Redis reads as complete.
func TestMatchRuleIsRedisParser(t *testing.T) {
	rule := matchRule(t)
	for _, alphabet := range []struct {
		letters string
		length  int
	}{
		{`[]\-^a`, 6},
		{`[]\-é`, 6}, // Redis reads bytes, and CEL reads runes
		{"[]-^\n\x00\U0001f600", 5},
	} {
		checkAll(t, rule, "", []rune(alphabet.letters), alphabet.length)
	}
}

func FuzzMatchRuleIsRedisParser(f *testing.F) {
	rule := matchRule(f)
	for _, seed := range []string{"user:*", "[a-z]", "[^]x]", `[\é-]`, `a\`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, pattern string) {
		// What is no UTF-8 never gets through JSON.
		check(t, rule, strings.ToValidUTF8(pattern, "�"))
	})
}

// checkAll checks every string that begins with pattern and has up to length more letters.
func checkAll(t *testing.T, rule *regexp.Regexp, pattern string, letters []rune, length int) {
	t.Helper()
	check(t, rule, pattern)
	if length == 0 {
		return
	}
	for _, letter := range letters {
		checkAll(t, rule, pattern+string(letter), letters, length-1)
	}
}

func check(t *testing.T, rule *regexp.Regexp, pattern string) {
	t.Helper()
	if got, want := rule.MatchString(pattern), complete(pattern); got != want {
		t.Errorf("%q: the rule says %t, Redis %t", pattern, got, want)
	}
}

// complete follows stringmatchlen in src/util.c of Redis 7.0 through a pattern, all of which the string matches. It is
// false where that takes the end of the pattern for a ] or for the character behind a \.
func complete(p string) bool {
	for ; p != ""; p = p[1:] {
		switch p[0] {
		case '[':
			rest, closed := class(strings.TrimPrefix(p[1:], "^"))
			if !closed {
				return false
			}
			p = rest
		case '\\':
			if len(p) < 2 {
				return false
			}
			p = p[1:]
		}
	}
	return true
}

// class reads a class to its ], which begins what it returns.
func class(p string) (rest string, closed bool) {
	for ; ; p = p[1:] {
		switch {
		case len(p) >= 2 && p[0] == '\\':
			p = p[1:]
		case p == "":
			return "", false
		case p[0] == ']':
			return p, true
		case len(p) >= 3 && p[1] == '-':
			p = p[2:]
		}
	}
}

// matchRule is the regular expression in the CRD.
func matchRule(tb testing.TB) *regexp.Regexp {
	tb.Helper()
	rules := installed(tb, "cacheflushes").Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"].Properties["match"].XValidations
	for _, rule := range rules {
		literal, ok := strings.CutPrefix(rule.Rule, "self.matches('")
		if !ok {
			continue
		}
		// In a CEL string \\ is a backslash, and nothing else is escaped here.
		return regexp.MustCompile(strings.ReplaceAll(strings.TrimSuffix(literal, "')"), `\\`, `\`))
	}
	tb.Fatalf("no rule of match calls self.matches: %v", rules)
	return nil
}
