//go:build purego || !amd64

package widen

import "github.com/terse-llm/terse/quant"

func (k Kernels) rows([]float32, *quant.Geometry, []byte, int, int, int, []byte) bool { return false }
