// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// MaxValueBytes is the size of the largest value that a CacheEntry stores.
const MaxValueBytes = 1 << 20

// DeletionPolicy says what becomes of the key when its CacheEntry is deleted.
// +kubebuilder:validation:Enum=Delete;Retain
type DeletionPolicy string

const (
	// DeletionDelete : the key is deleted with the entry.
	DeletionDelete DeletionPolicy = "Delete"
	// DeletionRetain : the key stays, and runs out if it has a lifetime.
	DeletionRetain DeletionPolicy = "Retain"
)

// EntryPolicy says when the key is written.
// +kubebuilder:validation:Enum=Enforce;EnsurePresent;WriteOnChange;Observe
type EntryPolicy string

const (
	// PolicyEnforce : the key always holds the declared value; whatever changes or removes it is undone.
	PolicyEnforce EntryPolicy = "Enforce"
	// PolicyEnsurePresent : the key is written whenever it is absent; a value that others put there stays.
	PolicyEnsurePresent EntryPolicy = "EnsurePresent"
	// PolicyWriteOnChange : the key is written once for each declared value; what becomes of it then is left alone.
	PolicyWriteOnChange EntryPolicy = "WriteOnChange"
	// PolicyObserve : the key is never written; Ready says whether it holds the declared value.
	PolicyObserve EntryPolicy = "Observe"
)

// The rules of the two large fields stand at the spec, because a refused rule of a field repeats the field's value. And
// binary is plain text to the API server, whose CEL reads format byte in base64's URL alphabet, without + and /.

// CacheEntrySpec declares one key that must be there.
//
// +kubebuilder:validation:XValidation:rule="[has(self.value), has(dyn(self).json), has(self.binary), has(self.valueFrom), has(self.counter)].filter(x, x).size() == 1",message="exactly one of value, json, binary, valueFrom, counter must be set; null counts as not set"
// +kubebuilder:validation:XValidation:rule="has(self.ttl) != has(self.forever)",message="exactly one of ttl, forever must be set"
// +kubebuilder:validation:XValidation:rule="!has(self.value) || size(bytes(self.value)) <= 1048576",fieldPath=".value",message="must be at most 1048576 bytes (1 MiB)"
// +kubebuilder:validation:XValidation:rule="!has(self.binary) || size(self.binary) % 4 == 0 && self.binary.matches('^[A-Za-z0-9+/]*={0,2}$')",fieldPath=".binary",message="must be base64 in one line, as base64 -w0 writes it"
// +kubebuilder:validation:XValidation:rule="!has(self.binary) || size(self.binary) / 4 * 3 - (self.binary.endsWith('==') ? 2 : self.binary.endsWith('=') ? 1 : 0) <= 1048576",fieldPath=".binary",message="must be at most 1048576 bytes (1 MiB) when decoded"
// +kubebuilder:validation:XValidation:rule="!has(self.counter) || !has(self.policy)",fieldPath=".policy",message="must not be set for a counter, which is incremented once for each runID"
// +kubebuilder:validation:XValidation:rule="!has(self.policy) || self.policy != 'WriteOnChange' || !has(self.valueFrom) || !has(self.valueFrom.secretKeyRef)",fieldPath=".policy",message="must not be WriteOnChange with secretKeyRef: a digest of the Secret would have to be kept to tell a change"
// +kubebuilder:validation:XValidation:rule="has(self.counter) == has(oldSelf.counter)",fieldPath=".counter",message="cannot be added or removed; create another CacheEntry"
// +kubebuilder:validation:XValidation:rule="!has(self.counter) || self.key == oldSelf.key",fieldPath=".key",message="cannot be changed for a counter; create another CacheEntry"
// +kubebuilder:validation:XValidation:rule="!has(self.counter) || self.poolRef == oldSelf.poolRef",fieldPath=".poolRef",message="cannot be changed for a counter; create another CacheEntry"
type CacheEntrySpec struct {
	// poolRef names the CachePool; "default" when it is not set.
	// +optional
	// +kubebuilder:default={name: default}
	PoolRef PoolReference `json:"poolRef,omitzero"`

	// key is any UTF-8 text of 1 to 1024 bytes. In Redis the pool's key prefix stands in front of it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="size(bytes(self)) <= 1024",message="must be at most 1024 bytes"
	Key string `json:"key,omitempty"`

	// value is text, stored as it is. At most 1 MiB (use kubectl apply --server-side for more than 256 KiB).
	// +optional
	// +kubebuilder:validation:MinLength=0
	// +kubebuilder:validation:MaxLength=1048576
	Value *string `json:"value,omitempty"`

	// json is any JSON value but null, stored compact and with sorted keys; numbers are stored as the API
	// server keeps them. At most 1 MiB when stored.
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:pruning:PreserveUnknownFields
	JSON json.RawMessage `json:"json,omitempty"`

	// binary is base64 text in one line, stored decoded. At most 1 MiB when stored.
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MinLength=0
	// +kubebuilder:validation:MaxLength=1398104
	Binary []byte `json:"binary,omitzero"`

	// valueFrom takes the value from a key of a ConfigMap or Secret of the same namespace; a change there is
	// written at once.
	// +optional
	ValueFrom *ValueSource `json:"valueFrom,omitempty"`

	// counter increments the number in the key, once for each new runID.
	// +optional
	Counter *CounterSpec `json:"counter,omitempty"`

	// ttl is the lifetime of the key, from 1s to 10 years (87600h). Under policy Enforce it is renewed before it
	// runs out. A counter gets it when the increment creates the key, and never later.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('87600h')",message="must be a duration from 1s to 10 years (87600h), such as 90s, 10m or 1h30m"
	TTL *metav1.Duration `json:"ttl,omitempty"`

	// forever stores the key without a lifetime. Only true makes sense.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self",message="must be true; leave it out and set ttl for a key with a lifetime"
	Forever *bool `json:"forever,omitempty"`

	// policy says when the key is written: Enforce, EnsurePresent, WriteOnChange or Observe. Enforce when it is
	// not set.
	// +optional
	Policy EntryPolicy `json:"policy,omitempty"`

	// deletionPolicy says what becomes of the key when the entry is deleted: Delete or Retain. When it is not
	// set: Delete, or for a counter Retain.
	// +optional
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`

	// suspend stops all work on the key. While it is true, deleting the entry leaves the key.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
}

// CounterSpec declares one increment.
type CounterSpec struct {
	// increment is what is added to the number in the key, an integer of 64 bits. It may be negative.
	// +required
	// +kubebuilder:validation:XValidation:rule="self != 0",message="must not be 0"
	Increment int64 `json:"increment,omitempty"` //nolint:kubeapilinter // it sees no rule in CEL, and this one refuses 0

	// runID names the increment: it is done exactly once for each new one. Set the next only after the status
	// shows the last.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	RunID string `json:"runID,omitempty"`
}

// ValueSource names where a value comes from.
//
// +kubebuilder:validation:ExactlyOneOf=configMapKeyRef;secretKeyRef
type ValueSource struct {
	// configMapKeyRef takes a key of a ConfigMap, from its data or its binaryData.
	// +optional
	ConfigMapKeyRef *KeyReference `json:"configMapKeyRef,omitempty"`

	// secretKeyRef takes a key of a Secret.
	// +optional
	SecretKeyRef *KeyReference `json:"secretKeyRef,omitempty"`
}

// CacheEntryStatus is what the operator found and did.
type CacheEntryStatus struct {
	// observedGeneration is the generation of the spec that this status speaks of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// pool is the CachePool in use, as namespace/name.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Pool string `json:"pool,omitempty"`

	// key is the full name of the key in Redis.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	Key string `json:"key,omitempty"`

	// lastWriteTime is when a new value was last written; renewals and repairs do not count.
	// +optional
	LastWriteTime *metav1.Time `json:"lastWriteTime,omitempty"`

	// sourceResourceVersion is the resourceVersion of the ConfigMap or Secret whose content was last written.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	SourceResourceVersion string `json:"sourceResourceVersion,omitempty"`

	// writtenDigest is the SHA-256 of the value last written. A Secret's content is never hashed into it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	WrittenDigest string `json:"writtenDigest,omitempty"`

	// counter is the last increment that was done.
	// +optional
	Counter *CounterStatus `json:"counter,omitempty"`

	// conditions are Ready, Reconciling, Stalled, Suspended.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// CounterStatus is an increment that was done.
type CounterStatus struct {
	// runID of the increment.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	RunID string `json:"runID,omitempty"`

	// value of the key right after the increment.
	// +optional
	Value int64 `json:"value"`
}

// CacheEntry is one key that must be there, with its value and its lifetime.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=centry,categories=cachewright
// +kubebuilder:printcolumn:name="Pool",type=string,JSONPath=`.spec.poolRef.name`
// +kubebuilder:printcolumn:name="Key",type=string,JSONPath=`.spec.key`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Policy",type=string,JSONPath=`.spec.policy`,priority=1
// +kubebuilder:printcolumn:name="TTL",type=string,JSONPath=`.spec.ttl`,priority=1
// +kubebuilder:printcolumn:name="Last Write",type=date,JSONPath=`.status.lastWriteTime`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type CacheEntry struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec declares the key.
	// +required
	Spec CacheEntrySpec `json:"spec,omitzero"`

	// status is what the operator found and did.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status CacheEntryStatus `json:"status,omitzero"`
}

// CacheEntryList is a list of CacheEntries.
//
// +kubebuilder:object:root=true
type CacheEntryList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []CacheEntry `json:"items"`
}

// Pool that the entry names.
func (e *CacheEntry) Pool() types.NamespacedName { return named(e.Spec.PoolRef, e.Namespace) }

// EffectivePolicy is the declared policy, or Enforce. A counter has none.
func (e *CacheEntry) EffectivePolicy() EntryPolicy {
	if e.Spec.Policy == "" && e.Spec.Counter == nil {
		return PolicyEnforce
	}
	return e.Spec.Policy
}

// EffectiveDeletionPolicy is the declared policy, or Delete; for a counter Retain.
func (e *CacheEntry) EffectiveDeletionPolicy() DeletionPolicy {
	switch {
	case e.Spec.DeletionPolicy != "":
		return e.Spec.DeletionPolicy
	case e.Spec.Counter != nil:
		return DeletionRetain
	default:
		return DeletionDelete
	}
}

// Conditions of the entry.
func (e *CacheEntry) Conditions() *[]metav1.Condition { return &e.Status.Conditions }

// ObservedGeneration of the entry.
func (e *CacheEntry) ObservedGeneration() *int64 { return &e.Status.ObservedGeneration }
