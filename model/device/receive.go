package device

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/terse-llm/terse/kernels/cuda"
	"github.com/terse-llm/terse/kvcache"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/quant"
)

// reception is a prompt on its way to the device: model.Reception. What has come on
// the host is copied by the stream of copies, beside steps.
type reception struct {
	r     *Runner
	view  *quant.View
	taken [2][]bool // by kind, [page][layer]
}

// Receive prepares to take over a prompt from view's pages on the host.
func (r *Runner) Receive(view *quant.View) model.Reception {
	return &reception{r: r, view: view, taken: [2][]bool{
		make([]bool, len(view.ExactIDs)*r.geometry.Layers), make([]bool, len(view.CodedIDs)*r.geometry.Layers),
	}}
}

// Take puts copies of what has come into the stream of copies.
func (p *reception) Take(came []quant.Piece) error {
	err := p.r.dev.Do(func(c *cuda.Context) error { return p.take(c, slices.Clone(came)) })
	if err != nil {
		return fmt.Errorf("cannot bring a part of a prompt to the GPU: %w", err)
	}
	return nil
}

// take copies pieces, those of a page that lie together at once. The pages were
// others' before: what the stream of steps has to do with them comes first.
func (p *reception) take(c *cuda.Context, came []quant.Piece) error {
	r := p.r
	if len(came) == 0 {
		return nil
	}
	for _, piece := range came { // anew, if it was before
		p.taken[kindOf(piece.Coded)][piece.Page*r.geometry.Layers+piece.Layer] = false
	}
	if err := r.pages.settle(c); err != nil {
		return err
	}
	if err := c.Record(r.settled, r.stream); err != nil {
		return err
	}
	if err := c.Wait(r.copies, r.settled); err != nil {
		return err
	}
	slices.SortFunc(came, func(a, b quant.Piece) int {
		return cmp.Or(cmp.Compare(kindOf(a.Coded), kindOf(b.Coded)), cmp.Compare(a.Page, b.Page), cmp.Compare(a.Layer, b.Layer))
	})
	for lo := 0; lo < len(came); {
		first, hi := came[lo], lo+1
		for ; hi < len(came) && kindOf(came[hi].Coded) == kindOf(first.Coded) && came[hi].Page == first.Page && came[hi].Layer <= came[hi-1].Layer+1; hi++ {
		}
		if err := p.copy(c, first, came[hi-1].Layer+1); err != nil {
			return err
		}
		lo = hi
	}
	r.pages.uploading = true
	return c.Record(r.uploaded, r.copies)
}

// kindOf is the kind of page that has a part's form.
func kindOf(coded bool) kvcache.Kind {
	if coded {
		return kvcache.Coded
	}
	return kvcache.Exact
}

// copy brings layers [first.Layer, hi) of a page to the device.
func (p *reception) copy(c *cuda.Context, first quant.Piece, hi int) error {
	r, kind := p.r, kindOf(first.Coded)
	ids, host := p.view.ExactIDs, p.view.Exact
	if first.Coded {
		ids, host = p.view.CodedIDs, p.view.Coded
	}
	from, to := layerBytes(r.geometry, kind, first.Layer, hi)
	var at [1]uint64
	r.pages.arena.Addresses(kind, ids[first.Page:first.Page+1], uint64(r.pages.base), at[:])
	err := c.UploadAsync(cuda.Ptr(at[0])+cuda.Ptr(from), host[first.Page][from:to], r.copies)
	for layer := first.Layer; err == nil && layer < hi; layer++ {
		p.taken[kind][first.Page*r.geometry.Layers+layer] = true
	}
	return err
}

// rest is what of a prompt of n tokens has not been taken.
func (p *reception) rest(n int) (rest []quant.Piece) {
	held := p.view.Staged / p.r.geometry.Format.PageTokens
	for _, part := range p.r.geometry.Format.Handover(n) {
		for layer := range p.r.geometry.Layers {
			piece := quant.Piece{Layer: layer, Page: part.Page, Coded: part.Coded}
			if part.Page >= held && !p.taken[kindOf(piece.Coded)][part.Page*p.r.geometry.Layers+layer] {
				rest = append(rest, piece)
			}
		}
	}
	return rest
}

// Adopt takes over what has not been taken, and pages that came exact although the
// format keeps a code of them too are coded.
func (p *reception) Adopt(n int) error {
	r := p.r
	r.in.table(r.pages, 0, p.view)
	err := r.dev.Do(func(c *cuda.Context) error {
		if err := p.take(c, p.rest(n)); err != nil {
			return err
		}
		if err := errors.Join(r.pages.settle(c), r.forgo(c)); err != nil {
			return err
		}
		if err := r.in.upload(c, 0, r.stream); err != nil {
			return err
		}
		if err := p.recode(c, n); err != nil {
			return err
		}
		return c.Synchronize(r.stream)
	})
	if err != nil {
		return fmt.Errorf("cannot take over a prompt of %d tokens: %w", n, err)
	}
	return nil
}

// recode codes the pages of which a code is kept and none came.
func (p *reception) recode(c *cuda.Context, n int) error {
	r, f := p.r, p.r.geometry.Format
	if r.kernels.encoder == nil {
		return nil
	}
	sent := make(map[int]bool)
	for _, part := range f.Handover(n) {
		if part.Coded {
			sent[part.Page] = true
		}
	}
	lo, hi := f.CodedPages(n)
	for page := max(lo, p.view.Staged/f.PageTokens); page < hi; page++ {
		if sent[page] || p.view.ExactIDs[page] < 0 {
			continue
		}
		for layer := range r.geometry.Layers {
			if err := c.Recode(r.kernels.encoder, layer, page, r.in.row(kvcache.Exact, 0), r.in.row(kvcache.Coded, 0), r.stream); err != nil {
				return err
			}
		}
	}
	return nil
}
