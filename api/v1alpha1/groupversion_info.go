// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 is the API of cachewright: CachePool, a connection to a Redis or Valkey server and the
// key prefix that fences it in; CacheEntry, a key that must be there; CacheFlush, keys that must go, once.
//
// +kubebuilder:object:generate=true
// +groupName=cachewright.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion names this API: cachewright.dev/v1alpha1.
var GroupVersion = schema.GroupVersion{Group: "cachewright.dev", Version: "v1alpha1"}

var schemeBuilder = runtime.NewSchemeBuilder(func(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&CachePool{}, &CachePoolList{},
		&CacheEntry{}, &CacheEntryList{},
		&CacheFlush{}, &CacheFlushList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
})

// AddToScheme registers the kinds of this package.
var AddToScheme = schemeBuilder.AddToScheme
