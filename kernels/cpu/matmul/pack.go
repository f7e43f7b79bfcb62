package matmul

import (
	"encoding/binary"
	"fmt"

	"github.com/terse-llm/terse/tensor"
	"github.com/terse-llm/terse/tensor/blocks"
)

// Bytes of the parts of a block of 32 k in a panel: codes of 8, 4, 2 and 1 bits.
const (
	codes8 = 32 * panel
	codes4 = codes8 / 2
	codes2 = codes8 / 4
	codes1 = codes8 / 8
)

// unit is a block format as it lies in a panel: a header, then blocks of 32.
type unit struct{ header, block, blocks int }

// planes is the bytes of the planes that come before a block's nibbles.
func (u unit) planes() int { return u.block - codes4 - 2*panel }

func unitOf(d tensor.DType) unit {
	switch d {
	case tensor.Q8_0:
		return unit{0, codes8 + 2*panel, 1}
	case tensor.Q4_0:
		return unit{0, codes4 + 2*panel, 1}
	case tensor.Q4_K:
		return unit{4 * panel, codes4 + 2*panel, 8}
	case tensor.Q5_K:
		return unit{4 * panel, codes4 + codes1 + 2*panel, 8}
	case tensor.Q6_K:
		return unit{2 * panel, codes4 + codes2 + 2*panel, 8}
	}
	panic(fmt.Sprintf("BUG: %v has no blocks", d))
}

// panelBytes is the size of k elements of all outputs of a panel.
func panelBytes(d tensor.DType, k int) int {
	switch d {
	case tensor.F32:
		return panel * 4 * k
	case tensor.F16:
		return panel * 2 * k
	case tensor.BF16: // in pairs
		return panel * 2 * ((k + 1) &^ 1)
	}
	u := unitOf(d)
	return k / (32 * u.blocks) * (u.header + u.blocks*u.block)
}

// Pack fills panels [lo, hi) from the tensor. Calls on other panels may run at
// the same time.
func (m *Matrix) Pack(lo, hi int) {
	if lo < 0 || hi > m.Panels() {
		panic(fmt.Sprintf("BUG: panels [%d,%d) of %d", lo, hi, m.Panels()))
	}
	for p := lo; p < hi; p++ {
		dst := m.data[p*m.stride : (p+1)*m.stride]
		if m.kind == Float {
			m.packFloats(dst, p)
			continue
		}
		for o := range min(panel, m.out-p*panel) {
			m.packBlocks(dst, o, m.w.Row(p*panel+o))
		}
	}
}

// packFloats transposes the rows of a panel, some k (an even number) of all of
// them at a time so that the lines written stay in the cache.
func (m *Matrix) packFloats(dst []byte, p int) {
	const some = 64
	size := m.w.DType.RowBytes(1)
	for k := 0; k < m.in; k += some {
		n := min(some, m.in-k)
		part := dst[panelBytes(m.w.DType, k):]
		for o := range min(panel, m.out-p*panel) {
			row := m.w.Row(p*panel + o)[k*size:][:n*size]
			switch m.w.DType {
			case tensor.F32:
				for i, to := 0, 4*o; i < len(row); i, to = i+4, to+4*panel {
					binary.LittleEndian.PutUint32(part[to:], binary.LittleEndian.Uint32(row[i:]))
				}
			case tensor.F16:
				for i, to := 0, 2*o; i < len(row); i, to = i+2, to+2*panel {
					binary.LittleEndian.PutUint16(part[to:], binary.LittleEndian.Uint16(row[i:]))
				}
			case tensor.BF16:
				to := 4 * o
				for ; len(row) >= 4; row, to = row[4:], to+4*panel {
					binary.LittleEndian.PutUint32(part[to:], binary.LittleEndian.Uint32(row))
				}
				if len(row) > 0 {
					copy(part[to:], row)
				}
			}
		}
	}
}

// packBlocks packs the row of output o of a panel.
func (m *Matrix) packBlocks(dst []byte, o int, row []byte) {
	u := unitOf(m.w.DType)
	_, size := m.w.DType.Block()
	for ; len(row) > 0; row, dst = row[size:], dst[u.header+u.blocks*u.block:] {
		src := row[:size]
		switch m.w.DType {
		case tensor.Q8_0:
			for q := range 8 {
				putQuad(dst, q, o, quad(src[2:], q)^0x01010101*uint32(m.k.excess))
			}
			copy(dst[codes8+2*o:][:2], src)
		case tensor.Q4_0: // the file pairs k and k+16
			for h := range 2 {
				for q := range 2 {
					a, b := quad(src[2:], 2*q)>>(4*h), quad(src[2:], 2*q+1)>>(4*h)
					putQuad(dst, 2*h+q, o, pairNibbles(a, b))
				}
			}
			copy(dst[codes4+2*o:][:2], src)
		case tensor.Q4_K, tensor.Q5_K:
			packMin(u, dst, o, src)
		case tensor.Q6_K:
			pack6K(u, dst, o, src)
		}
	}
}

// quad is bytes 4q to 4q+3 of b; putQuad writes them where those of output o go.
func quad(b []byte, q int) uint32          { return binary.LittleEndian.Uint32(b[4*q:]) }
func putQuad(b []byte, q, o int, v uint32) { binary.LittleEndian.PutUint32(b[4*(q*panel+o):], v) }

// packMin packs one block of 256 of Q4_K or Q5_K.
func packMin(u unit, dst []byte, o int, src []byte) {
	copy(dst[2*o:][:2], src)
	copy(dst[2*panel+2*o:][:2], src[2:])
	fifths, nibbles := src[16:len(src)-128], src[len(src)-128:]
	for b := range 8 {
		block := dst[u.header+b*u.block:][:u.block]
		end := block[u.block-2*panel:]
		end[o], end[panel+o] = blocks.KScale(src[4:16], b)
		putNibbles(block[u.planes():], o, nibbles[b/2*32:], b%2)
		if len(fifths) > 0 {
			plane := uint32(0)
			for q := range 8 {
				plane |= quad(fifths, q) >> b & 0x01010101 << q
			}
			putQuad(block, 0, o, plane)
		}
	}
}

// pack6K packs one block of 256 of Q6_K.
func pack6K(u unit, dst []byte, o int, src []byte) {
	copy(dst[2*o:][:2], src[208:])
	for b := range 8 {
		block := dst[u.header+b*u.block:][:u.block]
		end := block[u.block-2*panel:]
		end[o], end[panel+o] = src[192+2*b], src[192+2*b+1]
		putNibbles(block[u.planes():], o, src[64*(b/4)+32*(b%2):], b%4/2)
		pairs := src[128+32*(b/4):]
		for h := range 2 {
			plane := uint32(0)
			for i := range 4 {
				plane |= quad(pairs, 4*h+i) >> (b % 4 * 2) & 0x03030303 << (2 * i)
			}
			putQuad(block, h, o, plane)
		}
	}
}

// putNibbles writes the 32 low (high = 0) or high (high = 1) nibbles of src.
func putNibbles(block []byte, o int, src []byte, high int) {
	for i := range 4 {
		putQuad(block, i, o, pairNibbles(quad(src, 2*i)>>(4*high), quad(src, 2*i+1)>>(4*high)))
	}
}

// pairNibbles puts the low nibbles of b's bytes above those of a's.
func pairNibbles(a, b uint32) uint32 { return a&0x0f0f0f0f | b&0x0f0f0f0f<<4 }
