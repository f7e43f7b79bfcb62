package softmax

import (
	"math"
	"unsafe"
)

// The portable kernels, which the others are tested against.

// 2^r on [-½, ½], of least relative error among the polynomials that are 1 at 0.
const (
	c1 = 0.693142830608352
	c2 = 0.2402235065068627
	c3 = 0.05557400473320265
	c4 = 0.00966628252468191
	c5 = 0.0011125507682639023
	// least is what weights are taken from: lower ones are 0.
	least = -125
)

// exp2 is 2^y, 0 up to 2^-125. NaN stays NaN.
func exp2(y float32) float32 {
	if !(y > least) {
		if y != y {
			return y
		}
		return 0
	}
	n := float32(math.RoundToEven(float64(y)))
	r := y - n
	p := float32(c5)
	p = p*r + c4
	p = p*r + c3
	p = p*r + c2
	p = p*r + c1
	p = p*r + 1
	return math.Float32frombits(math.Float32bits(p) + uint32(int32(n))<<23)
}

func scores(t *Tile, dots *int32, step, bias *float32, nq int, add bool) {
	for v := range nq {
		n := t.End[v]
		if n == 0 {
			t.Max[v] = float32(math.Inf(-1))
			continue
		}
		d := unsafe.Slice((*int32)(unsafe.Add(unsafe.Pointer(dots), 4*Tokens*v)), n)
		st, b := unsafe.Slice(step, n), unsafe.Slice(bias, n)
		s, q := t.S[v][:n], t.QSum[v]
		for i := range s {
			x := st[i]*float32(d[i]) + q*b[i]
			if add {
				x += s[i]
			}
			s[i] = x
		}
	}
	largest(t, nq)
}

func largest(t *Tile, nq int) {
	for v := range nq {
		n, top := t.End[v], float32(math.Inf(-1))
		for _, x := range t.S[v][:n] {
			if x > top {
				top = x
			}
		}
		t.Max[v] = top
		for i := n; i%lanes != 0; i++ {
			t.S[v][i] = float32(math.Inf(-1))
		}
	}
}

// fold adds partial sums in the order of all levels.
func fold(a *[lanes]float32) float32 {
	for n := lanes / 2; n > 0; n /= 2 {
		for i := range n {
			a[i] += a[i+n]
		}
	}
	return a[0]
}

func weigh(t *Tile, nq, n int) {
	for v := range nq {
		end, factor, top := t.End[v], t.Factor[v], t.Top[v]
		var sum [lanes]float32
		for i, s := range t.S[v][:end] {
			// Rounded once, as a fused multiply-add is: the difference is small where
			// the weight is large.
			w := exp2(float32(float64(s)*float64(factor) - float64(top)))
			t.S[v][i] = w
			sum[i%lanes] += w
		}
		clear(t.S[v][end:n])
		t.Sum[v] = fold(&sum)
	}
}

func weighBy(t *Tile, step, centre *float32, nq, n int) {
	weigh(t, nq, n)
	steps := unsafe.Slice(step, n)
	for v := range nq {
		w := t.S[v][:t.End[v]]
		t.Centre[v] = 0
		if centre != nil {
			var sum [lanes]float32
			for i, c := range unsafe.Slice(centre, n)[:len(w)] {
				sum[i%lanes] += w[i] * c
			}
			t.Centre[v] = fold(&sum)
		}
		var top float32
		for i := range w {
			w[i] *= steps[i]
			if w[i] > top {
				top = w[i]
			}
		}
		t.Largest[v] = top
	}
}

func quantise(t *Tile, nq, n int) {
	for v := range nq {
		var inv float32
		if t.Largest[v] > tiny {
			inv = 255 / t.Largest[v]
		}
		var sum int32
		for i, w := range t.S[v][:n] {
			y := float32(w*inv) + 0.5
			if !(y < 256) { // NaN, and infinite weights
				y = 0
			}
			c := int32(max(y, 0))
			t.P[v][i] = uint8(c)
			sum += c
		}
		t.PSum[v] = sum
	}
}
