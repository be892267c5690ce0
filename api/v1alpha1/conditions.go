// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Condition types. Ready is always there after the first look; the others only while they are True.
// Reconciling and Stalled are never there together, as kstatus (Flux, Helm 4) demands.
const (
	// ConditionReady says whether the object does what it declares.
	ConditionReady = "Ready"
	// ConditionReconciling is True while the operator works on the object or waits for something that is
	// expected to pass by itself.
	ConditionReconciling = "Reconciling"
	// ConditionStalled is True while only a human can help. It clears by itself once mended.
	ConditionStalled = "Stalled"
	// ConditionSuspended is True while spec.suspend of the object or of its pool is true.
	ConditionSuspended = "Suspended"
	// ConditionComplete is True, for good, on a CacheFlush that did all it declares.
	ConditionComplete = "Complete"
	// ConditionFailed is True, for good, on a CacheFlush that gave up.
	ConditionFailed = "Failed"
)

// Reasons of conditions that all kinds share.
const (
	// ReasonProgressing : a new generation is being worked on.
	ReasonProgressing = "Progressing"
	// ReasonProgressingWithRetry : it did not work, and it is tried again without anybody's help.
	ReasonProgressingWithRetry = "ProgressingWithRetry"
	// ReasonSuspended : spec.suspend is true.
	ReasonSuspended = "Suspended"
	// ReasonPoolSuspended : spec.suspend of the pool is true.
	ReasonPoolSuspended = "PoolSuspended"
	// ReasonPermissionDenied : the Redis user may not run a command that is needed; the message names it.
	ReasonPermissionDenied = "PermissionDenied"
	// ReasonPoolNotFound : no CachePool of that name serves this namespace.
	ReasonPoolNotFound = "PoolNotFound"
	// ReasonPoolNotReady : the CachePool cannot serve now.
	ReasonPoolNotReady = "PoolNotReady"
)

// Reasons of a CachePool.
const (
	// ReasonConnected : reached, logged in, allowed to run the commands needed, writable.
	ReasonConnected = "Connected"
	// ReasonConnectionFailed : no connection, or it broke.
	ReasonConnectionFailed = "ConnectionFailed"
	// ReasonLoading : the server is reading its data set from disk.
	ReasonLoading = "Loading"
	// ReasonReadOnlyReplica : the address leads to a replica, which refuses writes.
	ReasonReadOnlyReplica = "ReadOnlyReplica"
	// ReasonClusterDown : the cluster does not serve all slots.
	ReasonClusterDown = "ClusterDown"
	// ReasonOutOfMemory : the server refuses writes because its memory is full; deletions still work.
	ReasonOutOfMemory = "OutOfMemory"
	// ReasonSecretNotFound : a referenced Secret, or ConfigMap with certificates, is not there.
	ReasonSecretNotFound = "SecretNotFound"
	// ReasonInUse : the pool is being deleted and waits for the entries and flushes of its namespace.
	ReasonInUse = "InUse"
	// ReasonAuthenticationFailed : the server refuses user or password, or asks for one.
	ReasonAuthenticationFailed = "AuthenticationFailed"
	// ReasonInvalidSecret : a referenced Secret, or ConfigMap with certificates, lacks the key that is needed.
	ReasonInvalidSecret = "InvalidSecret"
	// ReasonInvalidTLS : a certificate, or the TLS settings, would have to be others for the server and the operator to
	// trust each other.
	ReasonInvalidTLS = "InvalidTLS"
	// ReasonInvalidURL : the Secret of urlSecretRef holds no URL that could be connected to.
	ReasonInvalidURL = "InvalidURL"
	// ReasonServerChanged : the pool has moved to another server or database (the reason of an event).
	ReasonServerChanged = "ServerChanged"
	// ReasonWrongTopology : the server is not of the declared topology.
	ReasonWrongTopology = "WrongTopology"
	// ReasonInvalidSelector : the selector of allowedNamespaces cannot be used; only the pool's own namespace is served.
	ReasonInvalidSelector = "InvalidSelector"
	// ReasonPrefixConflict : an older pool of another namespace uses an overlapping prefix on the same server and
	// database, and does not admit this one.
	ReasonPrefixConflict = "PrefixConflict"
)

// Reasons of a CacheEntry.
const (
	// ReasonWarm : the key holds the declared value, with the declared lifetime.
	ReasonWarm = "Warm"
	// ReasonPresent : the key holds a value that others have put there, which EnsurePresent leaves alone.
	ReasonPresent = "Present"
	// ReasonWritten : the declared value was written once, as WriteOnChange asks.
	ReasonWritten = "Written"
	// ReasonMatches : the key holds the declared value, as Observe sees it.
	ReasonMatches = "Matches"
	// ReasonDiffers : the key holds something else, as Observe sees it.
	ReasonDiffers = "Differs"
	// ReasonMissing : the key is not there, as Observe sees it; or the pool has moved to a server that has neither
	// the value of WriteOnChange nor the counter.
	ReasonMissing = "Missing"
	// ReasonApplied : the counter was incremented for this runID.
	ReasonApplied = "Applied"
	// ReasonContested : something else keeps changing or removing the key.
	ReasonContested = "Contested"
	// ReasonNotAnInteger : the key of a counter holds something else than an integer.
	ReasonNotAnInteger = "NotAnInteger"
	// ReasonOverflow : the sum of a counter does not fit into 64 bits.
	ReasonOverflow = "Overflow"
	// ReasonSourceNotFound : the ConfigMap or Secret, or its key, is not there; the key in Redis stays as it is.
	ReasonSourceNotFound = "SourceNotFound"
	// ReasonWriteFailed : Redis refused the write for a reason that may pass.
	ReasonWriteFailed = "WriteFailed"
	// ReasonKeyConflict : an older CacheEntry holds the key.
	ReasonKeyConflict = "KeyConflict"
	// ReasonWrongType : the key holds no string; it is neither overwritten nor deleted.
	ReasonWrongType = "WrongType"
	// ReasonInvalidValue : the value cannot be stored, for example because it is too large.
	ReasonInvalidValue = "InvalidValue"
	// ReasonReleased : the entry was deleted and its key stays in Redis (the reason of an event).
	ReasonReleased = "Released"
)

// Reasons of a CacheFlush.
const (
	// ReasonQueued : another flush of the same pool runs or is older.
	ReasonQueued = "Queued"
	// ReasonRunning : keys are being scanned and deleted.
	ReasonRunning = "Running"
	// ReasonKeysFlushed : every matching key that existed at the start is gone.
	ReasonKeysFlushed = "KeysFlushed"
	// ReasonKeysCounted : a DryRun has counted the matching keys.
	ReasonKeysCounted = "KeysCounted"
	// ReasonFlushFailed : a slice failed and is tried again.
	ReasonFlushFailed = "FlushFailed"
	// ReasonBackoffLimitExceeded : too many slices failed.
	ReasonBackoffLimitExceeded = "BackoffLimitExceeded"
	// ReasonDeadlineExceeded : activeDeadlineSeconds have passed since the start.
	ReasonDeadlineExceeded = "DeadlineExceeded"
	// ReasonTooManyKeys : more keys would be deleted than maxKeys allows; none was.
	ReasonTooManyKeys = "TooManyKeys"
)
