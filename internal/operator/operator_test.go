// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// kubectl apply repeats the content of a Secret in an annotation, and labels may be long.
func TestOfSecretsAndConfigMapsOnlyNamesAndVersionsAreCached(t *testing.T) {
	g := NewWithT(t)
	named := metav1.ObjectMeta{Namespace: "ns", Name: "auth", UID: "1", ResourceVersion: "2"}
	full := *named.DeepCopy()
	full.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: `{"data":{"password":"aHVudGVyMg=="}}`}
	full.Labels, full.ManagedFields = map[string]string{"l": "v"}, []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	cached, err := slim(&metav1.PartialObjectMetadata{ObjectMeta: full})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(cached).To(Equal(&metav1.PartialObjectMetadata{ObjectMeta: named}))
}

// Selectors of pools are about the labels of Namespaces.
func TestOfNamespacesTheLabelsAreCached(t *testing.T) {
	g := NewWithT(t)
	n := metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"team": "a"}, DeletionTimestamp: &metav1.Time{}}
	cached, err := slim(&metav1.PartialObjectMetadata{ObjectMeta: n})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(cached).To(Equal(&metav1.PartialObjectMetadata{ObjectMeta: n}))
}

// Our own kinds keep all that patches would delete if it were not there.
func TestOfOurOwnKindsAllButManagedFieldsIsCached(t *testing.T) {
	g := NewWithT(t)
	entry := func(managed ...metav1.ManagedFieldsEntry) *v1alpha1.CacheEntry {
		return &v1alpha1.CacheEntry{ObjectMeta: metav1.ObjectMeta{Name: "e", Annotations: map[string]string{"a": "v"}, ManagedFields: managed}}
	}
	cached, err := slim(entry(metav1.ManagedFieldsEntry{Manager: "kubectl"}))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(cached).To(Equal(entry()))
}
