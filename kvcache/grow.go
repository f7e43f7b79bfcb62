package kvcache

// NeedBytes is what Grow would have to allocate.
func (c *Cache) NeedBytes(t *Table, n, promptLen int) int64 {
	lo, hi := c.g.Format.CodedPages(n)
	return c.cost(max(0, c.pagesOf(n)-t.Pages()), max(0, hi-max(lo, t.coded)))
}

// Grow makes t hold every page that n written tokens need: the exact form of
// newly covered logical pages and the coded forms of Format.CodedPages(n).
// Unreferenced prefix pages are evicted as needed. If the budget does not allow
// all of it, nothing changes and Grow reports false.
func (c *Cache) Grow(t *Table, n, promptLen int) bool {
	if !c.room(c.NeedBytes(t, n, promptLen)) {
		return false
	}
	for t.Pages() < c.pagesOf(n) {
		t.Exact = append(t.Exact, c.alloc(Exact))
		t.Coded = append(t.Coded, None)
		t.held[Exact]++
	}
	c.growCoded(t, n)
	return true
}

func (c *Cache) growCoded(t *Table, n int) {
	lo, hi := c.g.Format.CodedPages(n)
	for i := max(lo, t.coded); i < hi; i++ {
		t.Coded[i] = c.alloc(Coded)
		t.held[Coded]++
	}
	t.coded = max(t.coded, hi)
}

// ReserveBytes is what Reserve would have to allocate.
func (c *Cache) ReserveBytes(t *Table, n int) int64 {
	sinks, lo, hi := c.exactAfter(n)
	from, to := c.g.Format.CodedPages(n)
	held := t.Pages()
	return c.cost(max(0, sinks-held)+max(0, hi-max(lo, held)), max(0, to-max(from, held)))
}

// Reserve makes t, which is empty or holds a prefix that Match found, hold what
// a sequence has once its prompt of n tokens is computed elsewhere: sink pages
// and Format.ExactPages(n) exactly, Format.CodedPages(n) coded. All or nothing,
// as Grow. A prefix must end before the exact tail, whose rows it has not got.
func (c *Cache) Reserve(t *Table, n int) bool {
	sinks, lo, hi := c.exactAfter(n)
	if t.Pages() > hi || c.g.Format.Coded() && t.Pages() > max(lo, sinks) {
		panic("BUG: pages reserved for a table that has others")
	}
	if !c.room(c.ReserveBytes(t, n)) {
		return false
	}
	for i := t.Pages(); i < hi; i++ {
		id := None
		if i < sinks || i >= lo {
			id = c.alloc(Exact)
			t.held[Exact]++
		}
		t.Exact = append(t.Exact, id)
		t.Coded = append(t.Coded, None)
	}
	t.trimmed = max(t.trimmed, lo)
	c.growCoded(t, n)
	return true
}

// exactAfter gives the exact pages of a prompt of n tokens that is computed:
// [0, sinks) and [lo, hi), which do not overlap.
func (c *Cache) exactAfter(n int) (sinks, lo, hi int) {
	lo, hi = c.g.Format.ExactPages(n, 0)
	sinks = min(c.g.Format.SinkPages(), hi)
	return sinks, max(lo, sinks), hi
}

// PeakBytes is the most that a sequence which grows page by page to n written
// tokens holds at any time: if the budget is at least this, it can finish alone.
func (c *Cache) PeakBytes(n, promptLen int) int64 {
	f := c.g.Format
	var peak int64
	for i := range c.pagesOf(n) {
		first := i * f.PageTokens
		lo, _ := f.ExactPages(first, promptLen)
		sinks := min(f.SinkPages(), i+1)
		from, to := f.CodedPages(min(first+f.PageTokens, n))
		peak = max(peak, c.cost(sinks+i+1-min(i+1, max(lo, sinks)), to-from))
	}
	return peak
}

// Trim gives back the exact pages that Format.ExactPages says a sequence of n
// written tokens does not need any more.
func (c *Cache) Trim(t *Table, n, promptLen int) {
	lo, _ := c.g.Format.ExactPages(n, promptLen)
	for i := max(t.trimmed, c.g.Format.SinkPages()); i < min(lo, t.Pages()); i++ {
		c.drop(t, Exact, t.Exact, i)
	}
	t.trimmed = max(t.trimmed, lo)
}

// Free gives back every page of t and empties it. The last pages go first, so
// that they are also the first to be evicted: a prefix is of use without what
// follows it, and not the other way round.
func (c *Cache) Free(t *Table) {
	for i := t.Pages() - 1; i >= 0; i-- {
		c.drop(t, Exact, t.Exact, i)
		c.drop(t, Coded, t.Coded, i)
	}
	*t = Table{}
}

func (c *Cache) drop(t *Table, k Kind, ids []PageID, i int) {
	if ids[i] == None {
		return
	}
	c.unref(k, ids[i])
	ids[i] = None
	t.held[k]--
}

func (c *Cache) pagesOf(n int) int {
	p := c.g.Format.PageTokens
	return (n + p - 1) / p
}
