package tokenizer

import "math"

// shortPiece is the length in symbols up to which scanning for the best pair
// beats keeping a heap.
const shortPiece = 40

const noRank = math.MaxInt32

// mergeShort joins pairs by scanning all of them for the best each time.
func (g *merger) mergeShort() {
	syms := g.syms
	g.best = g.best[:0]
	for i := range syms {
		g.best = append(g.best, g.withNext(syms, i))
	}
	best := g.best
	for {
		at, rank := -1, int32(noRank)
		for i := range best {
			if best[i].rank < rank {
				at, rank = i, best[i].rank
			}
		}
		if at < 0 {
			g.syms = syms
			return
		}
		syms[at].end, syms[at].id = syms[at+1].end, best[at].id
		syms = append(syms[:at+1], syms[at+2:]...)
		best = append(best[:at+1], best[at+2:]...)
		best[at] = g.withNext(syms, at)
		if at > 0 {
			best[at-1] = g.withNext(syms, at-1)
		}
	}
}

// withNext is the merge of symbol i with its right neighbour in a dense slice.
func (g *merger) withNext(syms []symbol, i int) merged {
	if i+1 < len(syms) {
		if out, ok := g.m.pair(g.text, &syms[i], &syms[i+1]); ok {
			return out
		}
	}
	return merged{rank: noRank}
}

// candidate is a possible merge: [left.start, mid) with [mid, end). It is stale
// once either part has changed.
type candidate struct {
	order    uint64 // rank, then left: the lowest merges first
	mid, end int32
	id       int32
}

func (c candidate) left() int32 { return int32(uint32(c.order)) }

// mergeLong joins pairs with a heap over a linked list: O(n log n).
func (g *merger) mergeLong() {
	g.heap = g.heap[:0]
	for i := range g.syms[:len(g.syms)-1] {
		g.propose(int32(i))
	}
	for len(g.heap) > 0 {
		c := g.pop()
		at := c.left()
		left := &g.syms[at]
		if left.end != c.mid || left.next < 0 || g.syms[left.next].end != c.end {
			continue
		}
		right := &g.syms[left.next]
		left.end, left.id, left.next = right.end, c.id, right.next
		right.end = -1
		if left.next >= 0 {
			g.syms[left.next].prev = at
			g.propose(at)
		}
		if left.prev >= 0 {
			g.propose(left.prev)
		}
	}
}

// propose pushes the merge of symbol i with its right neighbour.
func (g *merger) propose(i int32) {
	left := &g.syms[i]
	right := &g.syms[left.next]
	if out, ok := g.m.pair(g.text, left, right); ok {
		g.push(candidate{order: uint64(out.rank)<<32 | uint64(i), mid: left.end, end: right.end, id: out.id})
	}
}

func (g *merger) push(c candidate) {
	h := append(g.heap, c)
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if c.order >= h[up].order {
			break
		}
		h[i], i = h[up], up
	}
	h[i] = c
	g.heap = h
}

func (g *merger) pop() candidate {
	h := g.heap
	top, c := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	for i := 0; len(h) > 0; {
		down := 2*i + 1
		if down+1 < len(h) && h[down+1].order < h[down].order {
			down++
		}
		if down >= len(h) || h[down].order >= c.order {
			h[i] = c
			break
		}
		h[i], i = h[down], down
	}
	g.heap = h
	return top
}
