// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cachewright/cachewright/internal/cache"
)

func TestURLs(t *testing.T) {
	for text, want := range map[string]cache.URL{
		"redis://redis":                      {Address: "redis:6379"},
		"redis://redis:1/":                   {Address: "redis:1"},
		"REDIS://redis:65535/15":             {Address: "redis:65535", Database: 15},
		"rediss://redis.shop.svc:6380/2":     {Address: "redis.shop.svc:6380", Database: 2, TLS: true},
		"redis://wright:pass@redis:6379/0":   {Address: "redis:6379", Username: "wright", Password: "pass"},
		"redis://:pass@redis":                {Address: "redis:6379", Password: "pass"},
		"redis://:@redis":                    {Address: "redis:6379"},
		"redis://w%40r:p%23%2F%3F%3A@redis":  {Address: "redis:6379", Username: "w@r", Password: "p#/?:"},
		"redis://:p:a:s:s@redis":             {Address: "redis:6379", Password: "p:a:s:s"},
		"rediss://[fd00::1]:6380":            {Address: "[fd00::1]:6380", TLS: true},
		"redis://[fd00::1]":                  {Address: "[fd00::1]:6379"},
		"\n redis://10.0.0.1:6379/1\r\n":     {Address: "10.0.0.1:6379", Database: 1},
		"redis://redis:6379/2147483647":      {Address: "redis:6379", Database: 1<<31 - 1},
		"redis://default:p%C3%A9@redis:6379": {Address: "redis:6379", Username: "default", Password: "pé"},
	} {
		got, err := cache.ParseURL(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

// What is wrong is said by what would be right.
func TestURLsThatAreRefused(t *testing.T) {
	const (
		form     = "it must look like redis://user:password@host:6379/0, with special characters in user and password percent-encoded"
		scheme   = "it must begin with redis://, or with rediss:// for TLS"
		host     = "it must name one host, as in redis://redis.shop.svc:6379"
		port     = "the port must be a number from 1 to 65535"
		path     = "what follows the host must be the number of a database, as in redis://redis.shop.svc:6379/5"
		query    = "it must have no options behind a question mark (one in a password is written %3F)"
		fragment = "it must have no number sign (one in a password is written %23)"
		login    = "a user needs a password, and a password alone a colon before it, as in redis://:password@host:6379"
	)
	for text, want := range map[string]string{
		"":                                    scheme,
		"hunter2":                             scheme,
		"hunter2:6379":                        scheme,
		"http://hunter2:6379":                 scheme,
		"https://hunter2@redis":               scheme,
		"unix:///hunter2.sock":                scheme,
		"redis+sentinel://hunter2:26379":      scheme,
		"redis-cli -u redis://hunter2":        form,
		"redis:hunter2:6379":                  host,
		"redis://":                            host,
		"redis:///hunter2":                    host,
		"redis://:6379":                       host,
		"redis://:hunter2@:6379":              host,
		"redis://hunter2:port":                form,
		"redis://hunter2:-1":                  form,
		"redis://hunter2:0":                   port,
		"redis://hunter2:65536":               port,
		"redis://hunter2:99999999999999999":   port,
		"redis://a,hunter2:port,b:6379":       host,
		"redis://a:1,hunter2:2":               host,
		"redis://:hunt/er2@redis":             form,
		"redis://:hunt%er2@redis":             form,
		"redis://:hunt er2@redis":             form,
		"redis://hunter2\x00":                 form,
		"redis://redis/hunter2":               path,
		"redis://redis/1/hunter2":             path,
		"redis://redis/-1":                    path,
		"redis://redis/2147483648":            path,
		"redis://redis?password=hunter2":      query,
		"redis://redis/?":                     query,
		"rediss://redis?ssl_cert_reqs=none":   query,
		"redis://redis:6379/0#hunter2":        fragment,
		"redis://redis:6379/0#":               fragment,
		"redis://hunter2@redis":               login,
		"redis://hunter2:@redis":              login,
		"redis://redis:6379 redis://hunter2":  form,
		"redis://redis:6379\nredis://hunter2": form,
	} {
		got := failure(t, func() error { _, err := cache.ParseURL(text); return err })
		if diff := cmp.Diff(cache.Error{Class: cache.Refused, Reason: cache.ReasonInvalidURL, Message: want}, got, cmp.AllowUnexported(cache.Error{})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}
