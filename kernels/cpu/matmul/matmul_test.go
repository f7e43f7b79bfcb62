package matmul

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/internal/guard"
	"github.com/terse-llm/terse/tensor"
	"github.com/terse-llm/terse/tensor/blocks"
)

var dtypes = []tensor.DType{tensor.F32, tensor.F16, tensor.BF16, tensor.Q8_0, tensor.Q4_0, tensor.Q4_K, tensor.Q5_K, tensor.Q6_K}

// random is n normal values, some far out and some zero.
func random(rng *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		switch rng.IntN(50) {
		case 0:
			x[i] = float32(30 * rng.NormFloat64())
		case 1:
		default:
			x[i] = float32(rng.NormFloat64())
		}
	}
	return x
}

// weights is random bytes where every byte is a code, so that codes that no
// quantiser writes come up too; scales are near one.
func weights(rng *rand.Rand, d tensor.DType, out, in int) tensor.Tensor {
	w := tensor.Tensor{Name: "w", DType: d, Shape: []int{out, in}, Data: make([]byte, d.RowBytes(out*in))}
	if kindOf(d) == Float {
		blocks.Quantize(w.Data, d, random(rng, out*in))
		return w
	}
	for i := range w.Data {
		w.Data[i] = byte(rng.Uint32())
	}
	setScales(w, func() float32 { return float32(rng.NormFloat64()) / 64 })
	return w
}

// setScales writes the f16 scales of all blocks.
func setScales(w tensor.Tensor, f func() float32) {
	_, size := w.DType.Block()
	for b := w.Data; len(b) > 0; b = b[size:] {
		switch w.DType {
		case tensor.Q8_0, tensor.Q4_0:
			tensor.PutF16(b, 0, f())
		case tensor.Q4_K, tensor.Q5_K:
			tensor.PutF16(b, 0, f())
			tensor.PutF16(b, 1, f())
		case tensor.Q6_K:
			tensor.PutF16(b, 104, f())
		}
	}
}

func packed(k *Kernels, w tensor.Tensor) *Matrix {
	m := k.NewMatrix(w)
	m.Pack(0, m.Panels())
	return m
}

func prepared(m *Matrix, x []float32, rows int) *Activations {
	a := new(Activations)
	a.Reset(m, rows)
	a.Prepare(x, 0, a.Groups())
	return a
}

// multiply is the whole product, in two calls, with poison where outputs will be,
// marks between the rows, and nothing beyond any slice.
func multiply(t *testing.T, m *Matrix, x []float32, rows int, bias []float32) []float32 {
	t.Helper()
	const gap, mark = 3, 12345
	ld := m.out + gap
	y := guard.Floats(t, rows*ld-gap)
	for i := range y {
		if y[i] = float32(math.NaN()); i%ld >= m.out {
			y[i] = mark
		}
	}
	guarded := *m
	guarded.data = guard.Bytes(t, len(m.data))
	copy(guarded.data, m.data)
	m = &guarded
	a, s := new(Activations), new(Scratch)
	a.Reset(m, rows)
	a.data = guard.Bytes(t, rows*a.bytes(m.in))
	xs := guard.Floats(t, rows*m.in)
	copy(xs, x)
	a.Prepare(xs, 0, a.Groups())
	half := m.Panels() / 2
	m.Multiply(y, ld, a, half, m.Panels(), bias, s)
	m.Multiply(y, ld, a, 0, half, bias, s)
	got := make([]float32, 0, rows*m.out)
	for r := range rows {
		got = append(got, y[r*ld:][:m.out]...)
		for i := r*ld + m.out; i < min(len(y), (r+1)*ld); i++ {
			if y[i] != mark {
				t.Fatalf("row %d of %d: output %d written, there are %d", r, rows, i-r*ld, m.out)
			}
		}
	}
	return got
}

// rounded is the activations that a matrix of kind multiplies: x itself, or what
// its int8 codes stand for. The second result is how far each may be from x.
func rounded(kind Kind, x []float32) (values, away []float64) {
	values, away = make([]float64, len(x)), make([]float64, len(x))
	for i := range x {
		values[i] = float64(x[i])
	}
	if kind == Float {
		return values, away
	}
	for b := 0; b < len(x); b += 32 {
		top := 0.0
		for _, v := range values[b : b+32] {
			top = max(top, math.Abs(v))
		}
		step := float64(float32(top) / 127)
		for i := b; i < b+32 && step > 0; i++ {
			values[i] = step * math.RoundToEven(float64(x[i]*(127/float32(top))))
			away[i] = step * (0.5 + 1e-4)
		}
	}
	return values, away
}

// Every level agrees with float64 on the same rounded activations but for the
// rounding of its sums (4·sqrt(in)·2⁻²⁴·Σ|x·w|; each minimum's term is a
// rounded product of its own), and with the exact product but for the rounding of
// activations on top (at most half a step of every one).
func TestMultiply(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	f := func(d tensor.DType, out, in, rows int, withBias bool) {
		t.Helper()
		w, x := weights(rng, d, out, in), random(rng, rows*in)
		var bias []float32
		if withBias {
			bias = random(rng, out)
		}
		values := make([]float32, out*in)
		blocks.Dequantize(values, d, w.Data)
		xs, away := rounded(kindOf(d), x)
		for _, l := range cpu.Levels() {
			got := multiply(t, packed(For(l), w), x, rows, bias)
			for i, y := range got {
				r, o := i/out, i%out
				var want, exact, size, slack float64
				for k := range in {
					p := xs[r*in+k] * float64(values[o*in+k])
					want, size = want+p, size+math.Abs(p)
					exact += float64(x[r*in+k]) * float64(values[o*in+k])
					slack += away[r*in+k] * math.Abs(float64(values[o*in+k]))
				}
				if withBias {
					want, exact, size = want+float64(bias[o]), exact+float64(bias[o]), size+math.Abs(float64(bias[o]))
				}
				size += minima(d, w.Row(o), xs[r*in:][:in])
				bound := 4 * math.Sqrt(float64(in)) / (1 << 24) * size
				if !(math.Abs(float64(y)-want) <= bound) {
					t.Fatalf("%v %v [%d,%d] of %d rows: [%d][%d] = %g, want %g ± %g", l, d, out, in, rows, r, o, y, want, bound)
				}
				if !(math.Abs(float64(y)-exact) <= bound+slack) {
					t.Fatalf("%v %v [%d,%d] of %d rows: [%d][%d] = %g, of unrounded activations %g ± %g", l, d, out, in, rows, r, o, y, exact, bound+slack)
				}
			}
		}
	}
	for _, d := range dtypes {
		elems, _ := d.Block()
		ks := []int{elems, 3 * elems}
		if kindOf(d) == Float {
			ks = []int{1, 7, 64, 131, 300}
		}
		for _, in := range ks {
			for _, out := range []int{1, 31, 32, 33, 100} {
				f(d, out, in, 1+rng.IntN(3), out%2 == 0)
			}
		}
		for rows := 1; rows <= 27; rows++ {
			f(d, 33, ks[1], rows, rows%3 == 0)
		}
		f(d, 70, 1280, 40, true)
	}
}

// minima is the size of what the K-quants take off: it may be far more than the
// sum of the products.
func minima(d tensor.DType, row []byte, x []float64) (size float64) {
	if d != tensor.Q4_K && d != tensor.Q5_K {
		return 0
	}
	_, bytes := d.Block()
	for i := 0; i < len(x); i += 32 {
		b := row[i/256*bytes:]
		s, m := blocks.KScale(b[4:16], i/32%8)
		sum := 0.0
		for _, v := range x[i : i+32] {
			sum += math.Abs(v)
		}
		size += sum * (math.Abs(float64(tensor.GetF16(b, 1)))*float64(m) + 31*math.Abs(float64(tensor.GetF16(b, 0)))*float64(s))
	}
	return size
}

// With scales of one and whole activations up to 127 every sum is a whole number
// below 2²⁴, so all levels must give exactly it.
func TestIntegersAreExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 1))
	const out, in, rows = 40, 512, 13
	for _, d := range dtypes[3:] {
		w := weights(rng, d, out, in)
		setScales(w, func() float32 { return 1 })
		_, size := d.Block()
		for b := w.Data; len(b) > 0; b = b[size:] { // small scales of blocks, for the sum's sake
			switch d {
			case tensor.Q6_K:
				for i := range 16 {
					b[192+i] = byte(rng.IntN(5) - 2)
				}
			case tensor.Q4_K, tensor.Q5_K:
				for i := range 12 {
					b[4+i] = byte(rng.IntN(4))
				}
			}
		}
		values := make([]float32, out*in)
		blocks.Dequantize(values, d, w.Data)
		x := make([]float32, rows*in)
		for i := range x {
			x[i] = float32(rng.IntN(255) - 127)
			if i%32 == rng.IntN(32) || i%32 == 31 {
				x[i] = 127 - 254*float32(rng.IntN(2)) // the block's scale is then one
			}
		}
		for i := range in { // a row of ends, against codes of ends
			x[i] = 127
			if i%3 == 0 {
				x[i] = -127
			}
		}
		for _, l := range cpu.Levels() {
			got := multiply(t, packed(For(l), w), x, rows, nil)
			for r := range rows {
				for o := range out {
					want := 0.0
					for k := range in {
						want += float64(x[r*in+k]) * float64(values[o*in+k])
					}
					if g := float64(got[r*out+o]); g != want {
						t.Fatalf("%v %v: [%d][%d] = %v, want %v", l, d, r, o, g, want)
					}
				}
			}
		}
	}
}

// A row has the same bits alone and among others.
func TestRowsIgnoreTheBatch(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 1))
	const out, in, rows = 200, 1280, 31 // one row takes pairs of panels
	for _, d := range dtypes {
		w, x := weights(rng, d, out, in), random(rng, rows*in)
		for _, l := range cpu.Levels() {
			m := packed(For(l), w)
			all := multiply(t, m, x, rows, nil)
			for lo, n := 0, 1; lo < rows; lo, n = lo+n, n+1 {
				n = min(n, rows-lo)
				some := multiply(t, m, x[lo*in:], n, nil)
				if !slices.Equal(some, all[lo*out:(lo+n)*out]) {
					t.Fatalf("%v %v: rows %d–%d differ when they are computed alone", l, d, lo, lo+n-1)
				}
			}
		}
	}
}

// A row with a NaN or an infinity spoils itself and no other; with a quantised
// matrix all of it, as the block's scale is lost.
func TestNonFinite(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 1))
	const out, in, rows = 33, 512, 5
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
		for _, d := range dtypes {
			w, x := weights(rng, d, out, in), random(rng, rows*in)
			x[2*in+77] = bad
			for _, l := range cpu.Levels() {
				got := multiply(t, packed(For(l), w), x, rows, nil)
				for i, y := range got {
					finite := !math.IsNaN(float64(y)) && !math.IsInf(float64(y), 0)
					if finite != (i/out != 2) && !(kindOf(d) == Float && y == y) {
						t.Fatalf("%v %v with %g: [%d][%d] = %g", l, d, bad, i/out, i%out, y)
					}
				}
			}
		}
	}
}

// Tiny and huge blocks keep their codes in range.
func TestEncodeEnds(t *testing.T) {
	for _, l := range cpu.Levels() {
		m := packed(For(l), weights(rand.New(rand.NewPCG(5, 1)), tensor.Q8_0, 1, 32))
		for _, top := range []float32{0, math.SmallestNonzeroFloat32, 1e-35, tiny, 1, math.MaxFloat32} {
			x := make([]float32, 32)
			x[3], x[4], x[5] = top, -top, top/2
			a := prepared(m, x, 1)
			c := func(i int) int8 { return int8(a.data[i]) }
			want := int8(127)
			if top < tiny {
				want = 0
			}
			if c(3) != want || c(4) != -want || c(5) != int8((int(want)+1)/2) {
				t.Errorf("%v: codes of %g are %d %d %d", l, top, c(3), c(4), c(5))
			}
		}
	}
}

// Activations have the same bits at every level, and only their row's places are
// written.
func TestPrepareIsTheSame(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 1))
	for _, l := range cpu.Levels()[1:] {
		k := For(l)
		for m := 1; m <= 13; m++ {
			for r := range m {
				for _, n := range []int{1, 3, 4, 7, 32, 96} {
					x := guard.Floats(t, n)
					copy(x, random(rng, n))
					x[0] *= float32(math.Pow(2, float64(rng.IntN(200)-100)))
					f := func(name string, bytes int, want, got func(dst *byte, m int, src *float32, n int)) {
						t.Helper()
						a, b := slices.Repeat([]byte{0x5a}, bytes), guard.Bytes(t, bytes)
						copy(b, a)
						want(&a[4*r], m, &x[0], n)
						got(&b[4*r], m, &x[0], n)
						if !slices.Equal(a, b) {
							t.Fatalf("%v: %s of %d inputs as row %d of %d differs", l, name, n, r, m)
						}
					}
					f("interleave", 4*m*n, interleave, k.interleave)
					if n%32 == 0 {
						f("encode", m*n/32*recordBytes, encode, k.encode)
					}
				}
			}
		}
	}
}

func TestRefusesWrongSizes(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 1))
	k := For(cpu.Best())
	m := packed(k, weights(rng, tensor.Q8_0, 33, 64))
	a := prepared(m, make([]float32, 128), 2)
	other := prepared(packed(k, weights(rng, tensor.F32, 33, 64)), make([]float32, 128), 2)
	f := func(name string, call func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s went through", name)
			}
		}()
		call()
	}
	y, s := make([]float32, 66), new(Scratch)
	f("few outputs", func() { m.Multiply(y[:65], 33, a, 0, 2, nil, s) })
	f("a small stride", func() { m.Multiply(y, 32, a, 0, 2, nil, s) })
	f("a panel too many", func() { m.Multiply(y, 33, a, 0, 3, nil, s) })
	f("a short bias", func() { m.Multiply(y, 33, a, 0, 2, make([]float32, 32), s) })
	f("another kind of activations", func() { m.Multiply(y, 33, other, 0, 2, nil, s) })
	f("few inputs", func() { a.Prepare(make([]float32, 127), 0, 1) })
	f("a group too many", func() { a.Prepare(make([]float32, 128), 0, a.Groups()+1) })
	f("part of a block", func() { k.NewMatrix(tensor.Tensor{DType: tensor.Q8_0, Shape: []int{1, 33}, Data: make([]byte, 99)}) })
	f("few bytes", func() { k.NewMatrix(tensor.Tensor{DType: tensor.F32, Shape: []int{2, 3}, Data: make([]byte, 23)}) })
}

func TestNoAllocations(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 1))
	for _, d := range []tensor.DType{tensor.BF16, tensor.Q8_0} {
		m := packed(For(cpu.Best()), weights(rng, d, 65, 256))
		x, y, a, s := random(rng, 30*256), make([]float32, 30*65), new(Activations), new(Scratch)
		a.Reset(m, 30)
		if n := testing.AllocsPerRun(10, func() {
			a.Reset(m, 29)
			a.Prepare(x, 0, a.Groups())
			m.Multiply(y, 65, a, 0, m.Panels(), nil, s)
		}); n != 0 {
			t.Errorf("%v: %v allocations", d, n)
		}
	}
}

// FuzzLevels checks every level against the portable one on arbitrary weights
// and activations: the sums of products of ends are what breaks first.
func FuzzLevels(f *testing.F) {
	f.Add(uint8(3), uint8(1), uint8(32), []byte{0x80, 0x7f, 0xff, 0})
	f.Add(uint8(7), uint8(13), uint8(33), []byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, dtype, rows, out uint8, seed []byte) {
		d := dtypes[int(dtype)%len(dtypes)]
		n, o, in := int(rows)%20+1, int(out)%70+1, 256*(1+len(seed)%3)
		var key [32]byte
		copy(key[:], seed)
		rng := rand.New(rand.NewChaCha8(key))
		w := weights(rng, d, o, in)
		for i := range w.Data { // runs of the fuzzer's bytes among the random ones
			if len(seed) > 0 && kindOf(d) == Int8 && i%7 < 3 {
				w.Data[i] = seed[i%len(seed)]
			}
		}
		setScales(w, func() float32 { return 1.0 / 8 })
		x := random(rng, n*in)
		want := multiply(t, packed(For(cpu.Generic), w), x, n, nil)
		size := sizes(d, w, x, n)
		for _, l := range cpu.Levels()[1:] {
			for i, got := range multiply(t, packed(For(l), w), x, n, nil) {
				if bound := 8 * math.Sqrt(float64(in)) / (1 << 24) * size[i]; !(math.Abs(float64(got-want[i])) <= bound) {
					t.Fatalf("%v %v: [%d][%d] of [%d][%d] = %g, portable %g ± %g", l, d, i/o, i%o, n, o, got, want[i], bound)
				}
			}
		}
	})
}

// sizes is Σ|x·w| of every output, minima apart from the rest.
func sizes(d tensor.DType, w tensor.Tensor, x []float32, rows int) []float64 {
	out, in := w.Shape[0], w.Shape[1]
	values := make([]float32, out*in)
	blocks.Dequantize(values, d, w.Data)
	size := make([]float64, rows*out)
	xs, _ := rounded(kindOf(d), x)
	for i := range size {
		r, o := i/out, i%out
		for k := range in {
			size[i] += math.Abs(xs[r*in+k] * float64(values[o*in+k]))
		}
		size[i] += minima(d, w.Row(o), xs[r*in:][:in])
	}
	return size
}
