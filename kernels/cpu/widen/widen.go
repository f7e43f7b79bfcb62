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

// Rows writes tokens [lo, hi) of one half of a page of kivi or kvquant to dst
// ([token - lo][HeadDim]): baseline.Scratch.Rows. next, which may be nil, is fetched
// meanwhile.
func (k Kernels) Rows(s *baseline.Scratch, dst []float32, g *quant.Geometry, p baseline.Page, half, lo, hi int, next []byte) {
	if f := g.Format.Family; f != quant.FamilyKIVI && f != quant.FamilyKVQuant {
		panic("BUG: widening of format " + g.Format.Name)
	}
	if lo < 0 || lo > hi || hi > g.Format.PageTokens || len(p.Coded) < g.HeadBytes || len(dst) < (hi-lo)*g.HeadDim {
		panic("BUG: widening beyond slices")
	}
	if !k.rows(dst, g, p, half, lo, hi, next) {
		s.Rows(dst, g, p, half, lo, hi)
	}
}

// Turn does to n rows of K of kvquant, of tokens from t on of a page, what RoPE does if
// the page begins at position 0.
func (k Kernels) Turn(rows []float32, g *quant.Geometry, t, n int) {
	tab, pairs := g.Tables, g.Tables.Pairs()
	if t < 0 || n < 0 || t+n > g.Format.PageTokens || len(rows) < n*g.HeadDim {
		panic("BUG: turning beyond slices")
	}
	cos, sin := tab.Cos[t*pairs:(t+n)*pairs], tab.Sin[t*pairs:(t+n)*pairs]
	if n > 0 && !tab.Interleaved() && k.turn(rows, g.HeadDim, n, cos, sin, pairs) {
		return
	}
	for i := range n {
		tab.Turn(rows[i*g.HeadDim:], cos[i*pairs:(i+1)*pairs], sin[i*pairs:(i+1)*pairs], false)
	}
}
