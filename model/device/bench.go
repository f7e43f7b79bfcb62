package device

import (
	"fmt"

	"github.com/terse-llm/terse/kernels/cuda"
	"github.com/terse-llm/terse/kvcache"
	"github.com/terse-llm/terse/quant"
)

// What benchmarks need.

// Bytes is what the model's matrices take of the GPU's memory; a step of single
// rows reads them all, but for all rows of the input embedding save its own.
func (m *Model) Bytes() int64 { return weightBytes(&m.config) }

// ReadRate is the bytes a second at which the GPU reads the model's weights.
func (m *Model) ReadRate() (rate float64, err error) {
	cfg := &m.config
	err = m.gpu.dev.Do(func(c *cuda.Context) error {
		rate, err = c.ReadRate(m.gpu.module, m.head, 2*cfg.VocabSize*cfg.Hidden)
		return err
	})
	return rate, err
}

// CopyPage makes a page of one text what a page of another is, in the forms that
// both have.
func (r *Runner) CopyPage(to *quant.View, page int, from *quant.View, source int) error {
	var at, of [1]uint64
	return r.dev.Do(func(c *cuda.Context) error {
		if err := r.pages.settle(c); err != nil {
			return err
		}
		for k, ids := range [2][2]int32{{to.ExactIDs[page], from.ExactIDs[source]}, {to.CodedIDs[page], from.CodedIDs[source]}} {
			if ids[0] < 0 || ids[1] < 0 {
				continue
			}
			kind := kvcache.Kind(k)
			r.pages.arena.Addresses(kind, ids[:1], uint64(r.pages.base), at[:])
			r.pages.arena.Addresses(kind, ids[1:], uint64(r.pages.base), of[:])
			if err := c.CopyAsync(cuda.Ptr(at[0]), cuda.Ptr(of[0]), int(r.pages.cache.PageBytes(kind)), r.stream); err != nil {
				return fmt.Errorf("cannot copy a KV page: %w", err)
			}
		}
		return nil
	})
}
