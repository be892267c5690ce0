// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"context"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// flush is what the command line says.
type flush struct {
	cluster cluster
	name    string
	spec    v1alpha1.CacheFlushSpec
	all     bool
	dryRun  bool
	wait    bool
	timeout time.Duration

	client    client.WithWatch
	namespace string
	out       io.Writer
	warnings  io.Writer
}

const flushExample = `  # Delete the keys of a release that went wrong, and wait for the end
  %[1]s flush --pool main --prefix user:v1.4.2: --wait

  # See first what would go
  %[1]s flush --pool main --match 'user:*:profile' --dry-run

  # In a CronJob: a pod that is started again follows the flush that the first one created
  %[1]s flush --pool main --prefix report: --name report-$(JOB_NAME) --wait --timeout 10m`

// NewFlush makes the command `flush` of a program with this name.
func NewFlush(program string) *cobra.Command {
	f := &flush{}
	c := &cobra.Command{
		Use:   "flush (--all | --prefix TEXT | --match GLOB | --key KEY...)",
		Short: "Delete keys from a cache, once, by creating a CacheFlush",
		Long: `Delete keys from a cache, once, by creating a CacheFlush. The operator does the work; this command can follow it.

Exit code: 0 the flush was created, or with --wait or --dry-run is complete; 1 it failed, or could not be created or followed; 2 the command line is wrong; 3 it was not done in time, and goes on.
A flush of this name that exists with the same spec counts as created, unless it has failed.`,
		Example: fmt.Sprintf(flushExample, program),
		Args:    NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.out, f.warnings = cmd.OutOrStdout(), cmd.ErrOrStderr()
			return f.run(cmd.Context(), cmd)
		},
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage("%w", err) })
	f.addFlags(c)
	return c
}

func (f *flush) addFlags(c *cobra.Command) {
	flags, s := c.Flags(), &f.spec
	flags.StringVar(&f.name, "name", "", "name of the CacheFlush; one that exists with the same spec is followed. Generated when empty")
	flags.StringVar(&s.PoolRef.Name, "pool", "default", "CachePool to flush")
	flags.StringVar(&s.PoolRef.Namespace, "pool-namespace", "", "namespace of the CachePool, if that is another one and admits this one")
	flags.BoolVar(&f.all, "all", false, "flush every key of the pool")
	flags.StringVar(&s.Prefix, "prefix", "", "flush the keys that start with this text, taken literally")
	flags.StringVar(&s.Match, "match", "", "flush the keys that match this Redis glob")
	flags.StringArrayVar(&s.Keys, "key", nil, "flush this key; may be given up to 1000 times")
	flags.BoolVar(&f.dryRun, "dry-run", false, "count and sample the keys, delete nothing, and wait for the result")
	flags.StringVar((*string)(&s.DeclaredEntries), "declared-entries", string(v1alpha1.DeclaredPreserve), "what becomes of keys that CacheEntries declare: Preserve, or Rewrite to delete them and have them written again")
	s.MaxKeys = flags.Int64("max-keys", 0, "count first, and fail before any deletion if more keys would go")
	s.MaxKeysPerSecond = flags.Int64("max-keys-per-second", 0, "delete at most so many keys in a second")
	flags.StringVar(&s.RunID, "run-id", "", "name of the run")
	s.ActiveDeadlineSeconds = flags.Int64("active-deadline-seconds", 0, "fail if it takes longer")
	s.BackoffLimit = flags.Int32("backoff-limit", 6, "fail after so many failures")
	flags.BoolVar(&s.Suspend, "suspend", false, "create it suspended")
	s.TTLSecondsAfterFinished = flags.Int32("ttl-seconds-after-finished", 0, "delete the CacheFlush so many seconds after its end, at least 10")
	flags.BoolVar(&f.wait, "wait", false, "wait for the end, and show how far it is")
	flags.DurationVar(&f.timeout, "timeout", 0, "with --wait: give up after this time, such as 10m; the flush goes on. 0 means never")
	f.cluster.addFlags(flags)
}

// run creates or finds the flush, and follows it.
func (f *flush) run(ctx context.Context, c *cobra.Command) error {
	if err := f.complete(c); err != nil {
		return err
	}
	if f.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, f.timeout, errTimeout)
		defer cancel()
	}
	if err := f.connect(); err != nil {
		return err
	}
	object, err := f.create(ctx)
	switch {
	case err != nil:
		return err
	case ended(object) != "":
		return f.result(object)
	case !f.wait:
		return nil
	}
	return f.follow(ctx, object)
}

// complete the spec with what the flags say, and drop what they do not.
func (f *flush) complete(c *cobra.Command) error {
	s := &f.spec
	targets := 0
	for _, name := range []string{"all", "prefix", "match", "key"} {
		if c.Flags().Changed(name) {
			targets++
		}
	}
	if targets != 1 {
		return usage("set exactly one of --all, --prefix, --match, --key")
	}
	for name, drop := range map[string]func(){
		"max-keys":                   func() { s.MaxKeys = nil },
		"max-keys-per-second":        func() { s.MaxKeysPerSecond = nil },
		"active-deadline-seconds":    func() { s.ActiveDeadlineSeconds = nil },
		"ttl-seconds-after-finished": func() { s.TTLSecondsAfterFinished = nil },
	} {
		if !c.Flags().Changed(name) {
			drop()
		}
	}
	if c.Flags().Changed("all") {
		s.All = &f.all
	}
	s.Mode = v1alpha1.FlushDelete
	if f.dryRun {
		s.Mode, f.wait = v1alpha1.FlushDryRun, true
	}
	switch {
	case f.timeout < 0:
		return usage("--timeout must not be negative")
	case f.timeout > 0 && !f.wait:
		return usage("--timeout needs --wait")
	}
	return text(c)
}

// text that is given must not be empty, as that of a variable that is not set: without a word, the default pool would be
// flushed. And it must be UTF-8: JSON would put other characters for bytes that are not, and so ask for other keys.
func text(c *cobra.Command) error {
	for _, name := range []string{"pool", "pool-namespace", "prefix", "match", "key", "declared-entries", "run-id"} {
		flag := c.Flags().Lookup(name)
		values := []string{flag.Value.String()}
		if list, ok := flag.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, value := range values {
			switch {
			case flag.Changed && value == "":
				return usage("--%s must not be empty", name)
			case !utf8.ValidString(value):
				return usage("--%s must be UTF-8 text", name)
			}
		}
	}
	return nil
}

func (f *flush) say(format string, args ...any) {
	_, _ = fmt.Fprintf(f.out, format+"\n", args...) // who reads it may be gone; the flush is not
}
