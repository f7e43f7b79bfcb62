package ref

import (
	"encoding/binary"
	"math"

	"github.com/terse-llm/terse/tensor"
	"github.com/terse-llm/terse/tensor/blocks"
)

// widen is blocks.Dequantize with the plain types taken eight bytes at a time:
// in a decode step widening is most of the work.
func widen(dst []float32, dt tensor.DType, src []byte) {
	switch dt {
	case tensor.F32:
		for ; len(dst) >= 2 && len(src) >= 8; dst, src = dst[2:], src[8:] {
			v := binary.LittleEndian.Uint64(src)
			dst[0] = math.Float32frombits(uint32(v))
			dst[1] = math.Float32frombits(uint32(v >> 32))
		}
	case tensor.BF16:
		for ; len(dst) >= 4 && len(src) >= 8; dst, src = dst[4:], src[8:] {
			v := binary.LittleEndian.Uint64(src)
			dst[0] = math.Float32frombits(uint32(v) << 16)
			dst[1] = math.Float32frombits(uint32(v) &^ 0xffff)
			dst[2] = math.Float32frombits(uint32(v>>32) << 16)
			dst[3] = math.Float32frombits(uint32(v>>32) &^ 0xffff)
		}
	case tensor.F16:
		for ; len(dst) >= 4 && len(src) >= 8; dst, src = dst[4:], src[8:] {
			v := binary.LittleEndian.Uint64(src)
			dst[0] = tensor.F16ToF32(uint16(v))
			dst[1] = tensor.F16ToF32(uint16(v >> 16))
			dst[2] = tensor.F16ToF32(uint16(v >> 32))
			dst[3] = tensor.F16ToF32(uint16(v >> 48))
		}
	}
	blocks.Dequantize(dst, dt, src)
}
