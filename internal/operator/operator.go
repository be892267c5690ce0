// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package operator puts the manager together: controllers, leader election, metrics, probes.
package operator

import (
	"context"
	"crypto/tls"
	"fmt"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/controllers"
)

// leaseName is the name of the Lease that the leader holds.
const leaseName = "cachewright.cachewright.dev"

// Options of the operator.
type Options struct {
	// LeaderElect makes several replicas safe: one works, the others wait.
	LeaderElect bool
	// LeaderElectionNamespace is where the Lease is; empty means the operator's own namespace, in a cluster.
	LeaderElectionNamespace string
	// Namespaces that the operator works in; empty means all, which takes a ClusterRole.
	Namespaces []string
	// MetricsAddress serves metrics over HTTPS to those whom the API server lets; "0" serves none.
	MetricsAddress string
	// ProbeAddress serves /healthz and /readyz; "0" serves none.
	ProbeAddress string
	// PprofAddress serves Go's profiles, to whoever can reach it; "0" serves none.
	PprofAddress string
	// Controllers has what no flag sets.
	Controllers controllers.Options
}

// AddFlags binds the options to flags.
func (o *Options) AddFlags(flags *pflag.FlagSet) {
	flags.BoolVar(&o.LeaderElect, "leader-elect", false, "work only while holding the Lease, so that several replicas are safe")
	flags.StringVar(&o.LeaderElectionNamespace, "leader-election-namespace", "", "namespace of the Lease; the operator's own when empty")
	flags.StringSliceVar(&o.Namespaces, "namespaces", nil, "work in these namespaces only, so that Roles there are enough; all when empty")
	flags.StringVar(&o.MetricsAddress, "metrics-bind-address", "0", "address that serves metrics over HTTPS, such as :8443; 0 serves none")
	flags.StringVar(&o.ProbeAddress, "health-probe-bind-address", ":8081", "address that serves /healthz and /readyz; 0 serves none")
	flags.StringVar(&o.PprofAddress, "pprof-bind-address", "0", "address that serves Go's profiles, such as localhost:6060, to whoever can reach it; 0 serves none")
}

// NewScheme knows the kinds that the operator works with.
func NewScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	return scheme, v1alpha1.AddToScheme(scheme)
}

// Run the operator until the context ends.
func Run(ctx context.Context, config *rest.Config, o Options) error {
	scheme, err := NewScheme()
	if err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		Cache:                         cache.Options{DefaultTransform: slim, DefaultNamespaces: only(o.Namespaces)},
		LeaderElection:                o.LeaderElect,
		LeaderElectionID:              leaseName,
		LeaderElectionNamespace:       o.LeaderElectionNamespace,
		LeaderElectionReleaseOnCancel: true, // safe, since the process ends with the manager
		HealthProbeBindAddress:        o.ProbeAddress,
		PprofBindAddress:              o.PprofAddress,
		Metrics: metricsserver.Options{
			BindAddress:    o.MetricsAddress,
			SecureServing:  true,
			FilterProvider: filters.WithAuthenticationAndAuthorization,
			TLSOpts:        []func(*tls.Config){withoutHTTP2},
		},
	})
	if err != nil {
		return fmt.Errorf("the manager cannot be made: %w", err)
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	o.Controllers.Namespaces = o.Namespaces
	if err := controllers.Setup(ctx, mgr, o.Controllers); err != nil {
		return fmt.Errorf("the controllers cannot be set up: %w", err)
	}
	return mgr.Start(ctx)
}

// withoutHTTP2, by which strangers could ask for many things at once over one connection: each of them is a question to the
// API server.
func withoutHTTP2(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }

// only these namespaces are watched; all if there are none.
func only(namespaces []string) map[string]cache.Config {
	if len(namespaces) == 0 {
		return nil
	}
	watched := map[string]cache.Config{}
	for _, n := range namespaces {
		watched[n] = cache.Config{}
	}
	return watched
}

// slim keeps only what the operator reads of an object: of ConfigMaps and Secrets, whose content it never caches,
// names and versions, of Namespaces labels and deletion too. Their annotations may repeat the content (kubectl apply does that).
func slim(object any) (any, error) {
	if meta, ok := object.(*metav1.PartialObjectMetadata); ok {
		labels := meta.Labels
		if meta.Namespace != "" {
			labels = nil
		}
		meta.ObjectMeta = metav1.ObjectMeta{
			Namespace: meta.Namespace, Name: meta.Name, UID: meta.UID, ResourceVersion: meta.ResourceVersion,
			Labels: labels, DeletionTimestamp: meta.DeletionTimestamp,
		}
	}
	if o, ok := object.(client.Object); ok {
		o.SetManagedFields(nil)
	}
	return object, nil
}
