package kvcache

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/quant"
)

// key names the tokens of a page and of all pages before it. A wrong match would
// be another user's context, hence a cryptographic hash.
type key [sha256.Size]byte

// entry offers one full logical page for reuse.
type entry struct {
	key        key
	ids        [kinds]PageID // None where the page is not kept in that form
	refs       int           // references to its pages
	prev, next *entry        // among the unreferenced, least recently used first
}

// prefixIndex finds full pages by content.
type prefixIndex struct {
	root    key
	entries map[key]*entry
	lru     entry  // head of the ring of unreferenced entries
	buf     []byte // parent key and token ids, to be hashed

	asked, found int64 // tokens
	evicted      int64 // logical pages
}

func (x *prefixIndex) init(g *quant.Geometry) {
	x.root = sha256.Sum256(fmt.Appendf(nil, "terse KV %s %d %d %d", g.Format.Name, g.Layers, g.KVHeads, g.HeadDim))
	x.entries = make(map[key]*entry)
	x.lru.prev, x.lru.next = &x.lru, &x.lru
}

func (x *prefixIndex) child(parent key, tokens []terse.Token) key {
	x.buf = append(x.buf[:0], parent[:]...)
	for _, t := range tokens {
		x.buf = binary.LittleEndian.AppendUint32(x.buf, uint32(t))
	}
	return sha256.Sum256(x.buf)
}

func (x *prefixIndex) acquire(e *entry) {
	if e.refs == 0 {
		e.prev.next, e.next.prev = e.next, e.prev
	}
	e.refs++
}

func (x *prefixIndex) release(e *entry) {
	e.refs--
	if e.refs == 0 {
		e.prev, e.next = x.lru.prev, &x.lru
		e.prev.next, e.next.prev = e, e
	}
}

func (x *prefixIndex) oldest() *entry {
	if x.lru.next == &x.lru {
		panic("BUG: bytes of evictable pages without such pages")
	}
	return x.lru.next
}

func (x *prefixIndex) remove(e *entry) {
	e.prev.next, e.next.prev = e.next, e.prev
	delete(x.entries, e.key)
	x.evicted++
}

// Commit registers the full pages among t's first n tokens in the prefix index.
// tokens are the sequence's ids from its start, at least n; the pages' bytes
// must be written. Calling it again with a larger n costs only what is new.
//
// A page whose tokens are registered already, by a sequence that computed them
// at the same time, stays private to t.
func (c *Cache) Commit(t *Table, tokens []terse.Token, n int) {
	size := c.g.Format.PageTokens
	for i := len(t.chain); i < n/size; i++ {
		parent := c.index.root
		if i > 0 {
			parent = t.chain[i-1]
		}
		k := c.index.child(parent, tokens[i*size:(i+1)*size])
		t.chain = append(t.chain, k)
		if c.index.entries[k] == nil {
			c.register(k, c.lasting(t, i))
		}
	}
}

// lasting gives the ids of full page i of t in the forms that outlive the exact
// windows.
func (c *Cache) lasting(t *Table, i int) [kinds]PageID {
	f := c.g.Format
	ids := [kinds]PageID{None, None}
	if !f.Coded() || i < f.SinkPages() {
		ids[Exact] = t.Exact[i]
	}
	if lo, hi := f.CodedPages((i + 1) * f.PageTokens); lo <= i && i < hi {
		ids[Coded] = t.Coded[i]
	}
	return ids
}

func (c *Cache) register(k key, ids [kinds]PageID) {
	e := &entry{key: k, ids: ids}
	for kind, id := range ids {
		if id == None {
			continue
		}
		p := &c.pools[kind].pages[id]
		if p.entry != nil || p.refs == 0 {
			panic(fmt.Sprintf("BUG: %s page %d cannot be registered: it is registered or free", Kind(kind), id))
		}
		p.entry = e
		e.refs += int(p.refs)
	}
	c.index.entries[k] = e
}

// Match takes references on the pages of the longest prefix of tokens that the
// index holds, but leaves at least one token to compute. It returns the number
// of whole pages and a table that covers just these.
func (c *Cache) Match(tokens []terse.Token) (pages int, t Table) {
	size := c.g.Format.PageTokens
	parent := c.index.root
	for i := range (len(tokens) - 1) / size {
		k := c.index.child(parent, tokens[i*size:(i+1)*size])
		e := c.index.entries[k]
		if e == nil {
			break
		}
		c.share(&t, e)
		t.chain = append(t.chain, k)
		parent = k
	}
	t.coded, t.trimmed = t.Pages(), t.Pages()
	c.index.asked += int64(len(tokens))
	c.index.found += int64(t.Pages() * size)
	return t.Pages(), t
}

// share appends the page that e offers to t.
func (c *Cache) share(t *Table, e *entry) {
	t.Exact = append(t.Exact, e.ids[Exact])
	t.Coded = append(t.Coded, e.ids[Coded])
	for k, id := range e.ids {
		if id != None {
			c.ref(Kind(k), id)
			t.held[k]++
		}
	}
}
