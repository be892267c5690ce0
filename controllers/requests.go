// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// requestedAtAnnotation asks for a look now when its value is new, whatever that is; usually the time of the request.
const requestedAtAnnotation = "cachewright.dev/requestedAt"

func requestedAt(o client.Object) string { return o.GetAnnotations()[requestedAtAnnotation] }

// requestLog remembers which requests for a look were heard. An operator that starts anew looks at everything anyway.
type requestLog struct {
	mu    sync.Mutex
	heard map[types.NamespacedName]string
}

// isNew says whether an object asks for a look that it has not asked for before.
func (r *requestLog) isNew(o client.Object) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	name, requested := client.ObjectKeyFromObject(o), requestedAt(o)
	before, known := r.heard[name]
	if r.heard == nil {
		r.heard = map[types.NamespacedName]string{}
	}
	r.heard[name] = requested
	return known && requested != before && requested != ""
}

// forget an object that is no more.
func (r *requestLog) forget(name types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.heard, name)
}
