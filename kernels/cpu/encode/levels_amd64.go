//go:build !purego

package encode

import (
	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/quant"
)

// use takes the level's kernels.
func (k *Kernels) use(l cpu.Level) {
	switch l {
	case cpu.AVX2:
		*k = Kernels{narrowAVX2, loadAVX2, fitAVX2, packKeysAVX2, packValuesAVX2, lines()}
	case cpu.AVX512:
		*k = Kernels{narrowAVX512, loadAVX512, fitAVX512, packKeysAVX512, packValuesAVX512, lines()}
	}
}

// lines is what package quant is lent. 256 bits are as good as 512 for it.
func lines() *quant.Vectors {
	return &quant.Vectors{Load: widenLineAVX2, Ranges: rangesAVX2, Extremes: extremesAVX2, Levels: levelsAVX2}
}
