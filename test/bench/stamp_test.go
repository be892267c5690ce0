// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

const entriesInEtcd = "/registry/cachewright.dev/cacheentries/" + namespace + "/"

// stamp entries, from one number to another, as an operator has left them: warm, and with all that it writes. They are
// copies of one that an operator has indeed kept, and go straight to etcd, since to create them one by one measures the API
// server, for minutes.
func (b *bench) stamp(from, to int) {
	b.Helper()
	if from == 0 {
		b.keepOne()
		from = 1
	}
	original := b.entry(0)
	b.must(b.client.Get(b.Context(), client.ObjectKeyFromObject(original), original))
	var found struct {
		KVs []struct {
			Value []byte `json:"value"`
		} `json:"kvs"`
	}
	b.etcd("range", map[string]any{"key": []byte(entriesInEtcd + key(0))}, &found)
	if len(found.KVs) != 1 {
		b.Fatal("the entry is not in etcd")
	}
	const most = 100 // puts of a transaction
	for ; from < to; from += most {
		var puts []any
		for i := from; i < min(to, from+most); i++ {
			copied := strings.NewReplacer(key(0), key(i), string(original.UID), string(uuid.NewUUID())).Replace(string(found.KVs[0].Value))
			puts = append(puts, map[string]any{"request_put": map[string]any{"key": []byte(entriesInEtcd + key(i)), "value": []byte(copied)}})
		}
		b.etcd("txn", map[string]any{"success": puts}, &struct{}{})
	}
	b.awaitCache(to)
	b.pipelined(to, prefix, func(p redis.Pipeliner, name string, _ int) { p.Set(b.Context(), name, b.value, time.Hour) })
}

// awaitCache waits until the API server serves so many entries from its cache. What is put in one transaction has the same
// version, and whoever began to watch in the midst of it would never see the rest.
func (b *bench) awaitCache(n int) {
	b.Helper()
	seen := &metav1.PartialObjectMetadataList{}
	seen.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("CacheEntryList"))
	for deadline := time.Now().Add(patience); len(seen.Items) < n; pause(b.Context(), time.Second) {
		if time.Now().After(deadline) {
			b.Fatalf("the API server has %d entries of %d", len(seen.Items), n)
		}
		b.must(b.client.List(b.Context(), seen, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: "0"}}))
	}
}

// keepOne has an operator keep the first entry, and ends it.
func (b *bench) keepOne() {
	b.Helper()
	b.startOperator()
	b.awaitPool()
	seen := b.watchReady(1)
	b.must(b.client.Create(b.Context(), b.entry(0)))
	seen.await()
	pause(b.Context(), time.Second) // it has come to rest
	b.stopOperator()
}

// etcd answers a request, in JSON.
func (b *bench) etcd(path string, request, answer any) {
	b.Helper()
	body, err := json.Marshal(request)
	b.must(err)
	response, err := http.Post(b.etcdURL+"/v3/kv/"+path, "application/json", bytes.NewReader(body))
	b.must(err)
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		b.Fatalf("etcd answers %s", response.Status)
	}
	b.must(json.NewDecoder(response.Body).Decode(answer))
}
