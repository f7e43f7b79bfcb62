//go:build purego || !amd64

package fused

import "github.com/terse-llm/terse/quant"

// KIVI has no kernels here: pages are widened (package widen).
type KIVI struct{}

// HasKIVI reports that.
func (k Kernels) HasKIVI(*quant.Geometry) bool { return false }

// QK panics.
func (*KIVI) QK(Kernels, []float32, int, []float32, int, *quant.Geometry, []byte, []byte) {
	panic("BUG: no kernels for kivi")
}

// PV panics.
func (*KIVI) PV(Kernels, []float32, int, []float32, int, *quant.Geometry, []byte, []byte) {
	panic("BUG: no kernels for kivi")
}
