package cpu

import "slices"

// Level is a set of instructions. Higher levels of one architecture include the
// lower ones.
type Level uint8

// The levels.
const (
	Generic Level = iota // portable Go
	AVX2                 // amd64: AVX2, FMA, F16C
	AVX512               // amd64: AVX-512 F, BW, DQ, VL and VNNI on top
	NEON                 // arm64
	DotProd              // arm64: SDOT and UDOT on top
)

func (l Level) String() string {
	return [...]string{"generic", "avx2", "avx512-vnni", "neon", "neon-dotprod"}[l]
}

// Levels is what this machine can run in this build, poorest first.
func Levels() []Level { return append([]Level{Generic}, detected()...) }

// Best is the richest of Levels.
func Best() Level {
	l := Levels()
	return l[len(l)-1]
}

// Has reports whether l is among Levels.
func Has(l Level) bool { return slices.Contains(Levels(), l) }
