package kvcache

import (
	"fmt"

	"github.com/terse-llm/terse/quant"
)

// Arena places a Cache's pages in one run of bytes, the Cache's budget, for
// memory that cannot be allocated piece by piece: exact pages from its start,
// coded pages from its end. Either kind may take all of it. Where one needs room
// that the other has left holes in, pages of the other move together.
//
// Only the pages that the Cache holds have a place; it tells from the Cache when a
// place is free again.
type Arena struct {
	c      *Cache
	places [kinds][]place  // of each page
	slots  [kinds][]PageID // who is in each slot, None where nobody is; slot 0 is outermost
	move   func(k Kind, from, to int64)
	end    int64 // of the coded pages
}

type place struct {
	slot int
	gen  uint32 // the page's gen that the place was given to; 0: none
}

// NewArena makes the places. move is told, while pages are being placed, that all
// bytes of a page are to be copied from one offset to another. All offsets are
// multiples of what the sizes of both kinds of page are multiples of.
func NewArena(c *Cache, move func(k Kind, from, to int64)) *Arena {
	a, b := c.pools[Exact].cost, c.pools[Coded].cost
	for b != 0 {
		a, b = b, a%b
	}
	return &Arena{c: c, move: move, end: c.budget - c.budget%a}
}

// View names t's pages in v, having placed them: their places then hold until
// other pages are placed.
func (a *Arena) View(t *Table, promptLen int, v *quant.View) {
	v.Geometry, v.PromptLen = a.c.g, promptLen
	v.Exact, v.Coded = v.Exact[:0], v.Coded[:0]
	v.ExactIDs = a.ids(Exact, t.Exact, v.ExactIDs[:0])
	v.CodedIDs = a.ids(Coded, t.Coded, v.CodedIDs[:0])
}

func (a *Arena) ids(k Kind, from []PageID, to []int32) []int32 {
	for _, id := range from {
		if id != None {
			a.at(k, id)
		}
		to = append(to, int32(id))
	}
	return to
}

// Addresses puts into dst where the pages of ids are, which View has placed, in a
// run of bytes that begins at base; 0 for no page.
func (a *Arena) Addresses(k Kind, ids []int32, base uint64, dst []uint64) {
	for i, id := range ids {
		dst[i] = 0
		if PageID(id) != None {
			dst[i] = base + uint64(a.offset(k, a.places[k][id].slot))
		}
	}
}

// at is the offset of a held page, and whether it was just given that place.
// Calls for other pages may move it.
func (a *Arena) at(k Kind, id PageID) (offset int64, fresh bool) {
	p := a.c.pools[k].pages[id]
	if p.refs == 0 {
		panic(fmt.Sprintf("BUG: the place of %s page %d, which nobody holds", k, id))
	}
	for len(a.places[k]) <= int(id) {
		a.places[k] = append(a.places[k], place{})
	}
	at := &a.places[k][id]
	if at.gen != p.gen {
		a.leave(k, id)
		*at = place{a.take(k, id), p.gen}
		fresh = true
	}
	return a.offset(k, at.slot), fresh
}

// leave empties the slot that an earlier life of the page had.
func (a *Arena) leave(k Kind, id PageID) {
	if at := &a.places[k][id]; at.gen != 0 && at.slot < len(a.slots[k]) && a.slots[k][at.slot] == id {
		a.slots[k][at.slot] = None
	}
}

func (a *Arena) offset(k Kind, slot int) int64 {
	size := a.c.pools[k].cost
	if k == Exact {
		return int64(slot) * size
	}
	return a.end - int64(slot+1)*size
}

// take finds a slot, the outermost that is free.
func (a *Arena) take(k Kind, id PageID) int {
	for slot, who := range a.slots[k] {
		if !a.holds(k, slot, who) {
			a.slots[k][slot] = id
			return slot
		}
	}
	other := Exact + Coded - k
	size := a.c.pools[k].cost
	for a.extent(k)+size > a.c.budget-a.extent(other) {
		if !a.shrink(other) {
			panic(fmt.Sprintf("BUG: no room for a %s page between %d and %d of %d bytes", k, a.extent(Exact), a.extent(Coded), a.c.budget))
		}
	}
	a.slots[k] = append(a.slots[k], id)
	return len(a.slots[k]) - 1
}

// extent is how far from its end a kind reaches.
func (a *Arena) extent(k Kind) int64 { return int64(len(a.slots[k])) * a.c.pools[k].cost }

// holds reports whether who lives in a slot: it is held, or offered to others by
// the prefix index, and this is its place.
func (a *Arena) holds(k Kind, slot int, who PageID) bool {
	if who == None {
		return false
	}
	p, at := &a.c.pools[k].pages[who], a.places[k][who]
	return at.slot == slot && at.gen == p.gen && (p.refs > 0 || p.entry != nil)
}

// shrink brings the innermost slot's page, if there is one, to a free slot and
// gives the slot up.
func (a *Arena) shrink(k Kind) bool {
	last := len(a.slots[k]) - 1
	if last < 0 {
		return false
	}
	who := a.slots[k][last]
	if a.holds(k, last, who) {
		free := 0
		for free < last && a.holds(k, free, a.slots[k][free]) {
			free++
		}
		if free == last {
			return false
		}
		a.slots[k][free] = who
		a.places[k][who].slot = free
		a.move(k, a.offset(k, last), a.offset(k, free))
	}
	a.slots[k] = a.slots[k][:last]
	return true
}
