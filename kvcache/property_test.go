package kvcache

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/terse-llm/terse"
)

// player drives a cache with random sequences over a small alphabet, so that
// prefixes meet often, and writes what a page should hold into the store.
type player struct {
	c    *Cache
	s    *Store
	seqs []*playerSeq
}

type playerSeq struct {
	table  Table
	tokens []terse.Token
	n      int // written
	prompt int
}

// mark is the content that page i of the sequence has once it is written to
// token n: it differs wherever the tokens of the page or before it differ.
func (q *playerSeq) mark(size, i, n int) string {
	return fmt.Sprint(q.tokens[:min(n, (i+1)*size)])
}

func (p *player) grow(rt *rapid.T, q *playerSeq) {
	n := rapid.IntRange(q.n, len(q.tokens)).Draw(rt, "n")
	need, avail := p.c.NeedBytes(&q.table, n, q.prompt), p.c.Available()
	before := fmt.Sprint(q.table)
	if !p.c.Grow(&q.table, n, q.prompt) {
		if need <= avail {
			rt.Fatalf("grow to %d refused: needs %d, %d available", n, need, avail)
		}
		if after := fmt.Sprint(q.table); after != before {
			rt.Fatalf("a refused growth changed %s to %s", before, after)
		}
		return
	}
	if got := avail - p.c.Available(); got != need {
		rt.Fatalf("growth took %d bytes, said %d", got, need)
	}
	p.write(q, n)
	q.n = n
	p.checkForms(rt, q)
	p.c.Trim(&q.table, n, q.prompt)
	p.c.Commit(&q.table, q.tokens, n)
	p.checkTrimmed(rt, q)
}

// write does what an engine does: exact rows of the new tokens, then codes.
func (p *player) write(q *playerSeq, n int) {
	size := p.c.g.Format.PageTokens
	for i := q.n / size; i < q.table.Pages(); i++ {
		p.put(Exact, q.table.Exact[i], q.mark(size, i, n))
	}
	lo, hi := p.c.g.Format.CodedPages(n)
	for i := max(lo, q.n/size); i < hi; i++ {
		p.put(Coded, q.table.Coded[i], q.mark(size, i, n))
	}
}

func (p *player) put(k Kind, id PageID, mark string) {
	b := p.s.Page(k, id)
	for i := range b {
		b[i] = 0
	}
	copy(b, fingerprint(mark, len(b)))
}

// fingerprint is a hash short enough for the tests' tiny pages.
func fingerprint(s string, n int) []byte {
	h := uint64(14695981039346656037)
	for _, c := range []byte(s) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(h >> (8 * (i % 8)))
	}
	return out
}

// checkForms verifies that every form a query may read, or that will be coded,
// is there.
func (p *player) checkForms(rt *rapid.T, q *playerSeq) {
	f := p.c.g.Format
	lo, hi := f.CodedPages(q.n)
	for i := lo; i < hi; i++ {
		if q.table.Coded[i] == None {
			rt.Fatalf("page %d of %d tokens has no coded form", i, q.n)
		}
	}
	for i := range min(f.SinkPages(), q.table.Pages()) {
		if q.table.Exact[i] == None {
			rt.Fatalf("sink page %d has no exact form", i)
		}
	}
	if q.n%f.PageTokens != 0 && q.table.Exact[q.table.Pages()-1] == None {
		rt.Fatalf("the open page of %d tokens has no exact form", q.n)
	}
}

// checkTrimmed verifies that nothing is kept beyond the sinks and ExactPages.
func (p *player) checkTrimmed(rt *rapid.T, q *playerSeq) {
	f := p.c.g.Format
	lo, _ := f.ExactPages(q.n, q.prompt)
	for i, id := range q.table.Exact {
		if id != None && i >= f.SinkPages() && i < lo {
			rt.Fatalf("page %d of %d tokens is still exact", i, q.n)
		}
	}
}

// checkBytes verifies that every full page of a sequence still holds what its
// own tokens put there, whoever computed it: sharing needs no copy-on-write.
func (p *player) checkBytes(rt *rapid.T, q *playerSeq) {
	size := p.c.g.Format.PageTokens
	for i := range q.n / size {
		for k, id := range [kinds]PageID{q.table.Exact[i], q.table.Coded[i]} {
			if id == None {
				continue
			}
			b := p.s.Page(Kind(k), id)
			if want := fingerprint(q.mark(size, i, q.n), len(b)); !slices.Equal(b, want) {
				rt.Fatalf("%s page %d of tokens %v holds %v, want %v", Kind(k), i, q.tokens[:q.n], b, want)
			}
		}
	}
}

func (p *player) add(rt *rapid.T) {
	ids := rapid.SliceOfN(rapid.Int32Range(0, 1), 1, 40).Draw(rt, "tokens")
	q := &playerSeq{prompt: rapid.IntRange(1, len(ids)).Draw(rt, "prompt")}
	for _, id := range ids {
		q.tokens = append(q.tokens, terse.Token(id))
	}
	var pages int
	pages, q.table = p.c.Match(q.tokens)
	q.n = pages * p.c.g.Format.PageTokens
	if q.n >= len(q.tokens) {
		rt.Fatalf("Match leaves nothing of %d tokens to compute", len(q.tokens))
	}
	p.checkForms(rt, q)
	p.seqs = append(p.seqs, q)
}

func (p *player) check(rt *rapid.T) {
	var live []*Table
	for _, q := range p.seqs {
		live = append(live, &q.table)
		p.checkBytes(rt, q)
	}
	if err := p.c.Check(live...); err != nil {
		rt.Fatal(err)
	}
	if p.s.Allocated() > p.c.budget {
		rt.Fatalf("the store holds %d bytes of %d", p.s.Allocated(), p.c.budget)
	}
}

func TestRandomSequencesKeepTheirPages(t *testing.T) {
	for name := range formats {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				c := testCache(t, name, rapid.Int64Range(60, 300).Draw(rt, "budget"))
				p := &player{c: c, s: NewStore(c)}
				pick := func(rt *rapid.T) int {
					if len(p.seqs) == 0 {
						rt.Skip("no sequence")
					}
					return rapid.IntRange(0, len(p.seqs)-1).Draw(rt, "seq")
				}
				rt.Repeat(map[string]func(*rapid.T){
					"add":  p.add,
					"grow": func(rt *rapid.T) { p.grow(rt, p.seqs[pick(rt)]) },
					"free": func(rt *rapid.T) {
						i := pick(rt)
						c.Free(&p.seqs[i].table)
						p.seqs = slices.Delete(p.seqs, i, i+1)
					},
					"": p.check,
				})
				for _, q := range p.seqs {
					c.Free(&q.table)
				}
				if err := c.Check(); err != nil {
					rt.Fatal(err)
				}
			})
		})
	}
}

// PeakBytes is what sched trusts when it lets a sequence in: one that grows page
// by page must stay within it, and reach it.
func TestPeakBytesIsReached(t *testing.T) {
	for name := range formats {
		rapid.Check(t, func(rt *rapid.T) {
			n := rapid.IntRange(1, 60).Draw(rt, "n")
			prompt := rapid.IntRange(1, n).Draw(rt, "prompt")
			c := testCache(t, name, 10_000)
			var tab Table
			var peak int64
			for at := 0; at < n; {
				size := c.g.Format.PageTokens
				at = min(n, at/size*size+size)
				if !c.Grow(&tab, at, prompt) {
					rt.Fatal("no room")
				}
				peak = max(peak, c.Bytes(&tab))
				c.Trim(&tab, at, prompt)
			}
			if got := c.PeakBytes(n, prompt); got != peak {
				rt.Fatalf("%s: peak of %d tokens (prompt %d) is %d, said %d", name, n, prompt, peak, got)
			}
			if r := c.ReserveBytes(&Table{}, n); r > peak {
				rt.Fatalf("%s: reserving %d tokens takes %d, computing them %d", name, n, r, peak)
			}
		})
	}
}
