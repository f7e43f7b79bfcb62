package device

import (
	"fmt"
	"slices"

	"github.com/terse-llm/terse/kernels/cuda"
	"github.com/terse-llm/terse/kvcache"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/quant"
)

// pages are the KV pages of one runner: an arena in the GPU's memory and, for
// sequences that move between workers, bytes in pinned memory of the host.
type pages struct {
	r     *Runner
	cache *kvcache.Cache
	arena *kvcache.Arena
	base  cuda.Ptr
	moves []pageMove // not yet in the stream
	// Whether there are copies to the device that the stream of steps does not wait for.
	uploading bool
	host      *kvcache.Store
	brought   [2]map[int32]uint64 // by kind, the stamps of whole pages that Bring has brought to the host
	pinned    [][]byte            // what was taken of the host's memory
	rest      []byte              // of the last of pinned
	some      [2][]kvcache.PageID // by kind, what moved gives
}

type pageMove struct {
	from, to int64
	n        int
}

// Pages takes the memory of c's whole budget.
func (r *Runner) Pages(c *kvcache.Cache) (_ model.Pages, err error) {
	p := &pages{r: r, cache: c, brought: [2]map[int32]uint64{{}, {}}}
	p.arena = kvcache.NewArena(c, func(k kvcache.Kind, from, to int64) {
		p.moves = append(p.moves, pageMove{from, to, int(c.PageBytes(k))})
	})
	p.host = kvcache.NewCopies(c, p.pin)
	err = r.dev.Do(func(ctx *cuda.Context) (err error) {
		if p.base, err = r.alloc(ctx, int(c.Budget())); err != nil {
			return err
		}
		if n := min(r.options.Pinned, handoverBytes(r.geometry, r.options.Context), c.Budget()); n > 0 {
			// Without it pages take what they need one by one, of whatever there is.
			_ = p.take(ctx, int(n))
		}
		return nil
	})
	r.pages = p
	return p, err
}

// View names t's pages.
func (p *pages) View(t *kvcache.Table, promptLen int, v *quant.View) { p.arena.View(t, promptLen, v) }

// Stage is View with bytes on the host.
func (p *pages) Stage(t *kvcache.Table, promptLen int, v *quant.View) {
	p.host.View(p.moved(t, promptLen), promptLen, v)
	exact, coded := v.Exact, v.Coded
	p.arena.View(t, promptLen, v)
	v.Exact, v.Coded = exact, coded
}

// moved is t without the pages that a hand-over of promptLen tokens leaves where they
// are: exact ones that are coded before it, codes of those that go exact. Nothing of
// them comes to the host.
func (p *pages) moved(t *kvcache.Table, promptLen int) *kvcache.Table {
	if promptLen == 0 { // not a prompt's: a hand-over of what is there moves all
		return t
	}
	ids := [2][]kvcache.PageID{t.Exact, t.Coded}
	for kind, list := range ids {
		p.some[kind] = slices.Grow(p.some[kind][:0], len(list))[:len(list)]
		for i := range p.some[kind] {
			p.some[kind][i] = kvcache.None
		}
	}
	for _, part := range p.r.geometry.Format.Handover(promptLen) {
		if kind := kindOf(part.Coded); part.Page < len(ids[kind]) {
			p.some[kind][part.Page] = ids[kind][part.Page]
		}
	}
	return &kvcache.Table{Exact: p.some[kvcache.Exact], Coded: p.some[kvcache.Coded]}
}

// pinnedSlab is what is taken of the host's memory at a time.
const pinnedSlab = 64 << 20

// pin gives n bytes of pinned memory, or of any where there is no more of it:
// copies are then slower.
func (p *pages) pin(n int) []byte {
	if len(p.rest) < n {
		if err := p.r.dev.Do(func(c *cuda.Context) error { return p.take(c, max(n, pinnedSlab)) }); err != nil {
			return make([]byte, n)
		}
	}
	b := p.rest[:n:n]
	p.rest = p.rest[n:]
	return b
}

// take pins n bytes more.
func (p *pages) take(c *cuda.Context, n int) error {
	b, err := c.HostAlloc(n)
	if err == nil {
		p.pinned, p.rest = append(p.pinned, b), b
	}
	return err
}

// handoverBytes is what the pages take on the host that a hand-over of n tokens moves.
func handoverBytes(g *quant.Geometry, n int) (bytes int64) {
	seen := [2]int{-1, -1} // the last page, by kind: parts of one follow each other
	for _, part := range g.Format.Handover(n) {
		if kind := kindOf(part.Coded); seen[kind] != part.Page {
			seen[kind] = part.Page
			bytes += int64([2]int{g.ExactPage(), g.CodedPage()}[kind])
		}
	}
	return bytes
}

// settle has the stream wait for copies to the device, which may be for sequences
// that are no more and whose pages are others', and puts the moves of pages into it,
// once nothing copies from them.
func (p *pages) settle(c *cuda.Context) error {
	if p.uploading {
		if err := c.Wait(p.r.stream, p.r.uploaded); err != nil {
			return err
		}
		p.uploading = false
	}
	if len(p.moves) == 0 {
		return nil
	}
	if err := c.Wait(p.r.stream, p.r.copied); err != nil {
		return err
	}
	for _, m := range p.moves {
		if err := c.CopyAsync(p.base+cuda.Ptr(m.to), p.base+cuda.Ptr(m.from), m.n, p.r.stream); err != nil {
			return fmt.Errorf("cannot move a KV page: %w", err)
		}
	}
	p.moves = p.moves[:0]
	return nil
}

func (p *pages) close(c *cuda.Context) (err error) {
	for _, b := range p.pinned {
		if failed := c.FreeHost(b); failed != nil {
			err = failed
		}
	}
	return err
}
