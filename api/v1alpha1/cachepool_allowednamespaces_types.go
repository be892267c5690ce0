// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// FromNamespaces says whose entries and flushes a pool serves.
// +kubebuilder:validation:Enum=Same;All;Selector
type FromNamespaces string

const (
	// FromSame : those of the pool's namespace.
	FromSame FromNamespaces = "Same"
	// FromAll : those of every namespace.
	FromAll FromNamespaces = "All"
	// FromSelector : those of the pool's namespace, and of the ones whose labels the selector matches.
	FromSelector FromNamespaces = "Selector"
)

// AllowedNamespaces may use a pool.
//
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:XValidation:rule="has(self.selector) == (self.from == 'Selector')",message="selector must be set when from is Selector, and only then"
type AllowedNamespaces struct {
	// from is Same, All or Selector. The pool's own namespace is always allowed.
	// +optional
	// +kubebuilder:default=Same
	From FromNamespaces `json:"from,omitempty"`

	// selector of the labels of Namespaces; an empty one matches all.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}
