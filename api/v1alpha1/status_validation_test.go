// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"fmt"
	"strings"
	"testing"
)

// The operator writes these; the API server holds it to them.
var (
	poolStatusRows = map[string]row{
		"full": {status: "{keyPrefix: " + strings.Repeat("é", 320) + ", credentialsResourceVersion: " + strings.Repeat("a", 64) +
			`, server: {product: redis, version: 7.0.15, topology: Standalone, nodes: 1, changeDetection: Tracking}, recentFlushes: [` + strings.Repeat(recent("target: "+strings.Repeat("é", 128)+", runID: "+strings.Repeat("é", 128))+", ", 10) + `], ` + conditions(8) + "}"},
		"recentFlushes: eleven":             {status: "{recentFlushes: [" + strings.Repeat(recent("")+", ", 11) + "]}", want: uncheckedToo("status.recentFlushes: Too many: 11: must have at most 10 items")},
		"recentFlushes: Failed":             {status: `{recentFlushes: [{name: f, namespace: ns, result: Failed, deleted: 0, completionTime: "2026-11-22T10:00:00Z"}]}`},
		"recentFlushes.name: empty":         {status: `{recentFlushes: [{name: "", namespace: ns, result: Failed, completionTime: "2026-11-22T10:00:00Z"}]}`, want: tooShort("status.recentFlushes[0].name")},
		"recentFlushes.name: long":          {status: `{recentFlushes: [{name: ` + strings.Repeat("a", 254) + `, namespace: ns, result: Failed, completionTime: "2026-11-22T10:00:00Z"}]}`, want: tooLong("status.recentFlushes[0].name", 253)},
		"recentFlushes.name: none":          {status: `{recentFlushes: [{namespace: ns, result: Failed, completionTime: "2026-11-22T10:00:00Z"}]}`, want: uncheckedToo("status.recentFlushes[0].name: Required value")},
		"recentFlushes.namespace: empty":    {status: `{recentFlushes: [{name: f, namespace: "", result: Failed, completionTime: "2026-11-22T10:00:00Z"}]}`, want: tooShort("status.recentFlushes[0].namespace")},
		"recentFlushes.namespace: long":     {status: `{recentFlushes: [{name: f, namespace: ` + strings.Repeat("a", 64) + `, result: Failed, completionTime: "2026-11-22T10:00:00Z"}]}`, want: tooLong("status.recentFlushes[0].namespace", 63)},
		"recentFlushes.namespace: none":     {status: `{recentFlushes: [{name: f, result: Failed, completionTime: "2026-11-22T10:00:00Z"}]}`, want: uncheckedToo("status.recentFlushes[0].namespace: Required value")},
		"recentFlushes.result: other":       {status: `{recentFlushes: [{name: f, namespace: ns, result: Done, completionTime: "2026-11-22T10:00:00Z"}]}`, want: uncheckedToo(`status.recentFlushes[0].result: Unsupported value: "Done": supported values: "Complete", "Failed"`)},
		"recentFlushes.result: none":        {status: `{recentFlushes: [{name: f, namespace: ns, completionTime: "2026-11-22T10:00:00Z"}]}`, want: uncheckedToo("status.recentFlushes[0].result: Required value")},
		"recentFlushes.completionTime none": {status: `{recentFlushes: [{name: f, namespace: ns, result: Failed}]}`, want: uncheckedToo("status.recentFlushes[0].completionTime: Required value")},
		"recentFlushes.target: empty":       {status: "{recentFlushes: [" + recent(`target: ""`) + "]}", want: tooShort("status.recentFlushes[0].target")},
		"recentFlushes.target: long":        {status: "{recentFlushes: [" + recent("target: "+strings.Repeat("a", 129)) + "]}", want: tooLong("status.recentFlushes[0].target", 128)},
		"recentFlushes.runID: empty":        {status: "{recentFlushes: [" + recent(`runID: ""`) + "]}", want: tooShort("status.recentFlushes[0].runID")},
		"recentFlushes.runID: long":         {status: "{recentFlushes: [" + recent("runID: "+strings.Repeat("a", 129)) + "]}", want: tooLong("status.recentFlushes[0].runID", 128)},
		"recentFlushes.deleted: negative":   {status: "{recentFlushes: [" + recent("deleted: -1") + "]}", want: tooLow("status.recentFlushes[0].deleted")},
		"conditions: nine":                  {status: "{" + conditions(9) + "}", want: uncheckedToo("status.conditions: Too many: 9: must have at most 8 items")},
		"conditions: one twice":             {status: twoReadies, want: `status.conditions[1]: Duplicate value: {"type":"Ready"}`},
		"keyPrefix: empty":                  {status: `{keyPrefix: ""}`, want: tooShort("status.keyPrefix")},
		"keyPrefix: long":                   {status: "{keyPrefix: " + strings.Repeat("a", 321) + "}", want: tooLong("status.keyPrefix", 320)},
		"server.product: empty":             {status: `{server: {product: ""}}`, want: tooShort("status.server.product")},
		"server.product: long":              {status: "{server: {product: " + strings.Repeat("a", 65) + "}}", want: tooLong("status.server.product", 64)},
		"server.version: empty":             {status: `{server: {version: ""}}`, want: tooShort("status.server.version")},
		"server.version: long":              {status: "{server: {version: " + strings.Repeat("a", 65) + "}}", want: tooLong("status.server.version", 64)},
		"server.topology: empty":            {status: `{server: {topology: ""}}`, want: tooShort("status.server.topology")},
		"server.topology: long":             {status: "{server: {topology: " + strings.Repeat("a", 65) + "}}", want: tooLong("status.server.topology", 64)},
		"server.nodes: negative":            {status: "{server: {nodes: -1}}", want: tooLow("status.server.nodes")},
		"server.changeDetection: Tracking":  {status: "{server: {changeDetection: Tracking}}"},
		"server.changeDetection: Broadcast": {status: "{server: {changeDetection: Broadcast}}"},
		"server.changeDetection: Polling":   {status: "{server: {changeDetection: Polling}}"},
		"server.changeDetection: other":     {status: "{server: {changeDetection: None}}", want: uncheckedToo(`status.server.changeDetection: Unsupported value: "None": supported values: "Tracking", "Broadcast", "Polling"`)},
		"server.changeDetection: empty":     {status: `{server: {changeDetection: ""}}`, want: uncheckedToo(`status.server.changeDetection: Unsupported value: "": supported values: "Tracking", "Broadcast", "Polling"`)},
		"credentialsResourceVersion empty":  {status: `{credentialsResourceVersion: ""}`, want: tooShort("status.credentialsResourceVersion")},
		"credentialsResourceVersion long":   {status: `{credentialsResourceVersion: "` + strings.Repeat("1", 65) + `"}`, want: tooLong("status.credentialsResourceVersion", 64)},
	}
	entryStatusRows = map[string]row{
		"full": {status: "{pool: " + strings.Repeat("n", 63) + "/" + strings.Repeat("p", 253) + ", key: " + strings.Repeat("é", 2048) +
			`, sourceResourceVersion: "1", lastWriteTime: "2026-11-22T10:00:00Z", writtenDigest: "sha256:` + strings.Repeat("0", 64) + `", counter: {runID: ` + strings.Repeat("é", 128) + ", value: -9223372036854775808}, " + conditions(8) + "}"},
		"conditions: nine":             {status: "{" + conditions(9) + "}", want: uncheckedToo("status.conditions: Too many: 9: must have at most 8 items")},
		"conditions: one twice":        {status: twoReadies, want: `status.conditions[1]: Duplicate value: {"type":"Ready"}`},
		"pool: empty":                  {status: `{pool: ""}`, want: tooShort("status.pool")},
		"pool: long":                   {status: "{pool: " + strings.Repeat("a", 513) + "}", want: tooLong("status.pool", 512)},
		"key: empty":                   {status: `{key: ""}`, want: tooShort("status.key")},
		"key: long":                    {status: "{key: " + strings.Repeat("a", 2049) + "}", want: tooLong("status.key", 2048)},
		"sourceResourceVersion: empty": {status: `{sourceResourceVersion: ""}`, want: tooShort("status.sourceResourceVersion")},
		"sourceResourceVersion: long":  {status: `{sourceResourceVersion: "` + strings.Repeat("1", 65) + `"}`, want: tooLong("status.sourceResourceVersion", 64)},
		"writtenDigest: empty":         {status: `{writtenDigest: ""}`, want: tooShort("status.writtenDigest")},
		"writtenDigest: long":          {status: "{writtenDigest: " + strings.Repeat("a", 129) + "}", want: tooLong("status.writtenDigest", 128)},
		"counter: empty":               {status: "{counter: {}}"},
		"counter: zero":                {status: "{counter: {runID: r, value: 0}}"},
		"counter.runID: empty":         {status: `{counter: {runID: "", value: 1}}`, want: tooShort("status.counter.runID")},
		"counter.runID: long":          {status: "{counter: {runID: " + strings.Repeat("a", 129) + ", value: 1}}", want: tooLong("status.counter.runID", 128)},
		"counter.value: over 64 bit":   {status: "{counter: {runID: r, value: 9223372036854775808}}", want: uncheckedToo(noCount)},
		"counter.value: fraction":      {status: "{counter: {runID: r, value: 1.5}}", want: uncheckedToo(noCount)},
	}
	flushStatusRows = map[string]row{
		"full": {status: "{runID: " + strings.Repeat("é", 128) + `, target: 'prefix "user:"', sample: ["", ` + strings.Repeat("a", 2048) + strings.Repeat(", a", 8) + "], checkpoints: [" +
			strings.Repeat(`{node: "redis:6379", serverID: `+strings.Repeat("f", 40)+`, cursor: "18446744073709551615"}, `, 1000) + "], " +
			"progress: {percent: 100, matched: 1000000000000, deleted: 1, preserved: 0}, failures: 6, " + conditions(8) + "}"},
		"conditions: nine":            {status: "{" + conditions(9) + "}", want: uncheckedToo("status.conditions: Too many: 9: must have at most 8 items")},
		"conditions: one twice":       {status: twoReadies, want: `status.conditions[1]: Duplicate value: {"type":"Ready"}`},
		"runID: empty":                {status: `{runID: ""}`, want: tooShort("status.runID")},
		"runID: long":                 {status: "{runID: " + strings.Repeat("a", 129) + "}", want: tooLong("status.runID", 128)},
		"target: empty":               {status: `{target: ""}`, want: tooShort("status.target")},
		"target: long":                {status: "{target: " + strings.Repeat("a", 129) + "}", want: tooLong("status.target", 128)},
		"sample: eleven":              {status: "{sample: [" + strings.Repeat("a, ", 11) + "]}", want: uncheckedToo("status.sample: Too many: 11: must have at most 10 items")},
		"sample: long":                {status: "{sample: [" + strings.Repeat("a", 2049) + "]}", want: tooLong("status.sample[0]", 2048)},
		"failures: negative":          {status: "{failures: -1}", want: tooLow("status.failures")},
		"progress.percent: negative":  {status: "{progress: {percent: -1}}", want: tooLow("status.progress.percent")},
		"progress.percent: over 100":  {status: "{progress: {percent: 101}}", want: "status.progress.percent: Invalid value: 101: progress.percent in body should be less than or equal to 100"},
		"progress.matched: negative":  {status: "{progress: {matched: -1}}", want: tooLow("status.progress.matched")},
		"progress.deleted: negative":  {status: "{progress: {deleted: -1}}", want: tooLow("status.progress.deleted")},
		"progress.preserved negative": {status: "{progress: {preserved: -1}}", want: tooLow("status.progress.preserved")},
		"checkpoints: 1001": {
			status: "{checkpoints: [" + strings.Repeat(`{node: a, serverID: s, cursor: "0"}, `, 1001) + "]}",
			want:   uncheckedToo("status.checkpoints: Too many: 1001: must have at most 1000 items"),
		},
		"checkpoints: no node":        {status: `{checkpoints: [{serverID: s, cursor: "0"}]}`, want: uncheckedToo("status.checkpoints[0].node: Required value")},
		"checkpoints: no serverID":    {status: `{checkpoints: [{node: a, cursor: "0"}]}`, want: uncheckedToo("status.checkpoints[0].serverID: Required value")},
		"checkpoints: no cursor":      {status: "{checkpoints: [{node: a, serverID: s}]}", want: uncheckedToo("status.checkpoints[0].cursor: Required value")},
		"checkpoints: empty node":     {status: `{checkpoints: [{node: "", serverID: s, cursor: "0"}]}`, want: tooShort("status.checkpoints[0].node")},
		"checkpoints: empty serverID": {status: `{checkpoints: [{node: a, serverID: "", cursor: "0"}]}`, want: tooShort("status.checkpoints[0].serverID")},
		"checkpoints: empty cursor":   {status: `{checkpoints: [{node: a, serverID: s, cursor: ""}]}`, want: tooShort("status.checkpoints[0].cursor")},
		"checkpoints: long node":      {status: "{checkpoints: [{node: " + strings.Repeat("a", 261) + `, serverID: s, cursor: "0"}]}`, want: tooLong("status.checkpoints[0].node", 260)},
		"checkpoints: long serverID":  {status: "{checkpoints: [{node: a, serverID: " + strings.Repeat("a", 129) + `, cursor: "0"}]}`, want: tooLong("status.checkpoints[0].serverID", 128)},
		"checkpoints: long cursor":    {status: `{checkpoints: [{node: a, serverID: s, cursor: "` + strings.Repeat("0", 21) + `"}]}`, want: tooLong("status.checkpoints[0].cursor", 20)},
	}
)

const noCount = `status.counter.value: Invalid value: "float64": counter.value in body must be of type int64: "float64", ` +
	`status: Invalid value: "": Checked value must be of type integer with format int64 in counter.value`

const twoReadies = `{conditions: [
  {type: Ready, status: "True", reason: A, message: "", lastTransitionTime: "2026-11-22T10:00:00Z"},
  {type: Ready, status: "False", reason: B, message: "", lastTransitionTime: "2026-11-22T10:00:00Z"}]}`

func conditions(number int) string {
	var list strings.Builder
	for i := range number {
		fmt.Fprintf(&list, `{type: T%d, status: "True", reason: R, message: "", lastTransitionTime: "2026-11-22T10:00:00Z"}, `, i)
	}
	return "conditions: [" + list.String() + "]"
}

// In an update of the status, the text does not repeat where it is.
func tooShort(path string) string {
	return path + `: Invalid value: "": ` + strings.TrimPrefix(path, "status.") + " in body should be at least 1 chars long"
}

func tooLong(path string, limit int) string {
	return uncheckedToo(fmt.Sprintf("%s: Too long: may not be more than %d bytes", path, limit))
}

func tooLow(path string) string {
	return path + ": Invalid value: -1: " + strings.TrimPrefix(path, "status.") + " in body should be greater than or equal to 0"
}

func TestCachePoolStatusValidation(t *testing.T)  { run(t, "CachePool", poolStatusRows) }
func TestCacheEntryStatusValidation(t *testing.T) { run(t, "CacheEntry", entryStatusRows) }
func TestCacheFlushStatusValidation(t *testing.T) { run(t, "CacheFlush", flushStatusRows) }

// recent flush, with one more field.
func recent(field string) string {
	return `{name: f, namespace: ns, result: Complete, completionTime: "2026-11-22T10:00:00Z", ` + field + "}"
}
