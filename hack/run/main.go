// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

// Command run shows cachewright at work on this machine: a real API server, a Redis, the operator and the samples.
// It prints what happens and stays until Ctrl-C; with --demo it ends once all samples are done.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/cachewright/cachewright/controllers"
	"github.com/cachewright/cachewright/internal/operator"
	"github.com/cachewright/cachewright/internal/testing/controlplane"
)

// sampleAddress is where the samples say that Redis is. No DNS of a cluster answers here, so the operator is led to
// the local Redis instead.
const sampleAddress = "redis.default.svc:6379"

// demoTime is how long the demo may take.
const demoTime = 2 * time.Minute

func main() {
	demo := flag.Bool("demo", false, "end once all samples are Ready or Complete")
	verbose := flag.Bool("v", false, "show the operator's log")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *demo, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1) //nolint:gocritic // stop only gives the signals back
	}
}

func run(ctx context.Context, demo, verbose bool) (err error) {
	log := logr.Discard()
	if verbose {
		log = zap.New(zap.UseDevMode(true))
	}
	ctrl.SetLogger(log)
	say("Starting a Kubernetes API server ...")
	// At its end it waits as long for a request to end, and a kubectl that watches in another terminal never does.
	env, err := controlplane.Start(controlplane.WithFlag("request-timeout", "5s"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, env.Stop()) }()
	redis, err := startRedis(ctx)
	if err != nil {
		return err
	}
	defer redis.stop()
	say("Redis: %s at %s", redis.kind, redis.address)

	tell, err := newStory(env, redis)
	if err != nil {
		return err
	}
	defer os.Remove(tell.kubeconfig) //nolint:errcheck // it is of no use any more, wherever it is
	return play(ctx, env.Config, tell, demo)
}

// play runs the operator, and the samples under it.
func play(ctx context.Context, config *rest.Config, tell *story, demo bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		err := operator.Run(ctx, config, operator.Options{MetricsAddress: "0", ProbeAddress: "0", Controllers: controllers.Options{Dial: tell.redis.dial}})
		cancel(fmt.Errorf("the operator has stopped: %w", err))
	}()
	defer func() { cancel(nil); <-stopped }()

	if err := within(ctx, demoTime, tell.samples); err != nil {
		return err
	}
	if demo {
		say("All samples are Ready or Complete.")
		return nil
	}
	say("\nTry it, in another terminal (a pool at %s reaches the Redis above):\n", sampleAddress)
	say("  export KUBECONFIG=%s PATH=%s:$PATH", tell.kubeconfig, filepath.Join(tell.root, "bin"))
	say("  kubectl get cachewright")
	say("  redis-cli -u redis://%s --scan --pattern 'glimr:cache:main:*'\n\nCtrl-C ends it.", tell.redis.address)
	return ended(tell.follow(ctx))
}

// newStory leaves an administrator's kubeconfig in bin/, for the story and for whoever tries kubectl.
func newStory(env *envtest.Environment, redis *localRedis) (*story, error) {
	scheme, err := operator.NewScheme()
	if err != nil {
		return nil, err
	}
	c, err := client.New(env.Config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, err
	}
	user, err := env.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		return nil, err
	}
	text, err := user.KubeConfig()
	if err != nil {
		return nil, err
	}
	root, err := controlplane.Root()
	if err != nil {
		return nil, err
	}
	tell := &story{
		client: c, redis: redis, told: map[string]string{}, root: root,
		kubectl: env.ControlPlane.KubectlPath, kubeconfig: filepath.Join(root, "bin", "kubeconfig"),
	}
	return tell, os.WriteFile(tell.kubeconfig, text, 0o600)
}

// within runs a step with a time limit.
func within(ctx context.Context, limit time.Duration, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done within %s", limit))
	defer cancel()
	return step(ctx)
}

// ended is nil when it was Ctrl-C that ended a step.
func ended(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// dial leads the address of the samples to the local Redis.
func (r *localRedis) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if address == sampleAddress {
		address = r.address
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }
