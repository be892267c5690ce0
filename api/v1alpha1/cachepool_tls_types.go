// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// TLSSpec says how the connection is secured. An empty one, {}, is TLS too, with the authorities that the operator's
// system trusts.
//
// +kubebuilder:validation:MinProperties=1
type TLSSpec struct {
	// caRef names the key of a Secret or ConfigMap of the same namespace with the certificates, in PEM, of the authorities
	// that may have signed the server's. Without it, those of the operator's system may.
	// +optional
	CARef *CAReference `json:"caRef,omitempty"`

	// clientCertificateSecretRef names a Secret of type kubernetes.io/tls in the same namespace, with the certificate that
	// the operator shows to the server (tls.crt) and its key (tls.key).
	// +optional
	ClientCertificateSecretRef *SecretReference `json:"clientCertificateSecretRef,omitempty"`

	// serverName is the name that the server's certificate must have. The host of the address when it is not set.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	ServerName string `json:"serverName,omitempty"`

	// verification of the server's certificate: Full, or None, with which anybody on the way can pose as the server and
	// learn the password.
	// +optional
	// +kubebuilder:default=Full
	Verification TLSVerification `json:"verification,omitempty"`
}

// TLSVerification says what is verified of a server's certificate.
// +kubebuilder:validation:Enum=Full;None
type TLSVerification string

const (
	// VerificationFull : who signed it, the name in it, and that it is valid now.
	VerificationFull TLSVerification = "Full"
	// VerificationNone : nothing.
	VerificationNone TLSVerification = "None"
)

// CAReference names a key with certificates of authorities.
type CAReference struct {
	// kind of the object: Secret or ConfigMap.
	// +required
	Kind CAReferenceKind `json:"kind,omitempty"`

	// name of the object.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// key in its data.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key,omitempty"`
}

// CAReferenceKind is a kind of objects that have certificates of authorities.
// +kubebuilder:validation:Enum=Secret;ConfigMap
type CAReferenceKind string

const (
	// CAInSecret : the certificates are in a Secret.
	CAInSecret CAReferenceKind = "Secret"
	// CAInConfigMap : the certificates are in a ConfigMap.
	CAInConfigMap CAReferenceKind = "ConfigMap"
)
