package device

import (
	"fmt"

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
		p.base, err = r.alloc(ctx, int(c.Budget()))
		return err
	})
	r.pages = p
	return p, err
}

// View names t's pages.
func (p *pages) View(t *kvcache.Table, promptLen int, v *quant.View) { p.arena.View(t, promptLen, v) }

// Stage is View with bytes on the host.
func (p *pages) Stage(t *kvcache.Table, promptLen int, v *quant.View) {
	p.host.View(t, promptLen, v)
	exact, coded := v.Exact, v.Coded
	p.arena.View(t, promptLen, v)
	v.Exact, v.Coded = exact, coded
}

// pinnedSlab is what is taken of the host's memory at a time.
const pinnedSlab = 64 << 20

// pin gives n bytes of pinned memory, or of any where there is no more of it:
// copies are then slower.
func (p *pages) pin(n int) []byte {
	if len(p.rest) < n {
		err := p.r.dev.Do(func(c *cuda.Context) error {
			b, err := c.HostAlloc(max(n, pinnedSlab))
			if err == nil {
				p.pinned, p.rest = append(p.pinned, b), b
			}
			return err
		})
		if err != nil {
			return make([]byte, n)
		}
	}
	b := p.rest[:n:n]
	p.rest = p.rest[n:]
	return b
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
