package transfer

import (
	"encoding/binary"
	"fmt"

	"github.com/terse-llm/terse/quant"
)

// partLen is the size of one entry of a KV frame's part table:
//
//	page u32 | form u8 (0 exact, 1 coded) | halves u8 (1 K, 2 V) | lo u16 | hi u16
const partLen = 10

func encodeParts(parts []quant.Part) []byte {
	b := make([]byte, 0, len(parts)*partLen)
	for _, p := range parts {
		var form, halves byte
		if p.Coded {
			form = 1
		}
		if p.K {
			halves |= 1
		}
		if p.V {
			halves |= 2
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(p.Page))
		b = append(b, form, halves)
		b = binary.LittleEndian.AppendUint16(b, uint16(p.Lo))
		b = binary.LittleEndian.AppendUint16(b, uint16(p.Hi))
	}
	return b
}

func decodeParts(b []byte) ([]quant.Part, error) {
	parts := make([]quant.Part, 0, len(b)/partLen)
	for ; len(b) >= partLen; b = b[partLen:] {
		if b[4] > 1 || b[5] == 0 || b[5] > 3 {
			return nil, fmt.Errorf("part table entry with form %d, halves %d", b[4], b[5])
		}
		parts = append(parts, quant.Part{
			Page: int(binary.LittleEndian.Uint32(b)), Coded: b[4] == 1, K: b[5]&1 != 0, V: b[5]&2 != 0,
			Lo: int(binary.LittleEndian.Uint16(b[6:])), Hi: int(binary.LittleEndian.Uint16(b[8:])),
		})
	}
	if len(b) != 0 {
		return nil, fmt.Errorf("part table with %d stray bytes", len(b))
	}
	return parts, nil
}

// partBytes is what one part is on the wire, in one layer.
func partBytes(g *quant.Geometry, p quant.Part) int {
	n := 0
	for _, s := range g.PartSpans(p) {
		n += s.Len
	}
	return n
}

// HandoverBytes is the KV payload of a prompt of n tokens, over all layers.
func HandoverBytes(g *quant.Geometry, n int) int64 {
	var total int64
	for _, p := range g.Format.Handover(n) {
		total += int64(partBytes(g, p))
	}
	return total * int64(g.Layers)
}

// F16Bytes is what the KV of n tokens is in float16, over all layers: the
// yardstick that every format is compared with.
func F16Bytes(g *quant.Geometry, n int) int64 {
	return int64(n) * int64(g.Layers) * int64(g.KVHeads) * int64(g.HeadDim) * 2 * 2
}

// page is the bytes that a part lies in: one layer of a page in its form.
func pageOf(v *quant.View, p quant.Part, layer int) []byte {
	if p.Coded {
		return v.CodedLayer(p.Page, layer)
	}
	return v.ExactLayer(p.Page, layer)
}
