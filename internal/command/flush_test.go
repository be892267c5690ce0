// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package command_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/command"
)

func TestEveryFlagIsInTheSpec(t *testing.T) {
	b := newBench(t)
	code, err := b.flush(t.Context(), "--name", "full", "--pool", "main", "--match", "user:*", "--max-keys-per-second", "10", "--max-keys", "100", "--declared-entries", "Rewrite",
		"--active-deadline-seconds", "60", "--backoff-limit", "0", "--suspend", "--run-id", "v1")
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(code).To(BeZero())
	b.Expect(b.said()).To(Equal("cacheflush/full created\n"))
	want := v1alpha1.CacheFlushSpec{
		PoolRef: v1alpha1.PoolReference{Name: "main"}, Match: "user:*", Mode: v1alpha1.FlushDelete, MaxKeysPerSecond: new(int64(10)),
		MaxKeys: new(int64(100)), DeclaredEntries: v1alpha1.DeclaredRewrite,
		ActiveDeadlineSeconds: new(int64(60)), BackoffLimit: new(int32(0)), Suspend: true, RunID: "v1",
	}
	b.Expect(cmp.Diff(want, b.only().Spec)).To(BeEmpty())
}

func TestTargets(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		want v1alpha1.CacheFlushSpec
	}{
		"all":    {[]string{"--all", "--ttl-seconds-after-finished", "60"}, v1alpha1.CacheFlushSpec{All: new(true), TTLSecondsAfterFinished: new(int32(60))}},
		"prefix": {[]string{"--prefix", "a,b*"}, v1alpha1.CacheFlushSpec{Prefix: "a,b*"}},
		"keys":   {[]string{"--key", "a,b", "--key", "c"}, v1alpha1.CacheFlushSpec{Keys: []string{"a,b", "c"}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			_, err := b.flush(t.Context(), tc.args...)
			b.Expect(err).NotTo(HaveOccurred())
			tc.want.PoolRef.Name, tc.want.Mode, tc.want.DeclaredEntries, tc.want.BackoffLimit = "default", v1alpha1.FlushDelete, v1alpha1.DeclaredPreserve, new(int32(6))
			created := b.only()
			b.Expect(cmp.Diff(tc.want, created.Spec)).To(BeEmpty())
			b.Expect(b.said()).To(Equal("cacheflush/" + created.Name + " created\n"))
		})
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no target":              {nil, "set exactly one of --all, --prefix, --match, --key"},
		"two targets":            {[]string{"--all", "--prefix", "a"}, "set exactly one of --all, --prefix, --match, --key"},
		"an argument":            {[]string{"user:"}, `unknown command "user:"`},
		"unknown flag":           {[]string{"--al"}, "unknown flag: --al"},
		"timeout without wait":   {[]string{"--all", "--timeout", "1s"}, "--timeout needs --wait"},
		"a negative timeout":     {[]string{"--all", "--wait", "--timeout", "-1s"}, "--timeout must not be negative"},
		"an empty prefix":        {[]string{"--prefix", ""}, "--prefix must not be empty"},
		"an empty key":           {[]string{"--key", "a", "--key", ""}, "--key must not be empty"},
		"an empty pool":          {[]string{"--all", "--pool", ""}, "--pool must not be empty"},
		"an empty namespace":     {[]string{"--all", "--pool-namespace", ""}, "--pool-namespace must not be empty"},
		"an empty run ID":        {[]string{"--all", "--run-id", ""}, "--run-id must not be empty"},
		"an unclosed bracket":    {[]string{"--match", "a["}, "must be a complete Redis glob"},
		"run ID and ttl":         {[]string{"--all", "--run-id", "1", "--ttl-seconds-after-finished", "60"}, "must not be set together with runID"},
		"all=false":              {[]string{"--all=false"}, "must be true"},
		"no such kubeconfig":     {[]string{"--all", "--kubeconfig", "/does/not/exist"}, "/does/not/exist"},
		"no such context":        {[]string{"--all", "--context", "nowhere"}, "nowhere"},
		"a prefix of bytes":      {[]string{"--prefix", "a\xff"}, "--prefix must be UTF-8 text"},
		"a key of bytes":         {[]string{"--key", "a", "--key", "\xff"}, "--key must be UTF-8 text"},
		"a negative rate":        {[]string{"--all", "--max-keys-per-second", "-1"}, "should be greater than or equal to 1"},
		"a duration as a number": {[]string{"--all", "--wait", "--timeout", "5"}, "must be a duration"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			code, err := b.flush(t.Context(), tc.args...)
			b.Expect(err).To(MatchError(ContainSubstring(tc.want)))
			b.Expect(code).To(Equal(command.ExitUsage))
		})
	}
}

func TestHelpSpeaksOfTheProgram(t *testing.T) {
	help := command.NewFlush("kubectl cachewright").Example
	if !strings.Contains(help, "  kubectl cachewright flush --pool") {
		t.Error(help)
	}
}
