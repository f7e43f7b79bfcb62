package matmul

import (
	"fmt"

	"github.com/terse-llm/terse/internal/huge"
)

// recordBytes is the size of one row's part of a block of 32 int8 activations.
const recordBytes = 14 * 4

// The fields after a record's codes.
const (
	fieldScale = 8 + iota
	fieldSum
	fieldFix128
	fieldFix8
	fieldFix32
)

// Activations is rows of inputs in the form that the tiles of a kind and level
// read. The zero value is ready for Reset; its memory is kept and grows.
type Activations struct {
	k        *Kernels
	kind     Kind
	rows, in int
	groups   int
	data     []byte
}

// Reset makes room for rows rows of m's inputs. It allocates only when more is
// needed than ever before.
func (a *Activations) Reset(m *Matrix, rows int) {
	if rows < 0 {
		panic(fmt.Sprintf("BUG: %d rows of activations", rows))
	}
	a.k, a.kind, a.rows, a.in = m.k, m.kind, rows, m.in
	a.groups = (rows + a.k.rows(a.kind) - 1) / a.k.rows(a.kind)
	if n := rows * a.bytes(m.in); n > len(a.data) {
		a.data = huge.Bytes(n)
	}
}

// Fits reports whether a was made for matrices like m.
func (a *Activations) Fits(m *Matrix) bool { return a.k == m.k && a.kind == m.kind && a.in == m.in }

// Rows is the number of rows.
func (a *Activations) Rows() int { return a.rows }

// Groups is the number of units of Prepare.
func (a *Activations) Groups() int { return a.groups }

// bytes is the size of n elements of one row.
func (a *Activations) bytes(n int) int {
	if a.kind == Float {
		return 4 * n
	}
	return n / 32 * recordBytes
}

// group is the first row of group g and how many it has: groups differ by one
// row at most. Group a.groups is the end.
func (a *Activations) group(g int) (first, m int) {
	size, extra := a.rows/a.groups, a.rows%a.groups
	first = g*size + min(g, extra)
	if g < extra {
		size++
	}
	return first, size
}

// part is where the elements of group row first, with m rows, lie from k on:
// parts of k come one after the other, in each the groups.
func (a *Activations) part(k, first, m int) int {
	n := min(a.k.step(a.kind), a.in-k)
	return a.rows*a.bytes(k) + first*a.bytes(n)
}

// Prepare fills groups [lo, hi) from x, all rows of the inputs.
func (a *Activations) Prepare(x []float32, lo, hi int) {
	if lo < 0 || hi > a.groups || len(x) < a.rows*a.in {
		panic(fmt.Sprintf("BUG: groups [%d,%d) of %d, %d inputs for %d rows of %d", lo, hi, a.groups, len(x), a.rows, a.in))
	}
	step, write := a.k.step(a.kind), a.k.interleave
	if a.kind == Int8 {
		write = a.k.encode
	}
	for g := lo; g < hi; g++ {
		row, m := a.group(g)
		for k := 0; k < a.in; k += step {
			n := min(step, a.in-k)
			dst := a.data[a.part(k, row, m):][:m*a.bytes(n)]
			for r := range m {
				write(&dst[4*r], m, &x[(row+r)*a.in+k], n)
			}
		}
	}
}
