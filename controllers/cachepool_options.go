// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/status"
)

// options to connect with, and the version of the Secret that has the password or the URL. With an error there are none.
func (r *cachePoolReconciler) options(ctx context.Context, pool *v1alpha1.CachePool) (cache.Options, string, error) {
	o := destination(pool)
	o.Prefix, o.Timeout, o.Dial = pool.EffectiveKeyPrefix(), pool.Spec.Timeout.Duration, r.dial
	version, err := r.credentials(ctx, pool, &o)
	if s := pool.Spec.Sentinel; err == nil && s != nil && s.CredentialsSecretRef != nil {
		o.SentinelUsername, o.SentinelPassword, _, err = r.login(ctx, pool.Namespace, s.CredentialsSecretRef)
	}
	if err == nil && pool.Spec.TLS != nil {
		o.TLS, err = r.tls(ctx, pool)
	}
	if err != nil {
		return cache.Options{}, "", err
	}
	return o, version, nil
}

// credentials from the pool's Secret, whose version it returns; a URL has the address too.
func (r *cachePoolReconciler) credentials(ctx context.Context, pool *v1alpha1.CachePool, o *cache.Options) (version string, err error) {
	if ref := pool.Spec.URLSecretRef; ref != nil {
		version, err := r.url(ctx, pool.Namespace, ref, o)
		if err == nil && o.Topology == cache.Cluster && o.Database != 0 {
			err = status.Stalled(v1alpha1.ReasonInvalidURL, "Key %q of Secret %q has no valid URL: a cluster has no database but 0", ref.Key, ref.Name)
		}
		return version, err
	}
	if pool.Spec.CredentialsSecretRef == nil {
		return "", nil
	}
	o.Username, o.Password, version, err = r.login(ctx, pool.Namespace, pool.Spec.CredentialsSecretRef)
	return version, err
}

// login from a Secret, and its version.
func (r *cachePoolReconciler) login(ctx context.Context, namespace string, ref *v1alpha1.CredentialsSecretReference) (username, password, version string, err error) {
	secret, err := r.secret(ctx, namespace, ref.Name)
	if err != nil {
		return "", "", "", err
	}
	value, err := valueOf(secret, ref.PasswordKey)
	if err != nil {
		return "", "", "", err
	}
	return string(secret.Data[ref.UsernameKey]), string(value), secret.ResourceVersion, nil
}

func (r *cachePoolReconciler) url(ctx context.Context, namespace string, ref *v1alpha1.KeyReference, o *cache.Options) (version string, err error) {
	secret, err := r.secret(ctx, namespace, ref.Name)
	if err != nil {
		return "", err
	}
	text, err := valueOf(secret, ref.Key)
	if err != nil {
		return "", err
	}
	url, err := cache.ParseURL(string(text))
	if e, ok := errors.AsType[*cache.Error](err); ok {
		return "", status.Stalled(e.Reason, "Key %q of Secret %q has no valid URL: %s", ref.Key, ref.Name, e.Message)
	}
	o.Addresses, o.Database, o.Username, o.Password = []string{url.Address}, url.Database, url.Username, url.Password
	if url.TLS {
		o.TLS = &cache.TLS{}
	}
	return secret.ResourceVersion, nil
}

// tls settings, with the certificates that they name.
func (r *cachePoolReconciler) tls(ctx context.Context, pool *v1alpha1.CachePool) (*cache.TLS, error) {
	spec := pool.Spec.TLS
	settings := &cache.TLS{ServerName: spec.ServerName, SkipVerify: spec.Verification == v1alpha1.VerificationNone}
	if ref := spec.CARef; ref != nil {
		pem, err := r.authorities(ctx, pool.Namespace, ref)
		if err != nil {
			return nil, err
		}
		settings.Roots = x509.NewCertPool()
		if !settings.Roots.AppendCertsFromPEM(pem) {
			return nil, status.Stalled(v1alpha1.ReasonInvalidTLS, "Key %q of %s %q has no certificate in PEM", ref.Key, ref.Kind, ref.Name)
		}
	}
	ref := spec.ClientCertificateSecretRef
	if ref == nil {
		return settings, nil
	}
	secret, err := r.secret(ctx, pool.Namespace, ref.Name)
	if err != nil {
		return nil, err
	}
	certificate, err := valueOf(secret, corev1.TLSCertKey)
	if err != nil {
		return nil, err
	}
	key, err := valueOf(secret, corev1.TLSPrivateKeyKey)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, status.Stalled(v1alpha1.ReasonInvalidTLS, "Secret %q has no certificate and key, in PEM, that belong together", ref.Name)
	}
	settings.Certificate = &pair
	return settings, nil
}

// authorities are the certificates that a reference names, in PEM.
func (r *cachePoolReconciler) authorities(ctx context.Context, namespace string, ref *v1alpha1.CAReference) ([]byte, error) {
	if ref.Kind == v1alpha1.CAInSecret {
		secret, err := r.secret(ctx, namespace, ref.Name)
		if err != nil {
			return nil, err
		}
		return valueOf(secret, ref.Key)
	}
	object := &corev1.ConfigMap{}
	err := r.reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: ref.Name}, object)
	if apierrors.IsNotFound(err) {
		return nil, status.Waiting(v1alpha1.ReasonSecretNotFound, "ConfigMap %q does not exist", ref.Name)
	} else if err != nil {
		return nil, err
	}
	if text, ok := object.Data[ref.Key]; ok {
		return []byte(text), nil
	}
	data, ok := object.BinaryData[ref.Key]
	if !ok {
		return nil, status.Stalled(v1alpha1.ReasonInvalidSecret, "ConfigMap %q has no key %q", ref.Name, ref.Key)
	}
	return data, nil
}

// secret that a pool refers to.
func (r *cachePoolReconciler) secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	err := r.reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, secret)
	if apierrors.IsNotFound(err) {
		return nil, status.Waiting(v1alpha1.ReasonSecretNotFound, "Secret %q does not exist", name)
	}
	return secret, err
}

// valueOf a key of a Secret.
func valueOf(secret *corev1.Secret, key string) ([]byte, error) {
	value, ok := secret.Data[key]
	if !ok {
		return nil, status.Stalled(v1alpha1.ReasonInvalidSecret, "Secret %q has no key %q", secret.Name, key)
	}
	return value, nil
}

// secretsOf a pool are the Secrets that it connects with.
func secretsOf(pool *v1alpha1.CachePool) (names []string) {
	if ref := pool.Spec.CredentialsSecretRef; ref != nil {
		names = append(names, ref.Name)
	}
	if ref := pool.Spec.URLSecretRef; ref != nil {
		names = append(names, ref.Name)
	}
	if s := pool.Spec.Sentinel; s != nil && s.CredentialsSecretRef != nil {
		names = append(names, s.CredentialsSecretRef.Name)
	}
	if tls := pool.Spec.TLS; tls != nil {
		if ref := tls.CARef; ref != nil && ref.Kind == v1alpha1.CAInSecret {
			names = append(names, ref.Name)
		}
		if ref := tls.ClientCertificateSecretRef; ref != nil {
			names = append(names, ref.Name)
		}
	}
	return names
}

// configMapsOf a pool are the ConfigMaps that it connects with.
func configMapsOf(pool *v1alpha1.CachePool) []string {
	if tls := pool.Spec.TLS; tls != nil && tls.CARef != nil && tls.CARef.Kind == v1alpha1.CAInConfigMap {
		return []string{tls.CARef.Name}
	}
	return nil
}

// destination of a pool's connection, as far as its spec says.
func destination(pool *v1alpha1.CachePool) cache.Options {
	o := cache.Options{Topology: cache.Topology(pool.Spec.Topology), Addresses: pool.Spec.Addresses, Database: database(pool)}
	if s := pool.Spec.Sentinel; s != nil {
		o.MasterName = s.MasterName
	}
	return o
}

// place where the keys of a pool are, in words. What a Secret says is not shown.
func place(pool *v1alpha1.CachePool, o cache.Options) string {
	if ref := pool.Spec.URLSecretRef; ref != nil {
		return fmt.Sprintf("the server and database that Secret %q names", ref.Name)
	}
	return fmt.Sprintf("%s, database %d", strings.Join(o.Addresses, ", "), o.Database)
}
