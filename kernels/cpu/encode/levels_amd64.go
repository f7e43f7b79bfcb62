//go:build !purego

package encode

import "github.com/terse-llm/terse/internal/cpu"

// use takes the level's kernels.
func (k *Kernels) use(l cpu.Level) {
	switch l {
	case cpu.AVX2:
		*k = Kernels{narrowAVX2, loadAVX2, fitAVX2, packKeysAVX2, packValuesAVX2}
	case cpu.AVX512:
		*k = Kernels{narrowAVX512, loadAVX512, fitAVX512, packKeysAVX512, packValuesAVX512}
	}
}
