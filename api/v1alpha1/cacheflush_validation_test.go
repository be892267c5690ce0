// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"strconv"
	"strings"
	"testing"
)

const (
	oneTarget      = `spec: Invalid value: exactly one of the fields in [all prefix match keys] must be set`
	immutableFlush = `spec: Invalid value: is immutable except suspend, maxKeysPerSecond and ttlSecondsAfterFinished, or together with a new runID; create another CacheFlush`
	removedRun     = `spec.runID: Invalid value: cannot be removed, only changed`
	perishableRun  = `spec.ttlSecondsAfterFinished: Invalid value: must not be set together with runID: the object is to stay for the next run`
	badMatch       = `must be a complete Redis glob: every [ needs its ] (the one in [a-] ends a range, the one in [\] is escaped), ` +
		`and every \ a character behind it`
)

var flushRows = map[string]row{
	"no spec": {spec: "null", want: uncheckedToo("spec: Required value")},

	"poolRef: changed":            {update: "{all: true, poolRef: {name: other}}", want: immutableFlush},
	"poolRef: default added":      {update: "{all: true, poolRef: {name: default}}"},
	"poolRef: removed":            {spec: "{all: true, poolRef: {name: main}}", update: "{all: true}", want: immutableFlush},
	"poolRef.namespace: another":  {spec: `{all: true, poolRef: {name: main, namespace: shop-1}}`},
	"poolRef.namespace: alone":    {spec: `{all: true, poolRef: {namespace: shop}}`},
	"poolRef.namespace: empty":    {spec: `{all: true, poolRef: {namespace: ""}}`, want: `spec.poolRef.namespace: Invalid value: "": spec.poolRef.namespace in body should be at least 1 chars long`},
	"poolRef.namespace: no name":  {spec: `{all: true, poolRef: {namespace: "a:b"}}`, want: `spec.poolRef.namespace: Invalid value: "a:b": spec.poolRef.namespace in body should match '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'`},
	"poolRef.namespace: longest":  {spec: "{all: true, poolRef: {namespace: " + strings.Repeat("a", 63) + "}}"},
	"poolRef.namespace: too long": {spec: "{all: true, poolRef: {namespace: " + strings.Repeat("a", 64) + "}}", want: uncheckedToo("spec.poolRef.namespace: Too long: may not be more than 63 bytes")},
	"poolRef.namespace: added":    {update: "{all: true, poolRef: {namespace: a}}", want: immutableFlush},
	"poolRef.name: empty":         {spec: `{all: true, poolRef: {name: ""}}`, want: `spec.poolRef.name: Invalid value: "": spec.poolRef.name in body should be at least 1 chars long`},
	"poolRef.name: longest":       {spec: "{all: true, poolRef: {name: " + strings.Repeat("a", 253) + "}}"},
	"poolRef.name: too long":      {spec: "{all: true, poolRef: {name: " + strings.Repeat("a", 254) + "}}", want: uncheckedToo("spec.poolRef.name: Too long: may not be more than 253 bytes")},

	"no target":                 {spec: "{}", want: oneTarget},
	"target: all and prefix":    {spec: "{all: true, prefix: a}", want: oneTarget},
	"target: match and keys":    {spec: `{match: "a*", keys: [a]}`, want: oneTarget},
	"target: prefix and match":  {spec: `{prefix: a, match: "a*"}`, want: oneTarget},
	"target: prefix and keys":   {spec: "{prefix: a, keys: [a]}", want: oneTarget},
	"target: all for prefix":    {spec: "{prefix: a}", update: "{all: true}", want: immutableFlush},
	"target: prefix for all":    {update: "{prefix: a}", want: immutableFlush},
	"target: match for prefix":  {spec: "{prefix: a}", update: "{match: a}", want: immutableFlush},
	"target: keys for match":    {spec: "{match: a}", update: "{keys: [a]}", want: immutableFlush},
	"target: another prefix":    {spec: "{prefix: a}", update: "{prefix: b}", want: immutableFlush},
	"target: another match":     {spec: "{match: a}", update: "{match: b}", want: immutableFlush},
	"target: other keys":        {spec: "{keys: [a, b]}", update: "{keys: [b, a]}", want: immutableFlush},
	"target: fewer keys":        {spec: "{keys: [a, b]}", update: "{keys: [a]}", want: immutableFlush},
	"target: the same all":      {update: "{all: true, suspend: true}"},
	"target: the same prefix":   {spec: "{prefix: a}", update: "{prefix: a, suspend: true}"},
	"target: the same match":    {spec: "{match: a}", update: "{match: a, suspend: true}"},
	"target: the same keys":     {spec: "{keys: [a, b]}", update: "{keys: [a, b], suspend: true}"},
	"target: most and the same": {spec: mostKeys("a"), update: mostKeys("a")},
	"target: most, one other":   {spec: mostKeys("a"), update: mostKeys("b"), want: immutableFlush},

	"all: false":            {spec: "{all: false}", want: "spec.all: Invalid value: false: must be true; leave it out and set prefix, match or keys to flush less"},
	"all: false and prefix": {spec: "{all: false, prefix: a}", want: "[" + oneTarget + ", spec.all: Invalid value: false: must be true; leave it out and set prefix, match or keys to flush less]"},

	"prefix: one byte":        {spec: "{prefix: a}"},
	"prefix: empty":           {spec: `{prefix: ""}`, want: `spec.prefix: Invalid value: "": spec.prefix in body should be at least 1 chars long`},
	"prefix: glob characters": {spec: `{prefix: "[*\\"}`},
	"prefix: 1024 bytes":      {spec: "{prefix: " + strings.Repeat("é", 512) + "}"},
	"prefix: 1025 bytes":      {spec: "{prefix: a" + strings.Repeat("é", 512) + "}", want: `spec.prefix: Invalid value: "a` + strings.Repeat("é", 512) + `": must be at most 1024 bytes`},
	"prefix: 1025 characters": {spec: "{prefix: " + strings.Repeat("a", 1025) + "}", want: uncheckedToo("spec.prefix: Too long: may not be more than 1024 bytes")},

	"keys: none":            {spec: "{keys: []}", want: "spec.keys: Invalid value: 0: spec.keys in body should have at least 1 items"},
	"keys: null":            {spec: "{keys: null}", want: oneTarget},
	"keys: twice the same":  {spec: "{keys: [a, a]}"},
	"keys: 1000":            {spec: "{keys: [" + strings.Repeat("a, ", 1000) + "]}"},
	"keys: 1001":            {spec: "{keys: [" + strings.Repeat("a, ", 1001) + "]}", want: uncheckedToo("spec.keys: Too many: 1001: must have at most 1000 items")},
	"keys: empty key":       {spec: `{keys: [a, ""]}`, want: `spec.keys[1]: Invalid value: "": spec.keys[1] in body should be at least 1 chars long`},
	"keys: 1024 bytes":      {spec: "{keys: [" + strings.Repeat("é", 512) + "]}"},
	"keys: 1025 bytes":      {spec: "{keys: [a" + strings.Repeat("é", 512) + "]}", want: `spec.keys[0]: Invalid value: "a` + strings.Repeat("é", 512) + `": must be at most 1024 bytes`},
	"keys: 1025 characters": {spec: "{keys: [" + strings.Repeat("a", 1025) + "]}", want: uncheckedToo("spec.keys[0]: Too long: may not be more than 1024 bytes")},

	"match: empty":           {spec: `{match: ""}`, want: `spec.match: Invalid value: "": spec.match in body should be at least 1 chars long`},
	"match: 1024 bytes":      {spec: "{match: " + strings.Repeat("é", 512) + "}"},
	"match: 1025 bytes":      {spec: "{match: a" + strings.Repeat("é", 512) + "}", want: `spec.match: Invalid value: "a` + strings.Repeat("é", 512) + `": must be at most 1024 bytes`},
	"match: 1025 characters": {spec: "{match: " + strings.Repeat("a", 1025) + "}", want: uncheckedToo("spec.match: Too long: may not be more than 1024 bytes")},
	"match: many classes":    {spec: "{match: '" + strings.Repeat("[a-z]", 204) + "'}"},
	"match: many openings":   {spec: "{match: '" + strings.Repeat("[", 1024) + "'}", want: `spec.match: Invalid value: "` + strings.Repeat("[", 1024) + `": ` + badMatch},

	"mode: Delete":           {spec: "{all: true, mode: Delete}"},
	"mode: DryRun":           {spec: "{all: true, mode: DryRun}"},
	"mode: other":            {spec: "{all: true, mode: Count}", want: uncheckedToo(`spec.mode: Unsupported value: "Count": supported values: "Delete", "DryRun"`)},
	"mode: empty":            {spec: `{all: true, mode: ""}`, want: uncheckedToo(`spec.mode: Unsupported value: "": supported values: "Delete", "DryRun"`)},
	"mode: changed":          {spec: "{all: true, mode: DryRun}", update: "{all: true, mode: Delete}", want: immutableFlush},
	"mode: removed":          {spec: "{all: true, mode: DryRun}", update: "{all: true}", want: immutableFlush},
	"mode: default, removed": {spec: "{all: true, mode: Delete}", update: "{all: true}"},

	"suspend: on and off": {spec: "{all: true, suspend: true}", update: "{all: true, suspend: false}"},
	"suspend: set":        {update: "{all: true, suspend: true}"},

	"declaredEntries: Preserve":        {spec: "{all: true, declaredEntries: Preserve}"},
	"declaredEntries: Rewrite":         {spec: "{all: true, declaredEntries: Rewrite}"},
	"declaredEntries: other":           {spec: "{all: true, declaredEntries: Delete}", want: uncheckedToo(`spec.declaredEntries: Unsupported value: "Delete": supported values: "Preserve", "Rewrite"`)},
	"declaredEntries: changed":         {spec: "{all: true}", update: "{all: true, declaredEntries: Rewrite}", want: immutableFlush},
	"declaredEntries: default added":   {spec: "{all: true}", update: "{all: true, declaredEntries: Preserve}"},
	"declaredEntries: default removed": {spec: "{all: true, declaredEntries: Preserve}", update: "{all: true}"},
	"declaredEntries: with a new run":  {spec: "{all: true, runID: v1}", update: "{all: true, runID: v2, declaredEntries: Rewrite}"},

	"maxKeys: least":          {spec: "{all: true, maxKeys: 1}"},
	"maxKeys: most":           {spec: "{all: true, maxKeys: 9223372036854775807}"},
	"maxKeys: zero":           {spec: "{all: true, maxKeys: 0}", want: "spec.maxKeys: Invalid value: 0: spec.maxKeys in body should be greater than or equal to 1"},
	"maxKeys: set":            {update: "{all: true, maxKeys: 10}", want: immutableFlush},
	"maxKeys: changed":        {spec: "{all: true, maxKeys: 10}", update: "{all: true, maxKeys: 100}", want: immutableFlush},
	"maxKeys: removed":        {spec: "{all: true, maxKeys: 10}", update: "{all: true}", want: immutableFlush},
	"maxKeys: with a new run": {spec: "{all: true, runID: v1, maxKeys: 10}", update: "{all: true, runID: v2}"},

	"maxKeysPerSecond: least":      {spec: "{all: true, maxKeysPerSecond: 1}"},
	"maxKeysPerSecond: most":       {spec: "{all: true, maxKeysPerSecond: 9223372036854775807}"},
	"maxKeysPerSecond: zero":       {spec: "{all: true, maxKeysPerSecond: 0}", want: "spec.maxKeysPerSecond: Invalid value: 0: spec.maxKeysPerSecond in body should be greater than or equal to 1"},
	"maxKeysPerSecond: fraction":   {spec: "{all: true, maxKeysPerSecond: 1.5}", want: uncheckedToo(`spec.maxKeysPerSecond: Invalid value: "float64": spec.maxKeysPerSecond in body must be of type int64: "float64", <nil>: Invalid value: "": Checked value must be of type integer with format int64 in spec.maxKeysPerSecond`)},
	"maxKeysPerSecond: set":        {update: "{all: true, maxKeysPerSecond: 10}"},
	"maxKeysPerSecond: changed":    {spec: "{all: true, maxKeysPerSecond: 10}", update: "{all: true, maxKeysPerSecond: 1}"},
	"maxKeysPerSecond: removed":    {spec: "{all: true, maxKeysPerSecond: 10}", update: "{all: true}"},
	"maxKeysPerSecond: with a run": {spec: "{all: true, runID: v1, maxKeysPerSecond: 10}", update: "{all: true, runID: v1, maxKeysPerSecond: 1, suspend: true}"},

	"runID: empty":                        {spec: `{all: true, runID: ""}`, want: `spec.runID: Invalid value: "": spec.runID in body should be at least 1 chars long`},
	"runID: 128 characters":               {spec: "{all: true, runID: " + strings.Repeat("é", 128) + "}"},
	"runID: 129 characters":               {spec: "{all: true, runID: " + strings.Repeat("é", 129) + "}", want: uncheckedToo("spec.runID: Too long: may not be more than 128 bytes")},
	"runID: added":                        {update: "{all: true, runID: v1}"},
	"runID: changed":                      {spec: "{all: true, runID: v1}", update: "{all: true, runID: v2}"},
	"runID: removed":                      {spec: "{all: true, runID: v1}", update: "{all: true}", want: removedRun},
	"runID: null":                         {spec: "{all: true, runID: v1}", update: "{all: true, runID: null}", want: removedRun},
	"runID: removed, with another target": {spec: "{all: true, runID: v1}", update: "{prefix: a}", want: removedRun},
	"runID: the same, suspended":          {spec: "{all: true, runID: v1}", update: "{all: true, runID: v1, suspend: true}"},

	"runID: the same, another poolRef":  {spec: "{all: true, runID: v1}", update: "{all: true, runID: v1, poolRef: {name: other}}", want: immutableFlush},
	"runID: the same, another mode":     {spec: "{all: true, runID: v1}", update: "{all: true, runID: v1, mode: DryRun}", want: immutableFlush},
	"runID: the same, another target":   {spec: "{all: true, runID: v1}", update: "{prefix: a, runID: v1}", want: immutableFlush},
	"runID: the same, another prefix":   {spec: "{prefix: a, runID: v1}", update: "{prefix: b, runID: v1}", want: immutableFlush},
	"runID: the same, another limit":    {spec: "{all: true, runID: v1}", update: "{all: true, runID: v1, backoffLimit: 1}", want: immutableFlush},
	"runID: the same, another deadline": {spec: "{all: true, runID: v1}", update: "{all: true, runID: v1, activeDeadlineSeconds: 1}", want: immutableFlush},

	"runID: new, another poolRef":          {spec: "{all: true, runID: v1}", update: "{all: true, runID: v2, poolRef: {name: other}}"},
	"runID: new, another mode":             {spec: "{all: true, runID: v1}", update: "{all: true, runID: v2, mode: DryRun}"},
	"runID: new, prefix for all":           {spec: "{all: true, runID: v1}", update: "{prefix: a, runID: v2}"},
	"runID: new, all for prefix":           {spec: "{prefix: a, runID: v1}", update: "{all: true, runID: v2}"},
	"runID: new, match for prefix":         {spec: "{prefix: a, runID: v1}", update: "{match: a, runID: v2}"},
	"runID: new, keys for match":           {spec: "{match: a, runID: v1}", update: "{keys: [a], runID: v2}"},
	"runID: new, another prefix":           {spec: "{prefix: a, runID: v1}", update: "{prefix: b, runID: v2}"},
	"runID: new, another match":            {spec: "{match: a, runID: v1}", update: "{match: b, runID: v2}"},
	"runID: new, other keys":               {spec: "{keys: [a, b], runID: v1}", update: "{keys: [b, a], runID: v2}"},
	"runID: new, another backoffLimit":     {spec: "{all: true, runID: v1}", update: "{all: true, runID: v2, backoffLimit: 0}"},
	"runID: new, another deadline":         {spec: "{all: true, runID: v1}", update: "{all: true, runID: v2, activeDeadlineSeconds: 1}"},
	"runID: new, no deadline":              {spec: "{all: true, runID: v1, activeDeadlineSeconds: 1}", update: "{all: true, runID: v2}"},
	"runID: new, everything else too":      {spec: "{all: true, runID: v1}", update: "{keys: [a], runID: v2, poolRef: {name: other}, mode: DryRun, declaredEntries: Rewrite, maxKeys: 1, backoffLimit: 1, activeDeadlineSeconds: 1, maxKeysPerSecond: 1, suspend: true}"},
	"runID: added, another target":         {update: "{prefix: a, runID: v1}"},
	"runID: new, two targets":              {spec: "{all: true, runID: v1}", update: "{all: true, prefix: a, runID: v2}", want: oneTarget},
	"runID: with ttlSecondsAfterFinished":  {spec: "{all: true, runID: v1, ttlSecondsAfterFinished: 10}", want: perishableRun},
	"runID: ttlSecondsAfterFinished added": {spec: "{all: true, runID: v1}", update: "{all: true, runID: v1, ttlSecondsAfterFinished: 10}", want: perishableRun},
	"runID: added to a ttl":                {spec: "{all: true, ttlSecondsAfterFinished: 10}", update: "{all: true, ttlSecondsAfterFinished: 10, runID: v1}", want: perishableRun},
	"runID: in place of a ttl":             {spec: "{all: true, ttlSecondsAfterFinished: 10}", update: "{all: true, runID: v1}"},
	"runID: removed, for a ttl":            {spec: "{all: true, runID: v1}", update: "{all: true, ttlSecondsAfterFinished: 10}", want: removedRun},

	"activeDeadlineSeconds: least":   {spec: "{all: true, activeDeadlineSeconds: 1}"},
	"activeDeadlineSeconds: most":    {spec: "{all: true, activeDeadlineSeconds: 9223372036854775807}"},
	"activeDeadlineSeconds: zero":    {spec: "{all: true, activeDeadlineSeconds: 0}", want: "spec.activeDeadlineSeconds: Invalid value: 0: spec.activeDeadlineSeconds in body should be greater than or equal to 1"},
	"activeDeadlineSeconds: set":     {update: "{all: true, activeDeadlineSeconds: 1}", want: immutableFlush},
	"activeDeadlineSeconds: changed": {spec: "{all: true, activeDeadlineSeconds: 1}", update: "{all: true, activeDeadlineSeconds: 2}", want: immutableFlush},
	"activeDeadlineSeconds: removed": {spec: "{all: true, activeDeadlineSeconds: 1}", update: "{all: true}", want: immutableFlush},
	"activeDeadlineSeconds: kept":    {spec: "{all: true, activeDeadlineSeconds: 1}", update: "{all: true, activeDeadlineSeconds: 1, suspend: true}"},

	"backoffLimit: none":            {spec: "{all: true, backoffLimit: 0}"},
	"backoffLimit: most":            {spec: "{all: true, backoffLimit: 2147483647}"},
	"backoffLimit: negative":        {spec: "{all: true, backoffLimit: -1}", want: "spec.backoffLimit: Invalid value: -1: spec.backoffLimit in body should be greater than or equal to 0"},
	"backoffLimit: over 32 bit":     {spec: "{all: true, backoffLimit: 2147483648}", want: `<nil>: Invalid value: "": Checked value must be of type integer with format int32 in spec.backoffLimit`},
	"backoffLimit: changed":         {spec: "{all: true, backoffLimit: 1}", update: "{all: true, backoffLimit: 0}", want: immutableFlush},
	"backoffLimit: removed":         {spec: "{all: true, backoffLimit: 1}", update: "{all: true}", want: immutableFlush},
	"backoffLimit: default added":   {update: "{all: true, backoffLimit: 6}"},
	"backoffLimit: default removed": {spec: "{all: true, backoffLimit: 6}", update: "{all: true}"},

	"ttlSecondsAfterFinished: least":     {spec: "{all: true, ttlSecondsAfterFinished: 10}"},
	"ttlSecondsAfterFinished: too short": {spec: "{all: true, ttlSecondsAfterFinished: 9}", want: "spec.ttlSecondsAfterFinished: Invalid value: 9: spec.ttlSecondsAfterFinished in body should be greater than or equal to 10"},
	"ttlSecondsAfterFinished: set":       {update: "{all: true, ttlSecondsAfterFinished: 10}"},
	"ttlSecondsAfterFinished: changed":   {spec: "{all: true, ttlSecondsAfterFinished: 10}", update: "{all: true, ttlSecondsAfterFinished: 11}"},
	"ttlSecondsAfterFinished: removed":   {spec: "{all: true, ttlSecondsAfterFinished: 10}", update: "{all: true}"},
}

func mostKeys(last string) string {
	return "{keys: [" + strings.Repeat(strings.Repeat("a", 1024)+", ", 999) + last + "]}"
}

func TestCacheFlushValidation(t *testing.T) { run(t, "CacheFlush", flushRows) }

// TestMatchRuleIsRedisParser has more of them, without an API server.
func TestCacheFlushMatchValidation(t *testing.T) {
	rows := map[string]row{}
	for _, pattern := range []string{
		"*", "user:*:profile", "h?llo", "h[ae]llo", "h[^e]llo", "h[a-b]llo", "[a-b-c]", "[a-b-]", "[-a]", "[[a]", "[a^]", "[]", "[]x]", "[^]", "[^]x]", "[^^-a]",
		"a]", "]", "-", "^", `\[`, `\\`, `\]`, `[\]]`, `[\\]`, `[a\-]`, `[a-\]`, "[a-]]", "[a-]-]", "[é-ü]", "[a-é]", "[\n]", "\\\n",
	} {
		rows[pattern] = row{spec: matching(pattern)}
	}
	for _, pattern := range []string{
		"[", "[a", "[^", "a[b*", "[[[", "[a-]", "[^a-]", "[--]", "[]-]*[", "[a-é-]", `[\é-]`, `\`, `a\`, `\\\`, `[\]`, `[a\]`, `[^\]`, `[]\`,
	} {
		rows[pattern] = row{spec: matching(pattern), want: "spec.match: Invalid value: " + strconv.Quote(pattern) + ": " + badMatch}
	}
	run(t, "CacheFlush", rows)
}

func matching(pattern string) string {
	return `{match: "` + strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(pattern) + `"}`
}
