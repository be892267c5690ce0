// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"cmp"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// precedes says whether a is older than b: by creation time, then namespace/name, then UID.
func precedes(a, b client.Object) bool {
	createdA, createdB := a.GetCreationTimestamp(), b.GetCreationTimestamp()
	return cmp.Or(
		createdA.Compare(createdB.Time),
		strings.Compare(client.ObjectKeyFromObject(a).String(), client.ObjectKeyFromObject(b).String()),
		strings.Compare(string(a.GetUID()), string(b.GetUID())),
	) < 0
}
