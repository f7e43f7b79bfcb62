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
	if kindOf(d) == Float {
		return panel * d.RowBytes(k)
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
		for o := range min(panel, m.out-p*panel) {
			row := m.w.Row(p*panel + o)
			switch m.w.DType {
			case tensor.F32:
				for k := range m.in {
					copy(dst[4*(k*panel+o):][:4], row[4*k:])
				}
			case tensor.F16, tensor.BF16:
				for k := range m.in {
					copy(dst[2*(k*panel+o):][:2], row[2*k:])
				}
			default:
				m.packBlocks(dst, o, row)
			}
		}
	}
}

// packBlocks packs the row of output o of a panel.
func (m *Matrix) packBlocks(dst []byte, o int, row []byte) {
	u := unitOf(m.w.DType)
	elems, size := m.w.DType.Block()
	for range m.in / elems {
		src := row[:size]
		switch m.w.DType {
		case tensor.Q8_0:
			for q := range 8 {
				v := binary.LittleEndian.Uint32(src[2+4*q:])
				binary.LittleEndian.PutUint32(dst[4*(q*panel+o):], v^0x01010101*uint32(m.k.excess))
			}
			copy(dst[codes8+2*o:][:2], src)
		case tensor.Q4_0: // the file's pairs of nibbles are ours
			for q := range 4 {
				copy(dst[4*(q*panel+o):][:4], src[2+4*q:])
			}
			copy(dst[codes4+2*o:][:2], src)
		default:
			packK(m.w.DType, dst, o, src)
		}
		row, dst = row[size:], dst[u.header+u.blocks*u.block:]
	}
}

// packK packs one block of 256 of a K-quant.
func packK(d tensor.DType, dst []byte, o int, src []byte) {
	u := unitOf(d)
	if d == tensor.Q6_K {
		copy(dst[2*o:][:2], src[208:])
	} else {
		copy(dst[2*o:][:2], src)
		copy(dst[2*panel+2*o:][:2], src[2:])
	}
	for b := range 8 {
		block := dst[u.header+b*u.block:][:u.block]
		end := block[u.block-2*panel:]
		var codes [32]byte
		switch d {
		case tensor.Q4_K, tensor.Q5_K:
			end[o], end[panel+o] = blocks.KScale(src[4:16], b)
			codes4K(&codes, src[len(src)-128:], b)
			if d == tensor.Q5_K {
				for i := range codes {
					codes[i] |= src[16+i] >> b & 1 << 4
				}
				putPlane(block[codes4:], o, &codes, 4, 1)
			}
		case tensor.Q6_K:
			end[o], end[panel+o] = src[192+2*b], src[192+2*b+1]
			codes6K(&codes, src, b)
			putPlane(block[codes4:], o, &codes, 4, 2)
		}
		for q := range 4 {
			for j := range 4 {
				block[4*(q*panel+o)+j] = codes[4*q+j]&15 | codes[16+4*q+j]<<4
			}
		}
	}
}

// codes4K reads the nibbles of block b of 32.
func codes4K(codes *[32]byte, qs []byte, b int) {
	for i := range codes {
		codes[i] = qs[b/2*32+i] >> (b % 2 * 4) & 15
	}
}

// codes6K reads the codes, 0–63, of block b of 32.
func codes6K(codes *[32]byte, src []byte, b int) {
	low, high := src[64*(b/4)+32*(b%2):], src[128+32*(b/4):]
	for i := range codes {
		codes[i] = low[i]>>(b%4/2*4)&15 | high[i]>>(b%4*2)&3<<4
	}
}

// putPlane writes bits [from, from+n) of the codes of output o, those of as many
// quads side by side in a byte as there is room for.
func putPlane(dst []byte, o int, codes *[32]byte, from, n int) {
	for i, c := range codes {
		q, j := i/4, i%4
		at := &dst[4*(q*n/8*panel+o)+j]
		*at |= c >> from & (1<<n - 1) << (q * n % 8)
	}
}
