// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"strings"
)

// TLS settings of a connection.
type TLS struct {
	// Roots are the authorities that may have signed the server's certificate; nil: those of the system.
	Roots *x509.CertPool
	// Certificate that is shown to the server; nil: none.
	Certificate *tls.Certificate
	// ServerName that the server's certificate must have; empty: the host of the address.
	ServerName string
	// SkipVerify takes any certificate of the server.
	SkipVerify bool
}

// Equal says whether two connections would be secured in the same way.
func (t *TLS) Equal(o *TLS) bool {
	if t == nil || o == nil {
		return t == o
	}
	return t.ServerName == o.ServerName && t.SkipVerify == o.SkipVerify && t.Roots.Equal(o.Roots) &&
		slices.EqualFunc(t.chain(), o.chain(), bytes.Equal)
}

// chain of the client's certificate. Its key is the only one that fits.
func (t *TLS) chain() [][]byte {
	if t.Certificate == nil {
		return nil
	}
	return t.Certificate.Certificate
}

func (t *TLS) config(address string) *tls.Config {
	host, _, _ := net.SplitHostPort(address)
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: t.Roots, ServerName: cmp.Or(t.ServerName, host),
		InsecureSkipVerify: t.SkipVerify, //nolint:gosec // the user asks for it
	}
	if t.Certificate != nil {
		// Also where the server names other authorities: its answer says more than no answer.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return t.Certificate, nil }
	}
	return config
}

const noTLS = "The server does not speak TLS on this port: connect to its TLS port, or leave out tls (redis:// in a URL)"

// alerts that servers send, by their texts in crypto/tls, and what they mean to a client.
var alerts = map[string]string{
	"expired certificate":            "The server refuses the client certificate: it has expired or is not valid yet",
	"certificate required":           "The server asks for a client certificate: clientCertificateSecretRef must name one",
	"unknown certificate authority":  "The server refuses the client certificate: it does not know the authority that has signed it",
	"bad certificate":                "The server refuses the client certificate, or asks for one",
	"unknown certificate":            "The server refuses the client certificate",
	"unsupported certificate":        "The server refuses the client certificate: it is not one for clients",
	"revoked certificate":            "The server refuses the client certificate: it is revoked",
	"access denied":                  "The server refuses the client certificate: it grants no access",
	"handshake failure":              "The server refuses the TLS handshake: it asks for a client certificate, or for a cipher that is not safe any more",
	"protocol version not supported": "The server speaks no TLS from version 1.2 on",
	"unrecognized name":              "The server does not know the name that it is called by: serverName must be one of its own",
}

// alert is what the other side has sent to refuse a handshake; empty: nothing.
func alert(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return strings.TrimPrefix(op.Err.Error(), "tls: ")
	}
	return ""
}

// untrusted says why a handshake has failed, as far as a human must mend something; empty: it is for another reason.
func untrusted(err error) string {
	if text := alert(err); text != "" {
		return cmp.Or(alerts[text], "The server refuses the TLS handshake")
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return noTLS
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok {
		return ""
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "The server's certificate is signed by an unknown authority: caRef must name the certificate of the one that has signed it"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "The server's certificate is for another name: serverName must be one of its Subject Alternative Names"
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return "The server's certificate, or that of an authority, has expired or is not valid yet"
	}
	return "The server's certificate cannot be verified"
}
