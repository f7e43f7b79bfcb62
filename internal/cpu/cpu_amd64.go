//go:build !purego

package cpu

import "golang.org/x/sys/cpu"

func detected() []Level {
	x := &cpu.X86
	if !x.HasAVX2 || !x.HasFMA || !x.HasF16C {
		return nil
	}
	if avx512 && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL && x.HasAVX512VNNI {
		return []Level{AVX2, AVX512}
	}
	return []Level{AVX2}
}
