package blocks

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/terse-llm/terse/tensor"
)

var all = []tensor.DType{tensor.F32, tensor.F16, tensor.BF16, tensor.Q8_0, tensor.Q4_0, tensor.Q4_K, tensor.Q5_K, tensor.Q6_K}

// Blocks written out by hand from the formats' tables.
func TestByHand(t *testing.T) {
	f := func(dt tensor.DType, block []byte, want map[int]float32) {
		t.Helper()
		n, size := dt.Block()
		if len(block) != size {
			t.Fatalf("%v: the test's block has %d bytes, not %d", dt, len(block), size)
		}
		dst := make([]float32, n)
		Dequantize(dst, dt, block)
		for i, w := range want {
			if dst[i] != w {
				t.Errorf("%v: value %d is %g, want %g", dt, i, dst[i], w)
			}
		}
	}
	one, half, two := []byte{0x00, 0x3c}, []byte{0x00, 0x38}, []byte{0x00, 0x40}

	q80 := append(append([]byte{}, half...), make([]byte, 32)...)
	q80[2], q80[3], q80[33] = 127, 0x80, 0xff
	f(tensor.Q8_0, q80, map[int]float32{0: 63.5, 1: -64, 2: 0, 31: -0.5})

	q40 := append(append([]byte{}, two...), make([]byte, 16)...)
	q40[2], q40[17] = 0xf0, 0x98
	f(tensor.Q4_0, q40, map[int]float32{0: -16, 16: 14, 1: -16, 15: 0, 31: 2})

	// Scale 0 is 35 and minimum 0 is 5; scale 5 is 0b100110 = 38, its four low
	// bits beside those of minimum 5 = 0b010001 = 17.
	q4k := make([]byte, 144)
	copy(q4k, one)
	copy(q4k[2:], half)
	q4k[4+0], q4k[4+4] = 35, 5
	q4k[4+9] = 0b0001_0110
	q4k[4+1] |= 0b10 << 6
	q4k[4+5] |= 0b01 << 6
	q4k[16+3] = 0x0b         // sub-block 0, value 3
	q4k[16+64+31] = 0x7 << 4 // sub-block 5, value 31
	f(tensor.Q4_K, q4k, map[int]float32{3: 35*11 - 2.5, 4: -2.5, 5*32 + 31: 38*7 - 8.5, 5 * 32: -8.5, 255: 0})

	q5k := make([]byte, 176)
	copy(q5k, q4k[:16])
	q5k[16+3] = 1 << 0
	q5k[16+31] = 1 << 5
	copy(q5k[48:], q4k[16:])
	f(tensor.Q5_K, q5k, map[int]float32{3: 35*27 - 2.5, 4: -2.5, 5*32 + 31: 38*23 - 8.5, 5 * 32: -8.5, 255: 0})

	q6k := make([]byte, 210)
	copy(q6k[208:], half)
	q6k[192+1], q6k[192+15] = 3, 0xfe // values 16–31 and 240–255
	q6k[17], q6k[128+17] = 0x05, 0b10 // value 17 is 32+5-32
	q6k[64+63], q6k[128+63] = 0xf0, 0xc0
	f(tensor.Q6_K, q6k, map[int]float32{17: 7.5, 16: -48, 255: -31, 254: 32, 0: 0})
}

// bits reads n bits of b from bit at.
func bits(b []byte, at, n int) int {
	v := 0
	for i := range n {
		v |= int(b[(at+i)/8]>>((at+i)%8)&1) << i
	}
	return v
}

func half(b []byte, at int) float64 {
	return float64(tensor.F16ToF32(binary.LittleEndian.Uint16(b[at:])))
}

// slow reads value i of a block bit by bit, by position formulas rather than by
// loops over bytes, in float64.
func slow(dt tensor.DType, b []byte, i int) float64 {
	at := func(byte, bit int) int { return 8*byte + bit }
	switch dt {
	case tensor.F32:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
	case tensor.F16:
		return half(b, 0)
	case tensor.BF16:
		return float64(math.Float32frombits(uint32(bits(b, 0, 16)) << 16))
	case tensor.Q8_0:
		return half(b, 0) * float64(int8(bits(b, at(2+i, 0), 8)))
	case tensor.Q4_0:
		return half(b, 0) * float64(bits(b, at(2+i%16, i/16*4), 4)-8)
	case tensor.Q6_K:
		h, i := i/128, i%128
		q := bits(b, at(64*h+i%64, i/64*4), 4) + 16*bits(b, at(128+32*h+i%32, i/32*2), 2)
		return half(b, 208) * float64(int8(b[192+8*h+i/16])) * float64(q-32)
	}
	// Scales and minima of six bits: sub-blocks 0–3 whole, 4–7 in two pieces.
	j := i / 32
	scale, minimum := bits(b, at(4+j%4, 0), 6), bits(b, at(8+j%4, 0), 6)
	if j >= 4 {
		scale = bits(b, at(8+j, 0), 4) + 16*bits(b, at(j, 6), 2)
		minimum = bits(b, at(8+j, 4), 4) + 16*bits(b, at(4+j, 6), 2)
	}
	qs := 16
	q := 0
	if dt == tensor.Q5_K {
		qs = 48
		q = 16 * bits(b, at(16+i%32, j), 1)
	}
	q += bits(b, at(qs+i/64*32+i%32, j%2*4), 4)
	return half(b, 0)*float64(scale)*float64(q) - half(b, 2)*float64(minimum)
}

// On random bytes the fast reader gives the rounding of the slow one.
func TestAgainstBitByBit(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, dt := range all {
		n, size := dt.Block()
		src, dst := make([]byte, 50*size), make([]float32, 50*n)
		for i := range src {
			src[i] = byte(rng.Uint32())
		}
		Dequantize(dst, dt, src)
		for i, got := range dst {
			want := float32(slow(dt, src[i/n*size:(i/n+1)*size], i%n))
			if got != want && (got == got || want == want) {
				t.Fatalf("%v: value %d is %g, bit by bit %g, block %s", dt, i, got, want, hex.EncodeToString(src[i/n*size:(i/n+1)*size]))
			}
		}
	}
}

// Quantising comes back within half a step of each format, as a share of the
// largest value of the block, over many magnitudes.
func TestQuantizeError(t *testing.T) {
	// Half a code step, widened by the rounding of six- and eight-bit scales
	// (which may clip the ends by half a step of theirs).
	limit := map[tensor.DType]float64{
		tensor.F32: 0, tensor.F16: 0x1p-11, tensor.BF16: 0x1p-8, tensor.Q8_0: 0.5 / 126, tensor.Q4_0: 1.0 / 7.9,
		tensor.Q4_K: 2 * (0.5/15 + 1.0/63), tensor.Q5_K: 2 * (0.5/31 + 1.0/63), tensor.Q6_K: 0.5/31 + 0.5/127,
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for _, dt := range all {
		for _, scale := range []float64{1e-2, 1, 100} {
			for _, offset := range []float64{0, 0.5, -0.5} {
				x := make([]float32, 1024)
				top := 0.0
				for i := range x {
					x[i] = float32(scale * (rng.Float64() - 0.5 + offset))
					top = max(top, math.Abs(float64(x[i])))
				}
				got := roundTrip(dt, x)
				for i := range x {
					if e := math.Abs(float64(got[i] - x[i])); e > limit[dt]*top {
						t.Fatalf("%v scale %g offset %g: %g became %g, error %g of the largest, limit %g", dt, scale, offset, x[i], got[i], e/top, limit[dt])
					}
				}
			}
		}
	}
}

func roundTrip(dt tensor.DType, x []float32) []float32 {
	b := make([]byte, dt.RowBytes(len(x)))
	for i := range b {
		b[i] = 0xa5 // a writer that only sets bits would keep these
	}
	Quantize(b, dt, x)
	got := make([]float32, len(x))
	Dequantize(got, dt, b)
	return got
}

func TestQuantizeEdges(t *testing.T) {
	for _, dt := range all {
		for _, v := range []float32{0, 1e-12, -1, 1} {
			x := make([]float32, 256)
			for i := range x {
				x[i] = v
			}
			for i, got := range roundTrip(dt, x) {
				if e := math.Abs(float64(got - v)); !(e <= 0.04*math.Abs(float64(v))) && !(e < 1e-6) {
					t.Fatalf("%v: constant %g became %g at %d", dt, v, got, i)
				}
			}
		}
		x := make([]float32, 256) // beyond what an f16 scale can say: clipped, not infinite
		x[7] = 1e30
		for i, got := range roundTrip(dt, x) {
			if dt != tensor.F16 && (math.IsInf(float64(got), 0) || got != got) {
				t.Fatalf("%v: value %d became %g", dt, i, got)
			}
		}
	}
}

func TestWrongSizes(t *testing.T) {
	f := func(elems int, dt tensor.DType, bytes int) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%d elements of %v from %d bytes went through", elems, dt, bytes)
			}
		}()
		Dequantize(make([]float32, elems), dt, make([]byte, bytes))
	}
	f(31, tensor.Q8_0, 34)
	f(32, tensor.Q8_0, 33)
	f(32, tensor.Q4_K, 144)
	f(2, tensor.F32, 4)
	f(1, tensor.DType(0), 0)
}

func BenchmarkDequantize(b *testing.B) {
	for _, dt := range all {
		b.Run(fmt.Sprint(dt), func(b *testing.B) {
			dst, src := make([]float32, 4096), make([]byte, dt.RowBytes(4096))
			b.SetBytes(4 * 4096)
			for b.Loop() {
				Dequantize(dst, dt, src)
			}
		})
	}
}

// The hashes are of what ggml's own dequantize_row functions (ggml commit
// d99724f2) make of the same random bytes, NaN taken as 0.
func TestAgainstGGML(t *testing.T) {
	f := func(dt tensor.DType, want string) {
		t.Helper()
		rng := rand.New(rand.NewPCG(7, uint64(dt)))
		dst := make([]float32, 256*64)
		src := make([]byte, dt.RowBytes(len(dst)))
		for i := range src {
			src[i] = byte(rng.Uint32())
		}
		Dequantize(dst, dt, src)
		h := sha256.New()
		for _, v := range dst {
			if v != v {
				v = 0
			}
			h.Write(binary.LittleEndian.AppendUint32(nil, math.Float32bits(v)))
		}
		if got := hex.EncodeToString(h.Sum(nil)[:16]); got != want {
			t.Errorf("%v: hash %s, ggml's is %s", dt, got, want)
		}
	}
	f(tensor.Q8_0, "9eb3ce4678a0bf759cfdd0d844d78b68")
	f(tensor.Q4_0, "7ed3a2b332f6cb851a5036b5c3892e85")
	f(tensor.Q4_K, "033500a32e5609900facbcd0615e25a6")
	f(tensor.Q5_K, "61fdc8ab929de9c943c4d55e3d4df467")
	f(tensor.Q6_K, "381c33d59b13dac55d42c92f37878051")
}
