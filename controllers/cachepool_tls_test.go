// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// tlsWorld is a real server that speaks TLS and asks for certificates, and the authority behind both.
func tlsWorld(t *testing.T, args ...string) (*world, *redistest.Server, *redistest.Authority) {
	t.Helper()
	t.Parallel()
	ca := redistest.NewAuthority(t)
	server := redistest.StartTLS(t, ca, args...)
	return worldAt(t, server.Addr), server, ca
}

// secured makes a pool connect to a server's TLS port, with Secrets redis-ca and redis-client.
func secured(s *redistest.Server) func(*v1alpha1.CachePool) {
	return func(p *v1alpha1.CachePool) {
		p.Spec.Addresses, p.Spec.TLS = []string{s.TLSAddr}, &v1alpha1.TLSSpec{
			CARef:                      &v1alpha1.CAReference{Kind: v1alpha1.CAInSecret, Name: "redis-ca", Key: "ca.crt"},
			ClientCertificateSecretRef: &v1alpha1.SecretReference{Name: "redis-client"},
		}
	}
}

// caInConfigMap has the authority in ConfigMap source.
func caInConfigMap(p *v1alpha1.CachePool) {
	p.Spec.TLS.CARef = &v1alpha1.CAReference{Kind: v1alpha1.CAInConfigMap, Name: "source", Key: "ca.crt"}
}

// ca creates Secret redis-ca.
func (w *world) ca(a *redistest.Authority) *corev1.Secret {
	w.t.Helper()
	return w.secret("redis-ca", map[string]string{"ca.crt": a.PEM})
}

// client creates Secret redis-client.
func (w *world) client(p redistest.Pair) *corev1.Secret {
	w.t.Helper()
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "redis-client"}, Type: corev1.SecretTypeTLS,
		StringData: map[string]string{corev1.TLSCertKey: p.Certificate, corev1.TLSPrivateKeyKey: p.Key},
	}
	w.create(s)
	return s
}

func setClient(w *world, s *corev1.Secret, p redistest.Pair) {
	w.t.Helper()
	update(w, s, func(s *corev1.Secret) {
		s.Data = map[string][]byte{corev1.TLSCertKey: []byte(p.Certificate), corev1.TLSPrivateKeyKey: []byte(p.Key)}
	})
}

func TestAPoolSpeaksTLS(t *testing.T) {
	w, server, ca := tlsWorld(t)
	server.User(t, "wright", "hunter2")
	w.Expect(w.redis.ConfigSet(t.Context(), "requirepass", "other").Err()).To(Succeed())
	w.ca(ca)
	w.client(ca.Sign(t))
	auth := w.secret("redis-auth", map[string]string{"username": "wright", "password": "hunter2"})
	p := w.ready(secured(server), credentials, seldom)
	w.Expect(p.Status.CredentialsResourceVersion).To(Equal(auth.ResourceVersion))
	w.watched(p)
	w.Expect(p.Status.Server.ChangeDetection).To(Equal(v1alpha1.DetectionTracking), "the watch speaks TLS too")

	admin := redis.NewClient(&redis.Options{Addr: server.Addr, Password: "other", PipelinePoolSize: -1})
	t.Cleanup(func() { _ = admin.Close() })
	w.redis = admin
	e := w.entry("a")
	w.create(e)
	w.becomes(e, isWarm)
	w.set(mainPrefix+"a", "drift")
	w.holds(mainPrefix+"a", "value of a")
	w.delete(e)
	w.vanishes(e)
	w.delete(p)
	w.vanishes(p)
	w.Eventually(func() (string, error) { return w.redis.ClientList(t.Context()).Result() }).ShouldNot(ContainSubstring("user=wright"))
}

func TestTheAuthorityMayBeInAConfigMap(t *testing.T) {
	w, server, ca := tlsWorld(t, "--tls-auth-clients", "no")
	p := w.pool(secured(server), caInConfigMap, func(p *v1alpha1.CachePool) { p.Spec.TLS.ClientCertificateSecretRef = nil })
	w.create(p)
	w.becomes(p, waits("SecretNotFound"))
	w.says(p, `ConfigMap "source" does not exist`)
	c := w.configMap(map[string]string{"ca.pem": ca.PEM})
	w.becomes(p, stalls("InvalidSecret"))
	w.says(p, `ConfigMap "source" has no key "ca.crt"`)
	update(w, c, func(c *corev1.ConfigMap) { c.Data = map[string]string{"ca.crt": "no certificate"} })
	w.becomes(p, stalls("InvalidTLS"))
	w.says(p, `Key "ca.crt" of ConfigMap "source" has no certificate in PEM`)
	w.rests(p, probes/2)
	update(w, c, func(c *corev1.ConfigMap) { c.Data, c.BinaryData = nil, map[string][]byte{"ca.crt": []byte(ca.PEM)} })
	w.becomes(p, connected)
	w.Expect(p.Status.CredentialsResourceVersion).To(BeEmpty())
}

func TestAPoolSaysWhatItsCertificatesLack(t *testing.T) {
	w, server, ca := tlsWorld(t)
	p := w.pool(secured(server))
	w.create(p)
	w.becomes(p, waits("SecretNotFound"))
	w.says(p, `Secret "redis-ca" does not exist`)
	authorities := w.secret("redis-ca", map[string]string{"ca.pem": ca.PEM})
	w.becomes(p, stalls("InvalidSecret"))
	w.says(p, `Secret "redis-ca" has no key "ca.crt"`)
	update(w, authorities, func(s *corev1.Secret) { s.Data["ca.crt"] = []byte("hunter2") })
	w.becomes(p, stalls("InvalidTLS"))
	w.says(p, `Key "ca.crt" of Secret "redis-ca" has no certificate in PEM`)
	update(w, authorities, func(s *corev1.Secret) { s.Data["ca.crt"] = []byte(ca.PEM) })
	w.becomes(p, waits("SecretNotFound"))
	w.says(p, `Secret "redis-client" does not exist`)
	mine := w.secret("redis-client", map[string]string{"tls.key": "hunter2"})
	w.becomes(p, stalls("InvalidSecret"))
	w.says(p, `Secret "redis-client" has no key "tls.crt"`)
	setClient(w, mine, redistest.Pair{Certificate: ca.Sign(t).Certificate, Key: ca.Sign(t).Key})
	w.becomes(p, stalls("InvalidTLS"))
	w.says(p, `Secret "redis-client" has no certificate and key, in PEM, that belong together`)
	setClient(w, mine, ca.Sign(t, redistest.Expired))
	w.becomes(p, stalls("InvalidTLS"))
	w.says(p, "The server refuses the client certificate: it has expired or is not valid yet")
	w.rests(p, probes/2)
	w.discreet(p, "hunter2", "PRIVATE", "127.0.0.1")
	setClient(w, mine, ca.Sign(t))
	w.becomes(p, connected)
}

// What does not fit together between the settings of a pool and its server.
func TestAPoolSaysWhyItsServerIsNotTrusted(t *testing.T) {
	const needsTLS = "The server speaks TLS on this port, and the pool does not: set tls, or rediss:// in a URL"
	const noTLS = "The server does not speak TLS on this port: connect to its TLS port, or leave out tls (redis:// in a URL)"
	w, server, ca := tlsWorld(t)
	expired := redistest.StartTLSWith(t, ca, ca.Sign(t, redistest.Expired))
	w.ca(ca)
	w.client(ca.Sign(t))
	w.url("rediss://" + server.TLSAddr)
	other := w.secret("other-ca", map[string]string{"ca.crt": redistest.NewAuthority(t).PEM})
	right := secured(server)
	for name, test := range map[string]struct {
		wrong   func(*v1alpha1.CachePool)
		message string
	}{
		"plain text to a TLS port": {func(p *v1alpha1.CachePool) { p.Spec.TLS = nil }, needsTLS},
		"TLS to a plain port":      {func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{server.Addr} }, noTLS},
		"wrong server name": {
			func(p *v1alpha1.CachePool) { p.Spec.TLS.ServerName = "redis.shop.svc" },
			"The server's certificate is for another name: serverName must be one of its Subject Alternative Names",
		},
		"expired certificate": {
			func(p *v1alpha1.CachePool) { p.Spec.Addresses = []string{expired.TLSAddr} },
			"The server's certificate, or that of an authority, has expired or is not valid yet",
		},
		"unknown authority": {
			func(p *v1alpha1.CachePool) { p.Spec.TLS.CARef.Name = other.Name },
			"The server's certificate is signed by an unknown authority: caRef must name the certificate of the one that has signed it",
		},
		"no client certificate": {
			func(p *v1alpha1.CachePool) { p.Spec.TLS.ClientCertificateSecretRef = nil },
			"The server asks for a client certificate: clientCertificateSecretRef must name one",
		},
		"rediss without tls": {
			func(p *v1alpha1.CachePool) { byURL(p); p.Spec.TLS = nil },
			"The server's certificate is signed by an unknown authority: caRef must name the certificate of the one that has signed it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := w.sub(t)
			p := w.pool(right, test.wrong)
			p.Name, p.GenerateName = "", "main-"
			w.create(p)
			w.becomes(p, stalls("InvalidTLS"))
			w.says(p, test.message)
			w.rests(p, probes/2)
			w.discreet(p, "127.0.0.1")
			update(w, p, func(p *v1alpha1.CachePool) { p.Spec.URLSecretRef = nil; right(p) })
			w.becomes(p, connected)
		})
	}
}

func TestAURLAndTLS(t *testing.T) {
	w, server, ca := tlsWorld(t)
	w.ca(ca)
	w.client(ca.Sign(t))
	w.redis.ConfigSet(t.Context(), "requirepass", "hunter2")
	s := w.url("rediss://:hunter2@" + server.TLSAddr + "/2")
	p := w.ready(secured(server), byURL)
	w.Expect(p.Status.CredentialsResourceVersion).To(Equal(s.ResourceVersion))

	// With tls, redis:// is TLS too.
	setURL(w, s, "redis://:hunter2@"+server.TLSAddr)
	w.Eventually(func() string { w.reload(p); return p.Status.CredentialsResourceVersion }).Should(Equal(s.ResourceVersion))
	w.says(p, "Connected")
	w.discreet(p, "hunter2", "127.0.0.1")
}

func TestWithoutVerificationAnyCertificateWillDo(t *testing.T) {
	w, server, _ := tlsWorld(t, "--tls-auth-clients", "no")
	w.ready(func(p *v1alpha1.CachePool) {
		p.Spec.Addresses, p.Spec.TLS = []string{server.TLSAddr}, &v1alpha1.TLSSpec{Verification: v1alpha1.VerificationNone}
	})
}

func TestAPoolRecoversWhenTheServersCertificateIsRenewed(t *testing.T) {
	w, server, ca := tlsWorld(t)
	w.ca(ca)
	w.client(ca.Sign(t))
	server.Trust(t, ca, ca.Sign(t, redistest.Expired))
	p := w.pool(secured(server))
	w.create(p)
	w.becomes(p, stalls("InvalidTLS"))
	server.Trust(t, ca, ca.Sign(t))
	w.becomes(p, connected)
}

// Nothing tells the operator of connections over TLS that they have died, until it uses them.
func TestARestartUnderTLSIsNoFailure(t *testing.T) {
	w, server, ca := tlsWorld(t)
	w.ca(ca)
	w.client(ca.Sign(t))
	p := w.ready(secured(server), seldom)
	e := w.entry("a")
	w.create(e)
	w.becomes(e, isWarm)
	server.Restart()
	w.holds(mainPrefix+"a", "value of a")
	w.becomes(p, connected)
	w.stays(e, isWarm, time.Second)
}
