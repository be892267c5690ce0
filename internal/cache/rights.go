// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// What rights are for. Without those for everything a pool is of no use; the others may be withheld on purpose.
const (
	forEverything = ""
	forScripts    = "counters, and deletions under EnsurePresent and WriteOnChange"
	forCounters   = "counters"
	forNews       = "noticing changes at once"
	forRestarts   = "telling versions and restarts apart"
)

// try is a command by which it shows whether the user has a right. It changes nothing.
type try struct {
	purpose string
	// keys is the pattern of the keys that it is tried on.
	keys string
	args []any
}

// tries of all commands that a Pool sends, on keys that nobody has: that of a value, and that of a counter's marker. What leads
// to the node and logs in is not among them: it has been used already.
func (p *Pool) tries(key string) (needed, optional []try) {
	mark, values, markers := marker(key, "cachewright-check"), "~"+escape(p.prefix)+"*", "~"+markerPrefix+"*"
	if p.topology == Cluster { // it holds for the next command only, whose slot is not on its way
		needed = append(needed, try{forEverything, "", []any{"asking"}})
	}
	needed = append(needed,
		try{forEverything, values, []any{"exists", key}},
		try{forEverything, values, []any{"pttl", key}},
		try{forEverything, values, []any{"getrange", key, 0, 0}},
		try{forEverything, values, []any{"scan", 0, "match", key, "count", 1}},
		try{forEverything, values, []any{"unlink", key}},
		try{forEverything, values, []any{"set", key, "", "px", 1000, "xx"}},
	)
	return needed, []try{
		{forScripts, values, []any{"get", key}},
		{forScripts, values, []any{"eval", "return 0", 1, key}},
		{forCounters, values, []any{"pexpire", key, 1000}},
		{forCounters, values, []any{"incrby", key, "not a number"}}, // refused before the key is looked at
		{forCounters, markers, []any{"get", mark}},
		{forCounters, markers, []any{"set", mark, "", "px", 1000, "xx"}},
		{forNews, "", []any{"ping"}},
		{forNews, "", []any{"client", "id"}},
		{forNews, "", []any{"client", "tracking", "off"}},
		{forRestarts, "", []any{"info", "server"}},
	}
}

// tryRights on a node, and note those that the user lacks. What is needed is sent, since the server may have other reasons
// to refuse it. Of the rest the server is asked whether the user might send it (ACL DRYRUN); where it does not say, or not
// to this user, that is sent too.
func (p *Pool) tryRights(ctx context.Context, n node, l *lacks) error {
	ctx, cancel := p.deadline(tolerating(ctx))
	defer cancel()
	key, err := p.nameOn(ctx, n, "cachewright-check-"+rand.Text())
	if err != nil {
		return ignore(err, errElsewhere)
	}
	needed, optional := p.tries(key)
	isDry, rest := !p.noDryRuns.Load(), optional
	if isDry {
		rest = p.dryRuns(optional)
	}
	answers := send(ctx, n, slices.Concat(needed, rest))
	if err := p.judge(needed, answers, l); err != nil {
		return err
	}
	answers = answers[len(needed):]
	if isDry && answers[0].Err() != nil {
		p.noDryRuns.Store(true)
		answers = send(ctx, n, optional)
	}
	for i, t := range optional {
		text, _ := answers[i].Val().(string)
		if err := answers[i].Err(); err != nil {
			text = err.Error()
		}
		l.add(t, text)
	}
	return nil
}

// judge the answers to commands that are needed: that the user lacks rights comes first, since only a human can help.
func (p *Pool) judge(tries []try, answers []*redis.Cmd, l *lacks) error {
	var failed error
	for i, t := range tries {
		switch e, _ := errors.AsType[*Error](wrap(strings.ToUpper(fmt.Sprint(t.args[0])), answers[i].Err())); {
		case e == nil, e.Reason == ReasonNotFound, p.topology == Cluster && redirected(e.cause):
		case e.Class == Failed && t.args[0] == "asking": // who does not know it sends nobody to ask another node
		case e.Class == Denied && refused.MatchString(e.cause.Error()):
			l.add(t, e.cause.Error())
		case failed == nil:
			failed = e
		}
	}
	return cmp.Or(l.denied(), failed)
}

// dryRuns of commands. They answer with a text.
func (p *Pool) dryRuns(tries []try) []try {
	dry := slices.Clone(tries)
	for i, t := range tries {
		dry[i].args = append([]any{"acl", "dryrun", p.username}, t.args...)
	}
	return dry
}

// send commands in one round trip. The errors stand in the commands.
func send(ctx context.Context, n node, tries []try) []*redis.Cmd {
	commands := make([]*redis.Cmd, len(tries))
	_, _ = n.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, t := range tries {
			commands[i] = pipe.Do(ctx, t.args...)
		}
		return nil
	})
	return commands
}

// refused is how servers say that a user lacks a right: to run a command, which they call as an ACL does, or to access a key.
var refused = regexp.MustCompile(`[Nn]o permissions to (?:run the '([a-z|-]+)'|access )`)

// ruleFor a right, by what a server says; empty if it says nothing of a command.
func ruleFor(text string) string {
	parts := refused.FindStringSubmatch(text)
	if len(parts) == 0 || parts[1] == "" {
		return ""
	}
	return "+" + parts[1]
}

// mayNot is the error of a user who lacks ACL rules.
func mayNot(user string, rules []string, cause error) *Error {
	var may []string
	var commands []string
	for _, rule := range rules {
		if command, ok := strings.CutPrefix(rule, "+"); ok {
			commands = append(commands, strings.ToUpper(strings.ReplaceAll(command, "|", " ")))
		}
	}
	if len(commands) > 0 {
		may = append(may, "run "+strings.Join(commands, ", "))
	}
	if len(commands) < len(rules) {
		may = append(may, "use all keys under the pool's prefix")
	}
	noun := "rule"
	if len(rules) > 1 {
		noun = "rules"
	}
	return &Error{
		Class: Denied, Reason: ReasonPermissionDenied, cause: cause,
		Message: user + " may not " + strings.Join(may, ", or ") + "; it needs the ACL " + noun + " " + strings.Join(rules, " "),
	}
}

// lacks are the ACL rules that the user lacks, by what they are for, in the order of the tries.
type lacks struct {
	purposes []string
	rules    map[string][]string
}

// add what a server says about a try, if that is a refusal. It may be about a command that begins a connection, and about one that was
// refused before.
func (l *lacks) add(t try, text string) {
	if !refused.MatchString(text) {
		return
	}
	rule := cmp.Or(ruleFor(text), t.keys)
	for _, rules := range l.rules {
		if slices.Contains(rules, rule) {
			return
		}
	}
	if l.rules == nil {
		l.rules = map[string][]string{}
	}
	if len(l.rules[t.purpose]) == 0 {
		l.purposes = append(l.purposes, t.purpose)
	}
	l.rules[t.purpose] = append(l.rules[t.purpose], rule)
}

// denied is the error of a user who lacks what is needed for everything.
func (l *lacks) denied() error {
	if rules := l.rules[forEverything]; len(rules) > 0 {
		return mayNot(redisUser, rules, nil)
	}
	return nil
}

// String is what the rest is for.
func (l *lacks) String() string {
	var parts []string
	for _, purpose := range l.purposes {
		if purpose != forEverything {
			parts = append(parts, strings.Join(l.rules[purpose], " ")+" for "+purpose)
		}
	}
	return strings.Join(parts, "; ")
}
