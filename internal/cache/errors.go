// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// Class says whom an error concerns and whether it passes by itself.
type Class int

const (
	// Unavailable : the server cannot serve now, whatever the key. It is expected to pass by itself.
	Unavailable Class = iota + 1
	// Refused : the server does not let us in, or is not what it should be. A human must mend the server or the
	// options.
	Refused
	// Denied : the user may not run this command, at least not on this key. A human must mend its rights.
	Denied
	// Key : this key is not what the command needs; other keys are not concerned.
	Key
	// Failed : the command failed for a reason that is none of the others.
	Failed
)

func (c Class) String() string {
	return [...]string{Unavailable: "Unavailable", Refused: "Refused", Denied: "Denied", Key: "Key", Failed: "Failed"}[c]
}

// Reasons of errors, in the words of the conditions they end up in.
const (
	ReasonNotFound             = "NotFound"
	ReasonConnectionFailed     = "ConnectionFailed"
	ReasonLoading              = "Loading"
	ReasonReadOnlyReplica      = "ReadOnlyReplica"
	ReasonClusterDown          = "ClusterDown"
	ReasonOutOfMemory          = "OutOfMemory"
	ReasonAuthenticationFailed = "AuthenticationFailed"
	ReasonPermissionDenied     = "PermissionDenied"
	ReasonInvalidURL           = "InvalidURL"
	ReasonInvalidTLS           = "InvalidTLS"
	ReasonWrongTopology        = "WrongTopology"
	ReasonWrongType            = "WrongType"
	ReasonNotAnInteger         = "NotAnInteger"
	ReasonOverflow             = "Overflow"
	ReasonCommandFailed        = "CommandFailed"
)

// Error is what every method of this package returns when it fails.
type Error struct {
	Class Class
	// Reason in one CamelCase word.
	Reason string
	// Message in plain English. It is the same each time the same thing fails, and holds neither password, key
	// nor value.
	Message string
	cause   error
}

func (e *Error) Error() string { return e.Message }

// Unwrap gives the error of the client library. Its text may hold keys and values: do not show it.
func (e *Error) Unwrap() error { return e.cause }

// Is makes errors.Is(err, ErrWrongType) compare reasons.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && e.Reason == other.Reason
}

// Is says whether err is an *Error with this reason.
func Is(err error, reason string) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Reason == reason
}

// ServerWide says whether err concerns the server, so that trying another key makes no sense now.
func ServerWide(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Class == Unavailable || e.Class == Refused)
}

var (
	// ErrNotFound is the error of Get for a key that is not there.
	ErrNotFound = &Error{Class: Key, Reason: ReasonNotFound, Message: "Key not found"}
	// ErrWrongType is the error for a key that holds another type than a string.
	ErrWrongType = &Error{Class: Key, Reason: ReasonWrongType, Message: "The key holds another type than a string"}
	// ErrExists is the error of a write that was to be done only if the key is absent.
	ErrExists = &Error{Class: Key, Reason: "Exists", Message: "The key is there already"}
	// ErrChanged is the error of a deletion that was to be done only if the key holds a given value.
	ErrChanged = &Error{Class: Key, Reason: "Changed", Message: "The key holds another value"}
	// ErrStale is the error of an increment that a newer one has overtaken.
	ErrStale = &Error{Class: Key, Reason: "Stale", Message: "A newer generation has incremented the counter"}
)

// serverErrors maps the first words of what a server answers. Texts from Redis 7.0 and Valkey 8; inside scripts
// a suffix follows, so only the beginning is compared.
var serverErrors = []struct {
	prefix string
	err    Error
}{
	{"WRONGTYPE", *ErrWrongType},
	{staleReply, *ErrStale},
	{"value is not an integer", Error{Class: Key, Reason: ReasonNotAnInteger, Message: "The key does not hold an integer"}},
	{"increment or decrement would overflow", Error{Class: Key, Reason: ReasonOverflow, Message: "The sum does not fit into 64 bits"}},
	{"LOADING", Error{Class: Unavailable, Reason: ReasonLoading, Message: "The server is loading its data set"}},
	{"READONLY", Error{Class: Unavailable, Reason: ReasonReadOnlyReplica, Message: "The server is a read-only replica"}},
	{"MASTERDOWN", Error{Class: Unavailable, Reason: ReasonReadOnlyReplica, Message: "The server is a replica that has lost its master"}},
	{"CLUSTERDOWN", Error{Class: Unavailable, Reason: ReasonClusterDown, Message: "The cluster is down"}},
	{"OOM", Error{Class: Unavailable, Reason: ReasonOutOfMemory, Message: "The server refuses writes: it has used up its maxmemory"}},
	{"MISCONF", Error{Class: Unavailable, Reason: ReasonConnectionFailed, Message: "The server refuses writes: it cannot save to disk"}},
	{"BUSY", Error{Class: Unavailable, Reason: ReasonConnectionFailed, Message: "The server is busy running a script"}},
	{"max number of clients reached", Error{Class: Unavailable, Reason: ReasonConnectionFailed, Message: "The server has reached its maximum number of clients"}},
	{"NOAUTH", Error{Class: Refused, Reason: ReasonAuthenticationFailed, Message: "The server asks for a password"}},
	{"WRONGPASS", Error{Class: Refused, Reason: ReasonAuthenticationFailed, Message: "The server refuses the user name or password"}},
	{"invalid password", Error{Class: Refused, Reason: ReasonAuthenticationFailed, Message: "The server refuses the user name or password"}},
	{"AUTH", Error{Class: Refused, Reason: ReasonAuthenticationFailed, Message: "The server has no password set for this user, but one is given"}},
	{"Client sent AUTH, but no password is set", Error{Class: Refused, Reason: ReasonAuthenticationFailed, Message: "The server has no password set, but one is given"}},
	{"MOVED", Error{Class: Refused, Reason: ReasonWrongTopology, Message: "The server is a node of a cluster, not a standalone server"}},
	{"SELECT is not allowed in cluster mode", Error{Class: Refused, Reason: ReasonWrongTopology, Message: "The server is a node of a cluster, not a standalone server"}},
	{"This instance has cluster support disabled", Error{Class: Refused, Reason: ReasonWrongTopology, Message: "The server is not a node of a cluster"}},
	{"DB index is out of range", Error{Class: Refused, Reason: ReasonWrongTopology, Message: "The server has no database of this number"}},
}

// redisUser and sentinelUser lack rights.
const redisUser, sentinelUser = "The Redis user", "The sentinels' user"

// wrap turns an error of the client library into an *Error; command is the Redis command it came from.
func wrap(command string, err error) error {
	if err == nil {
		return nil
	}
	if known, ok := errors.AsType[*Error](err); ok {
		return known
	}
	if strings.Contains(err.Error(), "redis: all sentinels ") {
		return wrapSentinels(err)
	}
	if errors.Is(err, redis.Nil) {
		return ErrNotFound
	}
	if redis.IsPermissionError(err) || redis.HasErrorPrefix(err, "The user executing the script can't ") {
		return denial(command, err)
	}
	for _, known := range serverErrors {
		if redis.HasErrorPrefix(err, known.prefix) {
			e := known.err
			e.cause = err
			return &e
		}
	}
	if server, ok := errors.AsType[redis.Error](err); ok {
		// Its text may quote the arguments, and so a value.
		return &Error{Class: Failed, Reason: ReasonCommandFailed, Message: command + " failed: the server answers with " + code(server.Error()), cause: err}
	}
	if why := untrusted(err); why != "" {
		return &Error{Class: Refused, Reason: ReasonInvalidTLS, Message: why, cause: err}
	}
	return &Error{Class: Unavailable, Reason: ReasonConnectionFailed, Message: describe(err), cause: err}
}

// denial of a command, or of one that begins the connection. Inside scripts servers do not say which it is.
func denial(command string, err error) *Error {
	if rule := ruleFor(err.Error()); rule != "" {
		return mayNot(redisUser, []string{rule}, err)
	}
	message := redisUser + " may not run " + command
	if refused.MatchString(err.Error()) {
		message += " on this key"
	}
	return &Error{Class: Denied, Reason: ReasonPermissionDenied, Message: message, cause: err}
}

// wrapSentinels : none of the sentinels has told where the server is. The error holds what each of them said.
func wrapSentinels(err error) error {
	switch {
	case errors.Is(err, redis.Nil):
		return &Error{Class: Refused, Reason: ReasonWrongTopology, Message: "The sentinels know no master of this name", cause: err}
	case strings.Contains(err.Error(), "unknown command"):
		return &Error{Class: Refused, Reason: ReasonWrongTopology, Message: "The addresses lead to no sentinels", cause: err}
	case redis.IsPermissionError(err):
		e := mayNot(sentinelUser, []string{"+sentinel|get-master-addr-by-name"}, err)
		e.Class = Refused // it is no right of the pool's user
		return e
	case redis.IsAuthError(err):
		return &Error{Class: Refused, Reason: ReasonAuthenticationFailed, Message: "The sentinels refuse the user name or password, or ask for one", cause: err}
	default:
		return &Error{Class: Unavailable, Reason: ReasonConnectionFailed, Message: "No sentinel answers: " + describe(err), cause: err}
	}
}

// code is the first word of a server's error, such as ERR.
func code(text string) string {
	word, _, _ := strings.Cut(text, " ")
	if strings.Trim(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return "an error" // and not with a code, so that this could be anything
	}
	return "the error " + word
}

// describe says in words that do not change from one attempt to the next (ports and addresses do) why a
// connection failed.
func describe(err error) string {
	_, dns := errors.AsType[*net.DNSError](err)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "Connection refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "No route to the server"
	case dns:
		return "The server's name cannot be resolved"
	case errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrPoolExhausted):
		return "All connections are in use"
	case timedOut(err):
		return "Connection timed out"
	case errors.Is(err, context.Canceled):
		return "Interrupted"
	case hungUp(err), errors.Is(err, redis.ErrClosed), errors.Is(err, net.ErrClosed):
		return "Connection closed"
	default:
		return "Connection failed"
	}
}
