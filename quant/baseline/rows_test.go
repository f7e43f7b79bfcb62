package baseline_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/quant/baseline"
	"github.com/terse-llm/terse/quant/dequant"
)

func geometry(t testing.TB, name string, d int) *quant.Geometry {
	t.Helper()
	f, err := quant.ParseFormat(name, false)
	if err != nil {
		t.Fatal(err)
	}
	g, err := quant.NewGeometry(f, 9, 2, d)
	if err != nil {
		t.Fatal(err)
	}
	return g.At(d / 8 % 4) // where layers are not alike, of all kinds
}

// page codes 64 Gaussian tokens. Channels 3 and 11 of K are far out, as in models.
func page(g *quant.Geometry, outlier float32, seed uint64) (exact, coded []byte) {
	r := rand.New(rand.NewPCG(seed, 1))
	exact, coded = make([]byte, g.ExactBytes()), make([]byte, g.CodedBytes())
	k, v := make([]float32, g.KVHeads*g.HeadDim), make([]float32, g.KVHeads*g.HeadDim)
	for tok := range g.Format.PageTokens {
		for i := range k {
			k[i], v[i] = float32(r.NormFloat64()), float32(r.NormFloat64())
			if c := i % g.HeadDim; c == 3 || c == 11 {
				k[i] *= outlier
			}
		}
		g.PutExact(exact, tok, k, v)
		g.Encode(quant.EncodeArgs{Exact: exact, Coded: coded, Lo: tok, Hi: tok + 1})
	}
	return exact, coded
}

// Rows are what docs/formats.md says that the codes stand for.
func TestRows(t *testing.T) {
	var s baseline.Scratch
	for _, name := range []string{"int8", "int4", "kivi", "kivi,bits=4", "kivi,group=64", "cachegen", "cachegen,delta=10"} {
		for _, d := range []int{8, 64, 80, 88, 128, 256} {
			g := geometry(t, name, d)
			_, coded := page(g, 1, uint64(d))
			for head := range 2 {
				for half := range 2 {
					want := dequant.Half(g, coded, head, half)
					for _, r := range [][2]int{{0, 64}, {0, 1}, {29, 37}, {63, 64}, {5, 5}} {
						got := make([]float32, (r[1]-r[0])*d+1)
						got[len(got)-1] = 77
						s.Rows(got[:len(got)-1], g, baseline.Page{Coded: g.CodedHead(coded, head), Head: head}, half, r[0], r[1])
						for i, x := range got[:len(got)-1] {
							if w := want[r[0]*d+i]; math.Abs(float64(x)-w) > 1e-6*(1+math.Abs(w)) {
								t.Fatalf("%s, head_dim %d, half %d, tokens %v: element %d is %g, want %g", name, d, half, r, i, x, w)
							}
						}
						if got[len(got)-1] != 77 {
							t.Fatal("wrote beyond its rows")
						}
					}
				}
			}
		}
	}
}

// Nothing but a baseline is widened.
func TestRefuses(t *testing.T) {
	for _, name := range []string{"hq2", "hq3", "hq4", "hack", "hack:v2"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s was widened", name)
				}
			}()
			g := geometry(t, name, 64)
			new(baseline.Scratch).Rows(make([]float32, 64), g, baseline.Page{Coded: make([]byte, g.HeadBytes)}, quant.HalfK, 0, 1)
		}()
	}
}

// relative is the squared error of one half over its variance, outlying channels
// aside.
func relative(g *quant.Geometry, exact, coded []byte, half int) float64 {
	x, y := dequant.Exact(g, exact, 0, half), dequant.Half(g, coded, 0, half)
	var e, v float64
	for i := range x {
		if c := i % g.HeadDim; c != 3 && c != 11 {
			e, v = e+(x[i]-y[i])*(x[i]-y[i]), v+x[i]*x[i]
		}
	}
	return e / v
}

// What the formats' authors say of them: the sizes; the errors of a uniform code
// over a group's range; and of KIVI (arXiv 2402.02750, section 3.2) that channels
// of K that are far out leave the others alone, because groups run along channels,
// while groups along tokens lose them.
func TestPublishedProperties(t *testing.T) {
	f := func(name string, bits, lo, hi float64) {
		t.Helper()
		g := geometry(t, name, 128)
		if got := 8 * float64(g.CodedBytes()) / float64(2*2*128*64); got != bits {
			t.Errorf("%s takes %g bits an element, want %g", name, got, bits)
		}
		exact, coded := page(g, 1, 1)
		for half := range 2 {
			if e := relative(g, exact, coded, half); !(e >= lo && e <= hi) {
				t.Errorf("%s: half %d is off by %.5f of the variance, want %g to %g", name, half, e, lo, hi)
			}
		}
		quiet, far := relative(g, exact, coded, quant.HalfK), 0.0
		exact, coded = page(g, 50, 1)
		far = relative(g, exact, coded, quant.HalfK)
		if kivi := g.Format.Family == quant.FamilyKIVI; kivi && far > 1.2*quiet || !kivi && far < 20*quiet {
			t.Errorf("%s: channels far out take the error of the others from %.5f to %.5f", name, quiet, far)
		}
	}
	f("int8", 8.25, 2e-5, 6e-5)
	f("int4", 4.5, 0.006, 0.012)
	f("kivi", 3, 0.1, 0.2)
	f("kivi,group=64", 2.5, 0.15, 0.25)
	f("kivi,bits=4", 5, 0.003, 0.009)
}

// What CacheGen's authors do (section 5.2 of arXiv 2310.07240 and their code): one
// symmetric scale for a token over all heads, so many levels by layer; so that a channel
// far out takes the resolution of all others, of all heads.
func TestCacheGenLevels(t *testing.T) {
	f, err := quant.ParseFormat("cachegen", false)
	if err != nil {
		t.Fatal(err)
	}
	all, err := quant.NewGeometry(f, 32, 4, 64)
	if err != nil {
		t.Fatal(err)
	}
	for layer := range 32 {
		g := all.At(layer)
		exact, coded := page(g, 1, uint64(layer))
		wild, lost := page(g, 50, uint64(layer))
		for half := range 2 {
			levels := map[bool]int{true: 31, false: 15}[half == quant.HalfK && layer < 10 || layer < 2]
			seen, scales := map[int]bool{}, map[float64]bool{}
			for head := range g.KVHeads {
				codes, _ := dequant.Codes(g, coded, head, half)
				for i, code := range codes {
					scale, zero := dequant.Params(g, g.CodedHead(coded, head), half, i/64, i%64, g.Group.Halves[half].Bits)
					seen[code+int(math.Round(zero/max(scale, 1e-9)))] = true
					if i/64 == 7 {
						scales[scale] = true
					}
				}
			}
			if len(scales) != 1 {
				t.Fatalf("layer %d: a token has %d scales", layer, len(scales))
			}
			if most := levels / 2; len(seen) != levels || !seen[most] || !seen[-most] {
				t.Fatalf("layer %d, half %d: %d levels, want %d", layer, half, len(seen), levels)
			}
			// Uniform error: a step is 2.9 sigma or so over the levels of a side.
			lo, hi := 0.002, 0.006
			if levels == 15 {
				lo, hi = 0.011, 0.025
			}
			if e := relative(g, exact, coded, half); !(e >= lo && e <= hi) {
				t.Errorf("layer %d, half %d: off by %.5f of the variance, want %g to %g", layer, half, e, lo, hi)
			}
			if e := relative(g, wild, lost, half); half == quant.HalfK && !(e > 0.5) {
				t.Errorf("layer %d: channels far out leave the others an error of only %.5f", layer, e)
			}
		}
	}
}

func BenchmarkRows(b *testing.B) {
	for _, name := range []string{"int8", "int4", "kivi", "cachegen"} {
		g := geometry(b, name, 128)
		_, coded := page(g, 1, 1)
		dst := make([]float32, 64*128)
		var s baseline.Scratch
		for half, what := range []string{"K", "V"} {
			b.Run(fmt.Sprintf("%s/%s", name, what), func(b *testing.B) {
				for b.Loop() {
					s.Rows(dst, g, baseline.Page{Coded: g.CodedHead(coded, 0)}, half, 0, 64)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(dst)), "ns/element")
			})
		}
	}
}
