// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// dialer makes every connection of a pool, those of its watch too.
type dialer struct {
	network func(ctx context.Context, network, address string) (net.Conn, error)
	// secure is nil for plain text.
	secure *TLS
	// last address that was dialed.
	last     atomic.Pointer[string]
	observer Observer
}

func newDialer(o Options) *dialer {
	d := &dialer{network: o.Dial, secure: o.TLS, observer: o.Observer}
	if d.network == nil {
		// What go-redis does if it is not given a dialer.
		alive := net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 5 * time.Second, Count: 3}
		d.network = (&net.Dialer{Timeout: dialTimeout, KeepAliveConfig: alive}).DialContext
	}
	return d
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d.last.Store(&address)
	conn, err := d.network(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if conn = counted(conn, d.observer); d.secure == nil {
		return conn, nil
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout) // a subscription dials without a deadline
	defer cancel()
	secured := tls.Client(conn, d.secure.config(address))
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secured, nil
}

// explainTimeout is how long it may take to find out more, on top of what has failed.
const explainTimeout = time.Second

// explain why a connection breaks before it is of use. A server closes it without a word when it gets plain text where
// it expects TLS, and waits for more when it gets TLS where it expects plain text; what it finds wrong with a client's
// certificate it tells after the handshake, when a command on its way may keep the client from hearing it. So it is
// asked again, in the way that it would answer.
func (d *dialer) explain(ctx context.Context, err error) error {
	address := d.last.Load()
	if address == nil || !hungUp(err) && (d.secure == nil || !timedOut(err)) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	conn, failure := d.network(ctx, "tcp", *address)
	if failure != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	var why error
	switch {
	case d.secure == nil:
		why = wantsTLS(ctx, conn)
	case hungUp(err):
		why = objection(ctx, conn, d.secure.config(*address))
	default:
		why = wantsPlain(conn)
	}
	return cmp.Or(why, err)
}

// wantsTLS says so if a server speaks it.
func wantsTLS(ctx context.Context, conn net.Conn) error {
	anybody := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // nothing is sent: it is only seen whether there is an answer
	if err := tls.Client(conn, anybody).HandshakeContext(ctx); err != nil && alert(err) == "" {
		return nil
	}
	return &Error{Class: Refused, Reason: ReasonInvalidTLS, Message: "The server speaks TLS on this port, and the pool does not: set tls, or rediss:// in a URL"}
}

// wantsPlain says so if a server answers to plain text.
func wantsPlain(conn net.Conn) error {
	answer := make([]byte, 1)
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return nil //nolint:nilerr // it does not
	}
	if _, err := conn.Read(answer); err != nil || answer[0] != '+' && answer[0] != '-' {
		return nil //nolint:nilerr // it does not
	}
	return &Error{Class: Refused, Reason: ReasonInvalidTLS, Message: noTLS}
}

// objection of a server to a handshake or to the client's certificate.
func objection(ctx context.Context, conn net.Conn, config *tls.Config) error {
	secured := tls.Client(conn, config)
	err := secured.HandshakeContext(ctx)
	if err == nil {
		_, err = secured.Read(make([]byte, 1))
	}
	if alert(err) == "" {
		return nil
	}
	return err
}

// hungUp says whether the other side has closed the connection.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// timedOut says whether the other side has not answered.
func timedOut(err error) bool {
	network, ok := errors.AsType[net.Error](err)
	return errors.Is(err, context.DeadlineExceeded) || ok && network.Timeout()
}
