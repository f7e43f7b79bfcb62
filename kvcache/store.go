package kvcache

import (
	"fmt"

	"github.com/terse-llm/terse/internal/huge"
	"github.com/terse-llm/terse/quant"
)

// Store has the bytes of a Cache's pages. A page's bytes are allocated when they
// are first asked for and stay with its id for reuse; bytes of free pages are
// given up when the budget is needed for others. So the store never holds more
// than the budget, whatever the mix of kinds was before.
type Store struct {
	c         *Cache
	bufs      [kinds][]buffer
	allocated int64
	alloc     func(n int) []byte
	copies    bool
	stamps    uint64
	hand      [kinds]int // where takeIdle goes on
}

type buffer struct {
	b     []byte
	gen   uint32 // the page's gen that b was prepared for
	stamp uint64 // of this preparation
}

// NewStore makes the bytes for c's pages, allocated as they are asked for.
func NewStore(c *Cache) *Store {
	return &Store{c: c, alloc: huge.Quick}
}

// NewCopies makes room for copies of pages whose own bytes are elsewhere, in memory
// of another kind, which is dear: a page has its copy as long as somebody holds it,
// and another may get the bytes after that, before new ones are allocated.
func NewCopies(c *Cache, alloc func(n int) []byte) *Store {
	return &Store{c: c, alloc: alloc, copies: true}
}

// Allocated is the number of bytes the store holds, never more than the budget.
func (s *Store) Allocated() int64 { return s.allocated }

// Page is the bytes of a held page, all layers ([Layers][ExactBytes or
// CodedBytes]). They stay valid until the page is freed. The first call after
// the page was handed out zeroes a coded page, as coding adds to words that
// begin as zero; an exact page may hold old bytes, which nobody reads.
func (s *Store) Page(k Kind, id PageID) []byte {
	p := s.c.pools[k].pages[id]
	if p.refs == 0 {
		panic(fmt.Sprintf("BUG: bytes of %s page %d, which nobody holds", k, id))
	}
	for len(s.bufs[k]) <= int(id) {
		s.bufs[k] = append(s.bufs[k], buffer{})
	}
	buf := &s.bufs[k][id]
	if buf.gen == p.gen {
		return buf.b
	}
	if buf.b == nil {
		buf.b = s.obtain(k)
	}
	if k == Coded {
		clear(buf.b)
	}
	s.stamps++
	buf.gen, buf.stamp = p.gen, s.stamps
	return buf.b
}

// Stamp tells one preparation of a page's bytes from all others: what was put into
// them is there while it stays the same. Page has been called.
func (s *Store) Stamp(k Kind, id PageID) uint64 { return s.bufs[k][id].stamp }

// obtain finds the bytes of one more page of kind k: new ones while the budget
// lasts, then those of a free page.
func (s *Store) obtain(k Kind) []byte {
	size := s.c.pools[k].cost
	if s.copies {
		if b := s.takeIdle(k); b != nil {
			return b
		}
	}
	if s.allocated+size > s.c.budget {
		if b := s.takeFree(k); b != nil {
			return b
		}
	}
	other := Exact + Coded - k
	for s.allocated+size > s.c.budget {
		b := s.takeFree(other)
		if b == nil {
			panic(fmt.Sprintf("BUG: no room for a %s page: %d of %d bytes are taken", k, s.allocated, s.c.budget))
		}
		s.allocated -= int64(len(b))
	}
	s.allocated += size
	return s.alloc(int(size))
}

// takeIdle takes the bytes of a page of kind k that nobody holds, or nil.
func (s *Store) takeIdle(k Kind) []byte {
	bufs, pages := s.bufs[k], s.c.pools[k].pages
	for range bufs {
		if s.hand[k]++; s.hand[k] >= len(bufs) {
			s.hand[k] = 0
		}
		buf := &bufs[s.hand[k]]
		if b := buf.b; b != nil && pages[s.hand[k]].refs == 0 {
			*buf = buffer{}
			return b
		}
	}
	return nil
}

// takeFree takes the bytes of a free page of kind k, of the one that will be
// handed out last, or nil.
func (s *Store) takeFree(k Kind) []byte {
	for _, id := range s.c.pools[k].free {
		if int(id) < len(s.bufs[k]) && s.bufs[k][id].b != nil {
			b := s.bufs[k][id].b
			s.bufs[k][id] = buffer{}
			return b
		}
	}
	return nil
}

// View fills v's pages with the bytes of t's, reusing v's slices.
func (s *Store) View(t *Table, promptLen int, v *quant.View) {
	v.Geometry, v.PromptLen = s.c.g, promptLen
	v.Exact = s.pages(Exact, t.Exact, v.Exact[:0])
	v.Coded = s.pages(Coded, t.Coded, v.Coded[:0])
}

func (s *Store) pages(k Kind, ids []PageID, to [][]byte) [][]byte {
	for _, id := range ids {
		var b []byte
		if id != None {
			b = s.Page(k, id)
		}
		to = append(to, b)
	}
	return to
}
