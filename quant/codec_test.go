package quant_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/quant/dequant"
	"github.com/terse-llm/terse/tensor"
)

// codedFormats are coded formats of every layout.
var codedFormats = []string{
	"hq2", "hq2,sym=off", "hq3", "hq4,sym=off", "hq4,clip=off", "hq2,k2=lead:16,v2=lead:32", "hq2,k2=shared:16", "hq2,sym=off,k2=tokens:8,v2=tokens:16",
	"hack", "hack,round=nearest", "hack,bits=4,partition=32,se=off,rqe=off", "hack,bits=8,partition=128",
	"int8", "int4", "kivi", "kivi,bits=4,group=64", "cachegen", "cachegen,delta=10",
	"hack:v2", "hack:v2,bits=4,partition=32,round=stochastic", "hack:v2,partition=128,rqe=off,bits=8",
}

func geometry(t testing.TB, name string, kvHeads, headDim int) *quant.Geometry {
	t.Helper()
	f, err := quant.ParseFormat(name, true)
	if err != nil {
		t.Fatal(err)
	}
	g, err := quant.NewGeometry(f, 9, kvHeads, headDim)
	if err != nil {
		t.Fatal(err)
	}
	return g.At(2) // where layers are not alike, one whose halves differ
}

// fill writes a page of values.
func fill(g *quant.Geometry, value func() float32) []byte {
	page := make([]byte, g.ExactBytes())
	row := make([]float32, 2*g.KVHeads*g.HeadDim)
	for t := range g.Format.PageTokens {
		for i := range row {
			row[i] = value()
		}
		g.PutExact(page, t, row[:len(row)/2], row[len(row)/2:])
	}
	return page
}

func gaussian(seed uint64) func() float32 {
	r := rand.New(rand.NewPCG(seed, 0))
	return func() float32 { return float32(r.NormFloat64()) }
}

const someTokens = 0x8000_0100_0020_0003 // five of a page's tokens

func encode(g *quant.Geometry, exact, coded []byte, first int, cuts ...int) {
	lo := 0
	for _, hi := range append(cuts, g.Format.PageTokens) {
		g.Encode(quant.EncodeArgs{
			Exact: exact, Coded: coded, Layer: 1, First: first, Lo: lo, Hi: hi,
			Important: func(head, half int) uint64 { return someTokens },
		})
		lo = hi
	}
}

// Every code is the level nearest to its value (stochastic: one of the two
// nearest), against the scale as stored, where that is not changed afterwards.
func TestCodesAreNearest(t *testing.T) {
	for _, name := range codedFormats {
		if strings.HasPrefix(name, "hq") {
			name += ",norm=off"
		}
		for _, d := range []int{8, 64, 72, 80, 96, 128, 256} {
			if d <= 32 && (strings.HasPrefix(name, "hq2,k2=lead:16,v2=lead:32") || strings.HasPrefix(name, "hq2,k2=shared:16")) {
				continue
			}
			g := geometry(t, name, 2, d)
			exact := fill(g, gaussian(uint64(d)))
			coded := make([]byte, g.CodedBytes())
			encode(g, exact, coded, 64)
			for half := range 2 {
				checkNearest(t, g, fmt.Sprintf("%s d%d half %d", name, d, half), exact, coded, 1, half)
			}
		}
	}
}

func checkNearest(t *testing.T, g *quant.Geometry, what string, exact, coded []byte, head, half int) {
	t.Helper()
	x, y := dequant.Exact(g, exact, head, half), dequant.Half(g, coded, head, half)
	codes, width := dequant.Codes(g, coded, head, half)
	for i := range x {
		tok, c := i/g.HeadDim, i%g.HeadDim
		scale, _ := dequant.Params(g, g.CodedHead(coded, head), half, tok, c, width[i])
		reach := 0.5
		if g.Format.Stochastic {
			reach = 1
		}
		last := 1<<width[i] - 1
		clipped := codes[i] == 0 && x[i] < y[i] || codes[i] == last && x[i] > y[i]
		if e := math.Abs(x[i] - y[i]); e > scale*reach*(1+1e-5)+1e-6 && !clipped {
			t.Fatalf("%s: token %d channel %d: %g is coded %d (%g), a step is %g", what, tok, c, x[i], codes[i], y[i], scale)
		}
	}
}

// With norm=on codes are those of norm=off, in steps that make the product of what
// 2-bit codes stand for with the values, both less the centre of the levels, that of
// the values with themselves.
func TestCodesKeepNorms(t *testing.T) {
	for _, name := range []string{"hq2", "hq2,sym=off", "hq2,clip=off", "hq3", "hq2,k2=lead:16", "hq2,k2=tokens:8", "hq2,important=10"} {
		for _, d := range []int{64, 80, 128} {
			g, plain := geometry(t, name, 2, d), geometry(t, name+",norm=off", 2, d)
			exact := fill(g, gaussian(uint64(d)))
			coded, without := make([]byte, g.CodedBytes()), make([]byte, g.CodedBytes())
			encode(g, exact, coded, 64)
			encode(plain, exact, without, 64)
			for half := range 2 {
				a, width := dequant.Codes(g, coded, 1, half)
				b, _ := dequant.Codes(plain, without, 1, half)
				if g.HQ[half].Refined { // the second planes are within other steps
					for i := range a {
						a[i], b[i] = a[i]>>(width[i]-2), b[i]>>(width[i]-2)
					}
				}
				if !slices.Equal(a, b) {
					t.Fatalf("%s d%d half %d: other codes", name, d, half)
				}
				checkNorms(t, g, fmt.Sprintf("%s d%d half %d", name, d, half), exact, coded, half, width)
			}
		}
	}
}

func checkNorms(t *testing.T, g *quant.Geometry, what string, exact, coded []byte, half int, width []int) {
	t.Helper()
	x, y := dequant.Exact(g, exact, 1, half), dequant.Half(g, coded, 1, half)
	l := &g.HQ[half]
	for _, s := range l.Segments[:l.NSegments] {
		for tok := range g.Format.PageTokens {
			at := tok*g.HeadDim + s.Lo
			if width[at] != 2 {
				continue
			}
			scale, zero := dequant.Params(g, g.CodedHead(coded, 1), half, tok, s.Lo, 2)
			centre := zero + 1.5*scale
			var xx, xy float64
			for i := at; i < tok*g.HeadDim+s.Hi; i++ {
				xx, xy = xx+(x[i]-centre)*(x[i]-centre), xy+(x[i]-centre)*(y[i]-centre)
			}
			if math.Abs(xy/xx-1) > 0.002 { // of float16's scale and, asymmetric, zero
				t.Fatalf("%s: token %d has %.4f of its norm", what, tok, xy/xx)
			}
		}
	}
}

// Codes do not depend on how the tokens came: in one call, one by one, or in
// any chunks.
func TestEncodeIncremental(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.SampledFrom(codedFormats).Draw(rt, "format")
		g := geometry(t, name, 1, rapid.SampledFrom([]int{64, 80, 128}).Draw(rt, "head_dim"))
		first := g.Format.PageTokens * rapid.IntRange(0, 3).Draw(rt, "page")
		exact := fill(g, gaussian(rapid.Uint64().Draw(rt, "seed")))
		want, got := make([]byte, g.CodedBytes()), bytes.Repeat([]byte{0xaa}, g.CodedBytes())
		encode(g, exact, want, first)
		var cuts []int
		for at := 0; ; {
			if at += rapid.IntRange(1, 40).Draw(rt, "chunk"); at >= g.Format.PageTokens {
				break
			}
			cuts = append(cuts, at)
		}
		encode(g, exact, got, first, cuts...)
		if !bytes.Equal(got, want) {
			rt.Fatalf("%s: codes differ when cut at %v", name, cuts)
		}
	})
}

// The squared error of Gaussian data is what the clip search promises.
func TestGaussianError(t *testing.T) {
	f := func(name string, d, half int, lo, hi float64) {
		t.Helper()
		g := geometry(t, name, 8, d)
		exact := fill(g, gaussian(5))
		coded := make([]byte, g.CodedBytes())
		encode(g, exact, coded, 0)
		var e, v float64
		for head := range 8 {
			x, y := dequant.Exact(g, exact, head, half), dequant.Half(g, coded, head, half)
			for i := range x {
				e, v = e+(x[i]-y[i])*(x[i]-y[i]), v+x[i]*x[i]
			}
		}
		if got := e / v; got < lo || got > hi {
			t.Errorf("%s, head_dim %d, half %d: error %.4f of the variance, want %.4f to %.4f", name, d, half, got, lo, hi)
		}
	}
	f("hq2,norm=off", 64, quant.HalfK, 0.110, 0.118)
	f("hq2,norm=off", 128, quant.HalfV, 0.115, 0.120)
	f("hq2,norm=off", 256, quant.HalfK, 0.117, 0.122)
	f("hq2,sym=off,norm=off", 128, quant.HalfK, 0.110, 0.122)
	f("hq4", 128, quant.HalfV, 0.008, 0.0115)
	f("hq2,clip=off,norm=off", 128, quant.HalfK, 0.25, 0.35)
	f("hq2,k2=lead:16,norm=off", 64, quant.HalfK, 0.07, 0.095) // 16 channels at 4 bits
	// An error e of codes of the least error becomes e/(1-e) with the norm kept.
	f("hq2", 64, quant.HalfK, 0.122, 0.134)
	f("hq2", 128, quant.HalfV, 0.130, 0.137)
	f("hq2,sym=off", 128, quant.HalfK, 0.124, 0.139)
	f("hq2,k2=lead:16", 64, quant.HalfK, 0.08, 0.105)
}

// The top plane alone of a nested 4-bit code is a 2-bit code with scale 4s and
// zero z + 1.5s: hardly worse than a native one.
func TestTopPlaneAlone(t *testing.T) {
	for _, name := range []string{"hq4", "hq4,sym=off"} {
		g := geometry(t, name, 4, 128)
		exact := fill(g, gaussian(6))
		coded := make([]byte, g.CodedBytes())
		encode(g, exact, coded, 0)
		var e, v float64
		for head := range 4 {
			x, y := dequant.Exact(g, exact, head, quant.HalfK), dequant.TopPlane(g, coded, head, quant.HalfK)
			codes, _ := dequant.Codes(g, coded, head, quant.HalfK)
			for i := range x {
				scale, zero := dequant.Params(g, g.CodedHead(coded, head), quant.HalfK, i/128, i%128, 4)
				mid := scale*(4*float64(codes[i]/4)+1.5) + zero // of the four codes it may be
				if math.Abs(mid-y[i]) > 1e-9 {
					t.Fatalf("%s: code %d of scale %g reads %g without its second plane", name, codes[i], scale, y[i])
				}
				e, v = e+(x[i]-y[i])*(x[i]-y[i]), v+x[i]*x[i]
			}
		}
		if e/v > 0.2 {
			t.Errorf("%s: the top plane alone has error %.3f of the variance", name, e/v)
		}
	}
}

// A token set stores its mask and gives exactly its tokens 4-bit codes.
func TestTokenSet(t *testing.T) {
	g := geometry(t, "hq2,k2=tokens:8,v2=tokens:16", 1, 64)
	exact := fill(g, gaussian(7))
	coded := make([]byte, g.CodedBytes())
	encode(g, exact, coded, 64)
	for half := range 2 {
		_, width := dequant.Codes(g, coded, 0, half)
		for i, w := range width {
			if want := 2 + 2*int(uint64(someTokens)>>(i/64)&1); w != want {
				t.Fatalf("half %d token %d has %d bits, want %d", half, i/64, w, want)
			}
		}
		x, y := dequant.Exact(g, exact, 0, half), dequant.Half(g, coded, 0, half)
		var e [2]float64
		for i := range x {
			e[width[i]/4] += (x[i] - y[i]) * (x[i] - y[i])
		}
		n := float64(bits.OnesCount64(someTokens))
		if two, four := e[0]/(64-n), e[1]/n; four > two/5 {
			t.Errorf("half %d: error %.3f per 4-bit token, %.3f per 2-bit token", half, four, two)
		}
	}
}

// Constants, zeros, huge, infinite and not-a-number values all have codes, whose
// values are finite and as near as the format can say.
func TestSpecialValues(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, name := range codedFormats {
		f := func(what string, values ...float32) {
			t.Helper()
			g := geometry(t, name, 1, 64)
			i := 0
			exact := fill(g, func() float32 { i++; return values[i%len(values)] })
			for j := 0; j < len(exact); j += 2 { // as a peer might send them
				h := tensor.F32ToF16(values[j/2%len(values)])
				exact[j], exact[j+1] = byte(h), byte(h>>8)
			}
			coded := make([]byte, g.CodedBytes())
			encode(g, exact, coded, 64)
			for half := range 2 {
				read := dequant.Exact(g, exact, 0, half)
				for k, y := range dequant.Half(g, coded, 0, half) {
					x := read[k]
					switch {
					case math.IsNaN(y) || math.IsInf(y, 0):
						t.Fatalf("%s %s: element %d reads %g", name, what, k, y)
					case len(values) == 1 && values[0] == 0 && y != 0:
						t.Fatalf("%s: zero reads %g", name, y)
					case len(values) == 1 && math.Abs(y-x) > math.Abs(x)/100+1e-4 && !g.Format.Symmetric:
						t.Fatalf("%s: constant %g reads %g", name, x, y)
					}
				}
			}
		}
		f("zeros", 0)
		f("ones", 1)
		f("tiny", 6e-8)
		f("large", 65504)
		f("ends", 65504, -65504)
		f("spike", append(make([]float32, 63), 60000)...)
		f("infinite", inf, -inf, 1)
		f("not a number", nan, 1, 2)
	}
}

func TestPutExactSaturates(t *testing.T) {
	g := geometry(t, "f16", 1, 8)
	page := make([]byte, g.ExactBytes())
	k := []float32{1e9, -1e9, float32(math.Inf(1)), float32(math.NaN()), 0.1, 65504, -0, 65519}
	g.PutExact(page, 3, k, k)
	want := []float64{65504, -65504, 65504, 0, 0.0999755859375, 65504, 0, 65504}
	for half := range 2 {
		for i, w := range want {
			if got := dequant.Exact(g, page, 0, half)[3*8+i]; got != w {
				t.Errorf("half %d: %g is stored as %g, want %g", half, k[i], got, w)
			}
		}
	}
}

// Stochastic rounding is unbiased: over many seeds the mean of what is read is
// the value.
func TestStochasticUnbiased(t *testing.T) {
	for _, base := range []string{"hack", "hack:v2,round=stochastic"} {
		const seeds = 400
		var sum []float64
		var exact []byte
		var g *quant.Geometry
		for seed := range seeds {
			g = geometry(t, fmt.Sprintf("%s,seed=%d", base, seed), 1, 8)
			exact = fill(g, gaussian(8))
			coded := make([]byte, g.CodedBytes())
			encode(g, exact, coded, 64)
			for half := range 2 {
				y := dequant.Half(g, coded, 0, half)
				if sum == nil {
					sum = make([]float64, 2*len(y))
				}
				for i, v := range y {
					sum[half*len(y)+i] += v / seeds
				}
			}
		}
		n, bias, worst := len(sum)/2, 0.0, 0.0
		for half := range 2 {
			for i, x := range dequant.Exact(g, exact, 0, half) {
				e := sum[half*n+i] - x
				bias += e / float64(2*n)
				worst = max(worst, math.Abs(e))
			}
		}
		// A step is about 1 here, so one element's mean has deviation 0.5/√400.
		if math.Abs(bias) > 0.004 || worst > 0.2 {
			t.Errorf("%s: mean error %.4f, worst element %.3f", base, bias, worst)
		}
	}
}

// Random counters name the element: other layers, heads, halves and positions
// round differently, the same ones alike.
func TestRoundingStreams(t *testing.T) {
	f := quant.Format{Stochastic: true, Seed: 1}
	draw := func(r quant.Rounding) (word uint64) {
		for i := range 64 {
			word |= uint64(r.Level(0.5, 1, i)) << i
		}
		return word
	}
	same := draw(f.Rounding(1, 2, 0).At(3))
	if got := draw(f.Rounding(1, 2, 0).At(3)); got != same {
		t.Errorf("one element rounds in two ways")
	}
	for what, r := range map[string]quant.Rounding{
		"layer": f.Rounding(2, 2, 0).At(3), "head": f.Rounding(1, 3, 0).At(3), "stream": f.Rounding(1, 2, 1).At(3),
		"position": f.Rounding(1, 2, 0).At(4), "seed": quant.Format{Stochastic: true, Seed: 2}.Rounding(1, 2, 0).At(3),
	} {
		if n := bits.OnesCount64(draw(r) ^ same); n < 12 || n > 52 {
			t.Errorf("another %s changes %d of 64 roundings", what, n)
		}
	}
}

// The bytes of a page may not drift: pages travel between versions.
func TestGoldenPages(t *testing.T) {
	f := func(name string, want string) {
		t.Helper()
		g := geometry(t, name, 2, 80)
		x := uint32(1)
		exact := fill(g, func() float32 { // no library's random numbers
			x = x*1664525 + 1013904223
			return float32(int32(x)>>16) / 8192
		})
		coded := make([]byte, g.CodedBytes())
		encode(g, exact, coded, 128)
		sum := sha256.Sum256(coded)
		if got := fmt.Sprintf("%d %s", len(coded), hex.EncodeToString(sum[:8])); got != want {
			t.Errorf("%s: page is %q, want %q: a change of layout needs a new format name or protocol version", name, got, want)
		}
	}
	f("hq2", "6144 b83b3f5663e8656c")
	f("hq2,norm=off", "6144 7911daad2cfb1388")
	f("hq4,sym=off", "12288 ec70c6620ce6293f")
	f("hq2,k2=lead:16,v2=tokens:8", "7328 03c5053a6a3173e1")
	f("hq2,k2=lead:16,v2=tokens:8,norm=off", "7328 8c78f84a6e7011c6")
	f("hq2,k2=shared:16", "6656 a6c60c15c844d741")
	f("hack", "7712 e1cb1acf50171eba")
	f("hack:v2,bits=4,partition=32", "15488 8460aab8bde3de92")
}

func BenchmarkEncode(b *testing.B) {
	for _, name := range []string{"hq2", "hq3", "hq4", "hack", "hack:v2"} {
		g := geometry(b, name, 1, 64)
		exact, coded := fill(g, gaussian(1)), make([]byte, g.CodedBytes())
		b.Run("64x64/"+name, func(b *testing.B) {
			for b.Loop() {
				encode(g, exact, coded, 64)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/token")
		})
	}
}

// Leading channels that share a scale are clipped by an eighth at most: where they
// are large the others' steps grow with them.
func TestSharedScale(t *testing.T) {
	g := geometry(t, "hq2,k2=shared:16", 1, 64)
	channel, next := 0, gaussian(3)
	exact := fill(g, func() float32 {
		x := next()
		if channel++; channel%64 == 5 {
			x *= 4
		}
		return x
	})
	coded := make([]byte, g.CodedBytes())
	encode(g, exact, coded, 0)
	x, y := dequant.Exact(g, exact, 0, quant.HalfK), dequant.Half(g, coded, 0, quant.HalfK)
	raised := 0
	for tok := range 64 {
		scale, _ := dequant.Params(g, coded, quant.HalfK, tok, 0, 4)
		reach := 0.0
		for c := range 16 {
			i := tok*64 + c
			reach = max(reach, math.Abs(x[i]))
			if e := math.Abs(x[i] - y[i]); e > scale/2*1.001 && e > 0.126*math.Abs(x[i]) {
				t.Fatalf("token %d channel %d: %g is coded as %g", tok, c, x[i], y[i])
			}
		}
		if math.Abs(scale*7.5/reach-0.875) < 0.001 {
			raised++
		}
	}
	if raised < 5 || raised > 60 {
		t.Errorf("the scale of %d of 64 tokens is what the leading channels need", raised)
	}
}
