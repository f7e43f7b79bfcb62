//go:build !purego

package cpu

import "golang.org/x/sys/cpu"

func detected() []Level {
	if dotProd && cpu.ARM64.HasASIMDDP {
		return []Level{NEON, DotProd}
	}
	return []Level{NEON}
}
