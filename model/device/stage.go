package device

import (
	"fmt"

	"github.com/terse-llm/terse/kernels/cuda"
	"github.com/terse-llm/terse/kvcache"
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
