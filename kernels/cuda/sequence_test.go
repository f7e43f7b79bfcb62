package cuda

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/quant/dequant"
)

// sequence is one layer of a sequence's cache: random tokens in both forms.
type sequence struct {
	n            int
	exact, coded [][]byte

	exactly, meant []kv // per head: as stored, as the codes mean it
}

// kv is K and V of a head, [token][channel], and per token V's norm and, of its codes,
// the step that a weight is multiplied with and the value of their middle.
type kv struct{ k, v, norm, step, centre []float64 }

func geometry(t testing.TB, name string, calibrated bool, heads, dim int) *quant.Geometry {
	t.Helper()
	f, err := quant.ParseFormat(name, calibrated)
	ok(t, err)
	g, err := quant.NewGeometry(f, 1, heads, dim)
	ok(t, err)
	return g
}

// newSequence fills n tokens of Gaussian K and V with some channels larger and
// off centre, some tokens larger, and some all zero.
func newSequence(g *quant.Geometry, n int, seed uint64) *sequence {
	g = g.At(0)
	r := rand.New(rand.NewPCG(seed, 1))
	s := &sequence{n: n}
	width := g.KVHeads * g.HeadDim
	k, v := make([]float32, width), make([]float32, width)
	for t := range n {
		page, at := t/g.Format.PageTokens, t%g.Format.PageTokens
		if at == 0 {
			s.exact = append(s.exact, poison(g.ExactBytes()))
			s.coded = append(s.coded, poison(g.CodedBytes()))
		}
		gain := 1.0
		switch r.IntN(50) {
		case 0:
			gain = 0
		case 1:
			gain = 2.5
		}
		for i := range k {
			k[i] = float32(gain * (1 + float64(i%7)/4) * (r.NormFloat64() + 0.3*float64(i%3-1)))
			v[i] = float32(gain * (r.NormFloat64() + 0.2))
		}
		g.PutExact(s.exact[page], at, k, v)
		if at == g.Format.PageTokens-1 {
			g.Encode(quant.EncodeArgs{Exact: s.exact[page], Coded: s.coded[page], First: t - at, Hi: at + 1,
				Important: func(_, half int) uint64 { return someSet(r, g.HQ[half].LowRows) }})
		}
	}
	for head := range g.KVHeads {
		var exactly, meant kv
		for page := range s.exact {
			exactly.k = append(exactly.k, dequant.Exact(g, s.exact[page], head, quant.HalfK)...)
			exactly.v = append(exactly.v, dequant.Exact(g, s.exact[page], head, quant.HalfV)...)
			if g.Format.Coded() && (page+1)*g.Format.PageTokens <= n { // the last may not be coded
				meant.k = append(meant.k, dequant.Half(g, s.coded[page], head, quant.HalfK)...)
				meant.v = append(meant.v, dequant.Half(g, s.coded[page], head, quant.HalfV)...)
				meant.readSteps(g, s.coded[page], head)
			}
		}
		for _, x := range []*kv{&exactly, &meant} {
			for at := 0; at < len(x.v); at += g.HeadDim {
				v := x.v[at : at+g.HeadDim]
				x.norm = append(x.norm, math.Sqrt(dot(v, v)))
			}
		}
		s.exactly, s.meant = append(s.exactly, exactly), append(s.meant, meant)
	}
	return s
}

// readSteps reads the steps and middles of V's codes in a page. Where some tokens alone
// have a second plane, the others are codes of four bits with a quarter of the step.
func (x *kv) readSteps(g *quant.Geometry, coded []byte, head int) {
	page, l := g.CodedHead(coded, head), &g.HQ[quant.HalfV]
	_, width := dequant.Codes(g, coded, head, quant.HalfV)
	for t := range g.Format.PageTokens {
		bits := width[t*g.HeadDim]
		step, zero := dequant.Params(g, page, quant.HalfV, t, 0, bits)
		x.centre = append(x.centre, zero+step*float64(int(1)<<bits-1)/2)
		if l.Mask >= 0 && bits == 2 {
			step /= 4
		}
		x.step = append(x.step, step)
	}
}

// someSet is up to n tokens of a page, often n, at times none.
func someSet(r *rand.Rand, n int) uint64 {
	var set uint64
	if r.IntN(4) == 0 {
		return 0
	}
	for range n - r.IntN(2)*r.IntN(n+1) {
		set |= 1 << r.IntN(64)
	}
	return set
}

// poison is n bytes of NaN, as float16 and as float32.
func poison(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 0xff
	}
	return b
}

// queries are n vectors of which no int8 code hangs on the last bit of a float32.
func queries(r *rand.Rand, n, dim int) []float32 {
	q := make([]float32, n*dim)
	for i := range q {
		q[i] = float32(r.NormFloat64())
	}
	for at := 0; at < len(q); at += dim {
		q := q[at : at+dim]
		step := top(q) / 127
		for i, x := range q {
			if code := float64(x) / step; math.Abs(code-math.Floor(code)-0.5) < 1e-3 {
				q[i] = float32(math.Floor(code) * step)
			}
		}
	}
	return q
}

// top is the largest size of a number.
func top(x []float32) float64 {
	most := 0.0
	for _, x := range x {
		most = max(most, math.Abs(float64(x)))
	}
	return most
}

// codedQuery is q as the kernels see it beside codes: int8 with one scale.
func codedQuery(q []float32) []float64 {
	step := top(q) / 127
	y := make([]float64, len(q))
	for i, x := range q {
		y[i] = math.Floor(float64(x)/step+0.5) * step
	}
	return y
}

// attention is what one query must give.
type attention struct {
	out []float64
	// size is the weighted mean of the values' norms, and open how far the output moves
	// at most if weights that lie between two codes are rounded the other way: float32
	// has digits for so much of either.
	size, open float64
}

// off is how far out is from the attention, as a part of the values it is the mean of
// (whose sum may be small).
func (a *attention) off(out []float32) float64 {
	var e float64
	for i, x := range a.out {
		e += (float64(out[i]) - x) * (float64(out[i]) - x)
	}
	return max(math.Sqrt(e)-a.open, 0) / a.size
}

// oracle is the attention of query q over one head of s in float64: exact tokens as
// stored, the others as what their codes stand for, multiplied by the int8 query and,
// where weights are coarse, with weights rounded as kernels do, to 255 steps of the
// largest in a page.
func (s *sequence) oracle(g *quant.Geometry, head int, q []float32, scale float64, coarse bool) attention {
	f, d := g.Format, g.HeadDim
	from := 0
	if f.Coded() {
		from, _ = f.ExactFrom(s.n)
	}
	exactly, meant := &s.exactly[head], &s.meant[head]
	weights, most := make([]float64, s.n), math.Inf(-1)
	plain, codes := make([]float64, d), codedQuery(q)
	for c, x := range q {
		plain[c] = float64(x)
	}
	coded := func(t int) bool { return t >= f.Sinks && t < from }
	for t := range weights {
		if coded(t) {
			weights[t] = scale * dot(codes, meant.k[t*d:])
		} else {
			weights[t] = scale * dot(plain, exactly.k[t*d:])
		}
		most = max(most, weights[t])
	}
	a, sum := attention{out: make([]float64, d)}, 0.0
	for t, x := range weights {
		weights[t] = math.Exp(x - most)
		sum += weights[t]
	}
	ofPage, middle := 0.0, 0.0
	for t, w := range weights {
		switch {
		case !coded(t):
			a.add(exactly.v[t*d:], w, 0)
			a.size += w * exactly.norm[t]
			continue
		case !coarse:
			a.add(meant.v[t*d:], w, 0)
		default:
			if t%f.PageTokens == 0 {
				ofPage = largest(weights[t:t+f.PageTokens], meant.step[t:])
			}
			a.addRounded(meant, t, w, ofPage)
			middle += w * meant.centre[t]
		}
		a.size += w * meant.norm[t]
	}
	for c := range a.out {
		a.out[c] = (a.out[c] + middle) / sum
	}
	a.size, a.open = a.size/sum, a.open/sum
	return a
}

func dot(x, y []float64) float64 {
	var a, b float64
	for i := 0; i+1 < len(x); i += 2 {
		a += x[i] * y[i]
		b += x[i+1] * y[i+1]
	}
	return a + b
}

// largest is the largest product of a weight and a step.
func largest(weights, steps []float64) float64 {
	most := 0.0
	for i, w := range weights {
		most = max(most, w*steps[i])
	}
	return most
}

// add adds a value about centre.
func (a *attention) add(v []float64, w, centre float64) {
	for c := range a.out {
		a.out[c] += w * (v[c] - centre)
	}
}

// digits is what float32 leaves of a weight's exponent, as a part of the weight.
const digits = 1. / (1 << 15)

// addRounded adds a coded value, about its codes' middle, with the weight in 255ths of
// the largest of its page.
func (a *attention) addRounded(of *kv, t int, w, most float64) {
	if of.step[t] == 0 || most == 0 {
		return // all codes stand for the middle, or the page for nothing
	}
	d := len(a.out)
	code, unit := 255*w*of.step[t]/most, most/255/of.step[t]
	a.add(of.v[t*d:], math.Floor(code+0.5)*unit, of.centre[t])
	if math.Abs(code-math.Floor(code)-0.5) < code*digits {
		a.open += unit * (of.norm[t] + math.Abs(of.centre[t])*math.Sqrt(float64(d)))
	}
}

// onDevice is a batch's caches on the device.
type onDevice struct {
	tables Tables
	owned  []Ptr
}

func upload(t testing.TB, c *Context, g *quant.Geometry, seqs []*sequence) *onDevice {
	d := new(onDevice)
	put := func(b []byte) Ptr {
		p, err := c.Alloc(len(b))
		ok(t, err)
		ok(t, c.Upload(p, b))
		d.owned = append(d.owned, p)
		return p
	}
	for _, s := range seqs {
		d.tables.Pages = max(d.tables.Pages, len(s.exact))
	}
	coded, exact := make([]uint64, len(seqs)*d.tables.Pages), make([]uint64, len(seqs)*d.tables.Pages)
	for i, s := range seqs {
		for page := range s.exact {
			exact[i*d.tables.Pages+page] = uint64(put(s.exact[page]))
			if g.Format.Coded() {
				coded[i*d.tables.Pages+page] = uint64(put(s.coded[page]))
			}
		}
	}
	d.tables.Coded, d.tables.Exact = put(bytesOf(coded)), put(bytesOf(exact))
	return d
}

func (d *onDevice) free(t testing.TB, c *Context) {
	for _, p := range d.owned {
		ok(t, c.Free(p))
	}
}
