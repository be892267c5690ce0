// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// CachePoolSpec declares a connection, and the key prefix that fences it in.
//
// +kubebuilder:validation:ExactlyOneOf=addresses;urlSecretRef
// +kubebuilder:validation:XValidation:rule="!has(self.urlSecretRef) || !has(self.credentialsSecretRef)",fieldPath=".credentialsSecretRef",message="must not be set together with urlSecretRef: the URL has user and password itself"
// +kubebuilder:validation:XValidation:rule="!has(self.urlSecretRef) || !has(self.database)",fieldPath=".database",message="must not be set together with urlSecretRef: the URL has the database itself, as in redis://redis.shop.svc:6379/5"
// +kubebuilder:validation:XValidation:rule="self.topology != 'Standalone' || !has(self.addresses) || size(self.addresses) <= 1",fieldPath=".addresses",message="must be one with topology Standalone; several are for Sentinel and Cluster"
// +kubebuilder:validation:XValidation:rule="(self.topology == 'Sentinel') == has(self.sentinel)",fieldPath=".sentinel",message="must be set with topology Sentinel, and not with another"
// +kubebuilder:validation:XValidation:rule="self.topology != 'Cluster' || !has(self.database)",fieldPath=".database",message="must not be set with topology Cluster, which has only one"
type CachePoolSpec struct {
	// addresses of the server (one), of the sentinels, or of some nodes of the cluster, as host:port. Either these or
	// urlSecretRef.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=260
	// +kubebuilder:validation:XValidation:rule="self.all(a, a.matches('^(\\\\[[0-9a-fA-F:.%]+\\\\]|[^:/@\\\\s\\\\[\\\\]]+):[0-9]{1,5}$') && int(a.substring(a.lastIndexOf(':') + 1)) >= 1 && int(a.substring(a.lastIndexOf(':') + 1)) <= 65535)",message="must be host:port with a port from 1 to 65535, for example redis.shop.svc:6379 (an IPv6 address in brackets, no redis:// in front)"
	Addresses []string `json:"addresses,omitempty"`

	// urlSecretRef names the key of a Secret of the same namespace that holds a URL,
	// redis://user:password@host:port/database, or rediss:// for TLS. User, password, port and database may be left out.
	// +optional
	URLSecretRef *KeyReference `json:"urlSecretRef,omitempty"`

	// topology says how the servers work together: Standalone (one server), Sentinel (one server at a time, which
	// sentinels name) or Cluster.
	// +optional
	// +kubebuilder:default=Standalone
	Topology Topology `json:"topology,omitempty"`

	// sentinel says what to ask the sentinels. With topology Sentinel only.
	// +optional
	Sentinel *SentinelSpec `json:"sentinel,omitempty"`

	// database is the number of the logical database. 0 when it is not set; a cluster has no other.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Database *int32 `json:"database,omitempty"`

	// credentialsSecretRef names the Secret with user and password. Without it the operator connects as the
	// default user without a password.
	// +optional
	CredentialsSecretRef *CredentialsSecretReference `json:"credentialsSecretRef,omitempty"`

	// tls secures the connection; an empty one, {}, does too. A URL that begins with rediss:// does without it, and one
	// that begins with redis:// with it.
	// +optional
	TLS *TLSSpec `json:"tls,omitempty"`

	// keyPrefix stands in front of every key of this pool; nothing outside it is ever touched. When it is not
	// set: "glimr:cache:<name of the pool>:", the layout of the glimr_redis cache driver. The prefix in effect
	// cannot be changed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=320
	// +kubebuilder:validation:XValidation:rule="size(bytes(self)) <= 320",message="must be at most 320 bytes"
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('cachewright:') && !'cachewright:'.startsWith(self)",message="must not overlap \"cachewright:\", which the operator keeps for itself"
	KeyPrefix string `json:"keyPrefix,omitempty"`

	// allowedNamespaces are those whose entries and flushes may use the pool; only its own when it is not set. Keys of
	// another namespace stand behind "<keyPrefix><namespace>:". To a namespace that is not allowed, the pool does not exist.
	// +optional
	AllowedNamespaces *AllowedNamespaces `json:"allowedNamespaces,omitempty"`

	// resyncPeriod is the time between two full looks at the server and at all keys of the pool, as a safety
	// net behind timers and events. At least 10s.
	// +optional
	// +kubebuilder:default="10m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('10s')",message="must be a duration of at least 10s, such as 30s, 10m or 1h30m"
	ResyncPeriod *metav1.Duration `json:"resyncPeriod,omitempty"`

	// timeout of one command, between 100ms and 1m.
	// +optional
	// +kubebuilder:default="3s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('100ms') && duration(self) <= duration('1m')",message="must be a duration from 100ms to 1m, such as 500ms or 3s"
	Timeout *metav1.Duration `json:"timeout,omitempty"`

	// flushLimits are respected by every CacheFlush of this pool.
	// +optional
	FlushLimits *FlushLimits `json:"flushLimits,omitempty"`

	// suspend stops all work on the pool, its entries and its flushes. Keys stay as they are, also when entries
	// are deleted meanwhile.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
}

// FlushLimits protect the server and the keys of a pool from its flushes.
//
// +kubebuilder:validation:MinProperties=1
type FlushLimits struct {
	// latencyBudget is how long a flush may keep the server from other clients at a time: its batches adapt to it. From
	// 100us to 1s; 2ms when it is not set.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(us|ms|s))+$') && duration(self) >= duration('100us') && duration(self) <= duration('1s')",message="must be a duration from 100us to 1s, such as 500us or 2ms"
	LatencyBudget *metav1.Duration `json:"latencyBudget,omitempty"`

	// maxKeysPerSecond is the most keys that a flush deletes in a second.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxKeysPerSecond *int64 `json:"maxKeysPerSecond,omitempty"`

	// maxKeys is the most keys that one flush may delete. They are counted before the first one is; if there are more, the
	// flush fails.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxKeys *int64 `json:"maxKeys,omitempty"`

	// protectedPrefixes of keys, behind the pool's key prefix, that no flush ever deletes, not even one that names the
	// key. They are taken literally.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=1024
	// +kubebuilder:validation:items:XValidation:rule="size(bytes(self)) <= 1024",message="must be at most 1024 bytes"
	ProtectedPrefixes []string `json:"protectedPrefixes,omitempty"`
}

// CachePoolStatus is what the operator found.
type CachePoolStatus struct {
	// observedGeneration is the generation of the spec that this status speaks of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// keyPrefix in effect.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=320
	KeyPrefix string `json:"keyPrefix,omitempty"`

	// server is what answered at the address.
	// +optional
	Server *ServerStatus `json:"server,omitempty"`

	// credentialsResourceVersion is the resourceVersion of the Secret in use that has the password or the URL: when a
	// new one stands here, the old password may go.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	CredentialsResourceVersion string `json:"credentialsResourceVersion,omitempty"`

	// recentFlushes are the last 10 flushes of the pool, by CacheFlushes of its namespace, that have finished; the latest
	// comes first. They stay here when the objects are gone. DryRuns are not among them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	RecentFlushes []RecentFlush `json:"recentFlushes,omitempty"`

	// conditions are Ready, Reconciling, Stalled, Suspended.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ChangeDetection is how changes of keys are noticed.
// +kubebuilder:validation:Enum=Tracking;Broadcast;Polling
type ChangeDetection string

const (
	// DetectionTracking : the server tells of changes of the keys that the operator has read.
	DetectionTracking ChangeDetection = "Tracking"
	// DetectionBroadcast : the server tells of changes of all keys under the prefix.
	DetectionBroadcast ChangeDetection = "Broadcast"
	// DetectionPolling : the server tells nothing, and is asked.
	DetectionPolling ChangeDetection = "Polling"
)

// RecentFlush tells what a finished CacheFlush did.
type RecentFlush struct {
	// name of the CacheFlush.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// namespace of the CacheFlush.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// target says in words what was flushed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Target string `json:"target,omitempty"`

	// runID of the run, if it had one.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	RunID string `json:"runID,omitempty"`

	// result is Complete or Failed.
	// +required
	Result FlushResult `json:"result,omitempty"`

	// deleted is how many keys it has deleted.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Deleted int64 `json:"deleted"`

	// completionTime is when it finished.
	// +required
	CompletionTime metav1.Time `json:"completionTime,omitzero"`
}

// FlushResult is how a flush has ended.
// +kubebuilder:validation:Enum=Complete;Failed
type FlushResult string

// ServerStatus describes a Redis or Valkey server.
type ServerStatus struct {
	// product as the server names itself: redis or valkey.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Product string `json:"product,omitempty"`

	// version of the product.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Version string `json:"version,omitempty"`

	// topology of the server: Standalone, Sentinel or Cluster.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Topology string `json:"topology,omitempty"`

	// nodes that hold keys.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Nodes int32 `json:"nodes,omitempty"`

	// changeDetection is how changes of declared keys by others are noticed: Tracking and Broadcast within
	// milliseconds, since the server tells; Polling at the next look, at the latest after resyncPeriod.
	// +optional
	ChangeDetection ChangeDetection `json:"changeDetection,omitempty"`
}

// CachePool is a connection to a Redis or Valkey server and the key prefix that fences it in. CacheEntries and
// CacheFlushes name the pool they work in.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=cpool,categories=cachewright
// +kubebuilder:printcolumn:name="Topology",type=string,JSONPath=`.status.server.topology`
// +kubebuilder:printcolumn:name="Prefix",type=string,JSONPath=`.status.keyPrefix`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="(has(self.spec.keyPrefix) ? self.spec.keyPrefix : 'glimr:cache:' + self.metadata.name + ':') == (has(oldSelf.spec.keyPrefix) ? oldSelf.spec.keyPrefix : 'glimr:cache:' + oldSelf.metadata.name + ':')",fieldPath=".spec.keyPrefix",message="the prefix in effect cannot be changed; create another CachePool"
type CachePool struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec declares the connection.
	// +required
	Spec CachePoolSpec `json:"spec,omitzero"`

	// status is what the operator found.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status CachePoolStatus `json:"status,omitzero"`
}

// CachePoolList is a list of CachePools.
//
// +kubebuilder:object:root=true
type CachePoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []CachePool `json:"items"`
}

// EffectiveKeyPrefix is what stands in front of every key of the pool.
func (p *CachePool) EffectiveKeyPrefix() string {
	if p.Spec.KeyPrefix != "" {
		return p.Spec.KeyPrefix
	}
	return "glimr:cache:" + p.Name + ":"
}

// Conditions of the pool.
func (p *CachePool) Conditions() *[]metav1.Condition { return &p.Status.Conditions }

// ObservedGeneration of the pool.
func (p *CachePool) ObservedGeneration() *int64 { return &p.Status.ObservedGeneration }
