package peak

import (
	"encoding/binary"
	"runtime"

	"github.com/terse-llm/terse/internal/cpu"
)

// Kernels are the loops of one level.
type Kernels struct {
	// FMA multiplies and adds float32; Maddubs multiplies u8 by s8 and adds up in
	// int16 (VPMADDUBSW and VPADDW); Dpbusd does so in int32 (VPDPBUSD). The Run
	// of a loop that the level has no instructions for is nil.
	FMA, Maddubs, Dpbusd Loop
	// Read loads b, a multiple of 512 bytes, once.
	Read func(b []byte)
}

// Loop is operations on registers alone.
type Loop struct {
	Run func(rounds int)
	// Ops is the operations of one round; a multiplication and its addition are
	// two.
	Ops int
}

// For is the loops of a level.
func For(l cpu.Level) *Kernels {
	if k := native(l); k != nil {
		return k
	}
	return &Kernels{FMA: Loop{computeFMA, 2 * len(sink{})}, Read: read}
}

// sink takes the results of the portable loops, so that they are computed.
type sink [8]float32

// computeFMA is plain Go: separate multiplications and additions.
func computeFMA(rounds int) {
	var s sink
	m := float32(rounds&1) + 0.5
	for range rounds {
		for i := range s {
			s[i] = s[i]*m + m
		}
	}
	runtime.KeepAlive(s)
}

func read(b []byte) {
	checkRead(b)
	var x uint64
	for ; len(b) >= 32; b = b[32:] {
		x |= binary.LittleEndian.Uint64(b) | binary.LittleEndian.Uint64(b[8:]) |
			binary.LittleEndian.Uint64(b[16:]) | binary.LittleEndian.Uint64(b[24:])
	}
	runtime.KeepAlive(x)
}

func checkRead(b []byte) {
	if len(b) == 0 || len(b)%512 != 0 {
		panic("BUG: reads are of whole runs of 512 bytes")
	}
}
