// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// A pipeline is long enough to make round trips cheap, and short enough to hold up no other client: see
// https://redis.io/docs/latest/develop/using-commands/pipelining/. 500 commands a batch reach 326k SET/s from one
// goroutine, 2000 only 351k.
const (
	maxBatchCommands = 500
	maxWriteBytes    = 128 << 10
	maxReadBytes     = 1 << 20
)

// Forever is the TTL of a key that has no lifetime.
const Forever time.Duration = -1

// Look names a key to be read. Size is the length expected of its value: of a longer one, only one byte more is
// read, so that a huge value that somebody else has put there costs nothing.
type Look struct {
	Key  string
	Size int
}

// Observation is what a look found.
type Observation struct {
	// Err is set when the look failed, and nothing else is then.
	Err error
	// Exists is false when the key is not there, or ran out while it was read.
	Exists bool
	// String is false when the key holds another type; there is no Value then.
	String bool
	// Value, cut one byte behind the expected length.
	Value string
	// TTL left, or Forever.
	TTL time.Duration
}

// Write is a key to be stored. TTL 0 means without a lifetime.
type Write struct {
	Key, Value string
	TTL        time.Duration
	// IfAbsent leaves a key that is there, which is ErrExists then.
	IfAbsent bool
}

// Deletion is a key to be deleted.
type Deletion struct {
	Key string
	// Value, if it is set, is what the key must hold; if it does not, it stays, which is ErrChanged.
	Value *string
	// Counter, if it is set, is the ID of a counter, whose marker is deleted and not the key.
	Counter string
}

// Observe reads keys in pipelines, and returns an observation for each of them. After an error that concerns
// the whole server, the rest is not tried. While Watch runs, changes of these keys are told.
func (p *Pool) Observe(ctx context.Context, looks []Look) []Observation {
	seen := make([]Observation, 0, len(looks))
	for len(looks) > 0 {
		n := batch(looks, maxReadBytes, func(l Look) int { return l.Size })
		seen = append(seen, p.observe(ctx, looks[:n])...)
		looks = looks[n:]
		if last := seen[len(seen)-1].Err; ServerWide(last) {
			for range looks {
				seen = append(seen, Observation{Err: last})
			}
			break
		}
	}
	return seen
}

func (p *Pool) observe(ctx context.Context, looks []Look) []Observation {
	ctx, cancel := p.deadline(ctx)
	defer cancel()
	gets, ttls := make([]*redis.StringCmd, len(looks)), make([]*redis.DurationCmd, len(looks))
	names := make([]string, len(looks))
	for i, l := range looks {
		names[i] = p.prefix + l.Key
	}
	p.read(ctx, names, func(pipe redis.Pipeliner, i int) {
		gets[i], ttls[i] = pipe.GetRange(ctx, names[i], 0, int64(looks[i].Size)), pipe.PTTL(ctx, names[i])
	})
	seen := make([]Observation, len(looks))
	for i := range looks {
		seen[i] = observation(gets[i], ttls[i])
	}
	return seen
}

// observation puts the answers to GETRANGE and PTTL together. A key that ran out between the two is not there.
func observation(get *redis.StringCmd, pttl *redis.DurationCmd) Observation {
	if err := wrap("PTTL", pttl.Err()); err != nil {
		return Observation{Err: err}
	}
	const missing = -2
	err := wrap("GETRANGE", get.Err())
	switch {
	case err != nil && !Is(err, ReasonWrongType):
		return Observation{Err: err}
	case pttl.Val() == missing:
		return Observation{}
	case err != nil:
		return Observation{Exists: true, TTL: pttl.Val()}
	default:
		return Observation{Exists: true, String: true, Value: get.Val(), TTL: pttl.Val()}
	}
}

// PutAll stores keys in pipelines, and returns an error or nil for each of them. After an error that concerns
// the whole server, the rest is not tried.
func (p *Pool) PutAll(ctx context.Context, writes []Write) []error {
	set := func(ctx context.Context, w Write) *redis.StatusCmd { return p.setCommand(ctx, w) }
	return errorsOf(pipelines(ctx, p, writes, func(w Write) int { return len(p.prefix) + len(w.Key) + len(w.Value) }, set),
		func(c *redis.StatusCmd) error {
			if errors.Is(c.Err(), redis.Nil) {
				return ErrExists
			}
			return wrap("SET", c.Err())
		})
}

// ForgetAll deletes keys in pipelines, and returns an error or nil for each of them; a key that is not there is
// no error. After an error that concerns the whole server, the rest is not tried.
func (p *Pool) ForgetAll(ctx context.Context, deletions []Deletion) []error {
	size := func(d Deletion) int {
		if d.Value != nil {
			return len(p.prefix) + len(d.Key) + len(*d.Value)
		}
		return len(p.prefix) + len(d.Key)
	}
	return errorsOf(pipelines(ctx, p, deletions, size, p.deleteCommand), func(c *redis.IntCmd) error {
		switch {
		case c.Name() == "unlink":
			return wrap("UNLINK", c.Err())
		case c.Err() == nil && c.Val() < 0:
			return ErrChanged
		default:
			return wrap("EVAL with GET and UNLINK", c.Err())
		}
	})
}

// forgetIf deletes a key that holds a value, in one step: nobody can change it in between. It answers -1 when the key
// holds another.
const forgetIf = `
local value = redis.call('GET', KEYS[1])
if not value then return 0 end
if value ~= ARGV[1] then return -1 end
return redis.call('UNLINK', KEYS[1])`

func (p *Pool) deleteCommand(ctx context.Context, d Deletion) *redis.IntCmd {
	switch name := p.prefix + d.Key; {
	case d.Counter != "":
		return redis.NewIntCmd(ctx, "unlink", marker(name, d.Counter))
	case d.Value != nil:
		return redis.NewIntCmd(ctx, "eval", forgetIf, 1, name, *d.Value)
	default:
		return redis.NewIntCmd(ctx, "unlink", name)
	}
}

// errorsOf commands.
func errorsOf[C redis.Cmder](commands []C, of func(C) error) []error {
	errs := make([]error, len(commands))
	for i, c := range commands {
		errs[i] = of(c)
	}
	return errs
}

// pipelines sends one command for each item, and returns them done. After an error that concerns the whole server, the
// rest is not sent, and has the same error.
func pipelines[T any, C redis.Cmder](ctx context.Context, p *Pool, items []T, size func(T) int, command func(context.Context, T) C) []C {
	done := make([]C, 0, len(items))
	for len(items) > 0 {
		n := batch(items, maxWriteBytes, size)
		ctx, cancel := p.deadline(ctx)
		_, _ = p.client.Pipelined(ctx, func(pipe redis.Pipeliner) error { // the errors stand in the commands
			for _, item := range items[:n] {
				c := command(ctx, item)
				done = append(done, c)
				_ = pipe.Process(ctx, c) // queues; it cannot fail
			}
			return nil
		})
		cancel()
		items = items[n:]
		if last := done[len(done)-1].Err(); ServerWide(wrap("", last)) {
			for _, item := range items {
				c := command(ctx, item)
				c.SetErr(last)
				done = append(done, c)
			}
			break
		}
	}
	return done
}

// batch says how many items, at least one, make up the next pipeline.
func batch[T any](items []T, maxBytes int, size func(T) int) int {
	total := 0
	for i, item := range items {
		total += size(item)
		if i == maxBatchCommands || i > 0 && total > maxBytes {
			return i
		}
	}
	return len(items)
}
