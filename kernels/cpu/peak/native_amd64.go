//go:build !purego

package peak

import "github.com/terse-llm/terse/internal/cpu"

const chains = 12 // operations of a round, see the generator

func native(l cpu.Level) *Kernels {
	switch l {
	case cpu.AVX2:
		return &Kernels{
			FMA:     Loop{computeFMAAVX2, chains * 2 * 8},
			Maddubs: Loop{computeMaddubsAVX2, chains * 2 * 32},
			Read:    checked(readAVX2),
		}
	case cpu.AVX512:
		return &Kernels{
			FMA:     Loop{computeFMAAVX512, chains * 2 * 16},
			Maddubs: Loop{computeMaddubsAVX512, chains * 2 * 64},
			Dpbusd:  Loop{computeDpbusdAVX512, chains * 2 * 64},
			Read:    checked(readAVX512),
		}
	}
	return nil
}

func checked(read func(p *byte, n int)) func(b []byte) {
	return func(b []byte) {
		checkRead(b)
		read(&b[0], len(b))
	}
}
