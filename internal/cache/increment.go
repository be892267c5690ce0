// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Increment is to be done exactly once, however often it is sent.
type Increment struct {
	// Key of the counter.
	Key string
	// ID of who increments it.
	ID string
	// By how much.
	By int64
	// TTL that the key gets when the increment creates it; 0 means none.
	TTL time.Duration
	// RunID names the increment: it is done once for each that is not the last one.
	RunID string
	// Generation grows with every new RunID: an older one that comes late is refused.
	Generation int64
}

// Sum is what came of an Increment.
type Sum struct {
	// Value of the counter right after the increment.
	Value int64
	Err   error
}

// incrementOnce increments KEYS[1] and notes so in KEYS[2], the marker: "<generation> <value> <run id>". All or nothing
// of it happens: INCRBY comes first, since the server checks memory and the like before the first write, and what it
// checks with each, whether the user may do it, is tried before with commands that do nothing. Numbers stay text, since
// Lua's lose digits beyond 2^53.
const incrementOnce = `
local marker = redis.call('GET', KEYS[2])
local generation, value, run = string.match(marker or '', '^(%d+) (-?%d+) (.*)$')
if run == ARGV[1] then return value end
if generation and tonumber(generation) > tonumber(ARGV[2]) then return redis.error_reply('` + staleReply + `') end
local expires = ARGV[4] ~= '0' and redis.call('EXISTS', KEYS[1]) == 0
if expires then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
redis.call('SET', KEYS[2], '', marker and 'NX' or 'XX')
local sum = redis.pcall('INCRBY', KEYS[1], ARGV[3])
if type(sum) == 'table' and sum.err then return sum end
if expires then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
value = redis.call('GET', KEYS[1])
redis.call('SET', KEYS[2], ARGV[2] .. ' ' .. value .. ' ' .. ARGV[1])
return value`

// staleReply is what the script answers to an old generation.
const staleReply = "STALEGENERATION"

// IncrementAll does increments in pipelines, each exactly once: one that was done before, even if its reply never
// came, is answered with the value of then. This holds as long as Redis keeps the marker of the ID; its name begins with
// "cachewright:counter:", and Deletion removes it. After an error that concerns the whole server, the rest is not tried.
func (p *Pool) IncrementAll(ctx context.Context, increments []Increment) []Sum {
	commands := pipelines(ctx, p, increments,
		func(i Increment) int { return len(incrementOnce) + 2*(len(p.prefix)+len(i.Key)) },
		func(ctx context.Context, i Increment) *redis.Cmd {
			name := p.prefix + i.Key
			return redis.NewCmd(ctx, "eval", incrementOnce, 2, name, marker(name, i.ID),
				i.RunID, i.Generation, i.By, i.TTL.Milliseconds())
		})
	sums := make([]Sum, len(commands))
	for i, c := range commands {
		value, err := c.Int64()
		if c.Err() == nil && err != nil { // not from INCRBY: somebody has edited the marker
			err = &Error{Class: Key, Reason: ReasonNotAnInteger, Message: "The counter's marker does not hold an integer"}
		}
		sums[i] = Sum{Value: value, Err: wrap("EVAL with GET, EXISTS, INCRBY, PEXPIRE and SET", err)}
	}
	return sums
}

// markerPrefix begins the names of markers.
const markerPrefix = "cachewright:counter:"

// marker is the name of a counter's marker. It lies outside of every prefix that a pool may have, and in the same hash
// slot as the counter, so that one script may use both in a cluster.
func marker(name, id string) string {
	if tag := hashTag(name); !strings.Contains(tag, "}") && tag != "" {
		return markerPrefix + "{" + tag + "}:" + id
	}
	// A name without a tag, but with a brace that would end the marker's tag too soon: another tag of the same slot.
	return markerPrefix + "{" + strconv.Itoa(slotTags()[hashSlot(name)]) + "}:" + id
}

// slotTags has the smallest number that is a tag of each slot. To search for one takes milliseconds, for all not much
// more, once.
var slotTags = sync.OnceValue(func() map[uint16]int {
	tags := make(map[uint16]int, slots)
	for n := 0; len(tags) < slots; n++ {
		slot := hashSlot(strconv.Itoa(n))
		if _, ok := tags[slot]; !ok {
			tags[slot] = n
		}
	}
	return tags
})

// hashTag is the part of a name that decides on its slot: between the first { and the first } behind it unless nothing
// is there, or else all of it. See https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags.
func hashTag(name string) string {
	if _, rest, ok := strings.Cut(name, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			return tag
		}
	}
	return name
}

// slots of a cluster.
const slots = 16384

// hashSlot of a name in a cluster: CRC16 (XMODEM) of its tag, modulo the number of slots.
func hashSlot(name string) uint16 {
	var crc uint16
	for _, b := range []byte(hashTag(name)) {
		crc ^= uint16(b) << 8
		for range 8 {
			carry := crc&0x8000 != 0
			if crc <<= 1; carry {
				crc ^= 0x1021
			}
		}
	}
	return crc % slots
}
