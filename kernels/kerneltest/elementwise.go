package kerneltest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/kerneltest/cases"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor/blocks"
)

// lengths are sizes around vectors of 4, 8 and 16 floats and their unrollings.
var lengths = []int{1, 2, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 160, 257, 1031}

// The norm's sum may be made of float32 parts: 1e-6 of the result.
func checkRMSNorm(t *testing.T, ops kernels.Ops) {
	const rows, eps = 5, 1e-5
	for i, n := range lengths {
		x := cases.Activations(uint64(i), rows, n)
		weight := cases.Gaussian(rand.New(rand.NewPCG(uint64(i), 1)), n)
		kept := slices.Clone(x)
		dst := newOutput(rows * n)
		ops.RMSNorm(dst.data, x, weight, eps)
		what := fmt.Sprintf("rows of %d", n)
		dst.check(t, what)
		same(t, what+": input", x, kept)
		for r := range rows {
			row := x[r*n : (r+1)*n]
			var mean float64
			for _, v := range row {
				mean += float64(v) * float64(v) / float64(n)
			}
			for c, v := range row {
				want := float64(v) / math.Sqrt(mean+eps) * float64(weight[c])
				near(t, what, r*n+c, dst.data[r*n+c], want, 1e-6*math.Abs(want)+1e-37)
			}
			one := newOutput(n)
			ops.RMSNorm(one.data, row, weight, eps)
			same(t, what+": alone", one.data, dst.data[r*n:(r+1)*n])
		}
		inPlace := copyOf(x)
		ops.RMSNorm(inPlace.data, inPlace.data, weight, eps)
		inPlace.check(t, what)
		same(t, what+": in place", inPlace.data, dst.data)

		x[n-1] = float32(math.NaN()) // of the first row
		bad := newOutput(rows * n)
		ops.RMSNorm(bad.data, x, weight, eps)
		same(t, what+": beside NaN", bad.data[n:], dst.data[n:])
		if !math.IsNaN(float64(bad.data[0])) {
			t.Fatalf("%s: a row with NaN has a norm", what)
		}
	}
	ops.RMSNorm(nil, nil, make([]float32, 8), eps)
}

// A rotation is two products and a sum, fused or not: 2^-22 of their sizes.
func checkRoPE(t *testing.T, ops kernels.Ops) {
	r := rand.New(rand.NewPCG(1, 8))
	f := func(rows, heads, d, pairs int, interleaved bool) {
		t.Helper()
		what := fmt.Sprintf("%d rows of %d heads of %d, %d pairs, interleaved %v", rows, heads, d, pairs, interleaved)
		a := &kernels.Angles{Pairs: pairs, Interleaved: interleaved}
		for range rows * pairs {
			s, c := math.Sincos(r.Float64() * 1000)
			a.Cos, a.Sin = append(a.Cos, float32(c)), append(a.Sin, float32(s))
		}
		before := cases.Gaussian(r, rows*heads*d)
		x := copyOf(before)
		ops.RoPE(x.data, heads, d, a)
		x.check(t, what)
		for row := range rows {
			for h := range heads {
				at := (row*heads + h) * d
				for p := range pairs {
					i, j := at+p, at+p+pairs
					if interleaved {
						i, j = at+2*p, at+2*p+1
					}
					c, s := float64(a.Cos[row*pairs+p]), float64(a.Sin[row*pairs+p])
					u, v := float64(before[i]), float64(before[j])
					size := math.Abs(u) + math.Abs(v)
					near(t, what, i, x.data[i], u*c-v*s, size/(1<<22))
					near(t, what, j, x.data[j], v*c+u*s, size/(1<<22))
				}
				same(t, what+": channels beyond the pairs", x.data[at+2*pairs:at+d], before[at+2*pairs:at+d])
			}
		}
	}
	for _, interleaved := range []bool{false, true} {
		f(3, 2, 64, 32, interleaved)
		f(2, 3, 128, 64, interleaved)
		f(70, 1, 80, 16, interleaved)
		f(1, 5, 96, 48, interleaved)
		f(2, 2, 14, 5, interleaved)
		f(3, 1, 256, 128, interleaved)
		f(2, 1, 2, 1, interleaved)
	}
}

// The exponential may be a polynomial in float32: 2e-6 of the result. Far below
// zero silu is 0 and far above it is the gate.
func checkSwiGLU(t *testing.T, ops kernels.Ops) {
	r := rand.New(rand.NewPCG(1, 10))
	for _, n := range append(lengths, 70000) {
		gate, up := cases.Gaussian(r, n), cases.Gaussian(r, n)
		for i := range gate {
			gate[i] *= 8
			switch i % 97 {
			case 5:
				gate[i] = []float32{0, 87, -87, 88.5, -88.5, 104, -104, 1e4, -1e4, 1e30, -1e30, 1e-30}[i/97%12]
			case 50:
				up[i] = []float32{0, 1e6, -1e-20}[i/97%3]
			}
		}
		out, keptUp := copyOf(gate), slices.Clone(up)
		ops.SwiGLU(out.data, up)
		what := fmt.Sprintf("%d elements", n)
		out.check(t, what)
		same(t, what+": up", up, keptUp)
		for i, g := range gate {
			want := float64(g) / (1 + math.Exp(-float64(g))) * float64(up[i])
			// Below e^-87 a float32 exponential may be 0.
			near(t, what, i, out.data[i], want, 2e-6*math.Abs(want)+1e-35*math.Abs(float64(up[i]))*max(1, math.Abs(float64(g)))+1e-37)
		}
		half := copyOf(gate[:n/2])
		ops.SwiGLU(half.data, up[:n/2])
		same(t, what+": of fewer", half.data, out.data[:n/2])
	}
	bad := copyOf([]float32{1, float32(math.NaN()), 2})
	ops.SwiGLU(bad.data, []float32{1, 1, 1})
	if !math.IsNaN(float64(bad.data[1])) || math.IsNaN(float64(bad.data[0]+bad.data[2])) {
		t.Errorf("NaN gives %v", bad.data)
	}
}

func checkAdd(t *testing.T, ops kernels.Ops) {
	r := rand.New(rand.NewPCG(1, 11))
	for _, n := range append(lengths, 70000) {
		for _, runs := range []int{1, 3} {
			x, y := cases.Gaussian(r, runs*n), cases.Gaussian(r, n)
			got, want := copyOf(x), slices.Clone(x)
			ops.Add(got.data, y)
			quant.Plain{}.Add(want, y)
			got.check(t, "add")
			same(t, fmt.Sprintf("%d runs of %d", runs, n), got.data, want)
		}
	}
}

func checkEmbed(t *testing.T, ops kernels.Ops) {
	for _, dt := range append(cases.PlainTypes(), cases.BlockTypes()...) {
		for _, dim := range []int{256, 512} {
			l := cases.Linear{Type: dt, Out: 19, In: dim}
			w := l.Weights(1)
			values := make([]float32, l.Out*dim)
			blocks.Dequantize(values, dt, w.Data)
			ids := []int32{18, 0, 7, 18, 3}
			dst := newOutput(len(ids) * dim)
			ops.Embed(dst.data, w, ids)
			dst.check(t, "embed")
			for i, id := range ids {
				same(t, fmt.Sprintf("%v: row %d", dt, id), dst.data[i*dim:(i+1)*dim], values[int(id)*dim:(int(id)+1)*dim])
			}
		}
	}
	for _, dim := range lengths { // of types without blocks
		w := cases.Linear{Type: cases.PlainTypes()[dim%3], Out: 3, In: dim}.Weights(2)
		values := make([]float32, 3*dim)
		blocks.Dequantize(values, w.DType, w.Data)
		dst := newOutput(dim)
		ops.Embed(dst.data, w, []int32{2})
		dst.check(t, "embed")
		same(t, fmt.Sprintf("%v: %d wide", w.DType, dim), dst.data, values[2*dim:])
	}
}

// Rotations must have the bits of plain Go: caches travel between machines.
func checkRotate(t *testing.T, ops kernels.Ops) {
	r := rand.New(rand.NewPCG(1, 12))
	for _, d := range []int{8, 16, 24, 32, 64, 80, 96, 112, 128, 192, 256, 512, 1024} {
		for _, heads := range []int{1, 3, 700} {
			x, rot := cases.Gaussian(r, heads*d), cases.Rotation(d, uint64(d))
			for _, inverse := range []bool{false, true} {
				got, want := copyOf(x), slices.Clone(x)
				ops.Rotate(got.data, rot, inverse)
				quant.Plain{}.Rotate(want, rot, inverse)
				got.check(t, "rotate")
				same(t, fmt.Sprintf("%d heads of %d, inverse %v", heads, d, inverse), got.data, want)
			}
		}
	}
}

// A map is sums of products, fused or not: 1e-6 of their sizes. A row's bits are
// those of the row alone.
func checkMap(t *testing.T, ops kernels.Ops) {
	r := rand.New(rand.NewPCG(1, 13))
	for _, d := range []int{8, 16, 64, 80, 128, 256} {
		for _, shape := range [][3]int{{1, 1, 1}, {1, 8, 2}, {3, 6, 3}, {33, 4, 2}, {70, 2, 2}} {
			rows, heads, kv := shape[0], shape[1], shape[2]
			x, m := cases.Gaussian(r, rows*heads*d), cases.Gaussian(r, kv*d*d)
			got, what := copyOf(x), fmt.Sprintf("%d rows of %d heads (%d) of %d", rows, heads, kv, d)
			ops.Map(got.data, heads, d, m)
			got.check(t, what)
			for i := range x {
				from, matrix := x[i/d*d:][:d], m[i/d%heads/(heads/kv)*d*d:]
				var want, size float64
				for in, v := range from {
					p := float64(v) * float64(matrix[in*d+i%d])
					want, size = want+p, size+math.Abs(p)
				}
				near(t, what, i, got.data[i], want, 1e-6*size)
			}
			for row := range rows {
				alone := copyOf(x[row*heads*d : (row+1)*heads*d])
				ops.Map(alone.data, heads, d, m)
				same(t, what+": alone", alone.data, got.data[row*heads*d:(row+1)*heads*d])
			}
		}
	}
	ops.Map(nil, 4, 64, make([]float32, 2*64*64))
}
