// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Authority signs certificates.
type Authority struct {
	// PEM is its own certificate.
	PEM string

	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// Pair is a certificate and its key, in PEM.
type Pair struct{ Certificate, Key string }

// NewAuthority makes one that nobody knows yet.
func NewAuthority(tb testing.TB) *Authority {
	tb.Helper()
	a := &Authority{key: newKey(tb), certificate: &x509.Certificate{
		Subject: pkix.Name{CommonName: rand.Text()}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SerialNumber: serial(),
	}}
	var der []byte
	a.PEM, der = certify(tb, a.certificate, a.certificate, a.key, a.key)
	var err error
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		tb.Fatal(err)
	}
	return a
}

// Sign a certificate for servers at localhost and 127.0.0.1 and for clients, as changed.
func (a *Authority) Sign(tb testing.TB, change ...func(*x509.Certificate)) Pair {
	tb.Helper()
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, SerialNumber: serial(),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, do := range change {
		do(c)
	}
	key := newKey(tb)
	certificate, _ := certify(tb, c, a.certificate, key, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return Pair{Certificate: certificate, Key: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))}
}

// Expired changes a certificate to one that has.
func Expired(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }

// Named changes a certificate to one for another name only.
func Named(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{name}, nil }
}

func certify(tb testing.TB, c, by *x509.Certificate, key, byKey *ecdsa.PrivateKey) (text string, der []byte) {
	tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, byKey)
	if err != nil {
		tb.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), der
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func serial() *big.Int { return new(big.Int).SetBytes([]byte(rand.Text())) }

// StartTLS runs a server as Start does, that speaks TLS at TLSAddr besides, with a certificate of the authority. It asks
// clients for one of the authority's too, unless the arguments say "--tls-auth-clients", "no".
func StartTLS(tb testing.TB, by *Authority, args ...string) *Server {
	tb.Helper()
	return StartTLSWith(tb, by, by.Sign(tb), args...)
}

// StartTLSWith is StartTLS with a certificate of the test's choice.
func StartTLSWith(tb testing.TB, clients *Authority, own Pair, args ...string) *Server {
	tb.Helper()
	s := &Server{tb: tb, binary: find(tb), args: args, dir: tb.TempDir(), secure: true}
	s.write(tb, clients, own)
	s.begin(tb)
	return s
}

// Trust has the server show another certificate, and take those of another authority from clients. Connections stay.
func (s *Server) Trust(tb testing.TB, clients *Authority, own Pair) {
	tb.Helper()
	s.write(tb, clients, own)
	set := []any{"config", "set"}
	for _, argument := range s.certificates() {
		set = append(set, strings.TrimPrefix(argument, "--"))
	}
	if err := s.Client(tb).Do(tb.Context(), set...).Err(); err != nil {
		tb.Fatal(err)
	}
}

func (s *Server) write(tb testing.TB, clients *Authority, own Pair) {
	tb.Helper()
	for name, text := range map[string]string{"ca.crt": clients.PEM, "tls.crt": own.Certificate, "tls.key": own.Key} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
}

// certificates that the server is to use, as arguments.
func (s *Server) certificates() []string {
	return []string{
		"--tls-ca-cert-file", filepath.Join(s.dir, "ca.crt"),
		"--tls-cert-file", filepath.Join(s.dir, "tls.crt"), "--tls-key-file", filepath.Join(s.dir, "tls.key"),
	}
}
