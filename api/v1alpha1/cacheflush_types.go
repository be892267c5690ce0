// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// FlushMode says whether a CacheFlush deletes or only counts.
// +kubebuilder:validation:Enum=Delete;DryRun
type FlushMode string

const (
	// FlushDelete : matching keys are deleted.
	FlushDelete FlushMode = "Delete"
	// FlushDryRun : matching keys are counted and sampled; nothing is deleted.
	FlushDryRun FlushMode = "DryRun"
)

// DeclaredEntries says what becomes of keys that CacheEntries declare.
// +kubebuilder:validation:Enum=Preserve;Rewrite
type DeclaredEntries string

const (
	// DeclaredPreserve : they stay.
	DeclaredPreserve DeclaredEntries = "Preserve"
	// DeclaredRewrite : those that their entries can write again at once are deleted, and written again.
	DeclaredRewrite DeclaredEntries = "Rewrite"
)

// The rule of match takes what Redis (stringmatchlen in util.c) reads to the end of every class. A class is [ ^? item* ].
// Redis reads it byte by byte: behind a byte taken as it is, - begins a range, which takes any byte as its end, even ] or
// \; \ takes the next byte, whatever it is; any other ] closes the class. So a - that begins an item is literal, and a
// range or an escape ends the item if it takes an ASCII character; of any other character it takes the first byte only,
// and the last one may begin a range again. In the regular expression:
//
//	more  = ([^\\\]-]|[-\\][^[:ascii:]])*                   what leaves the item open
//	begin = ([^\\\]]|\\[^[:ascii:]])                        without ^ too where that would negate the class
//	item  = \\[[:ascii:]] | begin more [-\\][[:ascii:]]      an escape, or what ends in a range or an escape
//	class = \[ ( (\^|item) item* (begin more)? | (begin more)? ) \]

// CacheFlushSpec declares keys that must go, once.
//
// +kubebuilder:validation:ExactlyOneOf=all;prefix;match;keys
// +kubebuilder:validation:XValidation:rule=`(has(self.runID) ? self.runID : "") != (has(oldSelf.runID) ? oldSelf.runID : "") || self.poolRef == oldSelf.poolRef && self.mode == oldSelf.mode && self.declaredEntries == oldSelf.declaredEntries && (has(self.maxKeys) ? self.maxKeys : 0) == (has(oldSelf.maxKeys) ? oldSelf.maxKeys : 0) && self.backoffLimit == oldSelf.backoffLimit && (has(self.activeDeadlineSeconds) ? self.activeDeadlineSeconds : 0) == (has(oldSelf.activeDeadlineSeconds) ? oldSelf.activeDeadlineSeconds : 0) && (has(self.all) ? self.all : false) == (has(oldSelf.all) ? oldSelf.all : false) && (has(self.prefix) ? self.prefix : "") == (has(oldSelf.prefix) ? oldSelf.prefix : "") && (has(self.match) ? self.match : "") == (has(oldSelf.match) ? oldSelf.match : "") && (has(self.keys) ? self.keys : []) == (has(oldSelf.keys) ? oldSelf.keys : [])`,message="is immutable except suspend, maxKeysPerSecond and ttlSecondsAfterFinished, or together with a new runID; create another CacheFlush"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.runID) || has(self.runID)",fieldPath=".runID",message="cannot be removed, only changed"
// +kubebuilder:validation:XValidation:rule="!has(self.runID) || !has(self.ttlSecondsAfterFinished)",fieldPath=".ttlSecondsAfterFinished",message="must not be set together with runID: the object is to stay for the next run"
type CacheFlushSpec struct {
	// poolRef names the CachePool; "default" when it is not set.
	// +optional
	// +kubebuilder:default={name: default}
	PoolRef PoolReference `json:"poolRef,omitzero"`

	// all flushes every key of the pool. Only true makes sense.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self",message="must be true; leave it out and set prefix, match or keys to flush less"
	All *bool `json:"all,omitempty"`

	// prefix flushes the keys that start with this text, which is taken literally, whatever it contains.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="size(bytes(self)) <= 1024",message="must be at most 1024 bytes"
	Prefix string `json:"prefix,omitempty"`

	// match flushes the keys that match this Redis glob (h?llo, h*llo, h[ae]llo, h[^e]llo, h[a-b]llo, \ to take
	// the next character literally). It stands behind the pool's key prefix.
	// See https://redis.io/docs/latest/commands/keys/.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="size(bytes(self)) <= 1024",message="must be at most 1024 bytes"
	// +kubebuilder:validation:XValidation:rule=`self.matches('(?s)^([^\\\\[]|\\\\.|\\[((\\^|\\\\[[:ascii:]]|([^\\\\\\]^]|\\\\[^[:ascii:]])([^\\\\\\]-]|[-\\\\][^[:ascii:]])*[-\\\\][[:ascii:]])(\\\\[[:ascii:]]|([^\\\\\\]]|\\\\[^[:ascii:]])([^\\\\\\]-]|[-\\\\][^[:ascii:]])*[-\\\\][[:ascii:]])*(([^\\\\\\]]|\\\\[^[:ascii:]])([^\\\\\\]-]|[-\\\\][^[:ascii:]])*)?|(([^\\\\\\]^]|\\\\[^[:ascii:]])([^\\\\\\]-]|[-\\\\][^[:ascii:]])*)?)\\])*$')`,message=`must be a complete Redis glob: every [ needs its ] (the one in [a-] ends a range, the one in [\] is escaped), and every \ a character behind it`
	Match string `json:"match,omitempty"`

	// keys flushes exactly these keys, at most 1000. It does not wait for other flushes.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1000
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=1024
	// +kubebuilder:validation:items:XValidation:rule="size(bytes(self)) <= 1024",message="must be at most 1024 bytes"
	Keys []string `json:"keys,omitempty"`

	// mode is Delete, or DryRun to count and sample without deleting.
	// +optional
	// +kubebuilder:default=Delete
	Mode FlushMode `json:"mode,omitempty"`

	// declaredEntries says what becomes of matching keys that CacheEntries declare: Preserve keeps them, Rewrite deletes
	// them and has their entries write them again. Only entries with the policies Enforce and EnsurePresent that can
	// write now take part in a Rewrite, each once in a run; the keys of all others stay.
	// +optional
	// +kubebuilder:default=Preserve
	DeclaredEntries DeclaredEntries `json:"declaredEntries,omitempty"`

	// maxKeys is the most keys that may go. They are counted first; if there are more, the flush fails before it has
	// deleted any. The lower of this and the pool's limit counts. A DryRun ignores it.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxKeys *int64 `json:"maxKeys,omitempty"`

	// maxKeysPerSecond is the most keys that are deleted in a second. The lower of this and the pool's limit counts.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxKeysPerSecond *int64 `json:"maxKeysPerSecond,omitempty"`

	// runID names the run: a new one runs the flush again, also when it has finished. Once set it cannot be removed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	RunID string `json:"runID,omitempty"`

	// activeDeadlineSeconds is how long the flush may take from its startTime on; then it fails. Resuming a suspended
	// flush starts the time anew.
	// +optional
	// +kubebuilder:validation:Minimum=1
	ActiveDeadlineSeconds *int64 `json:"activeDeadlineSeconds,omitempty"`

	// backoffLimit is how many slices may fail before the flush does. Waiting for the pool does not count.
	// +optional
	// +kubebuilder:default=6
	// +kubebuilder:validation:Minimum=0
	BackoffLimit *int32 `json:"backoffLimit,omitempty"`

	// suspend stops the flush where it is until it is set to false. A finished flush ignores it.
	// +optional
	Suspend bool `json:"suspend,omitempty"`

	// ttlSecondsAfterFinished deletes this object that many seconds after the flush has finished, at least 10.
	// Do not use it for objects in Git: the next sync would create the flush again, and so run it again.
	// +optional
	// +kubebuilder:validation:Minimum=10
	TTLSecondsAfterFinished *int32 `json:"ttlSecondsAfterFinished,omitempty"`
}

// CacheFlushStatus is how far the flush is.
type CacheFlushStatus struct {
	// observedGeneration is the generation of the spec that this status speaks of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// runID of the run that this status speaks of.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	RunID string `json:"runID,omitempty"`

	// target says in words what is flushed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Target string `json:"target,omitempty"`

	// startTime is when the first slice of work began; waiting does not count.
	// +optional
	StartTime *metav1.Time `json:"startTime,omitempty"`

	// completionTime is when the flush finished, whether it completed or failed (other than for a Job).
	// +optional
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`

	// progress of the run.
	// +optional
	Progress *FlushProgress `json:"progress,omitempty"`

	// sample of the keys that a DryRun found, at most 10.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	// +kubebuilder:validation:items:MinLength=0
	// +kubebuilder:validation:items:MaxLength=2048
	Sample []string `json:"sample,omitempty"`

	// failures counts the slices that failed. Waiting for the pool does not count.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Failures int32 `json:"failures,omitempty"`

	// checkpoints say where a scan goes on, one for each node.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	Checkpoints []FlushCheckpoint `json:"checkpoints,omitempty"`

	// conditions are Complete or Failed, Ready, Reconciling, Stalled, Suspended.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// FlushProgress counts keys.
type FlushProgress struct {
	// percent of the server's keys that have been scanned.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Percent int32 `json:"percent"`

	// matched keys so far. A key that the server reports twice counts twice.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Matched int64 `json:"matched"`

	// deleted keys so far. It may be low by a batch after a crash of the operator.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Deleted int64 `json:"deleted"`

	// preserved keys so far: they match, but a CacheEntry declares them, or the pool protects them.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Preserved int64 `json:"preserved"`
}

// FlushCheckpoint is where the scan of one node goes on. A cursor is valid only for the process that gave it,
// so another serverID means that the node is scanned again from the start.
type FlushCheckpoint struct {
	// node is the address of the node.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=260
	Node string `json:"node,omitempty"`

	// serverID identifies the server process, the database in it, in a cluster the slots that it serves, and the keys
	// that are looked for.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	ServerID string `json:"serverID,omitempty"`

	// cursor of SCAN, an unsigned 64-bit number.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=20
	Cursor string `json:"cursor,omitempty"`

	// done is true when the node has been scanned to the end.
	// +optional
	Done bool `json:"done,omitempty"`
}

// CacheFlush deletes keys, once: it runs, ends, and stays as a record.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=cflush,categories=cachewright
// +kubebuilder:printcolumn:name="Pool",type=string,JSONPath=`.spec.poolRef.name`
// +kubebuilder:printcolumn:name="Target",type=string,JSONPath=`.status.target`
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Progress",type=integer,JSONPath=`.status.progress.percent`
// +kubebuilder:printcolumn:name="Deleted",type=integer,JSONPath=`.status.progress.deleted`
// +kubebuilder:printcolumn:name="Started",type=date,JSONPath=`.status.startTime`
// +kubebuilder:printcolumn:name="Completed",type=date,JSONPath=`.status.completionTime`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type CacheFlush struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec declares what is flushed.
	// +required
	Spec CacheFlushSpec `json:"spec,omitzero"`

	// status is how far the flush is.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status CacheFlushStatus `json:"status,omitzero"`
}

// CacheFlushList is a list of CacheFlushes.
//
// +kubebuilder:object:root=true
type CacheFlushList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []CacheFlush `json:"items"`
}

// Pool that the flush names.
func (f *CacheFlush) Pool() types.NamespacedName { return named(f.Spec.PoolRef, f.Namespace) }

// Scans is false for a flush of named keys, which needs no scan and therefore no turn.
func (f *CacheFlush) Scans() bool { return len(f.Spec.Keys) == 0 }

// EffectiveBackoffLimit is how many slices may fail: what is declared, or 6.
func (f *CacheFlush) EffectiveBackoffLimit() int32 {
	if f.Spec.BackoffLimit == nil {
		return 6
	}
	return *f.Spec.BackoffLimit
}

// Conditions of the flush.
func (f *CacheFlush) Conditions() *[]metav1.Condition { return &f.Status.Conditions }

// ObservedGeneration of the flush.
func (f *CacheFlush) ObservedGeneration() *int64 { return &f.Status.ObservedGeneration }
