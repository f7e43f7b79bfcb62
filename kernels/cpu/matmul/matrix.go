package matmul

import (
	"fmt"

	"github.com/terse-llm/terse/internal/huge"
	"github.com/terse-llm/terse/tensor"
)

// Matrix is weights [out][in] packed for one level.
type Matrix struct {
	k       *Kernels
	kind    Kind
	w       tensor.Tensor
	out, in int
	tiles   []tile
	pair    tile // may be nil
	stride  int  // bytes of a panel
	data    []byte
}

// NewMatrix makes room for w, whose shape is [out, in]; Pack fills it. The
// inner dimension must be whole blocks of the dtype.
func (k *Kernels) NewMatrix(w tensor.Tensor) *Matrix {
	elems, _ := w.DType.Block()
	if len(w.Shape) != 2 || w.Shape[0] < 1 || w.Shape[1] < 1 || elems == 0 || w.Shape[1]%elems != 0 || len(w.Data) < w.DType.RowBytes(w.Elems()) {
		panic(fmt.Sprintf("BUG: matrix %s of %v %v in %d bytes", w.Name, w.DType, w.Shape, len(w.Data)))
	}
	m := &Matrix{k: k, kind: kindOf(w.DType), w: w, out: w.Shape[0], in: w.Shape[1]}
	m.tiles = k.float[w.DType]
	if m.kind == Int8 {
		m.tiles = k.integer[w.DType]
	}
	m.pair = k.pair[w.DType]
	m.stride = panelBytes(w.DType, m.in)
	m.data = huge.Bytes(m.Panels() * m.stride)
	return m
}

// Panels is the number of units of Pack and Multiply: runs of 32 outputs.
func (m *Matrix) Panels() int { return (m.out + panel - 1) / panel }

// Bytes is the size of the packed weights, which a decode step reads once.
func (m *Matrix) Bytes() int { return len(m.data) }

// Kind is the form of activations that the matrix multiplies.
func (m *Matrix) Kind() Kind { return m.kind }

// Out and In are the matrix's dimensions.
func (m *Matrix) Out() int { return m.out }

// In is the inner dimension.
func (m *Matrix) In() int { return m.in }

// Scratch is what one call of Multiply writes beside its outputs.
type Scratch struct {
	edge [maxRows * panel]float32 // the outputs of the last panel, if it is not full
}

const (
	maxRows = 16 // the largest group of any level
	// cached is how many bytes of activations stay in the L2 cache while one
	// panel after the other passes by.
	cached = 384 << 10
)

// Multiply computes the outputs of panels [lo, hi) for all rows of a:
// y[r·ldy+o] = Σ_k x[r][k]·w[o][k] + bias[o]; bias may be nil. Calls on other
// panels may run at the same time, each with its own Scratch.
func (m *Matrix) Multiply(y []float32, ldy int, a *Activations, lo, hi int, bias []float32, s *Scratch) {
	if a.rows == 0 || lo == hi {
		return
	}
	if !a.Fits(m) || lo < 0 || hi > m.Panels() || lo > hi || ldy < m.out || len(y) < (a.rows-1)*ldy+m.out || bias != nil && len(bias) < m.out {
		panic(fmt.Sprintf("BUG: panels [%d,%d) of matrix %s %v: %d outputs of stride %d, %d rows of %d, bias %d", lo, hi, m.w.Name, m.w.Shape, len(y), ldy, a.rows, a.in, len(bias)))
	}
	step := m.k.step(m.kind)
	if once := m.k.once(m.kind); a.groups == 1 && a.rows <= once {
		step = m.in // nothing is read twice
	}
	full, p := min(hi, m.out/panel), lo
	if a.rows == 1 && m.pair != nil {
		for ; p+2 <= full; p += 2 {
			m.pair(&y[p*panel], m.stride, &a.data[0], &m.data[p*m.stride], m.units(m.in), false)
		}
	}
	if a.rows*a.bytes(m.in) <= cached {
		for ; p < full; p++ {
			for k := 0; k < m.in; k += step {
				m.pass(y[p*panel:], ldy, a, p, k, min(step, m.in-k))
			}
		}
	} else {
		for k := 0; k < m.in; k += step {
			for p := p; p < full; p++ {
				m.pass(y[p*panel:], ldy, a, p, k, min(step, m.in-k))
			}
		}
	}
	if full < hi {
		m.last(y, ldy, a, full, s)
	}
	if bias != nil {
		first, end := lo*panel, min(hi*panel, m.out)
		for r := range a.rows {
			row := y[r*ldy+first : r*ldy+end]
			for i, b := range bias[first:end] {
				row[i] += b
			}
		}
	}
}

// pass adds the products of n of k, from k on, to the outputs of panel p for all
// rows.
func (m *Matrix) pass(y []float32, ldy int, a *Activations, p, k, n int) {
	w, units := &m.data[p*m.stride+m.offset(k)], m.units(n)
	for g := range a.groups {
		row, rows := a.group(g)
		m.tiles[rows](&y[row*ldy], ldy, &a.data[a.part(k, row, rows)], w, units, k > 0)
	}
}

// last is the panel that has fewer outputs than 32, through the scratch.
func (m *Matrix) last(y []float32, ldy int, a *Activations, p int, s *Scratch) {
	step := m.k.step(m.kind)
	n := m.out - p*panel
	for g := range a.groups {
		row, rows := a.group(g)
		for k := 0; k < m.in; k += step {
			units := m.units(min(step, m.in-k))
			m.tiles[rows](&s.edge[0], panel, &a.data[a.part(k, row, rows)], &m.data[p*m.stride+m.offset(k)], units, k > 0)
		}
		for r := range rows {
			copy(y[(row+r)*ldy+p*panel:][:n], s.edge[r*panel:])
		}
	}
}

// units is the count that a tile takes for n of k.
func (m *Matrix) units(n int) int {
	elems, _ := m.w.DType.Block()
	return n / elems
}

// offset is where k lies in a panel.
func (m *Matrix) offset(k int) int { return panelBytes(m.w.DType, k) }
