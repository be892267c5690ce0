// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/redis/go-redis/v9"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

// namespace of the samples.
const namespace = "default"

// tick is how often the story looks at the objects.
const tick = 100 * time.Millisecond

// story tells what becomes of the objects.
type story struct {
	client client.Client
	redis  *localRedis
	// root of the repository, kubectl and its kubeconfig.
	root, kubectl, kubeconfig string

	told map[string]string
	// open are the objects that are neither Ready nor Complete, and lost says that one has failed.
	open []string
	lost error
}

// samples applies the samples, waits until each is Ready or Complete, and breaks a key to see it mended.
func (s *story) samples(ctx context.Context) error {
	say("Leaving %d keys user:* in the cache, for the sample flush to delete ...", s.redis.users)
	if err := s.redis.seed(ctx); err != nil {
		return err
	}
	if err := s.apply(ctx); err != nil {
		return err
	}
	if err := s.until(ctx, func() bool { return len(s.open) == 0 }); err != nil {
		return err
	}
	return s.breakKey(ctx)
}

// apply the samples as a user would.
func (s *story) apply(ctx context.Context) error {
	say("kubectl apply -f config/samples")
	command := exec.CommandContext(ctx, s.kubectl, "--kubeconfig", s.kubeconfig, "apply", "-f", "config/samples")
	command.Dir = s.root
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, output)
	}
	return nil
}

// breakKey deletes a declared key as a careless colleague would, and waits until it is back.
func (s *story) breakKey(ctx context.Context) error {
	const key = "glimr:cache:main:feature-flags"
	began := time.Now()
	say("redis-cli UNLINK %s (behind the operator's back)", key)
	if err := s.redis.client.Unlink(ctx, key).Err(); err != nil {
		return err
	}
	err := wait.PollUntilContextCancel(ctx, time.Millisecond, true, func(ctx context.Context) (bool, error) {
		return !errors.Is(s.redis.client.Get(ctx, key).Err(), redis.Nil), nil
	})
	if err != nil {
		return fmt.Errorf("%s did not come back: %w", key, err)
	}
	say("%s is back after %s", key, time.Since(began).Round(time.Millisecond))
	return nil
}

// follow tells what happens until the context ends.
func (s *story) follow(ctx context.Context) error {
	return s.until(ctx, func() bool { s.lost = nil; return false })
}

// until tells what happens until a condition holds.
func (s *story) until(ctx context.Context, done func() bool) error {
	err := wait.PollUntilContextCancel(ctx, tick, true, func(ctx context.Context) (bool, error) {
		if err := s.look(ctx); err != nil {
			return false, err
		}
		return done(), s.lost
	})
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return fmt.Errorf("%w; neither Ready nor Complete: %v", cause, s.open)
	}
	return err
}

// look at all objects.
func (s *story) look(ctx context.Context) error {
	s.open = nil
	var pools v1alpha1.CachePoolList
	var entries v1alpha1.CacheEntryList
	var flushes v1alpha1.CacheFlushList
	for _, list := range []client.ObjectList{&pools, &entries, &flushes} {
		if err := s.client.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return err
		}
	}
	for _, o := range pools.Items {
		s.tell("cachepool/"+o.Name, o.Status.Conditions, "")
	}
	for _, o := range entries.Items {
		s.tell("cacheentry/"+o.Name, o.Status.Conditions, " "+o.Status.Key)
	}
	for _, o := range flushes.Items {
		detail := ""
		if p := o.Status.Progress; p != nil {
			detail = fmt.Sprintf(" %d%%, %d keys deleted", p.Percent, p.Deleted)
		}
		s.tell("cacheflush/"+o.Name, o.Status.Conditions, detail)
	}
	return nil
}

// tell of one object, if there is news.
func (s *story) tell(name string, conditions []metav1.Condition, detail string) {
	ready := apimeta.FindStatusCondition(conditions, v1alpha1.ConditionReady)
	if ready == nil || ready.Status != metav1.ConditionTrue {
		s.open = append(s.open, name)
	}
	if ready == nil {
		return
	}
	if text := fmt.Sprintf("%-28s %-12s%s", name, ready.Reason, detail); s.told[name] != text {
		s.told[name] = text
		say("%s", text)
	}
	if apimeta.IsStatusConditionTrue(conditions, v1alpha1.ConditionStalled) {
		s.lost = fmt.Errorf("%s is stalled: %s: %s", name, ready.Reason, ready.Message)
	}
}
