// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"fmt"
	"strings"
	"testing"
)

const (
	badAddress = `must be host:port with a port from 1 to 65535, for example redis.shop.svc:6379 ` +
		`(an IPv6 address in brackets, no redis:// in front)`
	badResyncPeriod = `must be a duration of at least 10s, such as 30s, 10m or 1h30m`
	badTimeout      = `must be a duration from 100ms to 1m, such as 500ms or 3s`
	badBudget       = `must be a duration from 100us to 1s, such as 500us or 2ms`
	ownKeyPrefix    = `must not overlap "cachewright:", which the operator keeps for itself`
	selectorAlone   = `spec.allowedNamespaces: Invalid value: selector must be set when from is Selector, and only then`
	oneAddress      = `spec.addresses: Invalid value: must be one with topology Standalone; several are for Sentinel and Cluster`
	badSentinel     = `spec.sentinel: Invalid value: must be set with topology Sentinel, and not with another`
	badDatabase     = `spec.database: Invalid value: must not be set with topology Cluster, which has only one`
	otherKeyPrefix  = `spec.keyPrefix: Invalid value: the prefix in effect cannot be changed; create another CachePool`
)

const (
	oneEndpoint  = "exactly one of the fields in [addresses urlSecretRef] must be set"
	notWithURL   = "must not be set together with urlSecretRef: the URL has user and password itself"
	noDBWithURL  = "must not be set together with urlSecretRef: the URL has the database itself, as in redis://redis.shop.svc:6379/5"
	urlReference = "urlSecretRef: {name: redis, key: url}"
)

// longest name of an object or a key.
var longest = strings.Repeat("a", 253)

// url is a spec with a URL and more fields.
func url(more string) string { return "{" + urlReference + ", " + more + "}" }

// pool is a spec with more fields than the required one.
func pool(more string) string { return `{addresses: ["redis:6379"], ` + more + `}` }

// sentinel is a spec with topology Sentinel and these fields of it.
func sentinel(fields string) string { return pool("topology: Sentinel, sentinel: {" + fields + "}") }

// numbers is a list of n different texts.
func numbers(n int) string {
	var list strings.Builder
	for i := range n {
		fmt.Fprintf(&list, `"%d", `, i)
	}
	return list.String()
}

var poolRows = map[string]row{
	"no spec": {spec: "null", want: uncheckedToo("spec: Required value")},

	"addresses: none":     {spec: "{}", want: "spec: Invalid value: " + oneEndpoint},
	"addresses: empty":    {spec: "{addresses: []}", want: "spec.addresses: Invalid value: 0: spec.addresses in body should have at least 1 items"},
	"addresses: two":      {spec: `{addresses: ["a:1", "b:1"]}`, want: oneAddress},
	"addresses: no text":  {spec: `{addresses: [""]}`, want: `[spec.addresses[0]: Invalid value: "": spec.addresses[0] in body should be at least 1 chars long, spec.addresses: Invalid value: ` + badAddress + "]"},
	"addresses: longest":  {spec: `{addresses: ["` + strings.Repeat("a", 254) + `:65535"]}`},
	"addresses: too long": {spec: `{addresses: ["` + strings.Repeat("a", 255) + `:65535"]}`, want: uncheckedToo("spec.addresses[0]: Too long: may not be more than 260 bytes")},
	"addresses: IPv4":     {spec: `{addresses: ["10.0.0.1:1"]}`},
	"addresses: IPv6":     {spec: `{addresses: ["[fd00::1]:6379"]}`},

	"addresses: IPv6 without brackets": {spec: `{addresses: ["fd00::1:6379"]}`, want: "spec.addresses: Invalid value: " + badAddress},
	"addresses: URL":                   {spec: `{addresses: ["redis://redis:6379"]}`, want: "spec.addresses: Invalid value: " + badAddress},
	"addresses: TLS URL":               {spec: `{addresses: ["rediss://redis:6379"]}`, want: "spec.addresses: Invalid value: " + badAddress},
	"addresses: database":              {spec: `{addresses: ["redis:6379/0"]}`, want: "spec.addresses: Invalid value: " + badAddress},
	"addresses: user":                  {spec: `{addresses: ["user@redis:6379"]}`, want: "spec.addresses: Invalid value: " + badAddress},
	"addresses: user and password":     {spec: `{addresses: ["user:password@redis:6379"]}`, want: "spec.addresses: Invalid value: " + badAddress},
	"addresses: space":                 {spec: `{addresses: ["redis :6379"]}`, want: "spec.addresses: Invalid value: " + badAddress},
	"addresses: no host":               {spec: `{addresses: [":6379"]}`, want: "spec.addresses: Invalid value: " + badAddress},
	"addresses: no port":               {spec: `{addresses: ["redis"]}`, want: "spec.addresses: Invalid value: " + badAddress},
	"addresses: empty port":            {spec: `{addresses: ["redis:"]}`, want: "spec.addresses: Invalid value: " + badAddress},
	"addresses: named port":            {spec: `{addresses: ["redis:redis"]}`, want: "spec.addresses: Invalid value: " + badAddress},
	"addresses: port 0":                {spec: `{addresses: ["redis:0"]}`, want: "spec.addresses: Invalid value: " + badAddress},
	"addresses: port 65536":            {spec: `{addresses: ["redis:65536"]}`, want: "spec.addresses: Invalid value: " + badAddress},
	"addresses: changed":               {update: `{addresses: ["other:6379"]}`},

	"urlSecretRef":                        {spec: url("")},
	"urlSecretRef: longest":               {spec: "{urlSecretRef: {name: " + longest + ", key: " + longest + "}}"},
	"urlSecretRef: addresses":             {spec: pool(urlReference), want: "spec: Invalid value: " + oneEndpoint},
	"urlSecretRef: nothing":               {spec: "{urlSecretRef: {}}", want: uncheckedToo("spec.urlSecretRef.key: Required value, spec.urlSecretRef.name: Required value")},
	"urlSecretRef: null":                  {spec: "{urlSecretRef: null}", want: "spec: Invalid value: " + oneEndpoint},
	"urlSecretRef.name: none":             {spec: "{urlSecretRef: {key: a}}", want: uncheckedToo("spec.urlSecretRef.name: Required value")},
	"urlSecretRef.name: empty":            {spec: `{urlSecretRef: {name: "", key: a}}`, want: tooShort("spec.urlSecretRef.name")},
	"urlSecretRef.name: long":             {spec: "{urlSecretRef: {name: " + strings.Repeat("a", 254) + ", key: a}}", want: tooLong("spec.urlSecretRef.name", 253)},
	"urlSecretRef.key: none":              {spec: "{urlSecretRef: {name: a}}", want: uncheckedToo("spec.urlSecretRef.key: Required value")},
	"urlSecretRef.key: empty":             {spec: `{urlSecretRef: {name: a, key: ""}}`, want: tooShort("spec.urlSecretRef.key")},
	"urlSecretRef.key: long":              {spec: "{urlSecretRef: {name: a, key: " + strings.Repeat("a", 254) + "}}", want: tooLong("spec.urlSecretRef.key", 253)},
	"urlSecretRef: credentials":           {spec: url("credentialsSecretRef: {name: a}"), want: "spec.credentialsSecretRef: Invalid value: " + notWithURL},
	"urlSecretRef: database":              {spec: url("database: 0"), want: "spec.database: Invalid value: " + noDBWithURL},
	"urlSecretRef: added":                 {update: url("")},
	"urlSecretRef: removed":               {spec: url(""), update: minimal["CachePool"]},
	"topology: Standalone":                {spec: pool("topology: Standalone")},
	"topology: other":                     {spec: pool("topology: Ring"), want: uncheckedToo(`spec.topology: Unsupported value: "Ring": supported values: "Standalone", "Sentinel", "Cluster"`)},
	"topology: Standalone, two addresses": {spec: `{topology: Standalone, addresses: ["a:1", "b:1"]}`, want: oneAddress},
	"topology: Cluster":                   {spec: pool("topology: Cluster")},
	"topology: Cluster, most addresses":   {spec: `{topology: Cluster, addresses: [` + strings.Repeat(`"a:1", `, 16) + "]}"},
	"topology: Cluster, more addresses":   {spec: `{topology: Cluster, addresses: [` + strings.Repeat(`"a:1", `, 17) + "]}", want: uncheckedToo("spec.addresses: Too many: 17: must have at most 16 items")},
	"topology: Cluster, one bad address":  {spec: `{topology: Cluster, addresses: ["a:1", "b"]}`, want: "spec.addresses: Invalid value: " + badAddress},
	"topology: Cluster, a database":       {spec: pool("topology: Cluster, database: 0"), want: badDatabase},
	"topology: Cluster, database 5":       {spec: pool("topology: Cluster, database: 5"), want: badDatabase},
	"topology: Cluster, sentinel":         {spec: pool("topology: Cluster, sentinel: {masterName: m}"), want: badSentinel},
	"topology: Sentinel":                  {spec: `{topology: Sentinel, addresses: ["a:1", "b:1"], sentinel: {masterName: m}, database: 5}`},
	"topology: Sentinel, no sentinel":     {spec: pool("topology: Sentinel"), want: badSentinel},
	"topology: changed":                   {update: pool("topology: Cluster")},
	"topology: changed to Sentinel":       {update: pool("topology: Sentinel, sentinel: {masterName: m}")},
	"sentinel: with Standalone":           {spec: pool("sentinel: {masterName: m}"), want: badSentinel},

	"sentinel.masterName: none":                   {spec: sentinel(""), want: uncheckedToo("spec.sentinel.masterName: Required value")},
	"sentinel.masterName: empty":                  {spec: sentinel(`masterName: ""`), want: `spec.sentinel.masterName: Invalid value: "": spec.sentinel.masterName in body should be at least 1 chars long`},
	"sentinel.masterName: longest":                {spec: sentinel("masterName: " + strings.Repeat("a", 253))},
	"sentinel.masterName: long":                   {spec: sentinel("masterName: " + strings.Repeat("a", 254)), want: uncheckedToo("spec.sentinel.masterName: Too long: may not be more than 253 bytes")},
	"sentinel.credentialsSecretRef: longest":      {spec: sentinel("masterName: m, credentialsSecretRef: {name: " + strings.Repeat("a", 253) + ", usernameKey: " + strings.Repeat("a", 253) + ", passwordKey: " + strings.Repeat("a", 253) + "}")},
	"sentinel.credentialsSecretRef: nothing":      {spec: sentinel("masterName: m, credentialsSecretRef: {}"), want: uncheckedToo("spec.sentinel.credentialsSecretRef.name: Required value")},
	"sentinel.credentialsSecretRef.name: empty":   {spec: sentinel(`masterName: m, credentialsSecretRef: {name: ""}`), want: `spec.sentinel.credentialsSecretRef.name: Invalid value: "": spec.sentinel.credentialsSecretRef.name in body should be at least 1 chars long`},
	"sentinel.credentialsSecretRef.name: long":    {spec: sentinel("masterName: m, credentialsSecretRef: {name: " + strings.Repeat("a", 254) + "}"), want: uncheckedToo("spec.sentinel.credentialsSecretRef.name: Too long: may not be more than 253 bytes")},
	"sentinel.credentialsSecretRef.usernameKey 0": {spec: sentinel(`masterName: m, credentialsSecretRef: {name: a, usernameKey: ""}`), want: `spec.sentinel.credentialsSecretRef.usernameKey: Invalid value: "": spec.sentinel.credentialsSecretRef.usernameKey in body should be at least 1 chars long`},
	"sentinel.credentialsSecretRef.usernameKey 1": {spec: sentinel("masterName: m, credentialsSecretRef: {name: a, usernameKey: " + strings.Repeat("a", 254) + "}"), want: uncheckedToo("spec.sentinel.credentialsSecretRef.usernameKey: Too long: may not be more than 253 bytes")},
	"sentinel.credentialsSecretRef.passwordKey 0": {spec: sentinel(`masterName: m, credentialsSecretRef: {name: a, passwordKey: ""}`), want: `spec.sentinel.credentialsSecretRef.passwordKey: Invalid value: "": spec.sentinel.credentialsSecretRef.passwordKey in body should be at least 1 chars long`},
	"sentinel.credentialsSecretRef.passwordKey 1": {spec: sentinel("masterName: m, credentialsSecretRef: {name: a, passwordKey: " + strings.Repeat("a", 254) + "}"), want: uncheckedToo("spec.sentinel.credentialsSecretRef.passwordKey: Too long: may not be more than 253 bytes")},

	"database: first":       {spec: pool("database: 0")},
	"database: another":     {spec: pool("database: 15")},
	"database: negative":    {spec: pool("database: -1"), want: "spec.database: Invalid value: -1: spec.database in body should be greater than or equal to 0"},
	"database: over 32 bit": {spec: pool("database: 2147483648"), want: `<nil>: Invalid value: "": Checked value must be of type integer with format int32 in spec.database`},
	"database: changed":     {spec: pool("database: 1"), update: pool("database: 2")},

	"credentialsSecretRef: longest":      {spec: pool("credentialsSecretRef: {name: " + strings.Repeat("a", 253) + ", usernameKey: " + strings.Repeat("a", 253) + ", passwordKey: " + strings.Repeat("a", 253) + "}")},
	"credentialsSecretRef: nothing":      {spec: pool("credentialsSecretRef: {}"), want: uncheckedToo("spec.credentialsSecretRef.name: Required value")},
	"credentialsSecretRef.name: empty":   {spec: pool(`credentialsSecretRef: {name: ""}`), want: `spec.credentialsSecretRef.name: Invalid value: "": spec.credentialsSecretRef.name in body should be at least 1 chars long`},
	"credentialsSecretRef.name: long":    {spec: pool("credentialsSecretRef: {name: " + strings.Repeat("a", 254) + "}"), want: uncheckedToo("spec.credentialsSecretRef.name: Too long: may not be more than 253 bytes")},
	"credentialsSecretRef.usernameKey 0": {spec: pool(`credentialsSecretRef: {name: a, usernameKey: ""}`), want: `spec.credentialsSecretRef.usernameKey: Invalid value: "": spec.credentialsSecretRef.usernameKey in body should be at least 1 chars long`},
	"credentialsSecretRef.usernameKey 1": {spec: pool("credentialsSecretRef: {name: a, usernameKey: " + strings.Repeat("a", 254) + "}"), want: uncheckedToo("spec.credentialsSecretRef.usernameKey: Too long: may not be more than 253 bytes")},
	"credentialsSecretRef.passwordKey 0": {spec: pool(`credentialsSecretRef: {name: a, passwordKey: ""}`), want: `spec.credentialsSecretRef.passwordKey: Invalid value: "": spec.credentialsSecretRef.passwordKey in body should be at least 1 chars long`},
	"credentialsSecretRef.passwordKey 1": {spec: pool("credentialsSecretRef: {name: a, passwordKey: " + strings.Repeat("a", 254) + "}"), want: uncheckedToo("spec.credentialsSecretRef.passwordKey: Too long: may not be more than 253 bytes")},

	"keyPrefix: one byte":                {spec: pool("keyPrefix: p")},
	"keyPrefix: empty":                   {spec: pool(`keyPrefix: ""`), want: `[spec.keyPrefix: Invalid value: "": spec.keyPrefix in body should be at least 1 chars long, spec.keyPrefix: Invalid value: "": ` + ownKeyPrefix + "]"},
	"keyPrefix: 320 bytes":               {spec: pool("keyPrefix: " + strings.Repeat("é", 160))},
	"keyPrefix: 321 bytes":               {spec: pool("keyPrefix: a" + strings.Repeat("é", 160)), want: `spec.keyPrefix: Invalid value: "a` + strings.Repeat("é", 160) + `": must be at most 320 bytes`},
	"keyPrefix: 321 characters":          {spec: pool("keyPrefix: " + strings.Repeat("a", 321)), want: uncheckedToo("spec.keyPrefix: Too long: may not be more than 320 bytes")},
	"keyPrefix: the operator's":          {spec: pool(`keyPrefix: "cachewright:"`), want: `spec.keyPrefix: Invalid value: "cachewright:": ` + ownKeyPrefix},
	"keyPrefix: within the operator's":   {spec: pool(`keyPrefix: "cachewright:x"`), want: `spec.keyPrefix: Invalid value: "cachewright:x": ` + ownKeyPrefix},
	"keyPrefix: around the operator's":   {spec: pool(`keyPrefix: "cachewright"`), want: `spec.keyPrefix: Invalid value: "cachewright": ` + ownKeyPrefix},
	"keyPrefix: c":                       {spec: pool("keyPrefix: c"), want: `spec.keyPrefix: Invalid value: "c": ` + ownKeyPrefix},
	"keyPrefix: beside the operator's":   {spec: pool("keyPrefix: cachewrights")},
	"keyPrefix: kept":                    {spec: pool("keyPrefix: p"), update: pool("keyPrefix: p, suspend: true")},
	"keyPrefix: never there":             {update: pool("suspend: true")},
	"keyPrefix: added":                   {update: pool("keyPrefix: p"), want: otherKeyPrefix},
	"keyPrefix: removed":                 {spec: pool("keyPrefix: p"), update: minimal["CachePool"], want: otherKeyPrefix},
	"keyPrefix: changed":                 {spec: pool("keyPrefix: p"), update: pool("keyPrefix: q"), want: otherKeyPrefix},
	"keyPrefix: default added":           {update: pool(`keyPrefix: "glimr:cache:x:"`)},
	"keyPrefix: default removed":         {spec: pool(`keyPrefix: "glimr:cache:x:"`), update: minimal["CachePool"]},
	"keyPrefix: another's default added": {update: pool(`keyPrefix: "glimr:cache:y:"`), want: otherKeyPrefix},

	"resyncPeriod: least":      {spec: pool("resyncPeriod: 10s")},
	"resyncPeriod: too short":  {spec: pool("resyncPeriod: 9.999s"), want: `spec.resyncPeriod: Invalid value: "9.999s": ` + badResyncPeriod},
	"resyncPeriod: no unit":    {spec: pool(`resyncPeriod: "600"`), want: `spec.resyncPeriod: Invalid value: "600": ` + badResyncPeriod},
	"resyncPeriod: days":       {spec: pool("resyncPeriod: 1d"), want: `spec.resyncPeriod: Invalid value: "1d": ` + badResyncPeriod},
	"resyncPeriod: long":       {spec: pool("resyncPeriod: 2562047h")},
	"resyncPeriod: over 64bit": {spec: pool("resyncPeriod: 2562048h"), want: `spec.resyncPeriod: Invalid value: "string": type conversion error from 'string' to 'google.protobuf.Duration' evaluating rule: ` + badResyncPeriod},
	"resyncPeriod: 32 bytes":   {spec: pool("resyncPeriod: " + strings.Repeat("100s", 8))},
	"resyncPeriod: 33 bytes":   {spec: pool("resyncPeriod: " + "1" + strings.Repeat("100s", 8)), want: uncheckedToo("spec.resyncPeriod: Too long: may not be more than 32 bytes")},
	"resyncPeriod: changed":    {update: pool("resyncPeriod: 1h")},

	"timeout: least":     {spec: pool("timeout: 100ms")},
	"timeout: too short": {spec: pool("timeout: 99ms"), want: `spec.timeout: Invalid value: "99ms": ` + badTimeout},
	"timeout: most":      {spec: pool("timeout: 1m")},
	"timeout: too long":  {spec: pool("timeout: 1m0.001s"), want: `spec.timeout: Invalid value: "1m0.001s": ` + badTimeout},
	"timeout: no unit":   {spec: pool(`timeout: "3"`), want: `spec.timeout: Invalid value: "3": ` + badTimeout},
	"timeout: 33 bytes":  {spec: pool("timeout: " + "1" + strings.Repeat("100s", 8)), want: uncheckedToo("spec.timeout: Too long: may not be more than 32 bytes")},
	"timeout: changed":   {update: pool("timeout: 1s")},

	"flushLimits: empty":   {spec: pool("flushLimits: {}"), want: "spec.flushLimits: Invalid value: 0: spec.flushLimits in body should have at least 1 properties"},
	"flushLimits: null":    {spec: pool("flushLimits: null")},
	"flushLimits: all":     {spec: pool(`flushLimits: {latencyBudget: 2ms, maxKeysPerSecond: 50000, maxKeys: 1000000, protectedPrefixes: ["session:"]}`)},
	"flushLimits: added":   {update: pool("flushLimits: {maxKeysPerSecond: 1}")},
	"flushLimits: changed": {spec: pool("flushLimits: {maxKeysPerSecond: 1}"), update: pool("flushLimits: {latencyBudget: 1ms}")},
	"flushLimits: removed": {spec: pool("flushLimits: {maxKeysPerSecond: 1}"), update: minimal["CachePool"]},

	"flushLimits.latencyBudget: least":     {spec: pool("flushLimits: {latencyBudget: 100us}")},
	"flushLimits.latencyBudget: too short": {spec: pool("flushLimits: {latencyBudget: 99us}"), want: `spec.flushLimits.latencyBudget: Invalid value: "99us": ` + badBudget},
	"flushLimits.latencyBudget: most":      {spec: pool("flushLimits: {latencyBudget: 1s}")},
	"flushLimits.latencyBudget: too long":  {spec: pool("flushLimits: {latencyBudget: 1s1us}"), want: `spec.flushLimits.latencyBudget: Invalid value: "1s1us": ` + badBudget},
	"flushLimits.latencyBudget: fraction":  {spec: pool("flushLimits: {latencyBudget: 1.5ms}")},
	"flushLimits.latencyBudget: no unit":   {spec: pool(`flushLimits: {latencyBudget: "2"}`), want: `spec.flushLimits.latencyBudget: Invalid value: "2": ` + badBudget},
	"flushLimits.latencyBudget: minutes":   {spec: pool("flushLimits: {latencyBudget: 0.01m}"), want: `spec.flushLimits.latencyBudget: Invalid value: "0.01m": ` + badBudget},
	"flushLimits.latencyBudget: empty":     {spec: pool(`flushLimits: {latencyBudget: ""}`), want: `spec.flushLimits.latencyBudget: Invalid value: "": ` + badBudget},
	"flushLimits.latencyBudget: 32 bytes":  {spec: pool("flushLimits: {latencyBudget: " + strings.Repeat("10ms", 8) + "}")},
	"flushLimits.latencyBudget: 33 bytes":  {spec: pool("flushLimits: {latencyBudget: 1" + strings.Repeat("10ms", 8) + "}"), want: uncheckedToo("spec.flushLimits.latencyBudget: Too long: may not be more than 32 bytes")},

	"flushLimits.maxKeys: least": {spec: pool("flushLimits: {maxKeys: 1}")},
	"flushLimits.maxKeys: most":  {spec: pool("flushLimits: {maxKeys: 9223372036854775807}")},
	"flushLimits.maxKeys: zero":  {spec: pool("flushLimits: {maxKeys: 0}"), want: "spec.flushLimits.maxKeys: Invalid value: 0: spec.flushLimits.maxKeys in body should be greater than or equal to 1"},

	"flushLimits.maxKeysPerSecond: least": {spec: pool("flushLimits: {maxKeysPerSecond: 1}")},
	"flushLimits.maxKeysPerSecond: most":  {spec: pool("flushLimits: {maxKeysPerSecond: 9223372036854775807}")},
	"flushLimits.maxKeysPerSecond: zero":  {spec: pool("flushLimits: {maxKeysPerSecond: 0}"), want: "spec.flushLimits.maxKeysPerSecond: Invalid value: 0: spec.flushLimits.maxKeysPerSecond in body should be greater than or equal to 1"},

	"flushLimits.protectedPrefixes: none":            {spec: pool("flushLimits: {protectedPrefixes: []}"), want: "spec.flushLimits.protectedPrefixes: Invalid value: 0: spec.flushLimits.protectedPrefixes in body should have at least 1 items"},
	"flushLimits.protectedPrefixes: empty one":       {spec: pool(`flushLimits: {protectedPrefixes: [""]}`), want: `spec.flushLimits.protectedPrefixes[0]: Invalid value: "": spec.flushLimits.protectedPrefixes[0] in body should be at least 1 chars long`},
	"flushLimits.protectedPrefixes: 100":             {spec: pool("flushLimits: {protectedPrefixes: [" + numbers(100) + "]}")},
	"flushLimits.protectedPrefixes: 101":             {spec: pool("flushLimits: {protectedPrefixes: [" + numbers(101) + "]}"), want: uncheckedToo("spec.flushLimits.protectedPrefixes: Too many: 101: must have at most 100 items")},
	"flushLimits.protectedPrefixes: twice":           {spec: pool("flushLimits: {protectedPrefixes: [a, a]}"), want: `spec.flushLimits.protectedPrefixes[1]: Duplicate value: "a"`},
	"flushLimits.protectedPrefixes: 1024 bytes":      {spec: pool("flushLimits: {protectedPrefixes: [" + strings.Repeat("é", 512) + "]}")},
	"flushLimits.protectedPrefixes: 1025 bytes":      {spec: pool("flushLimits: {protectedPrefixes: [a" + strings.Repeat("é", 512) + "]}"), want: `spec.flushLimits.protectedPrefixes[0]: Invalid value: "a` + strings.Repeat("é", 512) + `": must be at most 1024 bytes`},
	"flushLimits.protectedPrefixes: 1025 characters": {spec: pool("flushLimits: {protectedPrefixes: [" + strings.Repeat("a", 1025) + "]}"), want: uncheckedToo("spec.flushLimits.protectedPrefixes[0]: Too long: may not be more than 1024 bytes")},
	"flushLimits.protectedPrefixes: any characters":  {spec: pool(`flushLimits: {protectedPrefixes: ["*", "[", "\\", "a b"]}`)},

	"tls: empty":                              {spec: pool("tls: {}")},
	"tls: with a URL":                         {spec: url("tls: {}")},
	"tls: all":                                {spec: pool("tls: {caRef: {kind: ConfigMap, name: ca, key: ca.crt}, clientCertificateSecretRef: {name: client}, serverName: redis, verification: None}")},
	"tls: longest":                            {spec: pool("tls: {caRef: {kind: Secret, name: " + longest + ", key: " + longest + "}, clientCertificateSecretRef: {name: " + longest + "}, serverName: " + longest + ", verification: Full}")},
	"tls: added":                              {update: pool("tls: {}")},
	"tls: changed":                            {spec: pool("tls: {serverName: a}"), update: pool("tls: {serverName: b}")},
	"tls: removed":                            {spec: pool("tls: {}"), update: minimal["CachePool"]},
	"tls.caRef: nothing":                      {spec: pool("tls: {caRef: {}}"), want: uncheckedToo("spec.tls.caRef.key: Required value, spec.tls.caRef.kind: Required value, spec.tls.caRef.name: Required value")},
	"tls.caRef.kind: none":                    {spec: pool("tls: {caRef: {name: a, key: a}}"), want: uncheckedToo("spec.tls.caRef.kind: Required value")},
	"tls.caRef.kind: other":                   {spec: pool("tls: {caRef: {kind: secret, name: a, key: a}}"), want: uncheckedToo(`spec.tls.caRef.kind: Unsupported value: "secret": supported values: "Secret", "ConfigMap"`)},
	"tls.caRef.name: none":                    {spec: pool("tls: {caRef: {kind: Secret, key: a}}"), want: uncheckedToo("spec.tls.caRef.name: Required value")},
	"tls.caRef.name: empty":                   {spec: pool(`tls: {caRef: {kind: Secret, name: "", key: a}}`), want: tooShort("spec.tls.caRef.name")},
	"tls.caRef.name: long":                    {spec: pool("tls: {caRef: {kind: Secret, name: a" + longest + ", key: a}}"), want: tooLong("spec.tls.caRef.name", 253)},
	"tls.caRef.key: none":                     {spec: pool("tls: {caRef: {kind: Secret, name: a}}"), want: uncheckedToo("spec.tls.caRef.key: Required value")},
	"tls.caRef.key: empty":                    {spec: pool(`tls: {caRef: {kind: Secret, name: a, key: ""}}`), want: tooShort("spec.tls.caRef.key")},
	"tls.caRef.key: long":                     {spec: pool("tls: {caRef: {kind: Secret, name: a, key: a" + longest + "}}"), want: tooLong("spec.tls.caRef.key", 253)},
	"tls.clientCertificateSecretRef: nothing": {spec: pool("tls: {clientCertificateSecretRef: {}}"), want: uncheckedToo("spec.tls.clientCertificateSecretRef.name: Required value")},
	"tls.clientCertificateSecretRef: empty":   {spec: pool(`tls: {clientCertificateSecretRef: {name: ""}}`), want: tooShort("spec.tls.clientCertificateSecretRef.name")},
	"tls.clientCertificateSecretRef: long":    {spec: pool("tls: {clientCertificateSecretRef: {name: a" + longest + "}}"), want: tooLong("spec.tls.clientCertificateSecretRef.name", 253)},
	"tls.serverName: empty":                   {spec: pool(`tls: {serverName: ""}`), want: tooShort("spec.tls.serverName")},
	"tls.serverName: long":                    {spec: pool("tls: {serverName: a" + longest + "}"), want: tooLong("spec.tls.serverName", 253)},
	"tls.verification: other":                 {spec: pool("tls: {verification: none}"), want: uncheckedToo(`spec.tls.verification: Unsupported value: "none": supported values: "Full", "None"`)},
	"allowedNamespaces: nothing":              {spec: pool("allowedNamespaces: {}")},
	"allowedNamespaces: Same":                 {spec: pool("allowedNamespaces: {from: Same}"), update: pool("allowedNamespaces: {from: All}")},
	"allowedNamespaces: Selector":             {spec: pool("allowedNamespaces: {from: Selector, selector: {matchLabels: {team: a}, matchExpressions: [{key: a, operator: In, values: [b]}]}}")},
	"allowedNamespaces: selector of all":      {spec: pool("allowedNamespaces: {from: Selector, selector: {}}")},
	"allowedNamespaces: other":                {spec: pool("allowedNamespaces: {from: Some}"), want: uncheckedToo(`spec.allowedNamespaces.from: Unsupported value: "Some": supported values: "Same", "All", "Selector"`)},
	"allowedNamespaces: Selector without":     {spec: pool("allowedNamespaces: {from: Selector}"), want: selectorAlone},
	"allowedNamespaces: All with selector":    {spec: pool("allowedNamespaces: {from: All, selector: {}}"), want: selectorAlone},
	"allowedNamespaces: selector alone":       {spec: pool("allowedNamespaces: {selector: {matchLabels: {team: a}}}"), want: selectorAlone},
	"allowedNamespaces: selector added":       {spec: pool("allowedNamespaces: {from: All}"), update: pool("allowedNamespaces: {from: All, selector: {}}"), want: selectorAlone},
	"allowedNamespaces.selector: no key":      {spec: pool("allowedNamespaces: {from: Selector, selector: {matchExpressions: [{operator: Exists}]}}"), want: uncheckedToo("spec.allowedNamespaces.selector.matchExpressions[0].key: Required value")},
	"allowedNamespaces.selector: no operator": {spec: pool("allowedNamespaces: {from: Selector, selector: {matchExpressions: [{key: a}]}}"), want: uncheckedToo("spec.allowedNamespaces.selector.matchExpressions[0].operator: Required value")},

	"suspend: no truth value": {spec: pool(`suspend: "true"`), want: uncheckedToo(`spec.suspend: Invalid value: "string": spec.suspend in body must be of type boolean: "string"`)},
	"suspend: on and off":     {spec: pool("suspend: true"), update: pool("suspend: false")},
}

func TestCachePoolValidation(t *testing.T) { run(t, "CachePool", poolRows) }
