package quant

import (
	"unsafe"

	"github.com/terse-llm/terse/tensor"
)

// Vectors is what a machine's vectors do of coding for the baselines (hack, kivi,
// int8, int4, and in part the others), to the bit what the portable loops do. Counts
// are positive multiples of eight; the functions trust their arguments.
type Vectors struct {
	// Load widens n float16s: infinities become the ends of the range, NaN becomes 0.
	Load func(dst *float32, src *byte, n int)
	// Ranges sets lo and hi of n channels to the extremes of rows that are stride
	// floats apart. Which zero is the lesser is left open.
	Ranges func(lo, hi, x *float32, stride, rows, n int)
	// Extremes is the same of n floats.
	Extremes func(x *float32, n int) (lo, hi float32)
	// Levels codes n values, (x - zero)·inverse, clamped to first … last, to nearest;
	// or stochastically, element i by mix(*key ^ i), if there is a key (first being
	// 0). Negative codes are stored as int8.
	Levels func(codes *byte, x, zero, inverse *float32, n int, first, last float32, key *uint64)
}

// load widens tokens [lo, hi) of an exact half into w.x. A page may come from
// another machine, so that values no writer of ours produces are tamed here as
// in PutExact: no code, scale or zero is ever NaN or infinite.
func (w *Scratch) load(src []byte, dim, lo, hi int) {
	x, src := w.x[lo*dim:hi*dim], src[2*lo*dim:2*hi*dim]
	if w.Vectors != nil && len(x) > 0 {
		w.Vectors.Load(unsafe.SliceData(x), unsafe.SliceData(src), len(x))
		return
	}
	for i := range x {
		x[i] = saturate(tensor.GetF16(src, i))
	}
}

// extremes is the range of x.
func (w *Scratch) extremes(x []float32) (lo, hi float32) {
	if w.Vectors == nil || len(x)%8 != 0 {
		return minMax(x)
	}
	lo, hi = w.Vectors.Extremes(unsafe.SliceData(x), len(x))
	if lo == 0 { // of either sign
		return minMax(x)
	}
	return lo, hi
}

// ranges sets w.lo and w.hi to the range of every channel in the rows of x.
func (w *Scratch) ranges(x []float32, rows, d int) {
	lo, hi := w.lo[:d], w.hi[:d]
	if w.Vectors == nil {
		copy(lo, x)
		copy(hi, x)
		for t := 1; t < rows; t++ {
			for c, v := range x[t*d : (t+1)*d] {
				lo[c], hi[c] = min(lo[c], v), max(hi[c], v)
			}
		}
		return
	}
	w.Vectors.Ranges(&lo[0], &hi[0], unsafe.SliceData(x[:rows*d]), d, rows, d)
	for c := range lo {
		if lo[c] == 0 { // of either sign
			for t := range rows {
				lo[c], hi[c] = min(lo[c], x[t*d+c]), max(hi[c], x[t*d+c])
			}
		}
	}
}

// levels codes x, a token's channels, with every channel's w.zero and w.inverse.
func (w *Scratch) levels(codes []uint8, x []float32, first, last float32, r Rounding) {
	zero, inverse := w.zero[:len(x)], w.inverse[:len(x)]
	codes = codes[:len(x)]
	if w.Vectors != nil && len(x)%8 == 0 {
		var key *uint64
		if r.stochastic {
			w.key = r.key
			key = &w.key
		}
		w.Vectors.Levels(&codes[0], &x[0], &zero[0], &inverse[0], len(x), first, last, key)
		return
	}
	for c, v := range x {
		y := float32((v - zero[c]) * inverse[c])
		if r.stochastic {
			codes[c] = r.Level(y, last, c)
			continue
		}
		codes[c] = uint8(int32(float32(min(max(y, first), last)-first)+0.5) + int32(first))
	}
}

// fill sets channels [from, to) of w.zero and w.inverse.
func (w *Scratch) fill(from, to int, zero, inverse float32) {
	for c := from; c < to; c++ {
		w.zero[c], w.inverse[c] = zero, inverse
	}
}
