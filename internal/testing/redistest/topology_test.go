// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package redistest_test

import (
	"testing"

	. "github.com/onsi/gomega"

	"github.com/cachewright/cachewright/internal/testing/redistest"
)

func TestASlotMovesWithItsKeys(t *testing.T) {
	c := redistest.StartCluster(t, 3, false)
	g, client, key := NewWithT(t), c.Client(t), "k"
	g.Expect(client.Set(t.Context(), key, "v", 0).Err()).To(Succeed())
	slot := c.SlotOf(key)
	from := c.Masters[slot/((16384+2)/3)]
	to := c.Join()
	c.Move(slot, from, to)
	g.Expect(from.Client(t).DBSize(t.Context()).Val()).To(BeZero())
	g.Expect(to.Client(t).Get(t.Context(), key).Val()).To(Equal("v"))
	g.Expect(client.Get(t.Context(), key).Val()).To(Equal("v"))
}

func TestAReplicaTakesThePlaceOfItsMaster(t *testing.T) {
	c := redistest.StartCluster(t, 3, true)
	g, client := NewWithT(t), c.Client(t)
	c.FailOver(0)
	c.Lose(1)
	g.Eventually(func() error { return client.Set(t.Context(), "k", "v", 0).Err() }).Should(Succeed())
}

func TestSentinelsReplaceTheMaster(t *testing.T) {
	s := redistest.StartSentinels(t, "down-after-milliseconds 500")
	g, client := NewWithT(t), redistest.Client(t, s.Address())
	s.FailOver()
	g.Eventually(func() error { return client.Set(t.Context(), "k", "v", 0).Err() }).Should(Succeed())
	s.Lose()
	g.Eventually(func() error { return client.Set(t.Context(), "k", "w", 0).Err() }).Should(Succeed())
}
