// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package claims

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestKeysOfOtherNamespacesStandBehindAFence(t *testing.T) {
	pool := named("platform", "main")
	for namespace, want := range map[string]string{"platform": "k", "shop": "shop:k", "platform-2": "platform-2:k"} {
		if got := PlaceOf(pool, namespace, "k"); got != (Place{Pool: pool, Key: want}) {
			t.Errorf("of %s: %v", namespace, got)
		}
	}
}

// Whatever two tenants name, it is never the same key, nor is what one flushes the other's.
func TestFencesKeepTenantsApart(t *testing.T) {
	namespace := rapid.StringMatching(`[a-z0-9]([-a-z0-9]{0,4}[a-z0-9])?`)
	rapid.Check(t, func(t *rapid.T) {
		a, b, key := namespace.Draw(t, "a"), namespace.Draw(t, "b"), rapid.String().Draw(t, "key")
		pool := named("owner-of-the-pool", "main")
		if a != b && strings.HasPrefix(PlaceOf(pool, a, key).Key, Fence(pool, b)) {
			t.Errorf("%s reaches the keys of %s", a, b)
		}
	})
}
