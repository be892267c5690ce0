// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import "strings"

// Target says which keys of a pool a flush takes.
type Target struct {
	literal string
	glob    string
}

// All takes every key under the prefix.
func All() Target { return Target{glob: "*"} }

// Prefixed takes the keys that start with a text, which is taken literally.
func Prefixed(prefix string) Target { return Target{literal: prefix, glob: "*"} }

// Matching takes the keys that match a Redis glob: see https://redis.io/docs/latest/commands/keys/.
func Matching(glob string) Target { return Target{glob: glob} }

// Under narrows a target to the keys behind a text, which is taken literally.
func (t Target) Under(fence string) Target {
	t.literal = fence + t.literal
	return t
}

// pattern is the MATCH argument of SCAN for this target behind a key prefix.
func (t Target) pattern(prefix string) string { return escape(prefix+t.literal) + t.glob }

// globEscaper escapes exactly what Redis's stringmatchlen takes as special outside of brackets. More would be
// harmless for the match, but switches off the optimization for patterns of one hash slot.
var globEscaper = strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`)

func escape(literal string) string { return globEscaper.Replace(literal) }
