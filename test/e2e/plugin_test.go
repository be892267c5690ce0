// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/creack/pty"
	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/internal/testing/controlplane"
	"github.com/cachewright/cachewright/internal/testing/redistest"
)

// shell in which kubectl finds its plugin, and a cluster.
type shell struct {
	*WithT

	t           *testing.T
	environment []string
}

func newShell(t *testing.T) *shell {
	t.Helper()
	s := &shell{WithT: expectations(t), t: t}
	dir := t.TempDir()
	s.Expect(os.Symlink(binary, filepath.Join(dir, "kubectl-cachewright"))).To(Succeed())
	file := filepath.Join(dir, "kubeconfig")
	s.Expect(os.WriteFile(file, kubeconfig, 0o600)).To(Succeed())
	kubectl, err := controlplane.Program("kubectl")
	s.Expect(err).NotTo(HaveOccurred())
	path := strings.Join([]string{dir, filepath.Dir(kubectl), os.Getenv("PATH")}, ":")
	s.environment = append(os.Environ(), "KUBECONFIG="+file, "PATH="+path)
	return s
}

func (s *shell) command(line string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	s.t.Cleanup(cancel)
	c := exec.CommandContext(ctx, "sh", "-c", "exec "+line)
	c.Env = s.environment
	return c
}

// run a line, and give its exit code and what it said.
func (s *shell) run(line string) (int, string) {
	s.t.Helper()
	c := s.command(line)
	out, err := c.CombinedOutput()
	if exit := (&exec.ExitError{}); err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	s.t.Logf("%s\n%s", line, out)
	return c.ProcessState.ExitCode(), string(out)
}

func TestTheKubectlPlugin(t *testing.T) {
	s := newShell(t)
	space := namespace(t, "plugin")
	server := redistest.Start(t)
	redis := server.Client(t)
	run(t, kubeconfig, "--namespaces="+space)
	s.Expect(k8s.Create(t.Context(), poolIn(space, server.Addr))).To(Succeed())

	code, said := s.run("kubectl cachewright flush --help")
	s.Expect(code).To(BeZero())
	s.Expect(said).To(And(ContainSubstring("kubectl cachewright flush (--all"), ContainSubstring("kubectl cachewright flush --pool main")))
	code, said = s.run("kubectl cachewright flsh")
	s.Expect(code).To(Equal(2))
	s.Expect(said).To(HavePrefix(`error: unknown command "flsh" for "kubectl cachewright"`))

	for _, key := range []string{"user:1", "user:2", "report:1"} {
		s.Expect(redis.Set(t.Context(), "glimr:cache:main:"+key, "v", 0).Err()).To(Succeed())
	}
	code, said = s.run("kubectl cachewright flush -n " + space + " --pool main --prefix user: --wait")
	s.Expect(code).To(BeZero())
	s.Expect(said).To(MatchRegexp(`^cacheflush/flush-\w+ created\n(.*\n)*cacheflush/flush-\w+ complete: 2 keys deleted, 0 preserved\n$`))
	s.Expect(redis.Keys(t.Context(), "*").Val()).To(ConsistOf("glimr:cache:main:report:1"))
}

// Redis is down: a pipe and a terminal show it, and what a Ctrl-C says works.
func TestTheKubectlPluginWithoutARedis(t *testing.T) {
	s := newShell(t)
	space := namespace(t, "plugin")
	run(t, kubeconfig, "--namespaces="+space)
	s.Expect(k8s.Create(t.Context(), poolIn(space, freeAddress(t)))).To(Succeed())
	flush := "kubectl cachewright flush -n " + space + " --pool main --name all --all --wait"

	code, said := s.run(flush + " --timeout 5s")
	s.Expect(code).To(Equal(3))
	s.Expect(said).To(And(ContainSubstring("cacheflush/all PoolNotReady: "), ContainSubstring("error: timed out; cacheflush/all goes on\n")))

	c := s.command(flush)
	terminal, err := pty.StartWithSize(c, &pty.Winsize{Rows: 24, Cols: 60})
	s.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = terminal.Close() }()
	shown := &recorder{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for buffer := make([]byte, 1<<10); ; {
			n, err := terminal.Read(buffer)
			shown.add(buffer[:n])
			if err != nil { // the program has ended
				return
			}
		}
	}()
	s.Eventually(shown.text).Should(ContainSubstring("\r\033[K[------------------------------] PoolNotReady: "))
	_, err = terminal.WriteString("\x03")
	s.Expect(err).NotTo(HaveOccurred())
	s.Eventually(ended).Should(BeClosed())
	s.Expect(c.Wait()).NotTo(Succeed())
	s.Expect(c.ProcessState.ExitCode()).To(Equal(1))
	t.Logf("%q", shown.text())
	s.Expect(shown.text()).To(ContainSubstring("\r\033[Kerror: interrupted; cacheflush/all goes on\r\n"))

	hints := regexp.MustCompile(`To (?:follow|cancel) it: (.*)\r\n`).FindAllStringSubmatch(shown.text(), -1)
	s.Expect(hints).To(HaveLen(2))
	follow, cancel := hints[0][1], hints[1][1]
	s.Expect(follow).To(HaveSuffix(" -w"))
	code, said = s.run(follow + " --request-timeout=2s") // or else it goes on for ever
	s.Expect(said).To(ContainSubstring("PoolNotReady"), "exit code %d", code)
	code, said = s.run(cancel)
	s.Expect(code).To(BeZero())
	s.Expect(said).To(ContainSubstring(`"all" deleted`))
}

// recorder of what a terminal shows.
type recorder struct {
	mu    sync.Mutex
	shown strings.Builder
}

func (r *recorder) add(p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shown.Write(p)
}

func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.shown.String()
}
