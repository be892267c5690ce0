// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package pools

import (
	"context"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/cachewright/cachewright/internal/cache"
	"github.com/cachewright/cachewright/internal/keeper"
	"github.com/cachewright/cachewright/internal/metrics"
)

// Pool is the live side of one CachePool.
//
//nolint:recvcheck // all but shut work on copies, which the registry gives away
type Pool struct {
	// Cache is the connection.
	Cache *cache.Pool
	// Server that answered to the last check.
	Server cache.Server
	// Keeper of the pool's declared keys.
	Keeper *keeper.Keeper
	// Gate says what the pool may be used for.
	Gate keeper.Gate
	// Detects says how changes by others are noticed; empty as long as that is not known.
	Detects keeper.Detection

	identity Identity
	options  cache.Options
	// swept and opened are when all keys were last looked at, and when the pool began to serve.
	swept, opened time.Time
	// failure is the last one, flaps how often it has failed soon after it opened, and notBefore when it may be
	// tried again.
	failure   error
	flaps     int
	notBefore time.Time
	stop      context.CancelFunc
	metrics   *metrics.Pool
}

// shut the gate of a pool that cannot be used any more for everything.
func (p *Pool) shut(gate keeper.Gate) {
	p.Gate = min(p.Gate, gate)
	p.Keeper.Use(p.Cache, p.Gate, false)
	p.metrics.Up(false)
}

// Identity of a CachePool, as far as a connection depends on it.
type Identity struct {
	Name       types.NamespacedName
	UID        types.UID
	Generation int64
}

// Serves says whether the connection was made for this very pool and spec.
func (p Pool) Serves(id Identity) bool { return p.Cache != nil && p.identity == id }

// Outlives says whether the connection was made for this very pool, but with other options.
func (p Pool) Outlives(id Identity, o cache.Options) bool {
	return p.Cache != nil && p.identity.UID == id.UID && !same(p.options, o)
}

// For says whether the connection was made for the CachePool with this UID.
func (p Pool) For(uid types.UID) bool { return p.identity.UID == uid }

// Uses says whether the connection was made with these options.
func (p Pool) Uses(o cache.Options) bool { return p.Cache != nil && same(p.options, o) }

// Endpoint says where the connection leads; false when there is none.
func (p Pool) Endpoint() (Endpoint, bool) {
	return EndpointOf(p.options), p.Cache != nil
}

// EndpointOf a connection.
func EndpointOf(o cache.Options) Endpoint {
	return Endpoint{Topology: o.Topology, Addresses: strings.Join(o.Addresses, ","), MasterName: o.MasterName, Database: o.Database}
}

// Endpoint is where keys are.
type Endpoint struct {
	Topology              cache.Topology
	Addresses, MasterName string
	Database              int
}

// moved says whether options lead to other keys than before: in another database, or at another address where another
// server answers.
func (p Pool) moved(to cache.Options, server cache.Server) bool {
	switch {
	case p.Cache == nil:
		return false
	case p.options.Database != to.Database:
		return true
	default:
		return EndpointOf(p.options) != EndpointOf(to) && !server.Same(p.Server)
	}
}

// gateAfter says what a pool may be used for after a check.
func gateAfter(err error) keeper.Gate {
	switch {
	case err == nil:
		return keeper.Open
	case cache.Is(err, cache.ReasonOutOfMemory):
		return keeper.DeletionsOnly
	default:
		return keeper.Closed
	}
}

// same says whether two connections would be the same.
func same(a, b cache.Options) bool {
	return EndpointOf(a) == EndpointOf(b) && a.Username == b.Username && a.Password == b.Password &&
		a.SentinelUsername == b.SentinelUsername && a.SentinelPassword == b.SentinelPassword &&
		a.Prefix == b.Prefix && a.Timeout == b.Timeout && a.TLS.Equal(b.TLS)
}
