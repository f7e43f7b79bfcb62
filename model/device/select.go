package device

import (
	"errors"
	"slices"

	"github.com/terse-llm/terse/kernels/cuda"
	"github.com/terse-llm/terse/kvcache"
)

// chooser has what formats with important tokens want of a runner.
type chooser struct {
	selector *cuda.Selector
	states   cuda.Ptr     // of the rows' attention: [row][heads] of two float32
	chosen   []cuda.Event // of each layer: its pages have their second planes
	brought  []cuda.Event // of each layer: they are on the host
	// Sums of prompts whose last queries come in more than one step, pinned, on their
	// way from and to the host: [prompt of the step][layer][kv head][prompt token].
	sums []byte
}

// watched is a prompt that has rows in the step whose attention says what matters of it.
type watched struct {
	table int // its row of the tables
	sums  int // where its sums begin in those of the host; -1: not there
}

func (h *chooser) open(c *cuda.Context, r *Runner) (err error) {
	if !r.geometry.Format.Selects() {
		return nil
	}
	cfg := &r.model.config
	if h.selector, err = c.NewSelector(r.model.gpu.module, r.geometry, cfg.Heads/cfg.KVHeads, r.options.Context); err != nil {
		return err
	}
	if h.states, err = r.alloc(c, 8*cfg.Heads*(r.options.Rows+1)); err != nil {
		return err
	}
	if h.chosen, err = newEvents(c, cfg.Layers); err != nil {
		return err
	}
	h.brought, err = newEvents(c, cfg.Layers)
	return err
}

func (h *chooser) close(c *cuda.Context) error {
	errs := []error{c.FreeHost(h.sums)}
	for _, e := range slices.Concat(h.chosen, h.brought) {
		errs = append(errs, c.CloseEvent(e))
	}
	if h.selector != nil {
		errs = append(errs, c.CloseSelector(h.selector))
	}
	return errors.Join(errs...)
}

// watchedRows is what of a prompt's segment is watched, the tokens to choose among and
// whether they are chosen at the step's end. Pages of another prompt have theirs.
func (r *Runner) watchedRows(table int) (w cuda.Watched, first int, ends bool) {
	seg, f := r.step.segments[table], r.geometry.Format
	lo, hi := seg.Watched()
	w = cuda.Watched{Position: seg.Pos + lo, Rows: hi - lo, Prompt: seg.View.PromptLen}
	w.Lo, w.Hi = f.Selectable(w.Prompt)
	w.Lo = max(w.Lo, r.step.floors[table])
	w.Exact, w.Coded = r.in.row(kvcache.Exact, table), r.in.row(kvcache.Coded, table)
	return w, seg.Row + lo, seg.Pos+hi == w.Prompt
}

// sumBytes is the size of a prompt's sums in one layer.
func (r *Runner) sumBytes(prompt int) int { return 4 * r.geometry.KVHeads * prompt }

// prepareSums makes room for the sums that this step leaves to the next, or has from
// the one before it.
func (r *Runner) prepareSums(c *cuda.Context) error {
	h, n := &r.choosing, 0
	for i := range r.step.watched {
		p := &r.step.watched[i]
		view := r.step.segments[p.table].View
		if _, _, ends := r.watchedRows(p.table); ends && view.Weights == nil {
			p.sums = -1
			continue
		}
		p.sums = n
		n += r.geometry.Layers * r.sumBytes(view.PromptLen)
	}
	if n > len(h.sums) {
		err := c.FreeHost(h.sums)
		if h.sums = nil; err != nil {
			return err
		}
		if h.sums, err = c.HostAlloc(n); err != nil {
			return err
		}
	}
	for _, p := range r.step.watched {
		view := r.step.segments[p.table].View
		for layer, w := range view.Weights {
			copy(r.sumsOf(p, layer), cuda.Bytes(w))
		}
	}
	return nil
}

// sumsOf is the place of a prompt's sums of a layer on the host.
func (r *Runner) sumsOf(p watched, layer int) []byte {
	n := r.sumBytes(r.step.segments[p.table].View.PromptLen)
	return r.choosing.sums[p.sums+layer*n:][:n]
}

// keepSums leaves to the next step what it goes on with, of prompts that have not ended.
func (r *Runner) keepSums() {
	for _, p := range r.step.watched {
		view := r.step.segments[p.table].View
		if _, _, ends := r.watchedRows(p.table); ends {
			view.Weights = nil
			continue
		}
		view.Weights = make([][]float32, r.geometry.Layers)
		for layer := range view.Weights {
			view.Weights[layer] = slices.Clone(cuda.Float32s(r.sumsOf(p, layer)))
		}
	}
}

// choose adds up what the watched rows of prompts give to their tokens in a layer, and
// gives the important ones of prompts that end the second plane.
func (r *Runner) choose(c *cuda.Context, layer int) error {
	h, cfg := &r.choosing, &r.model.config
	for _, p := range r.step.watched {
		w, row, ends := r.watchedRows(p.table)
		w.Layer, w.Q, w.States = layer, r.act.q+cuda.Ptr(4*row*cfg.Heads*cfg.HeadDim), h.states+cuda.Ptr(8*row*cfg.Heads)
		w.More = r.step.segments[p.table].View.Weights != nil
		var errs []error
		if w.More {
			errs = append(errs, c.UploadAsync(h.selector.Sums(), r.sumsOf(p, layer), r.stream))
		}
		errs = append(errs, c.Weigh(h.selector, w, cfg.AttentionScale(), r.stream))
		if ends {
			errs = append(errs, c.Choose(h.selector, w, r.stream), r.stageChosen(c, layer, p.table, w))
		} else {
			errs = append(errs, c.DownloadAsync(r.sumsOf(p, layer), h.selector.Sums(), r.stream))
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}

// stageChosen has the second stream bring a layer's pages to the host once more, with
// their second planes, where the prompt is another worker's.
func (r *Runner) stageChosen(c *cuda.Context, layer, table int, w cuda.Watched) error {
	h, view := &r.choosing, r.step.segments[table].View
	if len(view.Coded) == 0 {
		return nil
	}
	if err := errors.Join(c.Record(h.chosen[layer], r.stream), c.Wait(r.copies, h.chosen[layer])); err != nil {
		return err
	}
	page := r.geometry.Format.PageTokens
	for i := w.Lo / page; i < w.Hi/page; i++ {
		if err := r.bring(c, layer, stagedPage{kvcache.Coded, table, i, view.Coded[i]}); err != nil {
			return err
		}
	}
	return errors.Join(c.Record(h.brought[layer], r.copies), c.Record(r.copied, r.copies))
}
