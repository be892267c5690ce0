// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package keeper

import "container/heap"

// queue is a heap of items by due time.
type queue []*item //nolint:recvcheck // container/heap asks for both kinds of receivers

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push is for container/heap.
func (q *queue) Push(x any) {
	it := x.(*item) //nolint:forcetypeassert,errcheck // container/heap hands over only what put gave it
	it.index = len(*q)
	*q = append(*q, it)
}

// Pop is for container/heap.
func (q *queue) Pop() any {
	last := len(*q) - 1
	it := (*q)[last]
	(*q)[last], *q = nil, (*q)[:last]
	it.index = -1
	return it
}

// put adds an item, or moves it to its new due time.
func (q *queue) put(it *item) {
	if it.index < 0 {
		heap.Push(q, it)
		return
	}
	heap.Fix(q, it.index)
}

// remove an item, if it is there.
func (q *queue) remove(it *item) {
	if it.index >= 0 {
		heap.Remove(q, it.index)
	}
}
