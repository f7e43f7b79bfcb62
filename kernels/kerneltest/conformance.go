package kerneltest

import (
	"math"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/kerneltest/cases"
	"github.com/terse-llm/terse/tensor"
)

// Conformance checks a backend. It takes a second or two for a fast one.
func Conformance(t *testing.T, ops kernels.Ops) {
	for _, c := range []struct {
		name string
		f    func(*testing.T, kernels.Ops)
	}{
		{"Linear", checkLinears}, {"LinearTogether", checkLinearTogether}, {"LinearSpecials", checkLinearSpecials},
		{"RMSNorm", checkRMSNorm}, {"RoPE", checkRoPE}, {"SwiGLU", checkSwiGLU}, {"Add", checkAdd},
		{"Embed", checkEmbed}, {"Rotate", checkRotate}, {"Map", checkMap}, {"Store", checkStore}, {"Encode", checkEncode},
		{"Attend", checkAttend}, {"AttendInvariance", checkAttendInvariance}, {"AttendEmptyRows", checkAttendEmptyRows},
		{"AttendTopOnly", checkAttendTopOnly}, {"Weigh", checkWeigh}, {"Parallel", checkParallel},
		{"Until", checkUntil},
	} {
		t.Run(c.name, func(t *testing.T) { c.f(t, ops) })
	}
}

// guardSize is the number of floats on either side of an output.
const guardSize = 24

// output is n floats of NaN between guards.
type output struct {
	all  []float32
	data []float32
}

const guard = float32(-123456.75)

func newOutput(n int) *output {
	o := &output{all: slices.Repeat([]float32{guard}, n+2*guardSize)}
	o.data = o.all[guardSize : guardSize+n : guardSize+n]
	o.poison()
	return o
}

// copyOf is an output that begins as x, for what is computed in place.
func copyOf(x []float32) *output {
	o := newOutput(len(x))
	copy(o.data, x)
	return o
}

func (o *output) poison() {
	for i := range o.data {
		o.data[i] = float32(math.NaN())
	}
}

// check fails if a guard was written.
func (o *output) check(t *testing.T, what string) {
	t.Helper()
	for i, v := range o.all {
		if (i < guardSize || i >= guardSize+len(o.data)) && v != guard {
			t.Fatalf("%s: wrote %g %d floats from its output of %d", what, v, i-guardSize, len(o.data))
		}
	}
}

// near fails unless got is within bound of want.
func near(t *testing.T, what string, i int, got float32, want, bound float64) {
	t.Helper()
	if d := math.Abs(float64(got) - want); !(d <= bound) {
		t.Fatalf("%s: element %d is %g, want %g within %.3g", what, i, got, want, bound)
	}
}

// same fails unless a and b have the same bits.
func same(t *testing.T, what string, a, b []float32) {
	t.Helper()
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			t.Fatalf("%s: element %d is %g (%08x) and %g (%08x)", what, i,
				a[i], math.Float32bits(a[i]), b[i], math.Float32bits(b[i]))
		}
	}
}

func checkParallel(t *testing.T, ops kernels.Ops) {
	if ops.Name() == "" || ops.Threads() < 1 {
		t.Errorf("name %q, %d threads", ops.Name(), ops.Threads())
	}
	for _, n := range []int{0, 1, 2, 3, 100} {
		done := make([]int32, n)
		ops.Parallel(n, kernels.TaskFunc(func(i int) { done[i]++ }))
		if i := slices.IndexFunc(done, func(c int32) bool { return c != 1 }); i >= 0 {
			t.Errorf("task %d of %d ran %d times", i, n, done[i])
		}
	}
}

// A backend that may be stopped and is not gives the bits of the one it is made of,
// also after one that was stopped.
func checkUntil(t *testing.T, ops kernels.Ops) {
	const rows, in, out = 9, 96, 70
	x := cases.Activations(3, rows, in)
	w := ops.Pack(cases.Linear{Type: tensor.F32, Out: out, In: in}.Weights(4))
	linear := func(ops kernels.Ops) []float32 {
		dst := newOutput(rows * out)
		ops.Linear(x, rows, []kernels.Projection{{Dst: dst.data, W: w}})
		dst.check(t, "linear")
		return dst.data
	}
	var stop atomic.Bool
	hurried, want := ops.Until(&stop), linear(ops)
	if hurried.Name() != ops.Name() || hurried.Threads() != ops.Threads() {
		t.Errorf("%q on %d threads became %q on %d", ops.Name(), ops.Threads(), hurried.Name(), hurried.Threads())
	}
	for range 2 {
		stop.Store(false)
		same(t, "not stopped", linear(hurried), want)
		stop.Store(true)
		linear(hurried)
	}
	same(t, "beside one that is stopped", linear(ops), want)
}
