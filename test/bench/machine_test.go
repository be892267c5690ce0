// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"

	"github.com/cachewright/cachewright/internal/testing/controlplane"
)

// machine that the benchmarks run on, and what runs on it.
type machine struct {
	CPU     string `json:"cpu"`
	Cores   int    `json:"cores"`
	Memory  string `json:"memory"`
	System  string `json:"system"`
	Go      string `json:"go"`
	Redis   string `json:"redis"`
	API     string `json:"api"`
	Commit  string `json:"commit"`
	Entries string `json:"entries"`
	Keys    string `json:"keys"`
	Repeats int    `json:"repeats"`
}

func thisMachine() (machine, error) {
	m := machine{Cores: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(), Entries: count(*entries), Keys: count(*keys), Repeats: *repeats}
	cpu, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m, err
	}
	m.CPU = first(string(cpu), `model name\s*: (.*)`)
	memory, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return m, err
	}
	var kib float64
	if _, err := fmt.Sscan(first(string(memory), `MemTotal:\s*(\d+)`), &kib); err != nil {
		return m, err
	}
	m.Memory = fmt.Sprintf("%.0f GiB", kib/(1<<20))
	apiServer, err := controlplane.Program("kube-apiserver")
	if err != nil {
		return m, err
	}
	m.API = said(`v[0-9][^ ]*`, apiServer, "--version")
	m.Redis = said(`v=([0-9.]+)`, "redis-server", "--version")
	m.Commit = said(`.*`, "git", "describe", "--always", "--dirty")
	return m, nil
}

// said is what of a program's output matches; empty if nothing does.
func said(expression, program string, args ...string) string {
	out, err := exec.Command(program, args...).Output()
	if err != nil {
		return ""
	}
	return first(string(out), expression)
}

// first match of an expression, or of the group in it.
func first(text, expression string) string {
	found := regexp.MustCompile(expression).FindStringSubmatch(text)
	if found == nil {
		return ""
	}
	return strings.TrimSpace(found[len(found)-1])
}
