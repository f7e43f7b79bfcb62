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
	// maxRows is the most tokens of one plane of V: 16-bit sums of p'·code hold 84
	// (a lane's 42·255·3 < 2^15).
	maxRows = 64
)

// Kernels is the arithmetic of one level. All of it is safe for concurrent use
// and allocates nothing. nq is 1, 2 or 4 vectors.
type Kernels struct {
	// Level is the level that the kernels are for.
	Level cpu.Level
}

// For gives the kernels of a level, which the machine must have. Levels without
// kernels of their own get the portable ones.
func For(l cpu.Level) *Kernels { return &Kernels{Level: supported(l)} }

// Planes is one plane of each of some pages.
type Planes struct {
	Pages [][]byte
	Off   int // where the plane begins in every page
	Width int // channels, padded: a multiple of 16 in K, of 32 in V
	Rows  int // tokens of a plane
}

func (p *Planes) fit() bool {
	if p.Width <= 0 || p.Rows <= 0 || len(p.Pages) == 0 || p.Off < 0 || len(p.Pages)*p.Rows > Tokens {
		return false
	}
	for _, b := range p.Pages {
		if len(b) < p.Off+p.Rows*p.Width/4 {
			return false
		}
	}
	return true
}

// Ahead is what a kernel fetches into the cache meanwhile: a stretch of a page for
// every page that it reads. The zero Ahead is nothing.
type Ahead struct {
	Pages    [][]byte
	Off, Len int
}

// PageProducts multiplies nq query vectors of int8 codes, q [nq][Width], with the
// rows of K's planes:
//
//	dots[v·Tokens + t] = Σ_c q[v][c]·code[t][c]
//
// where t counts through the pages. With low the planes are the second ones of
// 4-bit codes, whose first are in dots already: dots = 4·dots + Σ. Rows is a
// multiple of 8. The codes of a vector's padding channels must be 0.
func (k *Kernels) PageProducts(dots []int32, q []int8, nq int, p Planes, low bool, ahead Ahead) {
	if !grouped(nq) || p.Width%16 != 0 || p.Rows%8 != 0 || !p.fit() ||
		len(dots) < (nq-1)*Tokens+len(p.Pages)*p.Rows || len(q) < nq*p.Width {
		panic(fmt.Sprintf("BUG: products of %d vectors (%d codes) with %d planes of %d rows, width %d, into %d", nq, len(q), len(p.Pages), p.Rows, p.Width, len(dots)))
	}
	if len(ahead.Pages) < len(p.Pages) {
		ahead.Pages, ahead.Off, ahead.Len = p.Pages, p.Off, 0
	}
	k.products(&dots[0], &q[0], nq, &p, low, &ahead)
}

// Products is PageProducts with one plane.
func (k *Kernels) Products(dots []int32, q []int8, plane []byte, nq, width, rows int, low bool) {
	one := [1][]byte{plane}
	k.PageProducts(dots, q, nq, Planes{one[:], 0, width, rows}, low, Ahead{})
}

// PageSums adds up the rows of V's planes, weighted by nq vectors of u8 weights:
//
//	sums[v·Width + c] = Σ_t weights[v·Tokens + t]·code[t][c]
//
// where t counts through the pages. Rows is a multiple of 4, at most 64.
func (k *Kernels) PageSums(sums []int32, weights []uint8, nq int, p Planes, ahead Ahead) {
	k.checkedSums(sums, weights, nq, p, ahead, false)
}

// WeightedSums adds those of one plane, of quads quads of tokens, to sums.
func (k *Kernels) WeightedSums(sums []int32, weights []uint8, plane []byte, nq, width, quads int) {
	one := [1][]byte{plane}
	k.checkedSums(sums, weights, nq, Planes{one[:], 0, width, 4 * quads}, Ahead{}, true)
}

func (k *Kernels) checkedSums(sums []int32, weights []uint8, nq int, p Planes, ahead Ahead, add bool) {
	if !grouped(nq) || p.Width%32 != 0 || p.Rows%4 != 0 || p.Rows > maxRows || !p.fit() ||
		len(sums) < nq*p.Width || len(weights) < (nq-1)*Tokens+len(p.Pages)*p.Rows {
		panic(fmt.Sprintf("BUG: sums of %d planes of %d rows, width %d, weighted by %d vectors (%d), into %d", len(p.Pages), p.Rows, p.Width, nq, len(weights), len(sums)))
	}
	if len(ahead.Pages) < len(p.Pages) {
		ahead.Pages, ahead.Off, ahead.Len = p.Pages, p.Off, 0
	}
	k.sums(&sums[0], &weights[0], nq, &p, &ahead, add)
}

// Merge is how a tile's sums join the vectors' running outputs. Assembly knows its
// layout.
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

// factors says what a token's scale s and zero z become:
//
//	step = step·s,  bias = z + middle·s  (middle·s without zeros)
//
// Index 1 is for tokens with the second plane, 0 for the others.
type factors struct{ step, middle [2]float32 }

// Key and value factors. A key's score is step·Σq'c + bias·Σq', so that symmetric
// biases are minus the middle of the levels; a value's bias is its centre, and its
// step that of the first plane.
var (
	symmetricKeys   = factors{[2]float32{1, 1}, [2]float32{-1.5, -7.5}}
	sharedKeys      = factors{[2]float32{0.25, 0.25}, [2]float32{-1.5 / 4, -7.5 / 4}}
	asymmetricKeys  = factors{[2]float32{1, 1}, [2]float32{0, 0}}
	symmetricValues = factors{[2]float32{1, 4}, [2]float32{0, 0}}
	centredValues   = factors{[2]float32{1, 4}, [2]float32{1.5, 7.5}}
)

// KeyScales reads a page's scales (float16, one per token of step) and zeros (nil
// in symmetric formats) of K: score = A·(step·Σq'·code + bias·Σq'). set is the
// tokens with both planes, bit t for token t. len(step) is a multiple of 8, at
// most 64. Shared scales are four times the keys' own.
func (k *Kernels) KeyScales(step, bias []float32, scale, zero []byte, set uint64, shared bool) {
	f := &asymmetricKeys
	if shared {
		f = &sharedKeys
	} else if zero == nil {
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

func (k *Kernels) scales(step, bias []float32, scale, zero []byte, set uint64, f *factors) {
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
