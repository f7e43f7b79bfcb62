package kvcache

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/quant"
)

func TestNewNamesTheLeastBudget(t *testing.T) {
	g := &quant.Geometry{Format: formats["hq"], Layers: 3, KVHeads: 2, HeadDim: 16, HeadBytes: 80}
	least := int64(2 * 3 * g.ExactBytes()) // a sink page and an open page
	least += int64(3 * g.CodedBytes())     // the open page when it is full
	_, err := New(g, least-1)
	require.ErrorContains(t, err, "needs at least")
	require.ErrorContains(t, err, "raise the KV memory")
	c, err := New(g, least)
	require.NoError(t, err)
	require.Equal(t, least, c.Available())
}

func TestFreeTwice(t *testing.T) {
	c := testCache(t, "f16", 100)
	var a Table
	require.True(t, c.Grow(&a, 8, 8))
	stale := Table{Exact: []PageID{a.Exact[0]}, Coded: []PageID{None}}
	c.Free(&a)
	c.Free(&a) // an empty table: nothing to give back
	require.NoError(t, c.Check())
	require.PanicsWithValue(t, "BUG: exact page 0 was freed twice", func() { c.Free(&stale) })
}

func TestCheckFindsWrongBooks(t *testing.T) {
	f := func(want string, spoil func(c *Cache, a *Table)) {
		t.Helper()
		c := testCache(t, "hq", 200)
		var a Table
		require.True(t, c.Grow(&a, 12, 12))
		c.Commit(&a, tokens(t, "1-12"), 12)
		require.NoError(t, c.Check(&a))
		spoil(c, &a)
		err := c.Check(&a)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Check says %v, want %q", err, want)
		}
	}
	f("has 1 references, the tables hold 0", func(c *Cache, a *Table) { *a = Table{} })
	f("the tables hold 2", func(c *Cache, a *Table) { a.Exact = append(a.Exact, 0); a.Coded = append(a.Coded, None) })
	f("free twice", func(c *Cache, a *Table) { c.pools[Exact].free = append(c.pools[Exact].free, 1) })
	f("is lost", func(c *Cache, a *Table) {
		c.pools[Exact].pages[1].refs--
		a.Exact[1] = None
	})
	f("booked as", func(c *Cache, a *Table) { c.used-- })
	f("not its own", func(c *Cache, a *Table) { c.pools[Exact].pages[0].entry = &entry{} })
	f("counts", func(c *Cache, a *Table) { c.pools[Exact].pages[0].entry.refs++ })
}

// A page is shared only when it is full: a match at any length stops at the last
// full page, in both forms.
func TestPartialPagesAreNeverShared(t *testing.T) {
	for name := range formats {
		for n := 1; n <= 20; n++ {
			c := testCache(t, name, 1000)
			ids := tokens(t, "1-30")
			var a Table
			require.True(t, c.Grow(&a, n, n))
			c.Commit(&a, ids, n)
			pages, b := c.Match(ids)
			require.Equal(t, n/4, pages, "%s, %d tokens written", name, n)
			for i := range b.Pages() {
				require.Less(t, i, n/4)
			}
			require.NoError(t, c.Check(&a, &b))
		}
	}
}

// Equal pages after different prefixes are different pages.
func TestKeyCoversTheWholePrefix(t *testing.T) {
	c := testCache(t, "f16", 1000)
	var a Table
	require.True(t, c.Grow(&a, 8, 8))
	c.Commit(&a, tokens(t, "1-4,9-12"), 8)
	f := func(spec string, want int) {
		t.Helper()
		pages, b := c.Match(tokens(t, spec))
		require.Equal(t, want, pages, spec)
		c.Free(&b)
	}
	f("1-4,9-12,7", 2)
	f("1-4,9-11,13,7", 1)
	f("9-12,1-4,7", 0)
	f("5-8,9-12,7", 0)
	pages, _ := c.Match([]terse.Token{})
	require.Zero(t, pages)
}

func TestStoreZeroesCodedPages(t *testing.T) {
	c := testCache(t, "hack", 100)
	s := NewStore(c)
	var a Table
	require.True(t, c.Grow(&a, 1, 1))
	exact, coded := s.Page(Exact, a.Exact[0]), s.Page(Coded, a.Coded[0])
	require.Len(t, exact, exactCost)
	require.Len(t, coded, codedCost)
	exact[0], coded[0] = 7, 7
	require.EqualValues(t, 7, s.Page(Coded, a.Coded[0])[0], "asking again must not zero")
	c.Free(&a)
	require.Panics(t, func() { s.Page(Coded, 0) })
	require.True(t, c.Grow(&a, 1, 1))
	require.Zero(t, s.Page(Coded, a.Coded[0])[0])
	require.Same(t, &exact[0], &s.Page(Exact, a.Exact[0])[0], "bytes are reused")
}

// The budget moves from one kind of page to the other and back.
func TestStoreKeepsTheBudget(t *testing.T) {
	c := testCache(t, "hq", 100)
	s := NewStore(c)
	show := func(tab *Table) {
		var v quant.View
		s.View(tab, 5, &v)
		require.Equal(t, 5, v.PromptLen)
		for i := range tab.Pages() {
			require.Equal(t, tab.Exact[i] == None, v.Exact[i] == nil)
			require.Equal(t, tab.Coded[i] == None, v.Coded[i] == nil)
		}
		require.LessOrEqual(t, s.Allocated(), int64(100))
	}
	for range 3 {
		var exact, coded Table
		require.True(t, c.Grow(&exact, 28, 28)) // 7 exact, 6 coded: 88 bytes
		show(&exact)
		c.Free(&exact)
		for n := 4; c.Grow(&coded, n, n); n += 4 {
			show(&coded)
			c.Trim(&coded, n, n)
		}
		require.Greater(t, coded.held[Coded], 15)
		require.Greater(t, s.Allocated(), int64(90))
		c.Free(&coded)
		require.NoError(t, c.Check())
	}
}

func BenchmarkMatch(b *testing.B) {
	c, err := New(&quant.Geometry{Format: quant.Format{PageTokens: 64}, Layers: 1, KVHeads: 1, HeadDim: 1}, 1<<30)
	require.NoError(b, err)
	ids := make([]terse.Token, 8192)
	var a Table
	require.True(b, c.Grow(&a, len(ids), len(ids)))
	c.Commit(&a, ids, len(ids))
	for b.Loop() {
		_, t := c.Match(ids)
		c.Free(&t)
	}
}

// Copies are for pages that somebody holds: the bytes of others, which the prefix
// index still offers, go to new ones before memory is allocated.
func TestCopiesOfHeldPages(t *testing.T) {
	c := testCache(t, "hq", 300)
	allocated := 0
	s := NewCopies(c, func(n int) []byte { allocated += n; return make([]byte, n) })
	ids := make([]terse.Token, 28)
	for i := range ids {
		ids[i] = terse.Token(i)
	}
	put := func(tab *Table, mark byte) (stamps []uint64) {
		var v quant.View
		s.View(tab, 0, &v)
		for i, id := range tab.Exact {
			if id != None {
				v.Exact[i][0] = mark
				stamps = append(stamps, s.Stamp(Exact, id))
			}
		}
		return stamps
	}
	var first Table
	require.True(t, c.Grow(&first, len(ids), len(ids)))
	before := put(&first, 1)
	c.Commit(&first, ids, len(ids))
	need := allocated
	require.Equal(t, before, put(&first, 1), "looking again prepares nothing")
	c.Free(&first)
	require.NotZero(t, c.Stats().Cached)

	var second Table
	require.True(t, c.Grow(&second, len(ids), len(ids)))
	put(&second, 2)
	require.Equal(t, need, allocated, "bytes that nobody held were there")
	_, again := c.Match(ids)
	require.NotZero(t, again.Pages())
	for _, stamp := range put(&again, 3) {
		require.NotContains(t, before, stamp, "what was in the copies is gone")
	}
	require.Greater(t, allocated, need, "all bytes were held")
	for i, id := range second.Exact {
		if id != None {
			require.EqualValues(t, 2, s.Page(Exact, id)[0], "page %d of a text that is held", i)
		}
	}
	require.LessOrEqual(t, s.Allocated(), int64(300))
}
