// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// Names of indexes.
const (
	// poolIndex finds entries and flushes by the name of their pool.
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
		{&v1alpha1.CacheEntry{}, poolIndex, indexed(func(e *v1alpha1.CacheEntry) string { return e.Spec.PoolRef.Name })},
		{&v1alpha1.CacheFlush{}, poolIndex, indexed(func(f *v1alpha1.CacheFlush) string { return f.Spec.PoolRef.Name })},
		{&v1alpha1.CacheEntry{}, configMapIndex, indexed(func(e *v1alpha1.CacheEntry) string {
			if from := e.Spec.ValueFrom; from != nil && from.ConfigMapKeyRef != nil {
				return from.ConfigMapKeyRef.Name
			}
			return ""
		})},
		{&v1alpha1.CacheEntry{}, secretIndex, indexed(func(e *v1alpha1.CacheEntry) string {
			if from := e.Spec.ValueFrom; from != nil && from.SecretKeyRef != nil {
				return from.SecretKeyRef.Name
			}
			return ""
		})},
		{&v1alpha1.CachePool{}, secretIndex, indexed(func(p *v1alpha1.CachePool) string {
			if ref := p.Spec.CredentialsSecretRef; ref != nil {
				return ref.Name
			}
			return ""
		})},
	} {
		if err := s.mgr.GetFieldIndexer().IndexField(ctx, x.object, x.name, x.values); err != nil {
			return err
		}
	}
	return nil
}

// indexed makes an index of a kind by one value; objects without it are not in the index.
func indexed[T client.Object](value func(T) string) client.IndexerFunc {
	return func(o client.Object) []string {
		if object, ok := o.(T); ok && value(object) != "" {
			return []string{value(object)}
		}
		return nil
	}
}
