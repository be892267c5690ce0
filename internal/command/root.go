// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package command has the command line for people and CronJobs.
package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	// ExitFailed : the flush failed, or could not be created or followed.
	ExitFailed = 1
	// ExitUsage : the command line does not say what to do.
	ExitUsage = 2
	// ExitTimeout : the flush was not done in time. It goes on.
	ExitTimeout = 3
)

// Error ends the program with an exit code.
type Error struct {
	Code int
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives what went wrong.
func (e *Error) Unwrap() error { return e.Err }

func usage(format string, args ...any) error {
	return &Error{Code: ExitUsage, Err: fmt.Errorf(format, args...)}
}

// Run the command of a program that only has others, say what went wrong, and give the exit code.
func Run(ctx context.Context, root *cobra.Command) int {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage("%w", err) })
	c, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	root.PrintErrln("error:", err)
	if c == root { // no command was found
		return ExitUsage
	}
	return ExitCode(err)
}

// ExitCode of the program after an error; nil is 0.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ExitFailed
}

// NoArgs is for commands that have flags only.
func NoArgs(c *cobra.Command, args []string) error {
	if err := cobra.NoArgs(c, args); err != nil {
		return usage("%w", err)
	}
	return nil
}
