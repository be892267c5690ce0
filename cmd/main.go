// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Command cachewright is the operator.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/cachewright/cachewright/internal/operator"
)

// version is set by the linker.
var version = "dev"

func main() {
	root := &cobra.Command{
		Use:           "cachewright",
		Short:         "Declare what is in Redis and Valkey caches, as Kubernetes objects",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(managerCommand())
	if err := root.ExecuteContext(ctrl.SetupSignalHandler()); err != nil {
		fmt.Fprintln(os.Stderr, "cachewright:", err)
		os.Exit(1)
	}
}

func managerCommand() *cobra.Command {
	var options operator.Options
	var logging zap.Options
	command := &cobra.Command{
		Use:   "manager",
		Short: "Run the operator",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctrl.SetLogger(zap.New(zap.UseFlagOptions(&logging)))
			config, err := ctrl.GetConfig()
			if err != nil {
				return err
			}
			return operator.Run(cmd.Context(), config, options)
		},
	}
	options.AddFlags(command.Flags())
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	logging.BindFlags(flags)
	ctrl.RegisterFlags(flags)
	command.Flags().AddGoFlagSet(flags)
	return command
}
