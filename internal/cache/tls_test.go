// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// by makes a pool speak TLS and trust an authority.
func by(t *testing.T, a *redistest.Authority, changes ...func(*cache.TLS)) func(*cache.Options) {
	t.Helper()
	settings := &cache.TLS{Roots: x509.NewCertPool()}
	settings.Roots.AppendCertsFromPEM([]byte(a.PEM))
	for _, change := range changes {
		change(settings)
	}
	return func(o *cache.Options) { o.TLS = settings }
}

// showing a certificate to the server.
func showing(t *testing.T, p redistest.Pair) func(*cache.TLS) {
	t.Helper()
	pair := must[tls.Certificate](t)(tls.X509KeyPair([]byte(p.Certificate), []byte(p.Key)))
	return func(s *cache.TLS) { s.Certificate = &pair }
}

func called(name string) func(*cache.TLS) { return func(s *cache.TLS) { s.ServerName = name } }

func unverified(s *cache.TLS) { s.SkipVerify = true }

// noClients has a server ask for no certificates.
var noClients = []string{"--tls-auth-clients", "no"}

// secured servers of each topology, and the addresses at which they speak TLS.
var secured = map[string]func(*testing.T, *redistest.Authority) (servers []*redistest.Server, addr string){
	"redis-server": func(t *testing.T, ca *redistest.Authority) ([]*redistest.Server, string) {
		t.Helper()
		s := redistest.StartTLS(t, ca)
		return []*redistest.Server{s}, s.TLSAddr
	},
	"sentinel": func(t *testing.T, ca *redistest.Authority) ([]*redistest.Server, string) {
		t.Helper()
		s := redistest.StartSentinelsTLS(t, ca, "down-after-milliseconds 60000")
		return s.Servers, s.Address()
	},
	"cluster": func(t *testing.T, ca *redistest.Authority) ([]*redistest.Server, string) {
		t.Helper()
		c := redistest.StartClusterTLS(t, ca, 3)
		return c.Masters, c.Address()
	},
}

func TestEverythingWorksOverTLSForAnACLUser(t *testing.T) {
	t.Parallel()
	for name, start := range secured {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := redistest.NewAuthority(t)
			servers, addr := start(t, ca)
			for _, s := range servers {
				s.User(t, "app", marker)
			}
			w := newWire()
			p := open(t, addr, by(t, ca, showing(t, ca.Sign(t))), as("app", marker), over(w))
			contract(t, p)
			changesAreTold(t, p)
			w.mu.Lock()
			for _, c := range w.conns {
				if sent := c.sent.String(); !strings.HasPrefix(sent, "\x16\x03") || strings.Contains(sent, marker) {
					t.Error("something was sent in plain text")
				}
			}
			w.mu.Unlock()
			ok(t, p.Stop())
			if n := w.open(); n != 0 {
				t.Errorf("%d connections are open", n)
			}
			NewWithT(t).Eventually(func() (n int) {
				for _, s := range servers {
					n += strings.Count(s.Client(t).ClientList(t.Context()).Val(), "user=app")
				}
				return n
			}).Should(BeZero())
		})
	}
}

// contract of the primitives, and of their batches, on many keys: those of a cluster are everywhere.
func contract(t *testing.T, p *cache.Pool) {
	t.Helper()
	ctx, g := t.Context(), NewWithT(t)
	ok(t, check(t, p)())
	const n = 100
	var writes []cache.Write
	var looks []cache.Look
	var counts []cache.Increment
	for i := range n {
		key := strconv.Itoa(i)
		ok(t, p.Put(ctx, key, "v", time.Minute))
		g.Expect(p.Get(ctx, key)).To(Equal("v"))
		ok(t, p.PutForever(ctx, key, "forever"))
		g.Expect(p.Has(ctx, key)).To(BeTrue())
		g.Expect(p.Increment(ctx, "n"+key, 2)).To(Equal(int64(2)))
		ok(t, p.Forget(ctx, key))
		g.Expect(p.Has(ctx, key)).To(BeFalse())
		writes = append(writes, cache.Write{Key: key, Value: "batch", TTL: time.Minute})
		looks = append(looks, cache.Look{Key: key})
		counts = append(counts, cache.Increment{Key: "n" + key, ID: "id" + key, By: 3, RunID: "v1"})
	}
	g.Expect(errors.Join(p.PutAll(ctx, writes)...)).To(Succeed())
	for _, found := range p.Observe(ctx, looks) {
		ok(t, found.Err)
		g.Expect(found.Exists).To(BeTrue())
	}
	for range 2 {
		for _, count := range p.IncrementAll(ctx, counts) {
			ok(t, count.Err)
			g.Expect(count.Value).To(Equal(int64(5)), "it counts once")
		}
	}
	g.Expect(p.ForgetNamed(ctx, []string{"0", "1"}, cache.ScanOptions{}, never)).To(HaveField("Deleted", int64(2)))
	g.Expect(p.Flush(ctx)).To(Equal(int64(2*n - 2)))
	g.Expect(p.Get(ctx, "2")).Error().To(HaveOccurred())
}

// changesAreTold by the server, of keys anywhere.
func changesAreTold(t *testing.T, p *cache.Pool) {
	t.Helper()
	began, changed := make(chan cache.Detection, 1), make(chan []string, 100)
	go func() {
		_ = p.Watch(t.Context(), cache.Listener{
			Began: func(how cache.Detection) { began <- how }, Changed: func(keys []string) { changed <- keys }, Flushed: func() {},
		})
	}()
	eventually := NewWithT(t).Eventually
	eventually(began, "10s").Should(Receive(Equal(cache.Tracking)))
	for i := range 10 {
		key := strconv.Itoa(i)
		p.Observe(t.Context(), []cache.Look{{Key: key}})
		ok(t, p.Put(t.Context(), key, "theirs", time.Minute))
		eventually(changed, "10s").Should(Receive(Equal([]string{key})))
	}
}

func TestTrustOverTLS(t *testing.T) {
	t.Parallel()
	ca, other := redistest.NewAuthority(t), redistest.NewAuthority(t)
	start := func(p redistest.Pair) string { return redistest.StartTLSWith(t, ca, p, noClients...).TLSAddr }
	good, plain := redistest.StartTLS(t, ca, noClients...), redistest.Start(t)
	named, expired := start(ca.Sign(t, redistest.Named("redis.shop.svc"))), start(ca.Sign(t, redistest.Expired))
	forClients := start(ca.Sign(t, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }))
	asking := redistest.StartTLS(t, ca).TLSAddr
	asking12 := redistest.StartTLS(t, ca, "--tls-protocols", "TLSv1.2").TLSAddr
	protected := redistest.Start(t, "--requirepass", marker).Addr
	localhost := "localhost" + good.TLSAddr[len("127.0.0.1"):]

	const wrongName = "The server's certificate is for another name: serverName must be one of its Subject Alternative Names"
	const unknown = "The server's certificate is signed by an unknown authority: caRef must name the certificate of the one that has signed it"
	const noTLS = "The server does not speak TLS on this port: connect to its TLS port, or leave out tls (redis:// in a URL)"
	const needsTLS = "The server speaks TLS on this port, and the pool does not: set tls, or rediss:// in a URL"
	for name, tc := range map[string]struct {
		addr    string
		change  func(*cache.Options)
		message string
	}{
		"by address":                              {good.TLSAddr, by(t, ca), ""},
		"by name":                                 {localhost, by(t, ca), ""},
		"by another name":                         {named, by(t, ca, called("redis.shop.svc")), ""},
		"a certificate that nobody asks for":      {good.TLSAddr, by(t, ca, showing(t, other.Sign(t, redistest.Expired))), ""},
		"a certificate":                           {asking, by(t, ca, showing(t, ca.Sign(t))), ""},
		"a certificate, TLS 1.2":                  {asking12, by(t, ca, showing(t, ca.Sign(t))), ""},
		"an unknown authority, unverified":        {good.TLSAddr, by(t, other, unverified), ""},
		"an expired certificate, unverified":      {expired, by(t, ca, unverified), ""},
		"an unknown authority":                    {good.TLSAddr, by(t, other), unknown},
		"the system's authorities":                {good.TLSAddr, func(o *cache.Options) { o.TLS = &cache.TLS{} }, unknown},
		"a name that the certificate has not":     {named, by(t, ca), wrongName},
		"a wrong server name":                     {good.TLSAddr, by(t, ca, called(marker)), wrongName},
		"an expired certificate":                  {expired, by(t, ca), "The server's certificate, or that of an authority, has expired or is not valid yet"},
		"a client's certificate at the server":    {forClients, by(t, ca), "The server's certificate cannot be verified"},
		"TLS to a plain port":                     {plain.Addr, by(t, ca), noTLS},
		"TLS to a plain port with a password":     {protected, by(t, ca), noTLS},
		"TLS to a plain port, unverified":         {plain.Addr, by(t, ca, unverified), noTLS},
		"plain text to a TLS port":                {good.TLSAddr, as("", ""), needsTLS},
		"plain text to a TLS port, with password": {good.TLSAddr, as(marker, marker), needsTLS},
		"plain text to a TLS port that asks":      {asking, as("", ""), needsTLS},
		"plain text to a TLS 1.2 port that asks":  {asking12, as("", ""), needsTLS},
		"no certificate":                          {asking, by(t, ca), "The server asks for a client certificate: clientCertificateSecretRef must name one"},
		"no certificate, TLS 1.2":                 {asking12, by(t, ca), "The server refuses the TLS handshake: it asks for a client certificate, or for a cipher that is not safe any more"},
		"an expired client certificate":           {asking, by(t, ca, showing(t, ca.Sign(t, redistest.Expired))), "The server refuses the client certificate: it has expired or is not valid yet"},
		"an expired client certificate, TLS 1.2":  {asking12, by(t, ca, showing(t, ca.Sign(t, redistest.Expired))), "The server refuses the client certificate: it has expired or is not valid yet"},
		"another's client certificate":            {asking, by(t, ca, showing(t, other.Sign(t))), "The server refuses the client certificate: it does not know the authority that has signed it"},
		"a server's certificate as the client's":  {asking, by(t, ca, showing(t, ca.Sign(t, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }))), "The server refuses the client certificate: it is not one for clients"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := open(t, tc.addr, tc.change)
			if tc.message == "" {
				ok(t, check(t, p)())
				return
			}
			want := cache.Error{Class: cache.Refused, Reason: cache.ReasonInvalidTLS, Message: tc.message}
			for range 5 { // always the same
				if got := failure(t, check(t, p)); got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
			}
		})
	}
}

// What may pass is no fault of the settings.
func TestWhatBreaksOverTLSMayPass(t *testing.T) {
	ca := redistest.NewAuthority(t)
	hole := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { _ = hole.Close() })
	closing := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { _ = closing.Close() })
	go func() {
		for {
			conn, err := closing.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	for name, tc := range map[string]struct {
		addr    string
		change  func(*cache.Options)
		message string
	}{
		"no answer":               {hole.Addr().String(), by(t, ca), "Connection timed out"},
		"refused":                 {"127.0.0.1:1", by(t, ca), "Connection refused"},
		"closed":                  {closing.Addr().String(), by(t, ca), "Connection closed"},
		"closed under plain text": {closing.Addr().String(), as("", ""), "Connection closed"},
	} {
		t.Run(name, func(t *testing.T) {
			want := cache.Error{Class: cache.Unavailable, Reason: cache.ReasonConnectionFailed, Message: tc.message}
			if got := failure(t, check(t, open(t, tc.addr, tc.change, within(500*time.Millisecond)))); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// Nothing tells of connections over TLS that they have died.
func TestACheckOverTLSSurvivesARestart(t *testing.T) {
	ca := redistest.NewAuthority(t)
	s := redistest.StartTLS(t, ca, noClients...)
	p := open(t, s.TLSAddr, by(t, ca))
	warm(t, p)
	for range 3 {
		s.Restart()
		ok(t, check(t, p)())
	}
}

func TestEqualTLS(t *testing.T) {
	ca, other := redistest.NewAuthority(t), redistest.NewAuthority(t)
	client := ca.Sign(t)
	settings := func(changes ...func(*cache.TLS)) *cache.TLS {
		var o cache.Options
		by(t, ca, changes...)(&o)
		return o.TLS
	}
	all := map[string]func() *cache.TLS{
		"none":      func() *cache.TLS { return nil },
		"system":    func() *cache.TLS { return &cache.TLS{} },
		"authority": func() *cache.TLS { return settings() },
		"authorities": func() *cache.TLS {
			return settings(func(s *cache.TLS) { s.Roots.AppendCertsFromPEM([]byte(other.PEM)) })
		},
		"name":                func() *cache.TLS { return settings(called("a")) },
		"unverified":          func() *cache.TLS { return settings(unverified) },
		"certificate":         func() *cache.TLS { return settings(showing(t, client)) },
		"another certificate": func() *cache.TLS { return settings(showing(t, other.Sign(t))) },
	}
	for a, settingsA := range all {
		for b, settingsB := range all {
			want := a == b && a != "another certificate" // each is another
			if got := settingsA().Equal(settingsB()); got != want {
				t.Errorf("%s equal to %s: %v", a, b, got)
			}
		}
	}
}
