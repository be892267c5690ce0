// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package redistest_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"

	"github.com/cachewright/cachewright/internal/testing/redistest"
)

func TestAFrozenProxyLetsNothingThroughUntilItThaws(t *testing.T) {
	mini := redistest.Miniredis(t)
	proxy := redistest.NewProxy(t, mini.Addr(), 0)
	client := redis.NewClient(&redis.Options{Addr: proxy.Addr, ContextTimeoutEnabled: true, MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	proxy.Freeze()
	for range 2 { // on the connection there is, and on a new one
		impatient, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := client.Set(impatient, "k", "v", 0).Err(); !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		cancel()
	}
	if mini.Exists("k") {
		t.Error("a command got through")
	}
	proxy.Thaw()
	NewWithT(t).Eventually(func() error { return client.Ping(t.Context()).Err() }).Should(Succeed())
}

func TestACutProxyLosesWhatIsOnItsWay(t *testing.T) {
	mini := redistest.Miniredis(t)
	proxy := redistest.NewProxy(t, mini.Addr(), 0)
	client := redis.NewClient(&redis.Options{Addr: proxy.Addr, MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	proxy.Slow(time.Hour)
	answer := make(chan error, 1)
	go func() { answer <- client.Set(t.Context(), "k", "v", 0).Err() }()
	NewWithT(t).Eventually(func() bool { return mini.Exists("k") }).Should(BeTrue())
	proxy.Cut()
	NewWithT(t).Eventually(answer).Should(Receive(HaveOccurred()))
}
