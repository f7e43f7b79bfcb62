package device

import (
	"errors"
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
		if err := r.bring(c, layer, p); err != nil {
			return err
		}
	}
	return errors.Join(c.Record(r.arrived[layer], r.copies), c.Record(r.copied, r.copies))
}

// bring has the second stream bring one layer of a page to the host.
func (r *Runner) bring(c *cuda.Context, layer int, p stagedPage) error {
	lo, hi := layerBytes(r.geometry, p.kind, layer, layer+1)
	from := cuda.Ptr(r.in.tables[p.kind][p.table*r.in.width+p.page]) + cuda.Ptr(lo)
	if err := c.DownloadAsync(p.host[lo:hi], from, r.copies); err != nil {
		return fmt.Errorf("cannot bring page %d to the host: %w", p.page, err)
	}
	return nil
}

// layerBytes is where layers [first, end) lie in a page.
func layerBytes(g *quant.Geometry, k kvcache.Kind, first, end int) (lo, hi int) {
	if k == kvcache.Coded {
		return g.CodedStart(first), g.CodedStart(end)
	}
	return first * g.ExactBytes(), end * g.ExactBytes()
}

// Bring has the second stream bring whole pages to the host, those that it has not
// brought before, and waits for it.
func (r *Runner) Bring(view *quant.View, n int) error {
	err := r.dev.Do(func(c *cuda.Context) error {
		if err := r.pages.settle(c); err != nil {
			return err
		}
		if err := errors.Join(c.Record(r.settled, r.stream), c.Wait(r.copies, r.settled)); err != nil {
			return err
		}
		var at [1]uint64
		for _, part := range r.geometry.Format.Handover(n) {
			kind, ids, host := kvcache.Exact, view.ExactIDs, view.Exact
			if part.Coded {
				kind, ids, host = kvcache.Coded, view.CodedIDs, view.Coded
			}
			id := ids[part.Page]
			stamp, brought := r.pages.host.Stamp(kind, kvcache.PageID(id)), r.pages.brought[kind]
			if brought[id] == stamp {
				continue
			}
			r.pages.arena.Addresses(kind, ids[part.Page:part.Page+1], uint64(r.pages.base), at[:])
			if err := c.DownloadAsync(host[part.Page], cuda.Ptr(at[0]), r.copies); err != nil {
				return err
			}
			brought[id] = stamp
		}
		return c.Synchronize(r.copies)
	})
	if err != nil {
		return fmt.Errorf("cannot bring %d tokens' pages to the host: %w", n, err)
	}
	return nil
}
