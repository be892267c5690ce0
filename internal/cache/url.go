// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"net"
	"net/url"
	"strconv"
	"strings"
)

// URL is what a redis:// or rediss:// URL says.
type URL struct {
	// Address, host:port.
	Address            string
	Database           int
	Username, Password string
	// TLS says that it is rediss://.
	TLS bool
}

const (
	defaultPort = "6379"
	maxPort     = 65535
)

// ParseURL reads redis://user:password@host:port/database. All but scheme and host may be left out, and white space
// around it, such as the end of a line, is not part of it. What it does not understand it refuses, so that nothing is
// left out in silence. Errors say what would be right and show nothing of the text, which has a password.
func ParseURL(text string) (URL, error) {
	u, err := url.Parse(strings.TrimSpace(text))
	switch {
	case err != nil:
		return URL{}, badURL("it must look like redis://user:password@host:6379/0, with special characters in user and password percent-encoded")
	case u.Scheme != "redis" && u.Scheme != "rediss":
		return URL{}, badURL("it must begin with redis://, or with rediss:// for TLS")
	case u.Hostname() == "" || strings.Contains(u.Hostname(), ","):
		return URL{}, badURL("it must name one host, as in redis://redis.shop.svc:6379")
	case u.RawQuery != "" || u.ForceQuery:
		return URL{}, badURL("it must have no options behind a question mark (one in a password is written %3F)")
	case u.Fragment != "" || strings.Contains(text, "#"):
		return URL{}, badURL("it must have no number sign (one in a password is written %23)")
	}
	found := URL{TLS: u.Scheme == "rediss"}
	if found.Address, err = address(u); err != nil {
		return URL{}, err
	}
	if found.Username, found.Password, err = user(u.User); err != nil {
		return URL{}, err
	}
	found.Database, err = number(strings.TrimPrefix(u.Path, "/"))
	return found, err
}

// number of the database.
func number(path string) (int, error) {
	if path == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(path, 10, 31)
	if err != nil {
		return 0, badURL("what follows the host must be the number of a database, as in redis://redis.shop.svc:6379/5")
	}
	return int(n), nil
}

func address(u *url.URL) (string, error) {
	port := u.Port()
	if port == "" {
		port = defaultPort
	}
	if n, err := strconv.ParseUint(port, 10, 32); err != nil || n < 1 || n > maxPort {
		return "", badURL("the port must be a number from 1 to 65535")
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}

// user and password. A user without a password could not log in, and would be taken for nobody.
func user(info *url.Userinfo) (name, password string, err error) {
	if info == nil {
		return "", "", nil
	}
	password, _ = info.Password()
	if info.Username() != "" && password == "" {
		return "", "", badURL("a user needs a password, and a password alone a colon before it, as in redis://:password@host:6379")
	}
	return info.Username(), password, nil
}

func badURL(message string) *Error {
	return &Error{Class: Refused, Reason: ReasonInvalidURL, Message: message}
}
