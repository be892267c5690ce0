// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// StartControllerManager runs a real kube-controller-manager on an API server until the end of the test, with these
// controllers only (job-controller, garbage-collector-controller, …). The kubeconfig is an administrator's.
func StartControllerManager(t *testing.T, kubeconfig []byte, controllers ...string) {
	t.Helper()
	path, err := Program("kube-controller-manager")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(file, kubeconfig, 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	process := exec.Command(path, "--kubeconfig="+file, "--controllers="+strings.Join(controllers, ","),
		"--leader-elect=false", "--use-service-account-credentials=false", "--secure-port=0")
	process.Stdout, process.Stderr = log, log
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	stopped, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		err := process.Wait()
		select {
		case <-stopped:
		default: // or else the test would only tell that it has waited in vain
			t.Errorf("kube-controller-manager ended on its own: %v", err)
		}
	}()
	t.Cleanup(func() {
		close(stopped)
		_ = process.Process.Kill() // it keeps nothing
		<-ended
		_ = log.Close()
		if text, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("kube-controller-manager said:\n%s", text)
		}
	})
}
