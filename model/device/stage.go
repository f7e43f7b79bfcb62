package device

import (
	"fmt"

	"github.com/terse-llm/terse/kernels/cuda"
	"github.com/terse-llm/terse/kvcache"
	"github.com/terse-llm/terse/quant"
)

// stage has the second stream bring what the step has written of a layer to the
// host, once it is written.
func (r *Runner) stage(c *cuda.Context, layer int) error {
	if len(r.step.staged) == 0 {
		return nil
	}
	if err := c.Record(r.written[layer], r.stream); err != nil {
		return err
	}
	if err := c.Wait(r.copies, r.written[layer]); err != nil {
		return err
	}
	for _, p := range r.step.staged {
		n := r.geometry.ExactBytes()
		if p.kind == kvcache.Coded {
			n = r.geometry.CodedBytes()
		}
		from := cuda.Ptr(r.in.tables[p.kind][p.table*r.in.width+p.page]) + cuda.Ptr(layer*n)
		if err := c.DownloadAsync(p.host[layer*n:(layer+1)*n], from, r.copies); err != nil {
			return fmt.Errorf("cannot bring page %d to the host: %w", p.page, err)
		}
	}
	return c.Record(r.arrived[layer], r.copies)
}

// Adopt takes over a prompt of n tokens that another worker has written into
// view's pages on the host, but for the first view.Staged, which are on the device
// already: they go there, and pages that came exact although the format keeps a
// code of them too are coded there.
func (r *Runner) Adopt(view *quant.View, n int) error {
	f := r.geometry.Format
	sent := make(map[int]bool)
	for _, p := range f.Handover(n) {
		if p.Coded {
			sent[p.Page] = true
		}
	}
	r.in.table(r.pages, 0, view)
	err := r.dev.Do(func(c *cuda.Context) error {
		if err := r.pages.settle(c); err != nil {
			return err
		}
		if err := r.in.upload(c, 0, r.stream); err != nil {
			return err
		}
		held := view.Staged / f.PageTokens
		lo, hi := f.CodedPages(n)
		for page := held; page < len(view.ExactIDs); page++ {
			if b := view.Exact[page]; b != nil {
				if err := c.UploadAsync(cuda.Ptr(r.in.tables[kvcache.Exact][page]), b, r.stream); err != nil {
					return err
				}
			}
			if b := view.Coded[page]; b != nil && sent[page] {
				if err := c.UploadAsync(cuda.Ptr(r.in.tables[kvcache.Coded][page]), b, r.stream); err != nil {
					return err
				}
			}
		}
		for page := max(lo, held); page < hi; page++ {
			if r.kernels.encoder == nil || sent[page] || view.ExactIDs[page] < 0 {
				continue
			}
			for layer := range r.geometry.Layers {
				if err := c.Recode(r.kernels.encoder, layer, page, r.in.row(kvcache.Exact, 0), r.in.row(kvcache.Coded, 0), r.stream); err != nil {
					return err
				}
			}
		}
		return c.Synchronize(r.stream)
	})
	if err != nil {
		return fmt.Errorf("cannot take over a prompt of %d tokens: %w", n, err)
	}
	return nil
}
