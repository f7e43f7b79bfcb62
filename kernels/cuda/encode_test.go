package cuda

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// hardRows is K or V of n tokens: Gaussian, with large and small ones, zeros of
// both signs, constants, and what no model should give.
func hardRows(r *rand.Rand, n, width int) []float32 {
	x := make([]float32, n*width)
	for t := range n {
		row := x[t*width : (t+1)*width]
		gain, kind := math.Exp(2*r.NormFloat64()), r.IntN(12)
		for i := range row {
			row[i] = float32(gain * (r.NormFloat64() + 0.3))
			switch kind {
			case 0:
				row[i] = 0
			case 1:
				row[i] = float32(math.Copysign(0, float64(r.IntN(2))-0.5))
			case 2:
				row[i] = float32(gain)
			case 3:
				row[i] *= 1e5 // beyond float16
			case 4:
				row[i] *= 1e-7 // subnormal there
			}
		}
		if kind == 5 {
			row[r.IntN(width)] = float32(math.Inf(1))
		}
	}
	return x
}

// Pages written and coded on the device are byte for byte what quant makes.
func TestEncode(t *testing.T) {
	var cases []encodeCase
	for _, f := range []struct {
		name       string
		calibrated bool
	}{
		{"hq2", true}, {"hq2", false}, {"hq3", true}, {"hq4", false}, {"hq2,k2=lead:32", true}, {"hq2,k2=lead:16,v2=lead:32", false}, {"hq2,k2=tokens:24,v2=tokens:8", true}, {"hq2,v2=tokens:56", false}, {"hq2+", true}, {"hq2,k2=shared:48", true}, {"hq2b", true}, {"hq2b,important=6", true}, {"hq2,important=12", false},
		{"hq2,clip=off", true}, {"hq2,norm=off", false}, {"hq3,rotate=off,mean=off", false}, {"f16", true},
	} {
		for _, dim := range []int{64, 128} {
			cases = append(cases, encodeCase{name: f.name, calibrated: f.calibrated, dim: dim, rows: hardRows})
		}
	}
	checkEncode(t, cases)
}

// edgeRows gives vectors whose values lie where codes change: at scales that are tried
// and beside them, at levels, at both zeros, and so near to zero that sums lose them.
// Two of the scales have all but the same error.
func edgeRows(symmetric bool) func(r *rand.Rand, n, dim int) []float32 {
	return func(r *rand.Rand, n, dim int) []float32 {
		x := make([]float32, n*dim)
		for t := range n {
			row := x[t*dim : (t+1)*dim]
			code := quant.HQCode(r.IntN(2) == 1)
			reach, shift := half16(float32(math.Exp(3*r.NormFloat64()))), float32(0)
			switch r.IntN(4) {
			case 0:
				reach = half16(code.Half * float32(math.Ldexp(1, r.IntN(20)-12))) // scales without a fraction
			case 1:
				shift = half16(reach * float32(r.NormFloat64()))
			}
			for i := range row {
				row[i] = half16(edgeValue(r, code, reach) + shift)
			}
			row[0], row[dim-1] = half16(shift+reach), half16(shift-reach)
			for range 8 {
				bringClose(row, 1+r.IntN(dim-2), code, symmetric)
			}
		}
		return x
	}
}

func edgeValue(r *rand.Rand, code quant.Uniform, reach float32) float32 {
	scale := half16(reach * code.Clips[r.IntN(5)] / code.Half)
	v := scale * []float32{0, 0.5, 1, 1.5, 2, 3, 5, code.Half}[r.IntN(8)]
	switch r.IntN(5) {
	case 0:
		v = half16(v) * (1 + []float32{-1, 1}[r.IntN(2)]/1024) // a neighbour
	case 1:
		v = float32(r.IntN(3)) / (1 << 24) // the least that there is
	case 2, 3:
		v = float32(r.NormFloat64()) * 0.4 * reach
	}
	return min(max(v, -reach), reach) * []float32{-1, 1}[r.IntN(2)]
}

// bringClose changes value i, which is not an extreme, so that the two least errors of
// a scale differ as little as it can make them.
func bringClose(row []float32, i int, code quant.Uniform, symmetric bool) {
	lo, hi := slices.Min(row), slices.Max(row)
	centre, reach := lo/2+hi/2, hi/2-lo/2
	if symmetric {
		centre, reach = 0, max(hi, -lo)
	}
	var scales, inverse, zeros, rest [5]float64
	last := float64(code.Last)
	one := func(k int, v float32) float64 {
		x := float64(v) - zeros[k]
		level := math.Floor(x*inverse[k] + 0.5)
		if level < 0 {
			level = 0
		} else if level > last {
			level = last
		}
		e := level*scales[k] - x
		return e * e
	}
	for k, clip := range code.Clips {
		scale := half16(float32(reach*clip) / code.Half)
		scales[k], inverse[k], zeros[k] = float64(scale), 1/float64(scale), -float64(code.Half*scale)
		if !symmetric {
			zeros[k] = float64(half16(centre - code.Half*scale))
		}
		for j, v := range row {
			if j != i {
				rest[k] += one(k, v)
			}
		}
	}
	closest := math.Inf(1)
	for step := range 1000 {
		v := half16(lo + (hi-lo)*float32(step)/1000)
		least, second := math.Inf(1), math.Inf(1)
		for k := range rest {
			if e := rest[k] + one(k, v); e < least {
				least, second = e, least
			} else if e < second {
				second = e
			}
		}
		if d := second - least; d > 0 && d < closest {
			closest, row[i] = d, v
		}
	}
}

// half16 is x as a float16.
func half16(x float32) float32 { return tensor.F16ToF32(tensor.F32ToF16(x)) }

// Codes are those of package quant to the last choice where choices are close.
func TestEncodeEdges(t *testing.T) {
	var cases []encodeCase
	for _, name := range []string{"hq2,sym=on,rotate=off,mean=off", "hq2,sym=off,rotate=off,mean=off", "hq3,sym=on,rotate=off,mean=off", "hq4,sym=off,rotate=off,mean=off", "hq2,k2=shared:16,sym=on,rotate=off,mean=off"} {
		for _, dim := range []int{64, 128} {
			cases = append(cases, encodeCase{name: name, dim: dim, rows: edgeRows(strings.Contains(name, "sym=on"))})
		}
	}
	checkEncode(t, cases)
}

// someBasis is n matrices that can be inverted.
func someBasis(r *rand.Rand, n, dim int) []float32 {
	x := make([]float32, n*dim*dim)
	for i := range x {
		x[i] = float32(r.NormFloat64() * 0.3 / math.Sqrt(float64(dim)))
		if i/dim%dim == i%dim {
			x[i]++
		}
	}
	return x
}

// encodeCase is a format, and a sequence's K and V as a model gives them.
type encodeCase struct {
	name       string
	calibrated bool
	dim        int
	rows       func(r *rand.Rand, n, dim int) []float32

	g      *quant.Geometry
	tf     *quant.Transform
	layers [encodeLayers]encodeLayer
	err    error
}

const encodeLayers, encodeHeads, encodeTokens, encodePages = 4, 2, 200, (200 + 63) / 64

type encodeLayer struct {
	k, v         []float32
	chunks       []int               // rows that are appended together
	exact, coded [encodePages][]byte // what package quant makes of them
}

func checkEncode(t *testing.T, cases []encodeCase) {
	t.Helper()
	on(t, func(c *Context, m Module) {
		for e := range ahead(len(cases), func(i int) *encodeCase { cases[i].prepare(); return &cases[i] }) {
			ok(t, e.err)
			e.check(t, c, m)
		}
	})
}

// prepare makes the pages.
func (e *encodeCase) prepare() {
	const n = encodeTokens
	var f quant.Format
	if f, e.err = quant.ParseFormat(e.name, e.calibrated); e.err != nil {
		return
	}
	r := rand.New(rand.NewPCG(uint64(e.dim), 9))
	var cal *quant.Calibration
	if e.calibrated {
		cal = encodeCalibration(r, e.dim)
	}
	if e.g, e.err = quant.NewCalibratedGeometry(f, cal, encodeLayers, encodeHeads, e.dim); e.err != nil {
		return
	}
	if e.tf, e.err = quant.NewTransform(e.g, cal); e.err != nil {
		return
	}
	for layer := range e.layers {
		l := &e.layers[layer]
		l.k, l.v = e.rows(r, n*encodeHeads, e.dim), e.rows(r, n*encodeHeads, e.dim)
		for left := n; left > 0; left -= l.chunks[len(l.chunks)-1] {
			l.chunks = append(l.chunks, min(left, 1+r.IntN(90)))
		}
	}
	each(encodeLayers, func(layer int) { e.layers[layer].encode(e.g.At(layer), e.tf, layer) })
}

// encodeCalibration is one whose numbers are all to be seen in the pages.
func encodeCalibration(r *rand.Rand, dim int) *quant.Calibration {
	const heads = encodeLayers * encodeHeads
	cal := &quant.Calibration{Layers: encodeLayers, KVHeads: encodeHeads, HeadDim: dim, KMean: make([]float32, heads*dim), VMean: make([]float32, heads*dim)}
	for i := range cal.KMean {
		cal.KMean[i], cal.VMean[i] = float32(r.NormFloat64()), float32(r.NormFloat64())
	}
	cal.KBasis = someBasis(r, heads, dim)
	cal.KPlan, cal.KGain = []uint16{48, 0, 16, uint16(dim)}, make([]float32, heads*((dim-1)/16))
	for i := range cal.KGain {
		cal.KGain[i] = 0.5 + float32(r.Float64())
	}
	return cal
}

// encode makes a layer's pages as package quant does, with products fused.
func (l *encodeLayer) encode(g *quant.Geometry, tf *quant.Transform, layer int) {
	k, v := slices.Clone(l.k), slices.Clone(l.v)
	tf.Keys(fused{}, layer, k)
	tf.Values(fused{}, layer, v)
	width := g.KVHeads * g.HeadDim
	for page := range l.exact {
		l.exact[page], l.coded[page] = make([]byte, g.ExactBytes()), make([]byte, g.CodedBytes())
		tokens := min(64, encodeTokens-page*64)
		for at := range tokens {
			row := (page*64 + at) * width
			g.PutExact(l.exact[page], at, k[row:row+width], v[row:row+width])
		}
		g.Encode(quant.EncodeArgs{Exact: l.exact[page], Coded: l.coded[page], Layer: layer, First: page * 64, Hi: tokens})
	}
}

// check compares what the device makes.
func (e *encodeCase) check(t *testing.T, c *Context, m Module) {
	t.Helper()
	g, l := e.g, &lab{t: t, c: c}
	encoder, err := c.NewEncoder(m, g, e.tf)
	ok(t, err)
	var mem [2][encodePages]Ptr
	var tables [2]Ptr
	for form, size := range [2]int{g.ExactPage(), g.CodedPage()} {
		for page := range mem[form] {
			if size > 0 {
				mem[form][page] = l.bytes(poison(size))
			}
		}
		tables[form] = l.bytes(bytesOf(mem[form][:]))
	}
	for layer := range e.layers {
		in, rows := &e.layers[layer], 0
		k, v := l.bytes(bytesOf(in.k)), l.bytes(bytesOf(in.v))
		for _, n := range in.chunks {
			off := Ptr(4 * rows * encodeHeads * e.dim)
			ok(t, c.Append(encoder, layer, rows, n, k+off, v+off, tables[0], tables[1], 0))
			rows += n
		}
		ok(t, c.Synchronize(0))
		for page := range in.exact {
			g, tokens := g.At(layer), min(64, encodeTokens-page*64)
			name := fmt.Sprintf("%s dim %d layer %d page %d", g.Format.Name, e.dim, layer, page)
			got := l.back(mem[0][page]+Ptr(layer*g.ExactBytes()), g.ExactBytes())
			compareTokens(t, name, g, got, in.exact[page], tokens)
			if tokens < 64 || !g.Format.Coded() {
				continue
			}
			want := in.coded[page]
			got = l.back(mem[1][page]+Ptr(e.g.CodedStart(layer)), len(want))
			if !bytes.Equal(got, want) {
				i := 0
				for got[i] == want[i] {
					i++
				}
				t.Errorf("%s: coded byte %d of %d (of a head: %d) is %#x, want %#x", name, i, len(got), i%g.HeadBytes, got[i], want[i])
				return
			}
		}
	}
	l.close()
	ok(t, c.CloseEncoder(encoder))
}

// compareTokens compares the first tokens of every head's halves.
func compareTokens(t *testing.T, name string, g *quant.Geometry, got, want []byte, tokens int) {
	t.Helper()
	for head := range g.KVHeads {
		for half, of := range []func([]byte, int) []byte{g.ExactK, g.ExactV} {
			n := 2 * tokens * g.HeadDim
			if !bytes.Equal(of(got, head)[:n], of(want, head)[:n]) {
				t.Errorf("%s: exact head %d half %d differs", name, head, half)
				return
			}
		}
	}
}

// TestTableCode prints what coding a prompt takes, from K and V to pages and codes,
// whole and by the engine's chunks.
func TestTableCode(t *testing.T) {
	needTable(t)
	const heads = 8
	on(t, func(c *Context, m Module) {
		b := newBench(t, c, m)
		fmt.Printf("%-30s %9s %9s %9s\n", "append+code, µs", "2K", "16K", "32K")
		for _, f := range []attended{{"hq2", true, 128}, {"hq2", false, 128}, {"hq3", true, 128}, {"hq3", false, 128}, {"hq4", true, 128}, {"hq2,k2=lead:32", true, 128}, {"f16", true, 128}, {"hq2", true, 64}, {"hq3", true, 64}, {"hq2+", true, 128}, {"hq2+", true, 64}} {
			if !only(t, f.name, " ", f.calibrated, " d", f.dim) {
				continue
			}
			g := f.geometry(t, heads)
			var cal *quant.Calibration
			if f.name == "hq2+" {
				none := make([]float32, heads*f.dim)
				cal = &quant.Calibration{Layers: 1, KVHeads: heads, HeadDim: f.dim, KMean: none, VMean: none, KBasis: someBasis(rand.New(rand.NewPCG(1, 4)), heads, f.dim)}
			}
			tf, err := quant.NewTransform(g, cal)
			ok(t, err)
			e, err := c.NewEncoder(m, g, tf)
			ok(t, err)
			fmt.Printf("%-30s", f.label())
			for _, n := range []int{2 << 10, 16 << 10, 32 << 10} {
				mem := randomCache(t, c, g, 1, n)
				l := &lab{t: t, c: c, r: rand.New(rand.NewPCG(1, 3))}
				k, _ := l.normal(n * heads * g.HeadDim)
				v, _ := l.normal(n * heads * g.HeadDim)
				fmt.Printf(" %9.1f", b.median(t, 21, func() error { return c.Append(e, 0, 0, n, k, v, mem.tables.Exact, mem.tables.Coded, 0) }))
				l.close()
				mem.free(t, c)
			}
			fmt.Println()
			ok(t, c.CloseEncoder(e))
		}
	})
}
