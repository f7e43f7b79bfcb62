//go:build !purego

package encode

import "github.com/terse-llm/terse/internal/cpu"

// use takes the level's kernels.
func (k *Kernels) use(l cpu.Level) {
	switch l {
	case cpu.NEON, cpu.DotProd:
		*k = Kernels{narrowNEON, loadNEON, fitNEON, packKeysNEON, packValuesNEON, nil}
	}
}
