package widen

import (
	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/quant/baseline"
)

// Kernels is the kernels of one level.
type Kernels struct{ level cpu.Level }

// For gives the kernels of a level that this machine and build have. Levels
// without kernels of their own get the generic ones.
func For(l cpu.Level) Kernels { return Kernels{l} }

// Rows writes tokens [lo, hi) of one half of one KV head to dst ([token - lo]
// [HeadDim]): baseline.Scratch.Rows. page is the head's share of one layer of a
// coded page. next, which may be nil, is fetched meanwhile.
func (k Kernels) Rows(s *baseline.Scratch, dst []float32, g *quant.Geometry, page []byte, half, lo, hi int, next []byte) {
	if g.Format.Family != quant.FamilyKIVI || lo < 0 || lo > hi || hi > g.Format.PageTokens || len(page) < g.HeadBytes || len(dst) < (hi-lo)*g.HeadDim {
		panic("BUG: widening of format " + g.Format.Name + ", or beyond its slices")
	}
	if !k.rows(dst, g, page, half, lo, hi, next) {
		s.Rows(dst, g, page, half, lo, hi)
	}
}
