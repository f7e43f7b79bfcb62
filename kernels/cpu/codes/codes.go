package codes

import (
	"fmt"

	"github.com/terse-llm/terse/internal/cpu"
)

const (
	// Tokens is the most tokens of a tile, and the distance of two vectors' rows
	// of products and weights.
	Tokens = 256
	// Vectors is the most query vectors that are computed side by side.
	Vectors = 4
	// maxQuads is the most quads of tokens of one plane: 16-bit sums of p'·code
	// hold 21 quads (21·2·255·3 < 2^15).
	maxQuads = 16
)

// Kernels is the arithmetic of one level. All of it is safe for concurrent use
// and allocates nothing. nq is 1, 2 or 4 vectors.
type Kernels struct {
	// Level is the level that the kernels are for.
	Level cpu.Level

	products func(dots *int32, q *int8, plane *byte, nq, width, rows int, low bool)
	sums     func(sums *int32, p, plane *byte, nq, width, quads int)
	merge    func(m *Merge, out *float32, sums, low *int32, nq, stride, width, n int)
	maxAbs   func(x *float32, n int) float32
	quantise func(codes *int8, x *float32, n int, inv float32) int32
	widen    func(step, bias *float32, scale, zero *byte, n int, set uint64, f *Factors)
	prefetch func(b *byte, n int)
}

// For gives the kernels of a level, which the machine must have. Levels without
// kernels of their own get the portable ones.
func For(l cpu.Level) *Kernels {
	k := &Kernels{
		Level:    cpu.Generic,
		products: products, sums: weightedSums, merge: merge,
		maxAbs: maxAbs, quantise: quantise, widen: widen, prefetch: func(*byte, int) {},
	}
	accelerate(k, l)
	return k
}

// Products multiplies nq query vectors of int8 codes, q [nq][width], with rows
// rows of a K plane of the given width:
//
//	dots[v·Tokens + t] = Σ_c q[v][c]·code[t][c],  t < rows
//
// With low the plane is the second one of 4-bit codes, whose first is in dots
// already: dots = 4·dots + Σ. Width is a multiple of 16, rows one of 8. The codes
// of a vector's padding channels must be 0.
func (k *Kernels) Products(dots []int32, q []int8, plane []byte, nq, width, rows int, low bool) {
	if !grouped(nq) || width <= 0 || width%16 != 0 || rows <= 0 || rows%8 != 0 || rows > Tokens ||
		len(dots) < (nq-1)*Tokens+rows || len(q) < nq*width || len(plane) < rows*width/4 {
		panic(fmt.Sprintf("BUG: products of %d vectors (%d codes) with %d rows of width %d (%d bytes) into %d", nq, len(q), rows, width, len(plane), len(dots)))
	}
	k.products(&dots[0], &q[0], &plane[0], nq, width, rows, low)
}

// WeightedSums adds the rows of a V plane of the given width, weighted by nq
// vectors of u8 weights:
//
//	sums[v·width + c] += Σ_t p[v·Tokens + t]·code[t][c],  t < 4·quads
//
// Width is a multiple of 32; quads is at most 16.
func (k *Kernels) WeightedSums(sums []int32, p []uint8, plane []byte, nq, width, quads int) {
	if !grouped(nq) || width <= 0 || width%32 != 0 || quads <= 0 || quads > maxQuads ||
		len(sums) < nq*width || len(p) < (nq-1)*Tokens+4*quads || len(plane) < quads*width {
		panic(fmt.Sprintf("BUG: sums of %d quads of width %d (%d bytes), weighted by %d vectors (%d), into %d", quads, width, len(plane), nq, len(p), len(sums)))
	}
	k.sums(&sums[0], &p[0], &plane[0], nq, width, quads)
}

// Merge is how a tile's sums join the vectors' running outputs.
type Merge struct {
	Alpha  [Vectors]float32 // what the output is worth after the tile's softmax
	Scale  [Vectors]float32 // s_p: the step of the weights p'
	Centre [Vectors]float32 // Σ w·centre; 0 in symmetric formats
	Sum    [Vectors]int32   // Σ p'
	LowSum [Vectors]int32   // Σ p' over the tokens with a second plane
}

// Merge computes, for n channels of each vector,
//
//	out[v·stride + c] = Alpha·out + Scale·( Σp'·(msb - 3/2) + ¼·Σp'·(lsb - 3/2) ) + Centre
//
// from sums [nq][width] of the first planes and low of the second ones, nil
// where there are none. n is a multiple of 8.
func (k *Kernels) Merge(m *Merge, out []float32, sums, low []int32, nq, stride, width, n int) {
	if !grouped(nq) || n <= 0 || n%8 != 0 || n > width || stride < n ||
		len(out) < (nq-1)*stride+n || len(sums) < nq*width || low != nil && len(low) < nq*width {
		panic(fmt.Sprintf("BUG: merging %d channels of width %d of %d vectors (%d, %d) into %d by %d", n, width, nq, len(sums), len(low), len(out), stride))
	}
	var l *int32
	if low != nil {
		l = &low[0]
	}
	k.merge(m, &out[0], &sums[0], l, nq, stride, width, n)
}

// MaxAbs is the largest |x|, 0 of nothing; NaNs are passed over. len(x) is a
// multiple of 8.
func (k *Kernels) MaxAbs(x []float32) float32 {
	if len(x)%8 != 0 {
		panic(fmt.Sprintf("BUG: the largest of %d values", len(x)))
	}
	if len(x) == 0 {
		return 0
	}
	return k.maxAbs(&x[0], len(x))
}

// Quantise codes a segment x of a query vector to int8, rounding half up:
// x ≈ top/127·codes, where top is MaxAbs of the whole vector. It zeroes the codes
// beyond x, which are padding, and returns Σ codes. len(x) is a multiple of 8.
func (k *Kernels) Quantise(codes []int8, x []float32, top float32) (sum int32) {
	if len(codes) < len(x) || len(x)%8 != 0 {
		panic(fmt.Sprintf("BUG: %d codes of %d values", len(codes), len(x)))
	}
	clear(codes[len(x):])
	if len(x) == 0 {
		return 0
	}
	var inv float32
	if top > tiny {
		inv = 127 / top
	}
	return k.quantise(&codes[0], &x[0], len(x), inv)
}

// tiny is below what is worth a code: its reciprocal would overflow.
const tiny = 1e-30

// Prefetch asks for bytes that will be read soon.
func (k *Kernels) Prefetch(b []byte) {
	if len(b) > 0 {
		k.prefetch(&b[0], len(b))
	}
}

// Factors says what a token's scale s and zero z become:
//
//	step = Step·s,  bias = z + Middle·s  (Middle·s without zeros)
//
// Index 1 is for tokens with the second plane, 0 for the others.
type Factors struct{ Step, Middle [2]float32 }

// Key and value factors. A key's score is step·Σq'c + bias·Σq', so that symmetric
// biases are minus the middle of the levels; a value's bias is its centre, and its
// step that of the first plane.
var (
	symmetricKeys   = Factors{[2]float32{1, 1}, [2]float32{-1.5, -7.5}}
	asymmetricKeys  = Factors{[2]float32{1, 1}, [2]float32{0, 0}}
	symmetricValues = Factors{[2]float32{1, 4}, [2]float32{0, 0}}
	centredValues   = Factors{[2]float32{1, 4}, [2]float32{1.5, 7.5}}
)

// KeyScales reads a page's scales (float16, one per token of step) and zeros (nil
// in symmetric formats) of K: score = A·(step·Σq'·code + bias·Σq'). set is the
// tokens with both planes, bit t for token t. len(step) is a multiple of 8, at
// most 64.
func (k *Kernels) KeyScales(step, bias []float32, scale, zero []byte, set uint64) {
	f := &asymmetricKeys
	if zero == nil {
		f = &symmetricKeys
	}
	k.scales(step, bias, scale, zero, set, f)
}

// ValueScales is KeyScales for V: step is the step of the first plane, and centre
// the middle of the token's levels, 0 in symmetric formats.
func (k *Kernels) ValueScales(step, centre []float32, scale, zero []byte, set uint64) {
	f := &centredValues
	if zero == nil {
		f = &symmetricValues
	}
	k.scales(step, centre, scale, zero, set, f)
}

func (k *Kernels) scales(step, bias []float32, scale, zero []byte, set uint64, f *Factors) {
	n := len(step)
	if n == 0 || n%8 != 0 || n > 64 || len(bias) < n || len(scale) < 2*n || zero != nil && len(zero) < 2*n {
		panic(fmt.Sprintf("BUG: scales of %d tokens from %d and %d bytes into %d", n, len(scale), len(zero), len(bias)))
	}
	var z *byte
	if zero != nil {
		z = &zero[0]
	}
	k.widen(&step[0], &bias[0], &scale[0], z, n, set, f)
}

func grouped(nq int) bool { return nq == 1 || nq == 2 || nq == 4 }
