//go:build purego || !amd64

package widen

import (
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/quant/baseline"
)

func (k Kernels) rows([]float32, *quant.Geometry, baseline.Page, int, int, int, []byte) bool {
	return false
}

func (k Kernels) turn([]float32, int, int, []float32, []float32, int) bool { return false }
