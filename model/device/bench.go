package device

import (
	"errors"
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

// ProductRate is the operations a second of the model's largest product with so many
// rows at once, a multiplication and an addition being two.
func (m *Model) ProductRate(rows int) (rate float64, err error) {
	const times = 10
	in, out := m.config.Hidden, 2*m.config.Intermediate
	err = m.gpu.dev.Do(func(c *cuda.Context) (err error) {
		x, err := c.Alloc(2 * rows * in)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.Free(x)) }()
		y, err := c.Alloc(4 * rows * out)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.Free(y)) }()
		var marks [2]cuda.Event
		for i := range marks {
			if marks[i], err = c.NewEvent(true); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.CloseEvent(marks[i])) }()
		}
		if err := c.FillAsync(x, 0x3c, 2*rows*in, 0); err != nil { // small numbers in either type
			return err
		}
		for i := range times + 1 { // the first is when cuBLASLt chooses how
			if i == 1 {
				err = c.Record(marks[0], 0)
			}
			if err = errors.Join(err, c.Linear(y, x, m.layers[0].gateUp, rows, in, out, m.products, cuda.F32, 0, 0)); err != nil {
				return err
			}
		}
		if err := c.Record(marks[1], 0); err != nil {
			return err
		}
		us, err := c.Elapsed(marks[0], marks[1])
		rate = times * 2 * float64(rows) * float64(in) * float64(out) / (us / 1e6)
		return err
	})
	return rate, err
}

// Operations are those of a prompt of n tokens: its products, of which the last
// layer's serve all rows and the output embedding's one, and causal attention.
func (m *Model) Operations(n int) float64 {
	c := &m.config
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	row := float64((q+2*kv)*c.Hidden + c.Hidden*q + 3*c.Hidden*c.Intermediate)
	attention := 2 * float64(n) * float64(n) * float64(q) // QK and PV, half of the square each
	return float64(c.Layers)*(2*float64(n)*row+attention) + 2*float64(c.VocabSize)*float64(c.Hidden)
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
