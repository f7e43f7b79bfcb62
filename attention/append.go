package attention

import (
	"fmt"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
)

// Append stores rows of K and V (each [rows][KVHeads][HeadDim], after RoPE) as
// tokens pos, pos+1, … of the sequence in one layer, and codes what they
// complete. k and v are taken into the cache's basis in place. The view must
// have exact pages for all of these tokens.
func (r *Runner) Append(view *quant.View, layer, pos int, k, v []float32) {
	r.transform.Keys(r.ops, layer, k)
	r.transform.Values(r.ops, layer, v)
	r.writes = writes{runner: r, view: view, layer: layer, k: k, v: v, pages: r.writes.pages[:0]}
	r.writes.plan(pos)
	r.ops.Parallel(len(r.writes.pages), &r.writes)
}

// writes is one Append, page by page.
type writes struct {
	runner *Runner
	view   *quant.View
	layer  int
	k, v   []float32
	pages  []pageRun
}

// pageRun is the part of some rows that falls into one page: tokens [lo, hi) of
// it, from row on.
type pageRun struct{ page, lo, hi, row int }

// width is the size of one row of K or V.
func (w *writes) width() int { return w.runner.geometry.KVHeads * w.runner.geometry.HeadDim }

func (w *writes) plan(pos int) {
	t, rows := w.runner.geometry.Format.PageTokens, len(w.k)/w.width()
	for row := 0; row < rows; {
		page, lo := (pos+row)/t, (pos+row)%t
		hi := min(t, lo+rows-row)
		w.pages = append(w.pages, pageRun{page, lo, hi, row})
		row += hi - lo
	}
}

// Do writes and codes page i.
func (w *writes) Do(i int) {
	p, n := w.pages[i], w.width()
	exact := w.view.ExactLayer(p.page, w.layer)
	if exact == nil {
		panic(fmt.Sprintf("BUG: no exact page %d to write tokens [%d,%d) of layer %d", p.page, p.lo, p.hi, w.layer))
	}
	at, end := p.row*n, (p.row+p.hi-p.lo)*n
	w.runner.ops.Store(w.runner.geometry, exact, p.lo, w.k[at:end], w.v[at:end])
	w.runner.encode(w.view, w.layer, p.page, p.lo, p.hi)
}

// Adopt codes, in every layer, the pages of a received hand-over of n tokens,
// those of the first view.Staged tokens apart, that came exact although the format keeps a code of them too: what a worker
// that had prefilled the prompt itself would already have.
func (r *Runner) Adopt(view *quant.View, n int) {
	f := r.geometry.Format
	lo, hi := f.CodedPages(n)
	if !f.Coded() || lo >= hi {
		return
	}
	sent := make(map[int]bool)
	for _, p := range f.Handover(n) {
		if p.Coded {
			sent[p.Page] = true
		}
	}
	for page := max(lo, view.Staged/f.PageTokens); page < hi; page++ {
		if sent[page] || view.ExactLayer(page, 0) == nil {
			continue
		}
		tokens := min(f.PageTokens, n-page*f.PageTokens)
		r.ops.Parallel(r.geometry.Layers, kernels.TaskFunc(func(layer int) { r.encode(view, layer, page, 0, tokens) }))
	}
}

func (r *Runner) encode(view *quant.View, layer, page, lo, hi int) {
	coded := view.CodedLayer(page, layer)
	if coded == nil {
		return
	}
	g := view.Geometry.At(layer)
	r.ops.Encode(g, quant.EncodeArgs{
		Exact: view.ExactLayer(page, layer), Coded: coded, Layer: layer,
		First: page * g.Format.PageTokens, Lo: lo, Hi: hi,
	})
}
