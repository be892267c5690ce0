// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"github.com/spf13/pflag"
	"k8s.io/client-go/tools/clientcmd"
)

// cluster is which API server to speak to, and as whom: what kubeconfig and flags say, as for kubectl, or the pod that
// this runs in. The flags are client-go's, since kubectl's own bring kustomize with them: 30 MB, and a linker that may
// leave nothing out.
type cluster struct {
	kubeconfig string
	overrides  clientcmd.ConfigOverrides
}

func (c *cluster) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.kubeconfig, "kubeconfig", "", "Path to the kubeconfig file to use for CLI requests")
	names := clientcmd.RecommendedConfigOverrideFlags("")
	names.ClusterOverrideFlags.APIServer.ShortName = "s"
	// The timeout would be that of single requests, and no API server takes user names and passwords any more.
	names.Timeout, names.AuthOverrideFlags.Username, names.AuthOverrideFlags.Password = clientcmd.FlagInfo{}, clientcmd.FlagInfo{}, clientcmd.FlagInfo{}
	clientcmd.BindOverrideFlags(&c.overrides, flags, names)
}

func (c *cluster) loader() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.kubeconfig
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &c.overrides)
}
