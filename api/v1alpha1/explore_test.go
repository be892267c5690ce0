package v1alpha1_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"encoding/base64"
	"bytes"

	"github.com/cachewright/cachewright/internal/testing/controlplane"
)

func TestExplore(t *testing.T) {
	ns := controlplane.Namespace(t, api)
	R := strings.Repeat
	b64 := func(n int) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, n)) }
	try := func(kind, spec string, more ...string) {
		r := row{spec: spec}
		if len(more) > 0 { r.update = more[0] }
		if len(more) > 1 { r.status = more[1] }
		o := object(kind, ns)
		begin := time.Now()
		err := ask(t, o, r)
		d := time.Since(begin)
		if len(spec) > 100 { spec = spec[:50] + "..." + spec[len(spec)-40:] }
		out := "OK"
		if err != nil { out = err.Error(); if len(out) > 900 { out = out[:450] + "....." + out[len(out)-440:]} } else { out = fmt.Sprintf("OK %.200v", o.Object["spec"])}
		fmt.Printf("%s %s %.200v (%s)\n   => %s\n", kind, spec, more, d.Round(time.Millisecond), out)
		_ = api.Delete(t.Context(), object(kind, ns))
	}
	e := func(s string) { try("CacheEntry", s) }
	v := "key: k\nforever: true\n"
_=e;_=v;_=b64
	p := func(s string, more ...string) { try("CachePool", s, more...) }
	A := "addresses: ['a:1']\n"
	p(A + "database: -1")
	p(A + "database: 5000000000")
	p(A + "credentialsSecretRef: {}")
	p(A + "credentialsSecretRef: {name: a}")
	p(A + "credentialsSecretRef: {name: '', usernameKey: '', passwordKey: ''}")
	for _, k := range []string{"c", "'cachewright:'", "'cachewright:x'", "cachewrighty", "''", R("a", 320), R("é", 160), R("é", 161), R("a", 321), "d", "'glimr:cache:x:'"} {
		p(A + "keyPrefix: " + k)
	}
	p(A, A + "keyPrefix: a")
	p(A, A + "keyPrefix: 'glimr:cache:x:'")
	p(A + "keyPrefix: 'glimr:cache:x:'", A)
	p(A + "keyPrefix: a", A)
	p(A + "keyPrefix: a", A + "keyPrefix: b")
	for _, d := range []string{"9s", "10s", "1m1s", "99ms", "x", "1h", "9999999h"} {
		p(A + "resyncPeriod: " + d)
		p(A + "timeout: " + d)
	}
	f := func(s string, more ...string) { try("CacheFlush", s, more...) }
	f("{}")
	f("{all: true, prefix: a}")
	f("{all: false}")
	f("{prefix: ''}")
	f("{prefix: " + R("é", 513) + "}")
	f("{keys: []}")
	f("{keys: ['']}")
	f("{keys: [" + R("é", 513) + "]}")
	f("{keys: [" + R("a,", 1001) + "]}")
	f("{keys: [" + R(R("\U0001f600", 256) + ",", 1000) + "]}")
	f("{match: '" + R("[a-z]", 204) + "'}")
	f("{match: '" + R("[", 1024) + "'}")
	f("{match: '" + R("\U0001f600", 1024) + "'}")
	f("{match: '" + R("\U0001f600", 1025) + "'}")
	f("{all: true, mode: X}")
	f("{all: true, ttlSecondsAfterFinished: 9}")
	f("{all: true}", "{prefix: a}")
	f("{all: true}", "{all: true, suspend: true, ttlSecondsAfterFinished: 10}")
	f("{keys: [a]}", "{keys: [b]}")
	f("{keys: [" + R(R("a", 1024) + ",", 1000) + "]}", "{keys: [" + R(R("a", 1024) + ",", 999) + "]}")
}
