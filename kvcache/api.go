package kvcache

import (
	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/quant"
)

type key [32]byte

// Cache hands out pages within a byte budget. See the package comment.
type Cache struct{}

// New makes the books for pages of g's layout, all layers of a page together,
// that never cost more than budget bytes. It refuses a budget that cannot hold
// one short sequence.
func New(g *quant.Geometry, budget int64) (*Cache, error) { return &Cache{}, nil }

// Grow makes t hold every page that n written tokens need: the exact form of
// newly covered logical pages and the coded forms of Format.CodedPages(n).
// Unreferenced prefix pages are evicted as needed. If the budget does not allow
// all of it, nothing changes and Grow reports false.
func (c *Cache) Grow(t *Table, n, promptLen int) bool { return false }

// NeedBytes is what Grow would have to allocate.
func (c *Cache) NeedBytes(t *Table, n, promptLen int) int64 { return 0 }

// PeakBytes is the most that a sequence which grows page by page to n written
// tokens holds at any time: if the budget is at least this, it can finish alone.
func (c *Cache) PeakBytes(n, promptLen int) int64 { return 0 }

// Trim gives back the exact pages that Format.ExactPages says a sequence of n
// written tokens does not need any more.
func (c *Cache) Trim(t *Table, n, promptLen int) {}

// Reserve makes the empty t hold what a sequence has once its prompt of n
// tokens is computed elsewhere: sink pages and Format.ExactPages(n) exactly,
// Format.CodedPages(n) coded. All or nothing, as Grow.
func (c *Cache) Reserve(t *Table, n int) bool { return false }

// ReserveBytes is what Reserve would have to allocate.
func (c *Cache) ReserveBytes(n int) int64 { return 0 }

// Free gives back every page of t and empties it.
func (c *Cache) Free(t *Table) {}

// Bytes is what the pages of t cost, shared ones included.
func (c *Cache) Bytes(t *Table) int64 { return 0 }

// Available is what could be allocated: the budget less what is referenced.
func (c *Cache) Available() int64 { return 0 }

// Commit registers the full pages among t's first n tokens in the prefix index.
// tokens are the sequence's ids from its start, at least n; the pages' bytes
// must be written. Calling it again with a larger n costs only what is new.
func (c *Cache) Commit(t *Table, tokens []terse.Token, n int) {}

// Match takes references on the pages of the longest prefix of tokens that the
// index holds, but leaves at least one token to compute. It returns the number
// of whole pages and a table that covers just these.
func (c *Cache) Match(tokens []terse.Token) (pages int, t Table) { return 0, Table{} }

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
func (c *Cache) Stats() Stats { return Stats{} }

// Check verifies the books for tests: the references are exactly those of the
// live tables, no page is both free and used, no byte is lost.
func (c *Cache) Check(live ...*Table) error { return nil }

// Store has the bytes of a Cache's pages.
type Store struct{}

// NewStore makes the bytes for c's pages, allocated as they are asked for.
func NewStore(c *Cache) *Store { return &Store{} }

// Page is the bytes of a held page, all layers ([Layers][ExactBytes or
// CodedBytes]). They stay valid until the page is freed. The first call after
// the page was handed out zeroes a coded page; an exact page may hold old bytes.
func (s *Store) Page(k Kind, id PageID) []byte { return nil }

// View fills v's pages with the bytes of t's, reusing v's slices.
func (s *Store) View(t *Table, promptLen int, v *quant.View) {}

// Allocated is the number of bytes the store holds, never more than the budget.
func (s *Store) Allocated() int64 { return 0 }
