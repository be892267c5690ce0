// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1alpha1 "github.com/cachewright/cachewright/api/v1alpha1"
)

const (
	badTTL      = `must be a duration from 1s to 10 years (87600h), such as 90s, 10m or 1h30m`
	badBinary   = `spec.binary: Invalid value: must be base64 in one line, as base64 -w0 writes it`
	oneValue    = `spec: Invalid value: exactly one of value, json, binary, valueFrom, counter must be set; null counts as not set`
	oneLifetime = `spec: Invalid value: exactly one of ttl, forever must be set`
	noPolicy    = `spec.policy: Invalid value: must not be set for a counter, which is incremented once for each runID`
	noSecret    = `spec.policy: Invalid value: must not be WriteOnChange with secretKeyRef: a digest of the Secret would have to be kept to tell a change`
	stayCounter = `spec.counter: Invalid value: cannot be added or removed; create another CacheEntry`
	stayKey     = `spec.key: Invalid value: cannot be changed for a counter; create another CacheEntry`
	stayPoolRef = `spec.poolRef: Invalid value: cannot be changed for a counter; create another CacheEntry`
	noInt64     = `spec.counter.increment: Invalid value: "float64": spec.counter.increment in body must be of type int64: "float64", ` +
		`<nil>: Invalid value: "": Checked value must be of type integer with format int64 in spec.counter.increment`
	policies  = `supported values: "Enforce", "EnsurePresent", "WriteOnChange", "Observe"`
	oneSource = `spec.valueFrom: Invalid value: exactly one of the fields in [configMapKeyRef secretKeyRef] must be set`
)

// entry is a spec with a value, or what else there is of fields.
func entry(more string) string { return "{key: k, ttl: 1m, " + more + "}" }

// timed is a spec with a lifetime.
func timed(more string) string { return "{key: k, value: v, " + more + "}" }

// counter is a spec with a counter of these fields, and what else there is.
func counter(fields string, more ...string) string {
	return entry("counter: {" + fields + "}" + strings.Join(append([]string{""}, more...), ", "))
}

func inBase64(size int) string {
	// Every second character is one that base64's URL alphabet lacks.
	return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xfb, 0xef, 0xff}, size/3+1)[:size])
}

var entryRows = map[string]row{
	"no spec": {spec: "null", want: uncheckedToo("spec: Required value")},

	"poolRef: named":              {spec: entry("value: v, poolRef: {name: main}")},
	"poolRef: changed":            {spec: entry("value: v, poolRef: {name: main}"), update: entry("value: v, poolRef: {name: other}")},
	"poolRef.namespace: another":  {spec: entry(`value: v, poolRef: {name: main, namespace: shop-1}`)},
	"poolRef.namespace: alone":    {spec: entry(`value: v, poolRef: {namespace: shop}`)},
	"poolRef.namespace: empty":    {spec: entry(`value: v, poolRef: {namespace: ""}`), want: `spec.poolRef.namespace: Invalid value: "": spec.poolRef.namespace in body should be at least 1 chars long`},
	"poolRef.namespace: no name":  {spec: entry(`value: v, poolRef: {namespace: "a:b"}`), want: `spec.poolRef.namespace: Invalid value: "a:b": spec.poolRef.namespace in body should match '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'`},
	"poolRef.namespace: longest":  {spec: entry("value: v, poolRef: {namespace: " + strings.Repeat("a", 63) + "}")},
	"poolRef.namespace: too long": {spec: entry("value: v, poolRef: {namespace: " + strings.Repeat("a", 64) + "}"), want: uncheckedToo("spec.poolRef.namespace: Too long: may not be more than 63 bytes")},
	"poolRef.namespace: changed":  {spec: entry("value: v, poolRef: {namespace: a}"), update: entry("value: v, poolRef: {namespace: b}")},
	"poolRef.name: empty":         {spec: entry(`value: v, poolRef: {name: ""}`), want: `spec.poolRef.name: Invalid value: "": spec.poolRef.name in body should be at least 1 chars long`},
	"poolRef.name: longest":       {spec: entry("value: v, poolRef: {name: " + strings.Repeat("a", 253) + "}")},
	"poolRef.name: too long":      {spec: entry("value: v, poolRef: {name: " + strings.Repeat("a", 254) + "}"), want: uncheckedToo("spec.poolRef.name: Too long: may not be more than 253 bytes")},

	"key: none":            {spec: "{value: v, ttl: 1m}", want: uncheckedToo("spec.key: Required value")},
	"key: empty":           {spec: `{key: "", value: v, ttl: 1m}`, want: `spec.key: Invalid value: "": spec.key in body should be at least 1 chars long`},
	"key: any text":        {spec: `{key: "a b\0\n*?[\\]é", value: v, ttl: 1m}`},
	"key: 1024 bytes":      {spec: "{key: " + strings.Repeat("é", 512) + ", value: v, ttl: 1m}"},
	"key: 1025 bytes":      {spec: "{key: a" + strings.Repeat("é", 512) + ", value: v, ttl: 1m}", want: `spec.key: Invalid value: "a` + strings.Repeat("é", 512) + `": must be at most 1024 bytes`},
	"key: 1025 characters": {spec: "{key: " + strings.Repeat("a", 1025) + ", value: v, ttl: 1m}", want: uncheckedToo("spec.key: Too long: may not be more than 1024 bytes")},
	"key: changed":         {update: "{key: other, value: v, ttl: 1m}"},

	"value: empty":              {spec: entry(`value: ""`)},
	"value: null":               {spec: entry("value: null"), want: oneValue},
	"value: 1 MiB":              {spec: entry("value: " + strings.Repeat("é", 1<<19))},
	"value: 1 MiB and a byte":   {spec: entry("value: a" + strings.Repeat("é", 1<<19)), want: "spec.value: Invalid value: must be at most 1048576 bytes (1 MiB)"},
	"value: 1 MiB of ASCII":     {spec: entry("value: " + strings.Repeat("a", 1<<20))},
	"value: 1048577 characters": {spec: entry("value: " + strings.Repeat("a", 1<<20+1)), want: uncheckedToo("spec.value: Too long: may not be more than 1048576 bytes")},
	"value: number":             {spec: entry("value: 5"), want: uncheckedToo(`spec.value: Invalid value: "integer": spec.value in body must be of type string: "integer"`)},

	"json: false":        {spec: entry("json: false")},
	"json: 0":            {spec: entry("json: 0")},
	"json: empty text":   {spec: entry(`json: ""`)},
	"json: empty list":   {spec: entry("json: []")},
	"json: empty object": {spec: entry("json: {}")},
	"json: null inside":  {spec: entry("json: {a: [null]}")},
	"json: anything":     {spec: entry(`json: {a: [1, 2.5, -3e100, true, "é", {b: {}}]}`)},
	// The API server takes null for "not set", in json as anywhere.
	"json: null":            {spec: entry("json: null"), want: oneValue},
	"json: null and value":  {spec: entry("json: null, value: v")},
	"json: value too":       {spec: entry("json: {a: 1}, value: v"), want: oneValue},
	"json: false and value": {spec: entry("json: false, value: v"), want: oneValue},
	"json: binary too":      {spec: entry("json: 1, binary: AA=="), want: oneValue},

	"binary: empty":                  {spec: entry(`binary: ""`)},
	"binary: both odd characters":    {spec: entry(`binary: "+/+/"`)},
	"binary: one byte":               {spec: entry("binary: AA==")},
	"binary: two bytes":              {spec: entry("binary: AAA=")},
	"binary: no base64":              {spec: entry(`binary: "@@@@"`), want: badBinary},
	"binary: no padding":             {spec: entry("binary: AA"), want: badBinary},
	"binary: too much padding":       {spec: entry(`binary: "A==="`), want: badBinary},
	"binary: padding inside":         {spec: entry("binary: AA==AAAA"), want: badBinary},
	"binary: URL alphabet":           {spec: entry("binary: AA-_"), want: badBinary},
	"binary: lines":                  {spec: entry(`binary: "AAA\nA\n\n\n"`), want: badBinary},
	"binary: 1 MiB":                  {spec: entry("binary: " + inBase64(1<<20))},
	"binary: 1 MiB and a byte":       {spec: entry("binary: " + inBase64(1<<20+1)), want: "spec.binary: Invalid value: must be at most 1048576 bytes (1 MiB) when decoded"},
	"binary: 1 MiB and two bytes":    {spec: entry("binary: " + inBase64(1<<20+2)), want: "spec.binary: Invalid value: must be at most 1048576 bytes (1 MiB) when decoded"},
	"binary: 1 MiB and three bytes":  {spec: entry("binary: " + inBase64(1<<20+3)), want: uncheckedToo("spec.binary: Too long: may not be more than 1398104 bytes")},
	"binary: 1 MiB and no base64":    {spec: entry(`binary: "` + strings.Repeat("@", 1398104) + `"`), want: "[" + badBinary + ", spec.binary: Invalid value: must be at most 1048576 bytes (1 MiB) when decoded]"},
	"binary: number":                 {spec: entry("binary: 5"), want: uncheckedToo(`spec.binary: Invalid value: "integer": spec.binary in body must be of type string: "integer"`)},
	"binary: value too":              {spec: entry(`binary: "", value: ""`), want: oneValue},
	"no value":                       {spec: "{key: k, ttl: 1m}", want: oneValue},
	"value and valueFrom":            {spec: entry("value: v, valueFrom: {secretKeyRef: {name: a, key: b}}"), want: oneValue},
	"another value instead of value": {update: entry("json: [1]")},

	"valueFrom: ConfigMap":                  {spec: entry("valueFrom: {configMapKeyRef: {name: a, key: b}}")},
	"valueFrom: Secret":                     {spec: entry("valueFrom: {secretKeyRef: {name: a, key: b}}")},
	"valueFrom: nothing":                    {spec: entry("valueFrom: {}"), want: oneSource},
	"valueFrom: both":                       {spec: entry("valueFrom: {configMapKeyRef: {name: a, key: b}, secretKeyRef: {name: a, key: b}}"), want: oneSource},
	"valueFrom.configMapKeyRef: longest":    {spec: entry("valueFrom: {configMapKeyRef: {name: " + strings.Repeat("a", 253) + ", key: " + strings.Repeat("a", 253) + "}}")},
	"valueFrom.configMapKeyRef: no name":    {spec: entry("valueFrom: {configMapKeyRef: {key: b}}"), want: uncheckedToo("spec.valueFrom.configMapKeyRef.name: Required value")},
	"valueFrom.configMapKeyRef: no key":     {spec: entry("valueFrom: {configMapKeyRef: {name: a}}"), want: uncheckedToo("spec.valueFrom.configMapKeyRef.key: Required value")},
	"valueFrom.configMapKeyRef: empty name": {spec: entry(`valueFrom: {configMapKeyRef: {name: "", key: b}}`), want: `spec.valueFrom.configMapKeyRef.name: Invalid value: "": spec.valueFrom.configMapKeyRef.name in body should be at least 1 chars long`},
	"valueFrom.configMapKeyRef: empty key":  {spec: entry(`valueFrom: {configMapKeyRef: {name: a, key: ""}}`), want: `spec.valueFrom.configMapKeyRef.key: Invalid value: "": spec.valueFrom.configMapKeyRef.key in body should be at least 1 chars long`},
	"valueFrom.configMapKeyRef: long name":  {spec: entry("valueFrom: {configMapKeyRef: {name: " + strings.Repeat("a", 254) + ", key: b}}"), want: uncheckedToo("spec.valueFrom.configMapKeyRef.name: Too long: may not be more than 253 bytes")},
	"valueFrom.configMapKeyRef: long key":   {spec: entry("valueFrom: {configMapKeyRef: {name: a, key: " + strings.Repeat("a", 254) + "}}"), want: uncheckedToo("spec.valueFrom.configMapKeyRef.key: Too long: may not be more than 253 bytes")},
	"valueFrom.secretKeyRef: no name":       {spec: entry("valueFrom: {secretKeyRef: {key: b}}"), want: uncheckedToo("spec.valueFrom.secretKeyRef.name: Required value")},
	"valueFrom.secretKeyRef: no key":        {spec: entry("valueFrom: {secretKeyRef: {name: a}}"), want: uncheckedToo("spec.valueFrom.secretKeyRef.key: Required value")},
	"valueFrom.secretKeyRef: empty name":    {spec: entry(`valueFrom: {secretKeyRef: {name: "", key: b}}`), want: `spec.valueFrom.secretKeyRef.name: Invalid value: "": spec.valueFrom.secretKeyRef.name in body should be at least 1 chars long`},
	"valueFrom.secretKeyRef: empty key":     {spec: entry(`valueFrom: {secretKeyRef: {name: a, key: ""}}`), want: `spec.valueFrom.secretKeyRef.key: Invalid value: "": spec.valueFrom.secretKeyRef.key in body should be at least 1 chars long`},
	"valueFrom.secretKeyRef: long name":     {spec: entry("valueFrom: {secretKeyRef: {name: " + strings.Repeat("a", 254) + ", key: b}}"), want: uncheckedToo("spec.valueFrom.secretKeyRef.name: Too long: may not be more than 253 bytes")},
	"valueFrom.secretKeyRef: long key":      {spec: entry("valueFrom: {secretKeyRef: {name: a, key: " + strings.Repeat("a", 254) + "}}"), want: uncheckedToo("spec.valueFrom.secretKeyRef.key: Too long: may not be more than 253 bytes")},

	"counter: one":                       {spec: counter("increment: 1, runID: r")},
	"counter: nothing":                   {spec: counter(""), want: uncheckedToo("spec.counter.increment: Required value, spec.counter.runID: Required value")},
	"counter: null":                      {spec: entry("counter: null"), want: oneValue},
	"counter: null and value":            {spec: entry("counter: null, value: v")},
	"counter: number":                    {spec: entry("counter: 5"), want: uncheckedToo(`spec.counter: Invalid value: "integer": spec.counter in body must be of type object: "integer"`)},
	"counter: value too":                 {spec: counter("increment: 1, runID: r", "value: v"), want: oneValue},
	"counter: json too":                  {spec: counter("increment: 1, runID: r", "json: 0"), want: oneValue},
	"counter: binary too":                {spec: counter("increment: 1, runID: r", "binary: AA=="), want: oneValue},
	"counter: valueFrom too":             {spec: counter("increment: 1, runID: r", "valueFrom: {configMapKeyRef: {name: a, key: b}}"), want: oneValue},
	"counter: added":                     {update: counter("increment: 1, runID: r"), want: stayCounter},
	"counter: added to the value":        {update: counter("increment: 1, runID: r", "value: v"), want: "[" + oneValue + ", " + stayCounter + "]"},
	"counter: removed":                   {spec: counter("increment: 1, runID: r"), update: entry(`value: "1"`), want: stayCounter},
	"counter: removed by null":           {spec: counter("increment: 1, runID: r"), update: entry(`counter: null, value: "1"`), want: stayCounter},
	"counter: kept":                      {spec: counter("increment: 1, runID: r"), update: counter("increment: 1, runID: r")},
	"counter: suspended":                 {spec: counter("increment: 1, runID: r"), update: counter("increment: 1, runID: r", "suspend: true")},
	"counter.increment: none":            {spec: counter("runID: r"), want: uncheckedToo("spec.counter.increment: Required value")},
	"counter.increment: null":            {spec: counter("increment: null, runID: r"), want: uncheckedToo("spec.counter.increment: Required value")},
	"counter.increment: 0":               {spec: counter("increment: 0, runID: r"), want: "spec.counter.increment: Invalid value: 0: must not be 0"},
	"counter.increment: negative":        {spec: counter("increment: -5, runID: r")},
	"counter.increment: most":            {spec: counter("increment: 9223372036854775807, runID: r")},
	"counter.increment: least":           {spec: counter("increment: -9223372036854775808, runID: r")},
	"counter.increment: over 64 bit":     {spec: counter("increment: 9223372036854775808, runID: r"), want: uncheckedToo(noInt64)},
	"counter.increment: under 64 bit":    {spec: counter("increment: -9223372036854775809, runID: r"), want: uncheckedToo(noInt64)},
	"counter.increment: a lot":           {spec: counter("increment: 100000000000000000000000000, runID: r"), want: uncheckedToo(noInt64)},
	"counter.increment: fraction":        {spec: counter("increment: 1.5, runID: r"), want: uncheckedToo(noInt64)},
	"counter.increment: text":            {spec: counter(`increment: "1", runID: r`), want: uncheckedToo(`spec.counter.increment: Invalid value: "string": spec.counter.increment in body must be of type integer: "string"`)},
	"counter.increment: changed":         {spec: counter("increment: 1, runID: r"), update: counter("increment: -2, runID: r")},
	"counter.increment: changed to 0":    {spec: counter("increment: 1, runID: r"), update: counter("increment: 0, runID: r"), want: "spec.counter.increment: Invalid value: 0: must not be 0"},
	"counter.runID: none":                {spec: counter("increment: 1"), want: uncheckedToo("spec.counter.runID: Required value")},
	"counter.runID: empty":               {spec: counter(`increment: 1, runID: ""`), want: `spec.counter.runID: Invalid value: "": spec.counter.runID in body should be at least 1 chars long`},
	"counter.runID: number":              {spec: counter("increment: 1, runID: 42"), want: uncheckedToo(`spec.counter.runID: Invalid value: "integer": spec.counter.runID in body must be of type string: "integer"`)},
	"counter.runID: any text":            {spec: counter(`increment: 1, runID: "a b\0\n:{}é"`)},
	"counter.runID: 128 characters":      {spec: counter("increment: 1, runID: " + strings.Repeat("é", 128))},
	"counter.runID: 129 characters":      {spec: counter("increment: 1, runID: " + strings.Repeat("a", 129)), want: uncheckedToo("spec.counter.runID: Too long: may not be more than 128 bytes")},
	"counter.runID: changed":             {spec: counter("increment: 1, runID: r"), update: counter("increment: 1, runID: s")},
	"counter.runID: with increment":      {spec: counter("increment: 1, runID: r"), update: counter("increment: 2, runID: s")},
	"counter: key changed":               {spec: counter("increment: 1, runID: r"), update: "{key: l, ttl: 1m, counter: {increment: 1, runID: r}}", want: stayKey},
	"counter: poolRef changed":           {spec: counter("increment: 1, runID: r", "poolRef: {name: a}"), update: counter("increment: 1, runID: r", "poolRef: {name: b}"), want: stayPoolRef},
	"counter: poolRef added":             {spec: counter("increment: 1, runID: r"), update: counter("increment: 1, runID: r", "poolRef: {name: a}"), want: stayPoolRef},
	"counter: poolRef removed":           {spec: counter("increment: 1, runID: r", "poolRef: {name: a}"), update: counter("increment: 1, runID: r"), want: stayPoolRef},
	"counter: poolRef, default added":    {spec: counter("increment: 1, runID: r"), update: counter("increment: 1, runID: r", "poolRef: {name: default}")},
	"counter: poolRef, default removed":  {spec: counter("increment: 1, runID: r", "poolRef: {name: default}"), update: counter("increment: 1, runID: r")},
	"counter: poolRef.namespace changed": {spec: counter("increment: 1, runID: r", "poolRef: {namespace: a}"), update: counter("increment: 1, runID: r", "poolRef: {namespace: b}"), want: stayPoolRef},
	"counter: poolRef.namespace removed": {spec: counter("increment: 1, runID: r", "poolRef: {namespace: a}"), update: counter("increment: 1, runID: r"), want: stayPoolRef},
	// No rule sees metadata.namespace, and so none can tell that this is the same.
	"counter: own namespace spelled out":   {spec: counter("increment: 1, runID: r"), update: counter("increment: 1, runID: r", "poolRef: {namespace: default}"), want: stayPoolRef},
	"counter: removed, other key and pool": {spec: counter("increment: 1, runID: r"), update: "{key: l, ttl: 1m, value: v, poolRef: {name: a}}", want: stayCounter},
	"counter: key and poolRef changed":     {spec: counter("increment: 1, runID: r"), update: "{key: l, ttl: 1m, counter: {increment: 1, runID: s}, poolRef: {name: a}}", want: "[" + stayKey + ", " + stayPoolRef + "]"},
	"counter: ttl changed":                 {spec: counter("increment: 1, runID: r"), update: "{key: k, ttl: 2m, counter: {increment: 1, runID: r}}"},
	"counter: forever":                     {spec: "{key: k, forever: true, counter: {increment: 1, runID: r}}"},
	"counter: forever instead of ttl":      {spec: counter("increment: 1, runID: r"), update: "{key: k, forever: true, counter: {increment: 1, runID: r}}"},
	"counter: no lifetime":                 {spec: "{key: k, counter: {increment: 1, runID: r}}", want: oneLifetime},
	"counter: deletionPolicy Delete":       {spec: counter("increment: 1, runID: r", "deletionPolicy: Delete")},
	"counter: deletionPolicy Retain":       {spec: counter("increment: 1, runID: r", "deletionPolicy: Retain")},
	"counter: deletionPolicy changed":      {spec: counter("increment: 1, runID: r"), update: counter("increment: 1, runID: r", "deletionPolicy: Delete")},
	"counter: policy Enforce":              {spec: counter("increment: 1, runID: r", "policy: Enforce"), want: noPolicy},
	"counter: policy EnsurePresent":        {spec: counter("increment: 1, runID: r", "policy: EnsurePresent"), want: noPolicy},
	"counter: policy WriteOnChange":        {spec: counter("increment: 1, runID: r", "policy: WriteOnChange"), want: noPolicy},
	"counter: policy Observe":              {spec: counter("increment: 1, runID: r", "policy: Observe"), want: noPolicy},
	"counter: policy added":                {spec: counter("increment: 1, runID: r"), update: counter("increment: 1, runID: r", "policy: Enforce"), want: noPolicy},

	"ttl: least":              {spec: timed("ttl: 1s")},
	"ttl: too short":          {spec: timed("ttl: 999ms"), want: `spec.ttl: Invalid value: "999ms": ` + badTTL},
	"ttl: most":               {spec: timed("ttl: 87600h")},
	"ttl: most, in seconds":   {spec: timed("ttl: 315360000s")},
	"ttl: too long":           {spec: timed("ttl: 87600h0m0.001s"), want: `spec.ttl: Invalid value: "87600h0m0.001s": ` + badTTL},
	"ttl: over 64 bit":        {spec: timed("ttl: 2562048h"), want: `spec.ttl: Invalid value: "string": type conversion error from 'string' to 'google.protobuf.Duration' evaluating rule: ` + badTTL},
	"ttl: every unit":         {spec: timed("ttl: 1h30m10s500ms")},
	"ttl: fraction":           {spec: timed("ttl: 1.5h")},
	"ttl: as Go writes it":    {spec: timed("ttl: 10m0s")},
	"ttl: empty":              {spec: timed(`ttl: ""`), want: `spec.ttl: Invalid value: "": ` + badTTL},
	"ttl: no unit":            {spec: timed(`ttl: "10"`), want: `spec.ttl: Invalid value: "10": ` + badTTL},
	"ttl: number":             {spec: timed("ttl: 10"), want: uncheckedToo(`spec.ttl: Invalid value: "integer": spec.ttl in body must be of type string: "integer"`)},
	"ttl: zero":               {spec: timed(`ttl: "0"`), want: `spec.ttl: Invalid value: "0": ` + badTTL},
	"ttl: negative":           {spec: timed("ttl: -10s"), want: `spec.ttl: Invalid value: "-10s": ` + badTTL},
	"ttl: sign":               {spec: timed("ttl: +10s"), want: `spec.ttl: Invalid value: "+10s": ` + badTTL},
	"ttl: days":               {spec: timed("ttl: 1d"), want: `spec.ttl: Invalid value: "1d": ` + badTTL},
	"ttl: microseconds":       {spec: timed("ttl: 2000000us"), want: `spec.ttl: Invalid value: "2000000us": ` + badTTL},
	"ttl: half a fraction":    {spec: timed("ttl: 1.s"), want: `spec.ttl: Invalid value: "1.s": ` + badTTL},
	"ttl: other half":         {spec: timed("ttl: .5h"), want: `spec.ttl: Invalid value: ".5h": ` + badTTL},
	"ttl: spaces":             {spec: timed("ttl: 1h 30m"), want: `spec.ttl: Invalid value: "1h 30m": ` + badTTL},
	"ttl: line":               {spec: timed(`ttl: "1h\n"`), want: `spec.ttl: Invalid value: "1h\n": ` + badTTL},
	"ttl: 32 bytes":           {spec: timed("ttl: " + strings.Repeat("1s", 16))},
	"ttl: 33 bytes":           {spec: timed("ttl: 1" + strings.Repeat("1s", 16)), want: uncheckedToo("spec.ttl: Too long: may not be more than 32 bytes")},
	"ttl: changed":            {update: timed("ttl: 2m")},
	"ttl: forever too":        {spec: timed("ttl: 1m, forever: true"), want: oneLifetime},
	"forever":                 {spec: timed("forever: true")},
	"forever: false":          {spec: timed("forever: false"), want: "spec.forever: Invalid value: false: must be true; leave it out and set ttl for a key with a lifetime"},
	"forever: instead of ttl": {update: timed("forever: true")},
	"no lifetime":             {spec: "{key: k, value: v}", want: oneLifetime},

	"policy: Enforce":                     {spec: entry("value: v, policy: Enforce")},
	"policy: EnsurePresent":               {spec: entry("value: v, policy: EnsurePresent")},
	"policy: WriteOnChange":               {spec: entry("value: v, policy: WriteOnChange")},
	"policy: Observe":                     {spec: entry("value: v, policy: Observe")},
	"policy: empty":                       {spec: entry(`value: v, policy: ""`), want: uncheckedToo(`spec.policy: Unsupported value: "": ` + policies)},
	"policy: other":                       {spec: entry("value: v, policy: enforce"), want: uncheckedToo(`spec.policy: Unsupported value: "enforce": ` + policies)},
	"policy: null":                        {spec: entry("value: v, policy: null")},
	"policy: set":                         {update: entry("value: v, policy: WriteOnChange")},
	"policy: changed":                     {spec: entry("value: v, policy: WriteOnChange"), update: entry("value: v, policy: Observe")},
	"policy: removed":                     {spec: entry("value: v, policy: Observe"), update: minimal["CacheEntry"]},
	"policy: changed with the value":      {spec: entry("value: v, policy: EnsurePresent"), update: entry("json: {}, policy: WriteOnChange")},
	"policy: Enforce, Secret":             {spec: entry("valueFrom: {secretKeyRef: {name: a, key: b}}, policy: Enforce")},
	"policy: EnsurePresent, Secret":       {spec: entry("valueFrom: {secretKeyRef: {name: a, key: b}}, policy: EnsurePresent")},
	"policy: Observe, Secret":             {spec: entry("valueFrom: {secretKeyRef: {name: a, key: b}}, policy: Observe")},
	"policy: WriteOnChange, Secret":       {spec: entry("valueFrom: {secretKeyRef: {name: a, key: b}}, policy: WriteOnChange"), want: noSecret},
	"policy: WriteOnChange, ConfigMap":    {spec: entry("valueFrom: {configMapKeyRef: {name: a, key: b}}, policy: WriteOnChange")},
	"policy: WriteOnChange for a Secret":  {spec: entry("valueFrom: {secretKeyRef: {name: a, key: b}}"), update: entry("valueFrom: {secretKeyRef: {name: a, key: b}}, policy: WriteOnChange"), want: noSecret},
	"policy: WriteOnChange, Secret comes": {spec: entry("value: v, policy: WriteOnChange"), update: entry("valueFrom: {secretKeyRef: {name: a, key: b}}, policy: WriteOnChange"), want: noSecret},

	"deletionPolicy: Delete":  {spec: entry("value: v, deletionPolicy: Delete")},
	"deletionPolicy: Retain":  {spec: entry("value: v, deletionPolicy: Retain")},
	"deletionPolicy: other":   {spec: entry("value: v, deletionPolicy: Keep"), want: uncheckedToo(`spec.deletionPolicy: Unsupported value: "Keep": supported values: "Delete", "Retain"`)},
	"deletionPolicy: empty":   {spec: entry(`value: v, deletionPolicy: ""`), want: uncheckedToo(`spec.deletionPolicy: Unsupported value: "": supported values: "Delete", "Retain"`)},
	"deletionPolicy: changed": {update: entry("value: v, deletionPolicy: Retain")},
	"suspend: on and off":     {spec: entry("value: v, suspend: true"), update: entry("value: v, suspend: false")},
}

func TestCacheEntryValidation(t *testing.T) { run(t, "CacheEntry", entryRows) }

// Every integer of 64 bits goes through the API server as it is, those too that no float64 holds, and a status shows 0.
func TestCacheEntryCounters(t *testing.T) {
	for _, number := range []int64{1, -5, 1<<53 + 1, -1<<53 - 1, math.MaxInt64, math.MaxInt64 - 1, math.MinInt64, math.MinInt64 + 1, 0} {
		t.Run(strconv.FormatInt(number, 10), func(t *testing.T) {
			increment := cmp.Or(number, 1) // 0 is no increment
			o := create(t, "CacheEntry", counter(fmt.Sprintf("increment: %d, runID: r", increment)))
			e, ok := typed(t, o).(*v1alpha1.CacheEntry)
			if !ok || e.Spec.Counter == nil {
				t.Fatal("no counter")
			}
			if want := (v1alpha1.CounterSpec{Increment: increment, RunID: "r"}); *e.Spec.Counter != want {
				t.Errorf("got %v, want %v", *e.Spec.Counter, want)
			}
			e.Status.Counter = &v1alpha1.CounterStatus{RunID: "r", Value: number}
			if err := api.Status().Update(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			if err := api.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
				t.Fatal(err)
			}
			for part, want := range map[string]map[string]any{
				"spec":   {"increment": increment, "runID": "r"},
				"status": {"runID": "r", "value": number},
			} {
				got, _, err := unstructured.NestedMap(o.Object, part, "counter")
				if err != nil {
					t.Fatal(err)
				}
				if diff := gocmp.Diff(want, got); diff != "" {
					t.Errorf("%s.counter (-want +got):\n%s", part, diff)
				}
			}
		})
	}
}

// What is stored is what was declared.
func TestCacheEntryValues(t *testing.T) {
	for spec, want := range map[string]string{
		"json: false":                   "false",
		"json: 0":                       "0",
		`json: ""`:                      `""`,
		"json: []":                      "[]",
		"json: {}":                      "{}",
		"json: {b: [1.5, null], a: é}":  `{"a":"é","b":[1.5,null]}`,
		`binary: ""`:                    "",
		`binary: "++//"`:                "\xfb\xef\xff",
		"binary: AAEC/w==":              "\x00\x01\x02\xff",
		`value: ""`:                     "",
		`value: "  two\n lines\0é  \n"`: "  two\n lines\x00é  \n",
	} {
		t.Run(spec, func(t *testing.T) {
			e, ok := typed(t, create(t, "CacheEntry", entry(spec))).(*v1alpha1.CacheEntry)
			if !ok {
				t.Fatal("no CacheEntry")
			}
			var got string
			switch {
			case e.Spec.Value != nil:
				got = *e.Spec.Value
			case e.Spec.JSON != nil:
				got = string(e.Spec.JSON)
			case e.Spec.Binary != nil:
				got = string(e.Spec.Binary)
			default:
				t.Fatal("no value")
			}
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}
