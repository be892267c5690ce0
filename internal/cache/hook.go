// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"slices"

	"github.com/redis/go-redis/v9"
)

// unanswered sees to it that a pipeline that fails as a whole fails in each of its commands. go-redis (9.23) forgets that
// when the server refuses the login of a new connection, or the database: it returns the error, but the commands look as
// if they had succeeded.
type unanswered struct{}

// DialHook does nothing.
func (unanswered) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook does nothing.
func (unanswered) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

// ProcessPipelineHook gives the pipeline's error to its commands if none of them has one.
func (unanswered) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		err := next(ctx, commands)
		if err != nil && !slices.ContainsFunc(commands, func(c redis.Cmder) bool { return c.Err() != nil }) {
			for _, c := range commands {
				c.SetErr(err)
			}
		}
		return err
	}
}
