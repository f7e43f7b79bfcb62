package kvcache

import (
	"fmt"
	"slices"

	"github.com/terse-llm/terse/quant"
)

// Cache hands out pages within a byte budget. See the package comment.
type Cache struct {
	g      *quant.Geometry
	budget int64
	used   int64 // bytes of referenced pages
	cached int64 // bytes of unreferenced pages in the index
	pools  [kinds]pool
	index  prefixIndex
}

// pool is the pages of one kind. Bytes are the only limit, so the number of
// pages grows as needed and ids are reused last freed first.
type pool struct {
	cost  int64
	pages []page
	free  []PageID
}

type page struct {
	refs  int32
	gen   uint32 // how often the id was handed out
	entry *entry // the index entry that offers this page, or nil
}

// New makes the books for pages of g's layout, all layers of a page together,
// that never cost more than budget bytes. It refuses a budget that cannot hold
// one sequence of two pages.
func New(g *quant.Geometry, budget int64) (*Cache, error) {
	return newCache(g, budget, int64(g.ExactPage()), int64(g.CodedPage()))
}

func newCache(g *quant.Geometry, budget, exact, coded int64) (*Cache, error) {
	c := &Cache{g: g, budget: budget}
	c.pools[Exact].cost, c.pools[Coded].cost = exact, coded
	c.index.init(g)
	short := 2 * g.Format.PageTokens
	if least := c.PeakBytes(short, short); budget < least {
		return nil, fmt.Errorf("cannot keep a KV cache in %d bytes: %s needs at least %d for one sequence of %d tokens of this model; raise the KV memory",
			budget, g.Format.Name, least, short)
	}
	return c, nil
}

// Bytes is what the pages of t cost, shared ones included.
func (c *Cache) Bytes(t *Table) int64 { return c.cost(t.held[Exact], t.held[Coded]) }

// Available is what could be allocated: the budget less what is referenced.
func (c *Cache) Available() int64 { return c.budget - c.used }

// PageBytes is the cost of one page of a kind, all layers.
func (c *Cache) PageBytes(k Kind) int64 { return c.pools[k].cost }

// Budget is the number of bytes that all pages together may cost.
func (c *Cache) Budget() int64 { return c.budget }

// Format is the format of the pages.
func (c *Cache) Format() quant.Format { return c.g.Format }

func (c *Cache) cost(exact, coded int) int64 {
	return int64(exact)*c.pools[Exact].cost + int64(coded)*c.pools[Coded].cost
}

// room makes sure that bytes more can be allocated, evicting prefixes for it.
func (c *Cache) room(bytes int64) bool {
	if c.used+bytes > c.budget {
		return false
	}
	for c.used+c.cached+bytes > c.budget {
		c.evict(c.index.oldest())
	}
	return true
}

// alloc hands out a page with one reference. The caller has made room.
func (c *Cache) alloc(k Kind) PageID {
	p := &c.pools[k]
	var id PageID
	if last := len(p.free) - 1; last >= 0 {
		id, p.free = p.free[last], p.free[:last]
	} else {
		id = PageID(len(p.pages))
		p.pages = append(p.pages, page{})
	}
	p.pages[id].refs = 1
	p.pages[id].gen++
	c.used += p.cost
	return id
}

// ref adds a reference to a page that is referenced or in the index.
func (c *Cache) ref(k Kind, id PageID) {
	p := &c.pools[k].pages[id]
	if p.refs == 0 {
		c.cached -= c.pools[k].cost
		c.used += c.pools[k].cost
	}
	p.refs++
	if p.entry != nil {
		c.index.acquire(p.entry)
	}
}

// unref takes a reference back. An unreferenced page stays if the index offers
// it, and is free otherwise.
func (c *Cache) unref(k Kind, id PageID) {
	pool := &c.pools[k]
	p := &pool.pages[id]
	if p.refs <= 0 {
		panic(fmt.Sprintf("BUG: %s page %d was freed twice", k, id))
	}
	p.refs--
	if p.refs == 0 {
		c.used -= pool.cost
		if p.entry != nil {
			c.cached += pool.cost
		} else {
			pool.free = append(pool.free, id)
		}
	}
	if p.entry != nil {
		c.index.release(p.entry)
	}
}

// Retain gives a table of its own to the first pages of t, in the forms that they
// have: they stay as they are until it is freed, whatever becomes of t.
func (c *Cache) Retain(t *Table, pages int) *Table {
	r := &Table{Exact: slices.Clone(t.Exact[:pages]), Coded: slices.Clone(t.Coded[:pages]), coded: pages, trimmed: pages}
	for i := range pages {
		for k, id := range [kinds]PageID{r.Exact[i], r.Coded[i]} {
			if id != None {
				c.ref(Kind(k), id)
				r.held[k]++
			}
		}
	}
	return r
}

// evict forgets a prefix page that nobody references.
func (c *Cache) evict(e *entry) {
	c.index.remove(e)
	for k, id := range e.ids {
		if id == None {
			continue
		}
		pool := &c.pools[k]
		pool.pages[id].entry = nil
		pool.free = append(pool.free, id)
		c.cached -= pool.cost
	}
}
