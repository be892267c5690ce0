// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// What servers answer, word by word: Redis 7.0 unless said otherwise.
func TestWhatServersAnswerHasAClassAndAReason(t *testing.T) {
	for text, want := range map[string]cache.Error{
		"LOADING Redis is loading the dataset in memory":                     {Class: cache.Unavailable, Reason: cache.ReasonLoading},
		"READONLY You can't write against a read only replica.":              {Class: cache.Unavailable, Reason: cache.ReasonReadOnlyReplica},
		"MASTERDOWN Link with MASTER is down and replica-serve-stale-data n": {Class: cache.Unavailable, Reason: cache.ReasonReadOnlyReplica},
		"CLUSTERDOWN Hash slot not served":                                   {Class: cache.Unavailable, Reason: cache.ReasonClusterDown},
		"OOM command not allowed when used memory > 'maxmemory'.":            {Class: cache.Unavailable, Reason: cache.ReasonOutOfMemory},
		"MISCONF Redis is configured to save RDB snapshots, but it's curren": {Class: cache.Unavailable, Reason: cache.ReasonConnectionFailed},
		"BUSY Redis is busy running a script. You can only call SCRIPT KILL": {Class: cache.Unavailable, Reason: cache.ReasonConnectionFailed},
		"ERR max number of clients reached":                                  {Class: cache.Unavailable, Reason: cache.ReasonConnectionFailed},
		"NOAUTH Authentication required.":                                    {Class: cache.Refused, Reason: cache.ReasonAuthenticationFailed},
		"WRONGPASS invalid username-password pair or user is disabled.":      {Class: cache.Refused, Reason: cache.ReasonAuthenticationFailed},
		"ERR invalid password":                                               {Class: cache.Refused, Reason: cache.ReasonAuthenticationFailed}, // Redis 5
		"ERR Client sent AUTH, but no password is set":                       {Class: cache.Refused, Reason: cache.ReasonAuthenticationFailed}, // Redis 5
		"ERR AUTH <password> called without any password configured for the": {Class: cache.Refused, Reason: cache.ReasonAuthenticationFailed},
		"MOVED 3999 127.0.0.1:6381":                                          {Class: cache.Refused, Reason: cache.ReasonWrongTopology},
		"ERR SELECT is not allowed in cluster mode":                          {Class: cache.Refused, Reason: cache.ReasonWrongTopology},
		"ERR DB index is out of range":                                       {Class: cache.Refused, Reason: cache.ReasonWrongTopology},
		"WRONGTYPE Operation against a key holding the wrong kind of value":  {Class: cache.Key, Reason: cache.ReasonWrongType},
		"ERR value is not an integer or out of range":                        {Class: cache.Key, Reason: cache.ReasonNotAnInteger},
		"ERR increment or decrement would overflow":                          {Class: cache.Key, Reason: cache.ReasonOverflow},
		"NOPERM this user has no permissions to run the 'get' command or its subcommand": { // Redis 6
			Class: cache.Denied, Reason: cache.ReasonPermissionDenied, Message: "The Redis user may not run GET; it needs the ACL rule +get",
		},
		"NOPERM this user has no permissions to access one of the keys used as arguments": { // Redis 6
			Class: cache.Denied, Reason: cache.ReasonPermissionDenied, Message: "The Redis user may not run GET on this key",
		},
		"NOPERM User monkey-hunter2 has no permissions to run the 'get' command": {
			Class: cache.Denied, Reason: cache.ReasonPermissionDenied, Message: "The Redis user may not run GET; it needs the ACL rule +get",
		},
		"NOPERM No permissions to access a key": {
			Class: cache.Denied, Reason: cache.ReasonPermissionDenied, Message: "The Redis user may not run GET on this key",
		},
		"ERR unknown command `get`, with args beginning with: `hunter2:k`": {
			Class: cache.Failed, Reason: cache.ReasonCommandFailed, Message: "GET failed: the server answers with the error ERR",
		},
		"hunter2": {
			Class: cache.Failed, Reason: cache.ReasonCommandFailed, Message: "GET failed: the server answers with an error",
		},
	} {
		t.Run(text, func(t *testing.T) {
			mini := redistest.Miniredis(t)
			p := open(t, mini.Addr())
			if _, err := p.Has(t.Context(), "k"); err != nil { // logs in
				t.Fatal(err)
			}
			mini.SetError(text)
			got := failure(t, func() error { _, err := p.Get(t.Context(), marker); return err })
			if got.Class != want.Class || got.Reason != want.Reason || want.Message != "" && got.Message != want.Message {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if got.Message == "" {
				t.Error("no message")
			}
		})
	}
}

func TestReasonsAreSeenThroughOtherErrors(t *testing.T) {
	wrapped := fmt.Errorf("writing: %w", &cache.Error{Class: cache.Unavailable, Reason: cache.ReasonLoading})
	if !cache.Is(wrapped, cache.ReasonLoading) || cache.Is(wrapped, cache.ReasonOutOfMemory) {
		t.Error("Is does not tell the reason")
	}
	for class, want := range map[cache.Class]bool{
		cache.Unavailable: true, cache.Refused: true, cache.Denied: false, cache.Key: false, cache.Failed: false,
	} {
		if got := cache.ServerWide(fmt.Errorf("writing: %w", &cache.Error{Class: class})); got != want {
			t.Errorf("ServerWide of class %d is %v", class, got)
		}
	}
	if err := errors.New("foreign"); cache.Is(err, "") || cache.ServerWide(err) || cache.Is(nil, "") || cache.ServerWide(nil) {
		t.Error("a foreign error has neither reason nor class")
	}
}
