// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package redistest_test

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/cachewright/cachewright/internal/testing/redistest"
)

func TestRestartMakesAnotherProcessWithoutDataAtTheSameAddress(t *testing.T) {
	server := redistest.Start(t)
	runID := func() string { return server.Client(t).InfoMap(t.Context(), "server").Item("Server", "run_id") }
	before, addr := runID(), server.Addr
	if err := server.Client(t).Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	server.Restart()
	if after := runID(); after == before || after == "" || server.Addr != addr {
		t.Errorf("run_id %q at %s, was %q at %s", after, server.Addr, before, addr)
	}
	if err := server.Client(t).Get(t.Context(), "k").Err(); err != redis.Nil { //nolint:errorlint // Nil is never wrapped
		t.Errorf("the data outlived the restart: %v", err)
	}
}

func TestNobodyAnswersAfterStop(t *testing.T) {
	server := redistest.Start(t)
	server.Stop()
	if err := server.Client(t).Ping(t.Context()).Err(); err == nil {
		t.Error("PING succeeds")
	}
	server.Kill() // again: does nothing
}
