// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"k8s.io/apimachinery/pkg/util/wait"
)

// localRedis is a Redis on this machine, or wherever REDIS_ADDR says.
type localRedis struct {
	kind, address string
	// users is how many keys the sample flush finds.
	users  int
	client *redis.Client
	stop   func()
}

// startRedis takes the Redis at REDIS_ADDR, or else starts redis-server, or else miniredis in this process.
func startRedis(ctx context.Context) (*localRedis, error) {
	r := &localRedis{kind: "REDIS_ADDR", address: os.Getenv("REDIS_ADDR"), users: 200_000, stop: func() {}}
	if r.address == "" {
		start := r.startServer
		if _, err := exec.LookPath("redis-server"); err != nil {
			start = func() error { return r.startMini(ctx) }
		}
		if err := start(); err != nil {
			return nil, err
		}
	}
	r.client = redis.NewClient(&redis.Options{Addr: r.address, PipelinePoolSize: -1})
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 10*time.Second, true, func(ctx context.Context) (bool, error) {
		return r.client.Ping(ctx).Err() == nil, nil
	})
	if err != nil {
		r.stop()
		return nil, fmt.Errorf("no Redis answers at %s: %w", r.address, err)
	}
	return r, nil
}

func (r *localRedis) startServer() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once
	if err != nil {
		return err
	}
	r.kind, r.address = "redis-server", listener.Addr().String()
	_, port, err := net.SplitHostPort(r.address)
	if err := errors.Join(err, listener.Close()); err != nil {
		return err
	}
	server := exec.Command("redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no") //nolint:noctx // stop ends it
	if err := server.Start(); err != nil {
		return err
	}
	r.stop = func() { _, _ = server.Process.Kill(), server.Wait() } // it has nothing to lose
	return nil
}

func (r *localRedis) startMini(ctx context.Context) error {
	server, err := miniredis.Run()
	if err != nil {
		return err
	}
	r.kind, r.address, r.users, r.stop = "miniredis, in this process (install redis-server for a real one)", server.Addr(), 20_000, server.Close
	// Its own clock stands still, and its option to follow the real one looks at every key for every command.
	go wait.UntilWithContext(ctx, func(context.Context) { server.FastForward(time.Second) }, time.Second)
	return nil
}

// seed the keys that the sample flush deletes, as an application might have left them.
func (r *localRedis) seed(ctx context.Context) error {
	const batch = 1000
	for i := 0; i < r.users; i += batch {
		_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for j := range batch {
				p.Set(ctx, fmt.Sprintf("glimr:cache:main:user:%d", i+j), "{}", time.Hour)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
