package kvcache

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/quant"
)

// world is an arena with its memory, and what every page should hold.
type world struct {
	t      *testing.T
	c      *Cache
	a      *Arena
	memory []byte
	marks  map[string]byte
	next   byte
	moves  int
}

func newWorld(t *testing.T, budget int64) *world {
	w := &world{t: t, c: testCache(t, "hq", budget), memory: make([]byte, budget), marks: map[string]byte{}}
	w.a = NewArena(w.c, func(k Kind, from, to int64) {
		copy(w.memory[to:to+w.c.PageBytes(k)], w.memory[from:from+w.c.PageBytes(k)])
		w.moves++
	})
	return w
}

// touch asks for every page of t: a fresh one is filled, another must be as it
// was.
func (w *world) touch(t *Table) {
	w.t.Helper()
	for k, ids := range [kinds][]PageID{Exact: t.Exact, Coded: t.Coded} {
		for _, id := range ids {
			if id == None {
				continue
			}
			kind := Kind(k)
			at, fresh := w.a.at(kind, id)
			bytes := w.memory[at : at+w.c.PageBytes(kind)]
			life := fmt.Sprint(kind, id, " ", w.c.pools[k].pages[id].gen)
			if fresh {
				w.next++
				w.marks[life] = w.next
				for i := range bytes {
					bytes[i] = w.next
				}
			}
			for _, b := range bytes {
				if b != w.marks[life] {
					w.t.Fatalf("page %s at %d holds %d, want %d", life, at, b, w.marks[life])
				}
			}
		}
	}
}

// Pages keep their bytes whatever comes and goes, and all of the budget can be
// used.
func TestArena(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	w := newWorld(t, 300)
	var live []*Table
	ids := make([]terse.Token, 200)
	refused := 0
	for range 3000 {
		switch r.IntN(4) {
		case 0, 1: // a new sequence, or a longer one
			tab := &Table{}
			if len(live) > 0 && r.IntN(2) == 0 {
				tab = live[r.IntN(len(live))]
			} else {
				live = append(live, tab)
			}
			n := min(len(ids), 4*tab.Pages()+1+r.IntN(24))
			if !w.c.Grow(tab, n, n) {
				refused++
				break
			}
			w.touch(tab)
			if r.IntN(2) == 0 {
				w.c.Trim(tab, n, n)
			}
			for i := range n {
				ids[i] = terse.Token(r.IntN(3))
			}
			w.c.Commit(tab, ids, n)
		case 2:
			if len(live) > 0 {
				i := r.IntN(len(live))
				w.c.Free(live[i])
				live = append(live[:i], live[i+1:]...)
			}
		case 3:
			_, tab := w.c.Match(ids[:r.IntN(40)])
			live = append(live, &tab)
		}
		for _, tab := range live {
			w.touch(tab)
		}
	}
	require.Greater(t, refused, 20, "the budget was never short")
	require.Greater(t, w.moves, 5, "nothing ever moved")
}

func TestArenaOfNobody(t *testing.T) {
	w := newWorld(t, 100)
	var tab Table
	require.True(t, w.c.Grow(&tab, 8, 8))
	w.touch(&tab)
	w.c.Free(&tab)
	require.Panics(t, func() { w.a.at(Exact, 0) })
}

// Where the sizes of pages have a common divisor, all offsets have it too, whatever
// the budget is: kernels read words of several bytes.
func TestArenaAligned(t *testing.T) {
	for budget := int64(960); budget < 1100; budget += 7 {
		f, err := quant.ParseFormat("hq3", false)
		require.NoError(t, err)
		c, err := newCache(&quant.Geometry{Format: f, Layers: 1, KVHeads: 1, HeadDim: 1}, budget, 96, 32)
		require.NoError(t, err)
		a := NewArena(c, func(Kind, int64, int64) { t.Error("a page moved") })
		var tab Table
		require.True(t, c.Grow(&tab, 256, 0))
		seen := 0
		for k, ids := range [kinds][]PageID{Exact: tab.Exact, Coded: tab.Coded} {
			for _, id := range ids {
				if id == None {
					continue
				}
				at, _ := a.at(Kind(k), id)
				require.Zero(t, at%32, "budget %d, %v page %d", budget, Kind(k), id)
				require.LessOrEqual(t, at+c.PageBytes(Kind(k)), budget)
				seen++
			}
		}
		require.Greater(t, seen, 4)
	}
}
