// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/keeper"
	"github.com/cachewright/cachewright/internal/status"
)

// content is what an entry declares its key to hold.
type content struct {
	value string
	// identity tells one value from another in memory. It is the digest, of Secrets too, and so never leaves.
	identity string
	// secret says that identity must not be published.
	secret bool
	// sourceVersion is the resourceVersion of the ConfigMap or Secret; empty for an inline value.
	sourceVersion string
}

// writtenIn says whether the status tells that this content was written. Of a Secret only the version can be
// compared; of a ConfigMap, another key may have changed.
func (c content) writtenIn(entry *v1alpha1.CacheEntry) bool {
	switch {
	case entry.Spec.Counter != nil:
		return entry.Status.Counter != nil && entry.Status.Counter.RunID == entry.Spec.Counter.RunID
	case c.secret:
		return c.sourceVersion == entry.Status.SourceResourceVersion
	default:
		return c.identity == entry.Status.WrittenDigest
	}
}

// publish in the status that the content has been written. It was written a moment ago, or before the operator that
// wrote it could say so.
func (c content) publish(entry *v1alpha1.CacheEntry, written, now time.Time) {
	switch {
	case !written.IsZero():
		entry.Status.LastWriteTime = new(metav1.NewTime(written))
	case entry.Status.LastWriteTime == nil:
		entry.Status.LastWriteTime = new(metav1.NewTime(now))
	}
	entry.Status.SourceResourceVersion = c.sourceVersion
	entry.Status.WrittenDigest = c.identity
	if c.secret {
		entry.Status.WrittenDigest = ""
	}
}

// content of an entry, from its spec or from where that points.
func (r *cacheEntryReconciler) content(ctx context.Context, entry *v1alpha1.CacheEntry) (content, error) {
	c := content{}
	var err error
	switch spec := &entry.Spec; {
	case spec.Counter != nil:
		return content{identity: "run:" + spec.Counter.RunID}, nil
	case spec.Value != nil:
		c.value = *spec.Value
	case spec.JSON != nil:
		c.value, err = compact(spec.JSON)
	case spec.ValueFrom != nil && spec.ValueFrom.ConfigMapKeyRef != nil:
		c, err = r.fromConfigMap(ctx, entry.Namespace, spec.ValueFrom.ConfigMapKeyRef)
	case spec.ValueFrom != nil && spec.ValueFrom.SecretKeyRef != nil:
		c, err = r.fromSecret(ctx, entry.Namespace, spec.ValueFrom.SecretKeyRef)
	default:
		c.value = string(spec.Binary)
	}
	if err == nil && len(c.value) > v1alpha1.MaxValueBytes {
		err = status.Stalled(v1alpha1.ReasonInvalidValue, "The value has %d bytes, more than the %d (1 MiB) that an entry stores", len(c.value), v1alpha1.MaxValueBytes)
	}
	c.identity = keeper.Digest(c.value)
	return c, err
}

func (r *cacheEntryReconciler) fromConfigMap(ctx context.Context, namespace string, ref *v1alpha1.KeyReference) (content, error) {
	object := &corev1.ConfigMap{}
	err := r.reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: ref.Name}, object)
	if err != nil {
		return content{}, missing(err, "ConfigMap", ref)
	}
	if text, ok := object.Data[ref.Key]; ok {
		return content{value: text, sourceVersion: object.ResourceVersion}, nil
	}
	if data, ok := object.BinaryData[ref.Key]; ok {
		return content{value: string(data), sourceVersion: object.ResourceVersion}, nil
	}
	return content{}, missing(nil, "ConfigMap", ref)
}

func (r *cacheEntryReconciler) fromSecret(ctx context.Context, namespace string, ref *v1alpha1.KeyReference) (content, error) {
	object := &corev1.Secret{}
	err := r.reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: ref.Name}, object)
	if err != nil {
		return content{}, missing(err, "Secret", ref)
	}
	data, ok := object.Data[ref.Key]
	if !ok {
		return content{}, missing(nil, "Secret", ref)
	}
	return content{value: string(data), secret: true, sourceVersion: object.ResourceVersion}, nil
}

// missing is the verdict on an entry whose source, or the key in it, is not there. Other errors are returned as
// they are.
func missing(err error, kind string, ref *v1alpha1.KeyReference) error {
	switch {
	case err == nil:
		return status.Waiting(v1alpha1.ReasonSourceNotFound, "%s %q has no key %q; the key in Redis stays as it is", kind, ref.Name, ref.Key)
	case apierrors.IsNotFound(err):
		return status.Waiting(v1alpha1.ReasonSourceNotFound, "%s %q does not exist; the key in Redis stays as it is", kind, ref.Name)
	default:
		return err
	}
}

// compact writes JSON without white space and with sorted keys, so that the same value is always the same bytes.
// Numbers stay as they are.
func compact(raw []byte) (string, error) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil || value == nil {
		return "", status.Stalled(v1alpha1.ReasonInvalidValue, "spec.json must be JSON other than null")
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return string(bytes.TrimSuffix(out.Bytes(), []byte("\n"))), err
}
