// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package command_test

import (
	"bytes"
	"errors"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/spf13/cobra"

	"github.com/cachewright/cachewright/internal/command"
)

func TestExitCodes(t *testing.T) {
	t.Parallel()
	const nothing = "set exactly one of --all, --prefix, --match, --key"
	for name, tc := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no command":               {nil, 0, "Usage:"},
		"help":                     {[]string{"help", "flush"}, 0, "Exit code"},
		"completion":               {[]string{"completion", "bash"}, 0, "bash completion"},
		"an unknown command":       {[]string{"flsh", "--all"}, 2, "error: unknown command \"flsh\" for \"cachewright\"\n\nDid you mean this?\n\tflush\n"},
		"an unknown flag":          {[]string{"--al"}, 2, "error: unknown flag: --al\n"},
		"a flag before":            {[]string{"--all", "flush"}, 2, "error: unknown flag: --all\n"},
		"a command's unknown flag": {[]string{"other", "--al"}, 2, "error: unknown flag: --al\n"},
		"an argument too many":     {[]string{"other", "argument"}, 2, "error: unknown command \"argument\" for \"cachewright other\"\n"},
		"a command that fails":     {[]string{"other"}, 1, "error: it failed\n"},
		"flush without a target":   {[]string{"flush"}, 2, "error: " + nothing + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewWithT(t)
			var said bytes.Buffer
			root := &cobra.Command{Use: "cachewright"}
			root.AddCommand(command.NewFlush("cachewright"), &cobra.Command{
				Use: "other", Args: command.NoArgs, RunE: func(*cobra.Command, []string) error { return errors.New("it failed") },
			})
			root.SetArgs(append([]string{}, tc.args...))
			root.SetOut(&said)
			root.SetErr(&said)
			g.Expect(command.Run(t.Context(), root)).To(Equal(tc.code), said.String())
			g.Expect(said.String()).To(ContainSubstring(tc.says))
		})
	}
}
