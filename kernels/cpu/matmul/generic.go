package matmul

import (
	"encoding/binary"
	"math"
	"unsafe"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/tensor"
)

// genericRows is the largest group of the portable tiles.
const genericRows = 4

// generic is portable Go: the meaning of every layout, and what the other levels
// are checked against.
func generic() *Kernels {
	k := &Kernels{
		level: cpu.Generic,
		float: map[tensor.DType][]tile{}, integer: map[tensor.DType][]tile{},
		interleave: interleave, encode: encode,
		floatStep: 256, intStep: 512, floatOnce: genericRows, intOnce: genericRows,
	}
	for _, d := range []tensor.DType{tensor.F32, tensor.F16, tensor.BF16} {
		k.float[d] = genericTiles(d, floatTile)
	}
	for _, d := range []tensor.DType{tensor.Q8_0, tensor.Q4_0, tensor.Q4_K, tensor.Q5_K, tensor.Q6_K} {
		k.integer[d] = genericTiles(d, intTile)
	}
	return k
}

func genericTiles(d tensor.DType, f func(d tensor.DType, m int, y []float32, ldy int, x, w []byte, n int)) []tile {
	tiles := make([]tile, genericRows+1)
	for m := 1; m < len(tiles); m++ {
		tiles[m] = func(y *float32, ldy int, x, w *byte, n int, load bool) {
			ys := unsafe.Slice(y, (m-1)*ldy+panel)
			if !load {
				for r := range m {
					clear(ys[r*ldy:][:panel])
				}
			}
			elems, _ := d.Block()
			size := 4 * m * n
			if kindOf(d) == Int8 {
				size = m * n * elems / 32 * recordBytes
			}
			f(d, m, ys, ldy, unsafe.Slice(x, size), unsafe.Slice(w, panelBytes(d, n*elems)), n)
		}
	}
	return tiles
}

// floatTile adds n steps of k.
func floatTile(d tensor.DType, m int, y []float32, ldy int, x, w []byte, n int) {
	var wide [panel]float32
	for k := range n {
		for o := range wide {
			switch d {
			case tensor.F32:
				wide[o] = math.Float32frombits(binary.LittleEndian.Uint32(w[4*(k*panel+o):]))
			case tensor.F16:
				wide[o] = tensor.GetF16(w, k*panel+o)
			case tensor.BF16:
				wide[o] = tensor.BF16ToF32(binary.LittleEndian.Uint16(w[4*(k/2*panel+o)+k%2*2:]))
			}
		}
		for r := range m {
			v := math.Float32frombits(binary.LittleEndian.Uint32(x[4*(k*m+r):]))
			out := y[r*ldy:][:panel]
			for o := range out {
				out[o] += v * wide[o]
			}
		}
	}
}

// intTile adds n units of blocks.
func intTile(d tensor.DType, m int, y []float32, ldy int, x, w []byte, n int) {
	u := unitOf(d)
	for range n {
		head := w[:u.header]
		w = w[u.header:]
		for range u.blocks {
			addBlock(d, m, y, ldy, x, head, w[:u.block])
			x, w = x[m*recordBytes:], w[u.block:]
		}
	}
}

// addBlock adds one block of 32 of k.
func addBlock(d tensor.DType, m int, y []float32, ldy int, x, head, block []byte) {
	var codes [panel][32]int8
	var scale [2][panel]float32 // of k 0–15 and 16–31
	var minimum [panel]float32
	unpack(d, &codes, block)
	end := block[len(block)-2*panel:]
	for o := range panel {
		switch d {
		case tensor.Q8_0, tensor.Q4_0:
			scale[0][o] = tensor.GetF16(end, o)
		case tensor.Q4_K, tensor.Q5_K:
			scale[0][o] = tensor.GetF16(head, o) * float32(end[o])
			minimum[o] = tensor.GetF16(head, panel+o) * float32(end[panel+o])
		case tensor.Q6_K:
			scale[0][o] = tensor.GetF16(head, o) * float32(int8(end[o]))
			scale[1][o] = tensor.GetF16(head, o) * float32(int8(end[panel+o]))
		}
	}
	for r := range m {
		field := func(f int) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(x[4*(f*m+r):])) }
		var act [32]int8
		for i := range act {
			act[i] = int8(x[4*(i/4*m+r)+i%4])
		}
		s, sum := field(fieldScale), field(fieldSum)
		out := y[r*ldy:][:panel]
		for o := range out {
			c := &codes[o]
			if d == tensor.Q6_K {
				out[o] += float32(dot(act[:16], c[:16])) * (scale[0][o] * s)
				out[o] += float32(dot(act[16:], c[16:])) * (scale[1][o] * s)
				continue
			}
			out[o] += float32(dot(act[:], c[:])) * (scale[0][o] * s)
			if len(head) > 0 {
				out[o] -= sum * minimum[o]
			}
		}
	}
}

func dot(a, b []int8) (sum int32) {
	b = b[:len(a)]
	for i, v := range a {
		sum += int32(v) * int32(b[i])
	}
	return sum
}

// unpack reads the codes of a block as the numbers that multiply the scale.
func unpack(d tensor.DType, codes *[panel][32]int8, block []byte) {
	nibbles := block[max(0, unitOf(d).planes()):] // of Q8_0 whole bytes
	for o := range panel {
		c := &codes[o]
		for i := range c {
			q, j := i/4, i%4
			if d == tensor.Q8_0 {
				c[i] = int8(block[4*(q*panel+o)+j])
				continue
			}
			v := nibbles[4*(q/2*panel+o)+j] >> (q % 2 * 4) & 15
			switch d {
			case tensor.Q4_0:
				c[i] = int8(v) - 8
			case tensor.Q4_K:
				c[i] = int8(v)
			case tensor.Q5_K:
				c[i] = int8(v | block[4*o+j]>>q&1<<4)
			case tensor.Q6_K:
				c[i] = int8(v|block[4*(q/4*panel+o)+j]>>(q%4*2)&3<<4) - 32
			}
		}
	}
}
