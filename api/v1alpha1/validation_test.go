// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	v1alpha1 "github.com/cachewright/cachewright/api/v1alpha1"
)

// What the schema defaults, and nothing else: what depends on other fields is the operator's to supply.
func TestDefaults(t *testing.T) {
	for name, test := range map[string]struct{ kind, spec, want string }{
		"CachePool": {
			"CachePool", `{addresses: ["redis:6379"]}`,
			`{addresses: ["redis:6379"], topology: Standalone, resyncPeriod: 10m, timeout: 3s}`,
		},
		"CachePool, credentials": {
			"CachePool", `{addresses: ["redis:6379"], credentialsSecretRef: {name: auth}}`,
			`{addresses: ["redis:6379"], topology: Standalone, resyncPeriod: 10m, timeout: 3s, credentialsSecretRef: {name: auth, usernameKey: username, passwordKey: password}}`,
		},
		"CachePool, URL": {
			"CachePool", `{urlSecretRef: {name: redis, key: url}}`,
			`{urlSecretRef: {name: redis, key: url}, topology: Standalone, resyncPeriod: 10m, timeout: 3s}`,
		},
		"CachePool, TLS": {
			"CachePool", `{addresses: ["redis:6379"], tls: {}}`,
			`{addresses: ["redis:6379"], topology: Standalone, resyncPeriod: 10m, timeout: 3s, tls: {verification: Full}}`,
		},
		"CachePool, all set": {
			"CachePool", `{addresses: ["redis:6379"], topology: Cluster, resyncPeriod: 1m, timeout: 1s, credentialsSecretRef: {name: auth, usernameKey: u, passwordKey: p}}`,
			`{addresses: ["redis:6379"], topology: Cluster, resyncPeriod: 1m, timeout: 1s, credentialsSecretRef: {name: auth, usernameKey: u, passwordKey: p}}`,
		},
		"CachePool, sentinels": {
			"CachePool", `{addresses: ["a:1"], topology: Sentinel, sentinel: {masterName: m, credentialsSecretRef: {name: auth}}}`,
			`{addresses: ["a:1"], topology: Sentinel, resyncPeriod: 10m, timeout: 3s,
				sentinel: {masterName: m, credentialsSecretRef: {name: auth, usernameKey: username, passwordKey: password}}}`,
		},
		"CacheEntry":                {"CacheEntry", "{key: k, value: v, ttl: 1m}", "{key: k, value: v, ttl: 1m, poolRef: {name: default}}"},
		"CacheEntry, empty poolRef": {"CacheEntry", "{key: k, value: v, ttl: 1m, poolRef: {}}", "{key: k, value: v, ttl: 1m, poolRef: {name: default}}"},
		"CacheEntry, null poolRef":  {"CacheEntry", "{key: k, value: v, ttl: 1m, poolRef: null}", "{key: k, value: v, ttl: 1m, poolRef: {name: default}}"},
		"CacheEntry, poolRef":       {"CacheEntry", "{key: k, json: {a: {}}, forever: true, poolRef: {name: main}}", "{key: k, json: {a: {}}, forever: true, poolRef: {name: main}}"},
		"CacheEntry, counter":       {"CacheEntry", "{key: k, counter: {increment: 1, runID: r}, ttl: 1m}", "{key: k, counter: {increment: 1, runID: r}, ttl: 1m, poolRef: {name: default}}"},
		"CacheEntry, all set": {
			"CacheEntry", "{key: k, value: v, ttl: 1m, poolRef: {name: main}, policy: Observe, deletionPolicy: Retain, suspend: true}",
			"{key: k, value: v, ttl: 1m, poolRef: {name: main}, policy: Observe, deletionPolicy: Retain, suspend: true}",
		},
		"CacheFlush":                {"CacheFlush", "{all: true}", "{all: true, poolRef: {name: default}, mode: Delete, declaredEntries: Preserve, backoffLimit: 6}"},
		"CacheFlush, empty poolRef": {"CacheFlush", "{prefix: a, poolRef: {}}", "{prefix: a, poolRef: {name: default}, mode: Delete, declaredEntries: Preserve, backoffLimit: 6}"},
		"CacheFlush, null limit":    {"CacheFlush", "{all: true, backoffLimit: null}", "{all: true, poolRef: {name: default}, mode: Delete, declaredEntries: Preserve, backoffLimit: 6}"},
		"CacheFlush, no retries":    {"CacheFlush", "{all: true, backoffLimit: 0}", "{all: true, poolRef: {name: default}, mode: Delete, declaredEntries: Preserve, backoffLimit: 0}"},
		"CacheFlush, all set": {
			"CacheFlush",
			"{keys: [a], poolRef: {name: main}, mode: DryRun, declaredEntries: Rewrite, maxKeys: 1, maxKeysPerSecond: 1, runID: r, activeDeadlineSeconds: 1, backoffLimit: 1, suspend: true}",
			"{keys: [a], poolRef: {name: main}, mode: DryRun, declaredEntries: Rewrite, maxKeys: 1, maxKeysPerSecond: 1, runID: r, activeDeadlineSeconds: 1, backoffLimit: 1, suspend: true}",
		},
		"CachePool, allowedNamespaces": {
			"CachePool", `{addresses: ["redis:6379"], allowedNamespaces: {}}`,
			`{addresses: ["redis:6379"], topology: Standalone, resyncPeriod: 10m, timeout: 3s, allowedNamespaces: {from: Same}}`,
		},
		"CachePool, flush limits": {
			"CachePool", `{addresses: ["redis:6379"], flushLimits: {maxKeysPerSecond: 1}}`,
			`{addresses: ["redis:6379"], topology: Standalone, resyncPeriod: 10m, timeout: 3s, flushLimits: {maxKeysPerSecond: 1}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := gocmp.Diff(parse(t, test.want), create(t, test.kind, test.spec).Object["spec"]); diff != "" {
				t.Errorf("spec (-want +got):\n%s", diff)
			}
		})
	}
}

// What the operator supplies instead of the schema.
func TestEffectivePolicies(t *testing.T) {
	for spec, want := range map[string]struct {
		policy   v1alpha1.EntryPolicy
		deletion v1alpha1.DeletionPolicy
	}{
		"{value: v}": {v1alpha1.PolicyEnforce, v1alpha1.DeletionDelete},
		"{value: v, policy: Enforce, deletionPolicy: Delete}": {v1alpha1.PolicyEnforce, v1alpha1.DeletionDelete},
		"{value: v, policy: EnsurePresent}":                   {v1alpha1.PolicyEnsurePresent, v1alpha1.DeletionDelete},
		"{value: v, policy: WriteOnChange}":                   {v1alpha1.PolicyWriteOnChange, v1alpha1.DeletionDelete},
		"{value: v, policy: Observe, deletionPolicy: Retain}": {v1alpha1.PolicyObserve, v1alpha1.DeletionRetain},
		"{counter: {increment: 1}}":                           {"", v1alpha1.DeletionRetain},
		"{counter: {increment: 1}, deletionPolicy: Retain}":   {"", v1alpha1.DeletionRetain},
		"{counter: {increment: 1}, deletionPolicy: Delete}":   {"", v1alpha1.DeletionDelete},
	} {
		o := object("CacheEntry", "")
		o.Object["spec"] = parse(t, spec)
		e, ok := typed(t, o).(*v1alpha1.CacheEntry)
		if !ok {
			t.Fatal("no CacheEntry")
		}
		if policy, deletion := e.EffectivePolicy(), e.EffectiveDeletionPolicy(); policy != want.policy || deletion != want.deletion {
			t.Errorf("%s: got %q, %q; want %q, %q", spec, policy, deletion, want.policy, want.deletion)
		}
	}
}

// kstatus must not take a new object for done, whatever status it is created with.
func TestNewStatus(t *testing.T) {
	for kind := range minimal {
		o := create(t, kind, "")
		remove(t, o)
		again := object(kind, o.GetNamespace())
		again.Object["status"] = map[string]any{"observedGeneration": int64(1), "conditions": []any{}}
		if err := ask(t, again, row{}); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{"observedGeneration": int64(-1)}
		for what, status := range map[string]any{"without": o.Object["status"], "with": again.Object["status"]} {
			if diff := gocmp.Diff(any(want), status); diff != "" {
				t.Errorf("%s created %s a status (-want +got):\n%s", kind, what, diff)
			}
		}
	}
}

// Each rule of the schemas is refused somewhere in the tables.
func TestEveryRuleHasARow(t *testing.T) {
	for plural, tables := range map[string][]map[string]row{
		"cachepools":   {poolRows, poolStatusRows},
		"cacheentries": {entryRows, entryStatusRows},
		"cacheflushes": {flushRows, flushStatusRows, {"match": {want: `spec.match: Invalid value: "[": ` + badMatch}}},
	} {
		var answers []string
		for _, table := range tables {
			for _, row := range table {
				answers = append(answers, row.want)
			}
		}
		schema := installed(t, plural).Spec.Versions[0].Schema.OpenAPIV3Schema
		rules := refusals("", schema)
		if len(rules) < 10 {
			t.Errorf("%s: only %d rules found: %q", plural, len(rules), rules)
		}
		for _, rule := range rules {
			if !slices.ContainsFunc(answers, regexp.MustCompile(rule).MatchString) {
				t.Errorf("%s: no row's answer matches %s", plural, rule)
			}
		}
	}
}

// refusals has a regular expression for the API server's answer to each rule of a schema.
func refusals(path string, s *apiextensionsv1.JSONSchemaProps) (all []string) {
	at := func(path, format string, args ...any) {
		all = append(all, `(^|[\[ ])`+path+": "+fmt.Sprintf(format, args...))
	}
	limit := func(bound *int64, format string) {
		if bound != nil && *bound > 0 {
			at(path, format, *bound)
		}
	}
	limit(s.MinLength, "Invalid value: .* should be at least %d chars long")
	limit(s.MaxLength, "Too long: may not be more than %d bytes")
	limit(s.MinItems, "Invalid value: .* should have at least %d items")
	limit(s.MaxItems, "Too many: .* must have at most %d items?")
	if s.Minimum != nil {
		at(path, "Invalid value: .* should be greater than or equal to %v", *s.Minimum)
	}
	if s.Maximum != nil {
		at(path, "Invalid value: .* should be less than or equal to %v", *s.Maximum)
	}
	if s.Pattern != "" {
		at(path, "Invalid value: .* should match '%s'", regexp.QuoteMeta(s.Pattern))
	}
	if len(s.Enum) > 0 {
		values := make([]string, len(s.Enum))
		for i, value := range s.Enum {
			values[i] = string(value.Raw)
		}
		at(path, "Unsupported value: .* supported values: %s", regexp.QuoteMeta(strings.Join(values, ", ")))
	}
	for _, rule := range s.XValidations {
		at(strings.TrimPrefix(path+regexp.QuoteMeta(rule.FieldPath), `\.`), "Invalid value: .*%s", regexp.QuoteMeta(rule.Message))
	}
	for _, name := range s.Required {
		at(join(path, name), "Required value")
	}
	// That at least one property is there, a default sees to.
	if s.MinProperties != nil && !slices.ContainsFunc(mapValues(s.Properties), hasDefault) {
		at(path, "Invalid value: .* should have at least %d properties", *s.MinProperties)
	}
	if s.XListType != nil && *s.XListType == "map" {
		at(path+`\[\d+\]`, "Duplicate value")
		return all // metav1.Condition is Kubernetes' to test
	}
	for name, property := range s.Properties {
		all = append(all, refusals(join(path, name), &property)...)
	}
	if s.Items != nil {
		all = append(all, refusals(path+`\[\d+\]`, s.Items.Schema)...)
	}
	return all
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + `\.` + name
}

func hasDefault(s apiextensionsv1.JSONSchemaProps) bool { return s.Default != nil }

func mapValues(m map[string]apiextensionsv1.JSONSchemaProps) (values []apiextensionsv1.JSONSchemaProps) {
	for _, value := range m {
		values = append(values, value)
	}
	return values
}
