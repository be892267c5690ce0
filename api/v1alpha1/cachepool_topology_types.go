// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Topology says how servers work together.
// +kubebuilder:validation:Enum=Standalone;Sentinel;Cluster
type Topology string

const (
	// TopologyStandalone : one server.
	TopologyStandalone Topology = "Standalone"
	// TopologySentinel : one server at a time; sentinels say which.
	TopologySentinel Topology = "Sentinel"
	// TopologyCluster : each master has a part of the keys.
	TopologyCluster Topology = "Cluster"
)

// SentinelSpec says what to ask the sentinels.
type SentinelSpec struct {
	// masterName is what the sentinels call the server.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	MasterName string `json:"masterName,omitempty"`

	// credentialsSecretRef names the Secret with user and password of the sentinels. They have their own: those of the
	// server are not tried.
	// +optional
	CredentialsSecretRef *CredentialsSecretReference `json:"credentialsSecretRef,omitempty"`
}
