package hack

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/quant/dequant"
	"github.com/terse-llm/terse/tensor"
)

// formats are what the tests go through.
var formats = []string{
	"hack", "hack,round=nearest", "hack,bits=8,partition=128,round=nearest", "hack,bits=4,partition=32,se=off",
	"hack,rqe=off,round=nearest", "hack:v2", "hack:v2,partition=32,bits=4", "hack:v2,partition=128,se=off",
	"hack:v2,rqe=off,round=stochastic", "hack:v2,bits=8",
}

// plain is what an Attender is lent, in obvious Go.
func plain() Lent {
	at := func(rows []byte, i int) float32 { return tensor.F16ToF32(binary.LittleEndian.Uint16(rows[2*i:])) }
	w := make([]float32, Lanes*GroupTokens)
	exp2 := func(y float32) float32 { return float32(math.Exp2(float64(y))) }
	return Lent{
		W:    w,
		Exp2: exp2,
		QK: func(w []float32, ld int, q []float32, n, d int, rows []byte) {
			for i := range n {
				for t := range len(rows) / 2 / d {
					var s float32
					for c := range d {
						s += q[i*d+c] * at(rows, t*d+c)
					}
					w[i*ld+t] = s
				}
			}
		},
		PV: func(acc []float32, n, d int, w []float32, ld int, rows []byte) {
			for i := range n {
				for t := range len(rows) / 2 / d {
					for c := range d {
						acc[i*d+c] += w[i*ld+t] * at(rows, t*d+c)
					}
				}
			}
		},
		Weigh: func(n, tokens int, end *[Lanes]int, scale float32, top, sum *[Lanes]float32) {
			for l := range n {
				sum[l] = 0
				s := w[l*GroupTokens:][:tokens]
				clear(s[end[l]:])
				s = s[:end[l]]
				for i := range s {
					s[i] *= scale * math.Log2E
					top[l] = max(top[l], s[i])
				}
				for i, x := range s {
					s[i] = exp2(x - top[l])
					sum[l] += s[i]
				}
			}
		},
	}
}

// run sets the job's outputs for vectors [lo, hi).
func run(a *Attender, j *kernels.AttnJob, lo, hi int) {
	d := j.Geometry.HeadDim
	out := j.Out[lo*d : hi*d]
	s := State{make([]float32, hi-lo), make([]float32, hi-lo), out}
	a.Span(j, lo, hi, 0, len(j.Tiles), s)
	for i := range out {
		if sum := s.Sum[i/d]; sum != 0 {
			out[i] /= sum
		}
	}
}

// newJob makes the attention of the last rows of a random sequence of n tokens,
// two KV heads of which it reads the second, all rows reading as the last does.
func newJob(t testing.TB, format string, d, n, group, rows int, seed uint64) *kernels.AttnJob {
	t.Helper()
	f, err := quant.ParseFormat(format, false)
	if err != nil {
		t.Fatal(err)
	}
	g, err := quant.NewGeometry(f, 1, 2, d)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(seed, 1))
	j := &kernels.AttnJob{
		Geometry: g, Head: 1, Group: group, Scale: float32(1 / math.Sqrt(float64(d))),
		Q: make([]float32, rows*group*d), Out: make([]float32, rows*group*d),
	}
	for i := range j.Q {
		j.Q[i] = float32(r.NormFloat64())
	}
	for i := range rows {
		j.Limit = append(j.Limit, n-rows+i+1)
	}
	var exact, coded [][]byte
	k, v := make([]float32, 2*d), make([]float32, 2*d)
	for tok := range n {
		page, at := tok/f.PageTokens, tok%f.PageTokens
		if at == 0 {
			exact, coded = append(exact, make([]byte, g.ExactBytes())), append(coded, make([]byte, g.CodedBytes()))
		}
		for i := range k { // some channels larger and off centre, as models have them
			k[i] = float32((1 + float64(i%7)/4) * (r.NormFloat64() + 0.3*float64(i%3-1)))
			v[i] = float32(r.NormFloat64())
		}
		g.PutExact(exact[page], at, k, v)
		g.Encode(quant.EncodeArgs{Exact: exact[page], Coded: coded[page], First: page * f.PageTokens, Lo: at, Hi: at + 1})
	}
	j.Tiles = tiles(f, n, exact, coded)
	return j
}

// tiles says how a query with n tokens reads them.
func tiles(f quant.Format, n int, exact, coded [][]byte) (all []kernels.Tile) {
	fromK, fromV := f.ExactFrom(n)
	for lo := 0; lo < n; {
		page := lo / f.PageTokens
		first := page * f.PageTokens
		hi := min(first+f.PageTokens, n)
		for _, edge := range []int{f.Sinks, fromK, fromV} {
			if edge > lo {
				hi = min(hi, edge)
			}
		}
		all = append(all, kernels.Tile{
			First: first, Lo: lo - first, Hi: hi - first, Exact: exact[page], Coded: coded[page],
			KCoded: lo >= f.Sinks && lo < fromK, VCoded: lo >= f.Sinks && lo < fromV,
		})
		lo = hi
	}
	return all
}

// truth is what a tile's tokens stand for in one half, [page token][channel].
func truth(j *kernels.AttnJob, t *kernels.Tile, half int) []float64 {
	if half == quant.HalfK && t.KCoded || half == quant.HalfV && t.VCoded {
		return dequant.Half(j.Geometry, t.Coded, j.Head, half)
	}
	return dequant.Exact(j.Geometry, t.Exact, j.Head, half)
}

// params are a code's scale and min, as stored.
func params(j *kernels.AttnJob, t *kernels.Tile, half, tok, c int) (scale, zero float64) {
	g := j.Geometry
	return dequant.Params(g, g.CodedHead(t.Coded, j.Head), half, tok, c, g.Format.Bits)
}

// widen8 is x after 8-bit coding over its own range.
func widen8(x []float32, round quant.Rounding, element, stride int) []float64 {
	lo, hi := x[0], x[0]
	for _, y := range x {
		lo, hi = min(lo, y), max(hi, y)
	}
	scale := (hi - lo) / 255
	if scale == 0 {
		scale = 1
	}
	wide := make([]float64, len(x))
	for i, y := range x {
		code := round.Level((y-lo)*(1/scale), 255, element+i*stride)
		wide[i] = float64(scale)*float64(code) + float64(lo)
	}
	return wide
}
