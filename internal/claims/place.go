// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package claims

import "k8s.io/apimachinery/pkg/types"

// Place is a key of a pool, by its name behind the pool's keyPrefix.
type Place struct {
	Pool types.NamespacedName
	Key  string
}

// PlaceOf a key that an object of a namespace names in a pool.
func PlaceOf(pool types.NamespacedName, namespace, key string) Place {
	return Place{Pool: pool, Key: Fence(pool, namespace) + key}
}

// Fence is what stands between the keyPrefix of a pool and the keys of a namespace. Those of other namespaces than the
// pool's are kept apart by their names, which hold no colon, so that none of them is the beginning of another.
func Fence(pool types.NamespacedName, namespace string) string {
	if pool.Namespace == namespace {
		return ""
	}
	return namespace + ":"
}
