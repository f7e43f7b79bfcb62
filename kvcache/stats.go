package kvcache

import "fmt"

// Stats says how full the cache is.
type Stats struct {
	Budget int64 // bytes
	Used   int64 // bytes of referenced pages
	Cached int64 // bytes of unreferenced prefix pages, evictable

	ExactPages, CodedPages int   // pages of each kind, referenced or cached
	PrefixPages            int   // logical pages in the index
	QueryTokens, HitTokens int64 // tokens asked of Match and found, since the start
	Evictions              int64 // logical pages evicted, since the start
}

// Stats says how full the cache is.
func (c *Cache) Stats() Stats {
	return Stats{
		Budget: c.budget, Used: c.used, Cached: c.cached,
		ExactPages:  len(c.pools[Exact].pages) - len(c.pools[Exact].free),
		CodedPages:  len(c.pools[Coded].pages) - len(c.pools[Coded].free),
		PrefixPages: len(c.index.entries),
		QueryTokens: c.index.asked, HitTokens: c.index.found, Evictions: c.index.evicted,
	}
}

// Check verifies the books for tests: the references are exactly those of the
// live tables, no page is both free and used, no byte is lost.
func (c *Cache) Check(live ...*Table) error {
	want := c.references(live)
	var used, cached int64
	for k := range kinds {
		u, e, err := c.checkPool(k, want[k])
		if err != nil {
			return err
		}
		used, cached = used+u, cached+e
	}
	if used != c.used || cached != c.cached || used+cached > c.budget {
		return fmt.Errorf("cannot balance the KV cache: %d bytes used and %d cached, booked as %d and %d of %d",
			used, cached, c.used, c.cached, c.budget)
	}
	return c.checkIndex()
}

func (c *Cache) references(live []*Table) [kinds]map[PageID]int32 {
	refs := [kinds]map[PageID]int32{{}, {}}
	for _, t := range live {
		for i := range t.Exact {
			refs[Exact][t.Exact[i]]++
			refs[Coded][t.Coded[i]]++
		}
	}
	return refs
}

// checkPool adds up the bytes of k's pages that are referenced and that are only
// in the index.
func (c *Cache) checkPool(k Kind, want map[PageID]int32) (used, cached int64, err error) {
	p := &c.pools[k]
	free := make(map[PageID]bool, len(p.free))
	for _, id := range p.free {
		if free[id] || p.pages[id].refs != 0 || p.pages[id].entry != nil {
			return 0, 0, fmt.Errorf("cannot balance the KV cache: %s page %d is free twice, or free and used", k, id)
		}
		free[id] = true
	}
	for i, pg := range p.pages {
		id := PageID(i)
		switch {
		case pg.refs != want[id]:
			return 0, 0, fmt.Errorf("cannot balance the KV cache: %s page %d has %d references, the tables hold %d", k, id, pg.refs, want[id])
		case pg.refs > 0:
			used += p.cost
		case pg.entry != nil:
			cached += p.cost
		case !free[id]:
			return 0, 0, fmt.Errorf("cannot balance the KV cache: %s page %d is lost", k, id)
		}
	}
	return used, cached, nil
}

// checkIndex verifies that each entry owns its pages and that just the
// unreferenced entries can be evicted.
func (c *Cache) checkIndex() error {
	idle := make(map[*entry]bool)
	for e := c.index.lru.next; e != &c.index.lru; e = e.next {
		idle[e] = true
	}
	for _, e := range c.index.entries {
		refs := 0
		for k, id := range e.ids {
			if id == None {
				continue
			}
			p := &c.pools[k].pages[id]
			if p.entry != e {
				return fmt.Errorf("cannot balance the KV cache: the index offers %s page %d, which is not its own", Kind(k), id)
			}
			refs += int(p.refs)
		}
		if refs != e.refs || idle[e] != (refs == 0) {
			return fmt.Errorf("cannot balance the KV cache: an index entry has %d references and counts %d (evictable: %v)", refs, e.refs, idle[e])
		}
		delete(idle, e)
	}
	if len(idle) != 0 {
		return fmt.Errorf("cannot balance the KV cache: %d evictable entries are not in the index", len(idle))
	}
	return nil
}
