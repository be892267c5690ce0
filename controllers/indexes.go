// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// Names of indexes.
const (
	// poolIndex finds entries and flushes by the names of their pools.
	poolIndex = "spec.poolRef.name"
	// configMapIndex and secretIndex find entries by the name of their source, and pools by that of their Secret.
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
		{&v1alpha1.CacheEntry{}, poolIndex, indexed(poolsOf)},
		{&v1alpha1.CacheFlush{}, poolIndex, indexed(func(f *v1alpha1.CacheFlush) []string { return []string{f.Spec.PoolRef.Name} })},
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
		{&v1alpha1.CachePool{}, secretIndex, indexed(func(p *v1alpha1.CachePool) []string {
			var names []string
			if ref := p.Spec.CredentialsSecretRef; ref != nil {
				names = append(names, ref.Name)
			}
			if s := p.Spec.Sentinel; s != nil && s.CredentialsSecretRef != nil {
				names = append(names, s.CredentialsSecretRef.Name)
			}
			return names
		})},
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

// poolsOf an entry are the pool that it names, and those where it has left keys to delete.
func poolsOf(entry *v1alpha1.CacheEntry) []string {
	names := []string{entry.Spec.PoolRef.Name}
	for _, l := range recordOf(entry) {
		if l.Pool.Namespace == entry.Namespace && !slices.Contains(names, l.Pool.Name) {
			names = append(names, l.Pool.Name)
		}
	}
	return names
}
