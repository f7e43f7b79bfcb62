package kerneltest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/kerneltest/cases"
	"github.com/terse-llm/terse/tensor"
	"github.com/terse-llm/terse/tensor/blocks"
)

func checkLinears(t *testing.T, ops kernels.Ops) {
	for i, l := range cases.Linears() {
		checkLinear(t, ops, l, uint64(i))
	}
}

func checkLinear(t *testing.T, ops kernels.Ops, l cases.Linear, seed uint64) {
	t.Helper()
	w := l.Weights(seed)
	before := slices.Clone(w.Data)
	x := cases.Activations(seed, l.Rows, l.In)
	kept := slices.Clone(x)
	var bias []float32
	if l.Bias {
		bias = cases.Gaussian(rand.New(rand.NewPCG(seed, 9)), l.Out)
	}
	m := ops.Pack(w)
	if out, in := m.Shape(); out != l.Out || in != l.In {
		t.Fatalf("%v: packed to [%d, %d]", l, out, in)
	}
	all := newOutput(l.Rows * l.Out)
	ops.Linear(x, l.Rows, []kernels.Projection{{Dst: all.data, W: m, Bias: bias}})
	all.check(t, l.String())
	same(t, l.String()+": activations", x, kept)
	if !slices.Equal(w.Data, before) {
		t.Fatalf("%v: weights were written", l)
	}
	truth := newLinearTruth(w)
	for r := range l.Rows {
		truth.checkRow(t, l.String(), all.data[r*l.Out:(r+1)*l.Out], x[r*l.In:(r+1)*l.In], bias)
	}
	// Alone, and in groups of other sizes: the same bits.
	for _, rows := range []int{1, 3, 7} {
		for r := 0; r < l.Rows; r += max(1, l.Rows/3) {
			n := min(rows, l.Rows-r)
			some := newOutput(n * l.Out)
			ops.Linear(x[r*l.In:(r+n)*l.In], n, []kernels.Projection{{Dst: some.data, W: m, Bias: bias}})
			same(t, fmt.Sprintf("%v: rows [%d,%d) computed apart", l, r, r+n), some.data, all.data[r*l.Out:(r+n)*l.Out])
		}
	}
}

// linearTruth is a matrix as the numbers that it holds.
type linearTruth struct {
	values  []float32
	out, in int
	coded   bool // activations may be coded to 8 bits
	block   int  // weights of one minimum, for types that have them
}

func newLinearTruth(w tensor.Tensor) *linearTruth {
	l := &linearTruth{values: make([]float32, w.Elems()), out: w.Shape[0], in: w.Shape[1]}
	blocks.Dequantize(l.values, w.DType, w.Data)
	size, _ := w.DType.Block()
	l.coded = size > 1
	if w.DType == tensor.Q4_K || w.DType == tensor.Q5_K {
		l.block = activationBlock
	}
	return l
}

// activationBlock is the run of activations that shares a scale when they are
// coded.
const activationBlock = 32

// checkRow compares one row with the sum in float64. A float32 sum of n products
// is off by up to n·2^-24 of the sum of their sizes, by about sqrt(n) of that in
// practice; and where activations are coded to 8 bits each of them is off by up to
// half a step, 1/254 of its block's largest, times its weight.
func (l *linearTruth) checkRow(t *testing.T, what string, got, x, bias []float32) {
	t.Helper()
	for o := range l.out {
		w := l.values[o*l.in : (o+1)*l.in]
		var want, size, coding float64
		for at := 0; at < l.in; at += activationBlock {
			end := min(at+activationBlock, l.in)
			var top, weight, largest float64
			for i := at; i < end; i++ {
				p := float64(x[i]) * float64(w[i])
				want, size = want+p, size+math.Abs(p)
				top = max(top, math.Abs(float64(x[i])))
				weight += math.Abs(float64(w[i]))
				largest = max(largest, math.Abs(float64(w[i])))
			}
			if l.block > 0 {
				// A weight is d·s·q − m, and the error is of the first term, which is
				// larger than the weight by the minimum at most.
				weight += largest * float64(end-at)
			}
			coding += top / 254 * weight
		}
		if bias != nil {
			want, size = want+float64(bias[o]), size+math.Abs(float64(bias[o]))
		}
		bound := 4*math.Sqrt(float64(l.in))/(1<<24)*size + 1e-37
		if l.coded {
			bound += 1.01*coding + 4*math.Sqrt(float64(l.in))/(1<<24)*coding
		}
		near(t, what, o, got[o], want, bound)
	}
}

// Projections of the same rows in one call are the projections one by one,
// whatever their types.
func checkLinearTogether(t *testing.T, ops kernels.Ops) {
	const in, rows = 512, 5
	x := cases.Activations(1, rows, in)
	var ps []kernels.Projection
	var outs []*output
	for i, dt := range append(cases.PlainTypes(), cases.BlockTypes()...) {
		for _, out := range []int{5, 48} {
			l := cases.Linear{Type: dt, Out: out, In: in}
			o := newOutput(rows * out)
			outs = append(outs, o)
			ps = append(ps, kernels.Projection{Dst: o.data, W: ops.Pack(l.Weights(uint64(i)))})
		}
	}
	ops.Linear(x, rows, ps)
	for i, p := range ps {
		outs[i].check(t, "together")
		out, _ := p.W.Shape()
		one := newOutput(rows * out)
		ops.Linear(x, rows, []kernels.Projection{{Dst: one.data, W: p.W}})
		same(t, fmt.Sprintf("projection %d of %d, together and alone", i, len(ps)), p.Dst, one.data)
	}
	ops.Linear(x, rows, nil)
	ops.Linear(nil, 0, []kernels.Projection{{W: ps[0].W}})
}

// A NaN or an infinity in one row leaves the others alone, and shows in its own
// row where weights hold their values plainly. (Where activations are coded to 8
// bits, what becomes of that row is not said: such a model is broken already.)
func checkLinearSpecials(t *testing.T, ops kernels.Ops) {
	for i, dt := range append(cases.PlainTypes(), cases.BlockTypes()...) {
		l := cases.Linear{Type: dt, Out: 19, In: 256, Rows: 4}
		w := l.Weights(uint64(i))
		for j := range w.Shape[0] { // no zero weights that would hide an infinity
			blocks.Quantize(w.Row(j), dt, cases.Gaussian(rand.New(rand.NewPCG(1, uint64(j))), l.In))
		}
		m := ops.Pack(w)
		clean := make([]float32, l.Rows*l.In)
		copy(clean, cases.Gaussian(rand.New(rand.NewPCG(2, 2)), len(clean)))
		want := newOutput(l.Rows * l.Out)
		ops.Linear(clean, l.Rows, []kernels.Projection{{Dst: want.data, W: m}})
		for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), math.MaxFloat32} {
			x := slices.Clone(clean)
			x[l.In+100] = bad
			got := newOutput(l.Rows * l.Out)
			ops.Linear(x, l.Rows, []kernels.Projection{{Dst: got.data, W: m}})
			got.check(t, "specials")
			what := fmt.Sprintf("%v: rows beside one with %g", dt, bad)
			same(t, what, got.data[:l.Out], want.data[:l.Out])
			same(t, what, got.data[2*l.Out:], want.data[2*l.Out:])
			if plain, _ := dt.Block(); plain == 1 && bad != math.MaxFloat32 {
				for o, v := range got.data[l.Out : 2*l.Out] {
					if !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0) {
						t.Fatalf("%v: output %d of a row with %g is %g", dt, o, bad, v)
					}
				}
			}
		}
	}
}
