package ref

import (
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/quant/baseline"
)

// widenReader reads a tile's codes as exactReader reads its float16: the
// baselines dequantise and then attend.
type widenReader struct {
	exactReader
	scratch baseline.Scratch
}

func (r *widenReader) loadKeys(it *attendItem, t *kernels.Tile) {
	r.k = r.rows(r.k, it, t, quant.HalfK)
	if g := it.job.Geometry; g.Format.Family == quant.FamilyKVQuant {
		r.scratch.Turn(r.k[:(t.Hi-t.Lo)*g.HeadDim], g, t.First, t.Lo)
	}
}

func (r *widenReader) loadValues(it *attendItem, t *kernels.Tile) {
	r.v = r.rows(r.v, it, t, quant.HalfV)
}

// rows is the tile's tokens, zeros up to a multiple of 4.
func (r *widenReader) rows(dst []float32, it *attendItem, t *kernels.Tile, half int) []float32 {
	g := it.job.Geometry
	n := (t.Hi - t.Lo) * g.HeadDim
	dst = grow(dst, (t.Hi-t.Lo+3)/4*4*g.HeadDim)
	r.scratch.Rows(dst[:n], g, baseline.Page{Coded: g.CodedHead(t.Coded, it.job.Head), Layer: it.job.Layer, Head: it.job.Head}, half, t.Lo, t.Hi)
	clear(dst[n:])
	return dst
}
