// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// Names of indexes.
const (
	// poolIndex finds entries and flushes by their pools, as namespace/name.
	poolIndex = "pool"
	// guestIndex finds entries and flushes that name pools of other namespaces, under isGuest.
	guestIndex = "guest"
	isGuest    = "true"
	// configMapIndex and secretIndex find entries by the name of their source, and pools by those that they connect with.
	configMapIndex = "configMap"
	secretIndex    = "secret"
)

// index the objects by what they name.
func (s *system) index(ctx context.Context) error {
	for _, x := range []struct {
		object client.Object
		name   string
		values client.IndexerFunc
	}{
		{&v1alpha1.CacheEntry{}, poolIndex, poolNames},
		{&v1alpha1.CacheFlush{}, poolIndex, poolNames},
		{&v1alpha1.CacheEntry{}, guestIndex, guest},
		{&v1alpha1.CacheFlush{}, guestIndex, guest},
		{&v1alpha1.CacheEntry{}, configMapIndex, indexed(func(e *v1alpha1.CacheEntry) []string {
			if from := e.Spec.ValueFrom; from != nil && from.ConfigMapKeyRef != nil {
				return []string{from.ConfigMapKeyRef.Name}
			}
			return nil
		})},
		{&v1alpha1.CacheEntry{}, secretIndex, indexed(func(e *v1alpha1.CacheEntry) []string {
			if from := e.Spec.ValueFrom; from != nil && from.SecretKeyRef != nil {
				return []string{from.SecretKeyRef.Name}
			}
			return nil
		})},
		{&v1alpha1.CachePool{}, secretIndex, indexed(secretsOf)},
		{&v1alpha1.CachePool{}, configMapIndex, indexed(configMapsOf)},
	} {
		if err := s.mgr.GetFieldIndexer().IndexField(ctx, x.object, x.name, x.values); err != nil {
			return err
		}
	}
	return nil
}

// indexed makes an index of a kind.
func indexed[T client.Object](values func(T) []string) client.IndexerFunc {
	return func(o client.Object) []string {
		if object, ok := o.(T); ok {
			return values(object)
		}
		return nil
	}
}

// poolNames by which an object is found.
func poolNames(o client.Object) []string {
	var names []string
	for _, name := range poolsOf(o) {
		names = append(names, name.String())
	}
	return names
}

// guest says whether an object names pools of other namespaces.
func guest(o client.Object) []string {
	if slices.ContainsFunc(poolsOf(o), func(name types.NamespacedName) bool { return name.Namespace != o.GetNamespace() }) {
		return []string{isGuest}
	}
	return nil
}

// poolsOf an entry or a flush are the pool that it names, and those where an entry has left keys to delete.
func poolsOf(o client.Object) []types.NamespacedName {
	object, ok := o.(user)
	if !ok {
		return nil
	}
	names := []types.NamespacedName{object.Pool()}
	for _, l := range recordOf(o) {
		if !slices.Contains(names, l.pool()) {
			names = append(names, l.pool())
		}
	}
	return names
}
