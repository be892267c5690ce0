// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package command_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/cachewright/cachewright/api/v1alpha1"
	"github.com/cachewright/cachewright/internal/command"
)

// userWho may do these things with flushes, as a flag.
func (b *bench) userWho(verbs ...string) string {
	b.t.Helper()
	flag := "--as=" + b.namespace
	if len(verbs) == 0 {
		return flag
	}
	meta := metav1.ObjectMeta{Name: "flusher", Namespace: b.namespace}
	b.Expect(k8s.Create(b.t.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"cacheflushes"}, Verbs: verbs},
	}})).To(Succeed())
	b.Expect(k8s.Create(b.t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: b.namespace}},
	})).To(Succeed())
	b.Eventually(func() bool { // the API server reads roles from a cache
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: b.namespace, ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: b.namespace, Verb: verbs[0], Group: v1alpha1.GroupVersion.Group, Resource: "cacheflushes",
			},
		}}
		b.Expect(k8s.Create(b.t.Context(), review)).To(Succeed())
		return review.Status.Allowed
	}).Should(BeTrue())
	return flag
}

func TestMissingRightsEndTheWait(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		verbs []string
		want  string // empty: it waits
	}{
		"none":       {nil, `cannot create resource "cacheflushes"`},
		"create":     {[]string{"create"}, "cacheflush/f goes on, but cannot be followed: "},
		"no watch":   {[]string{"create", "get", "list"}, `cannot watch resource "cacheflushes"`},
		"all it has": {[]string{"create", "get", "list", "watch"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			wait := b.start(ctx, "--name", "f", "--all", "--wait", b.userWho(tc.verbs...))
			if tc.want == "" {
				b.Eventually(b.said).Should(ContainSubstring("waits for the operator"))
				interrupt()
			}
			code, err := wait()
			b.Expect(code).To(Equal(command.ExitFailed))
			if tc.want != "" {
				b.Expect(err).To(MatchError(ContainSubstring(tc.want)))
				b.Expect(err).To(MatchError(HaveSuffix("\nYou need the rights to create, get, list and watch cacheflushes.cachewright.dev in namespace " + b.namespace)))
			}
		})
	}
}

func TestAFlushThatExistsMayNotBeRead(t *testing.T) {
	b := newBench(t)
	user := b.userWho("create")
	_, err := b.flush(t.Context(), "--name", "f", "--all", user)
	b.Expect(err).NotTo(HaveOccurred(), "to create is enough for a flush that nobody waits for")
	code, err := b.flush(t.Context(), "--name", "f", "--all", user)
	b.Expect(err).To(MatchError(And(ContainSubstring(`cannot get resource "cacheflushes"`), ContainSubstring("You need the rights"))))
	b.Expect(code).To(Equal(command.ExitFailed))
}

// proxy before the API server. What answers gives true has been answered; events of watches are left out unless kept.
type proxy struct {
	answers func(http.ResponseWriter, *http.Request) bool
	keeps   func(event string) bool
}

func isWatch(r *http.Request) bool { return r.URL.Query().Get("watch") != "" }

// start it, and give the flag for it.
func (p proxy) start(b *bench) string {
	b.t.Helper()
	target, err := url.Parse(env.Config.Host)
	b.Expect(err).NotTo(HaveOccurred())
	transport, err := rest.TransportFor(env.Config)
	b.Expect(err).NotTo(HaveOccurred())
	forward := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "https", Host: target.Host}) },
		Transport: transport, FlushInterval: -1,
		ModifyResponse: func(r *http.Response) error {
			if p.keeps != nil && isWatch(r.Request) {
				r.Body = p.filter(r.Body)
			}
			return nil
		},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.answers == nil || !p.answers(w, r) {
			forward.ServeHTTP(w, r)
		}
	}))
	b.t.Cleanup(server.CloseClientConnections)
	return "--server=" + server.URL
}

func (p proxy) filter(body io.ReadCloser) io.ReadCloser {
	out, in := io.Pipe()
	go func() {
		for events := json.NewDecoder(body); ; {
			var event json.RawMessage
			err := events.Decode(&event)
			if err == nil && p.keeps(string(event)) {
				_, err = in.Write(event)
			}
			if err != nil {
				_ = in.CloseWithError(err)
				return
			}
		}
	}()
	return struct {
		io.Reader
		io.Closer
	}{out, body}
}

func TestALoginThatIsNotKnownEndsTheWait(t *testing.T) {
	t.Parallel()
	for name, method := range map[string]string{"from the start": http.MethodPost, "after the flush was created": http.MethodGet} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			server := proxy{answers: func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == method {
					w.WriteHeader(http.StatusUnauthorized)
				}
				return r.Method == method
			}}.start(b)
			code, err := b.flush(t.Context(), "--name", "f", "--all", "--wait", server)
			b.Expect(err).To(MatchError(ContainSubstring("You need the rights to create, get, list and watch cacheflushes.cachewright.dev")))
			b.Expect(code).To(Equal(command.ExitFailed))
		})
	}
}

func TestAnAPIServerWithoutOurKinds(t *testing.T) {
	b := newBench(t)
	server := proxy{answers: func(w http.ResponseWriter, r *http.Request) bool { http.NotFound(w, r); return true }}.start(b)
	code, err := b.flush(t.Context(), "--all", server)
	b.Expect(err).To(MatchError(HavePrefix("the API server does not know the kind CacheFlush; is cachewright installed in this cluster? ")))
	b.Expect(code).To(Equal(command.ExitFailed))
}

// An admission policy may have something to say of a flush that it lets through.
func TestWarningsOfTheAPIServerAreShown(t *testing.T) {
	b := newBench(t)
	server := proxy{answers: func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Warning", `299 - "all is much"`)
		return false
	}}.start(b)
	_, err := b.flush(t.Context(), "--name", "f", "--all", server)
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(b.said()).To(Equal("Warning: all is much\ncacheflush/f created\n"))
}

func TestTheTimeoutIsOfAllThatIsDone(t *testing.T) {
	t.Parallel()
	for name, silent := range map[string]func(*http.Request) bool{
		"create": func(r *http.Request) bool { return r.Method == http.MethodPost },
		"get":    func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/cacheflushes/f") },
		"all":    func(*http.Request) bool { return true },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			_, err := b.flush(t.Context(), "--name", "f", "--all")
			b.Expect(err).NotTo(HaveOccurred())
			server := proxy{answers: func(_ http.ResponseWriter, r *http.Request) bool {
				if silent(r) {
					_, _ = io.Copy(io.Discard, r.Body) // or else nobody notices that the client has gone
					<-r.Context().Done()
				}
				return silent(r)
			}}.start(b)
			code, err := b.flush(t.Context(), "--name", "f", "--all", "--wait", "--timeout", "1s", server)
			b.Expect(err).To(MatchError("timed out before the API server answered; the flush may have been created all the same" +
				"\nTo see it: kubectl get cflush f -n " + b.namespace + " --kubeconfig " + kubeconfig))
			b.Expect(code).To(Equal(command.ExitTimeout))
		})
	}
}

func TestAFlushThatIsDeletedBeforeItCanBeWatched(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]bool{"it is gone": false, "another one has its name": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			deleted := make(chan struct{})
			server := proxy{answers: func(_ http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodGet {
					<-deleted
				}
				return false
			}}.start(b)
			wait := b.start(t.Context(), "--name", "f", "--all", "--wait", server)
			f := b.only()
			b.Expect(k8s.Delete(t.Context(), f)).To(Succeed())
			if again {
				f.ResourceVersion, f.UID = "", ""
				b.Expect(k8s.Create(t.Context(), f)).To(Succeed())
			}
			close(deleted)
			code, err := wait()
			b.Expect(err).To(MatchError("cacheflush/f was deleted before its end"))
			b.Expect(code).To(Equal(command.ExitFailed))
		})
	}
}

// After ttlSecondsAfterFinished.
func TestAFlushThatIsDeletedAfterItsEnd(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		reason, condition string
		code              int
	}{
		"complete": {v1alpha1.ReasonKeysFlushed, v1alpha1.ConditionComplete, 0},
		"failed":   {v1alpha1.ReasonTooManyKeys, v1alpha1.ConditionFailed, command.ExitFailed},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			server := proxy{keeps: func(event string) bool { return !strings.Contains(event, `"type":"MODIFIED"`) }}.start(b)
			wait := b.start(t.Context(), "--name", "f", "--all", "--wait", server)
			b.Eventually(b.said).Should(ContainSubstring("waits"))
			f := b.only()
			b.say(f, tc.reason, progress(100, 1), tc.condition)
			b.Expect(k8s.Delete(t.Context(), f)).To(Succeed())
			code, err := wait()
			b.Expect(code).To(Equal(tc.code))
			if tc.code == 0 {
				b.Expect(err).NotTo(HaveOccurred())
				b.Expect(b.said()).To(HaveSuffix("cacheflush/f complete: 1 key deleted, 2 preserved\n"))
			} else {
				b.Expect(err).To(MatchError("cacheflush/f failed after 1 key: Because of TooManyKeys"))
			}
		})
	}
}

func TestAnAPIServerThatIsAwayIsToldOfAndWaitedFor(t *testing.T) {
	b := newBench(t)
	var away atomic.Bool
	away.Store(true)
	server := proxy{answers: func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !away.Load() {
			return false
		}
		http.Error(w, "away", http.StatusBadGateway)
		return true
	}}.start(b)
	wait := b.start(t.Context(), "--name", "f", "--all", "--wait", server)
	b.Eventually(b.said).Should(MatchRegexp("cacheflush/f cannot be seen, trying again: .*away"))
	away.Store(false)
	b.Eventually(b.said, time.Minute).Should(HaveSuffix("cacheflush/f waits for the operator\n"))
	b.say(b.only(), v1alpha1.ReasonKeysFlushed, nil, v1alpha1.ConditionComplete)
	_, err := wait()
	b.Expect(err).NotTo(HaveOccurred())
}
