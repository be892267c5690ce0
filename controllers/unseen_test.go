// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cachewright/cachewright/api/v1alpha1"
)

func versioned(uid types.UID, version string) *v1alpha1.CacheEntry {
	return &v1alpha1.CacheEntry{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "e", UID: uid, ResourceVersion: version}}
}

func TestAnObjectIsHiddenUntilTheCacheShowsOurWrite(t *testing.T) {
	for name, row := range map[string]struct {
		shown client.Object
		hides bool
	}{
		"as it was":                   {versioned("1", "99"), true},
		"as it was, with less digits": {versioned("1", "9"), true},
		"as we wrote it":              {versioned("1", "100"), false},
		"as others wrote it later":    {versioned("1", "101"), false},
		"another one of its name":     {versioned("2", "99"), false},
		"one without order":           {versioned("1", "v1"), false},
	} {
		t.Run(name, func(t *testing.T) {
			g, u := NewWithT(t), &unseen{}
			u.wrote(versioned("1", "100"))
			g.Expect(u.hides(row.shown)).To(Equal(row.hides))
			if !row.hides {
				g.Expect(u.written).To(BeEmpty(), "nothing is kept of what was seen")
				g.Expect(u.hides(versioned("1", "99"))).To(BeFalse())
			}
			u.forget(types.NamespacedName{Namespace: "ns", Name: "e"})
			g.Expect(u.written).To(BeEmpty())
		})
	}
}

func TestAnEntryIsLeftAloneWhileTheCacheIsBehind(t *testing.T) {
	p := newPatient(t, downSince(time.Now()), versioned("1", ""))
	_, e, _ := p.look()
	p.Expect(e.Status.Conditions).NotTo(BeEmpty())

	e.ResourceVersion += "0"
	p.unseen.wrote(e)
	p.Expect(p.Get(t.Context(), client.ObjectKeyFromObject(e), e)).To(Succeed())
	e.Status.Conditions = nil
	p.Expect(p.Status().Update(t.Context(), e)).To(Succeed())
	_, e, _ = p.look()
	p.Expect(e.Status.Conditions).To(BeEmpty(), "it is older than what was written")

	p.unseen.wrote(e)
	_, e, _ = p.look()
	p.Expect(e.Status.Conditions).NotTo(BeEmpty())
}
