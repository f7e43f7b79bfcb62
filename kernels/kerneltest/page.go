package kerneltest

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/kerneltest/cases"
	"github.com/terse-llm/terse/quant"
)

// specials are values that a broken or a merciless model brings to the cache.
var specials = []float32{0, float32(math.Copysign(0, -1)), 65504, -65504, 65519, 65520, 1e30, -1e30, 1e-8, 6e-8, -3e-8, 5.9e-8, 1e-40,
	float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), 0.33325195, 0.3333, 2049, 2051}

// geometries are page layouts for the checks of pages.
func geometries(t *testing.T, f cases.Format) []*quant.Geometry {
	t.Helper()
	var all []*quant.Geometry
	for i, d := range []int{64, 80, 96, 128, 256} {
		g, err := f.Geometry(9, 2, d)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, g.At(i)) // of nine, where layers are not alike, the first two, the third and the others differ
	}
	return all
}

// page is an exact page of random tokens, specials among them; the kind says how
// wild it is.
func page(g *quant.Geometry, kind int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 13))
	b := make([]byte, g.ExactBytes())
	n := g.KVHeads * g.HeadDim
	for tok := range g.Format.PageTokens {
		k, v := cases.Gaussian(r, n), cases.Gaussian(r, n)
		for i := range k {
			switch kind {
			case 1: // outliers
				if i%37 == 3 {
					k[i] *= 300
				}
				if tok%11 == 5 {
					v[i] *= 1e-6
				}
			case 2: // equal values, zeros
				k[i], v[i] = float32(tok%3), 0
			case 3: // beyond float16
				k[i] *= 1e4
				if r.IntN(40) == 0 {
					v[i] = specials[r.IntN(len(specials))]
				}
			}
		}
		g.PutExact(b, tok, k, v)
	}
	if kind == 4 { // any bytes: a page from a hostile machine
		for i := range b {
			b[i] = byte(r.Uint32())
		}
	}
	return b
}

// Stored tokens have the bytes of plain Go.
func checkStore(t *testing.T, ops kernels.Ops) {
	r := rand.New(rand.NewPCG(1, 14))
	for _, f := range []cases.Format{{Name: "f16"}, {Name: "f32"}, {Name: "hq3", Calibrated: true}} {
		for _, g := range geometries(t, f) {
			got, want := bytes.Repeat([]byte{0xa5}, g.ExactBytes()), bytes.Repeat([]byte{0xa5}, g.ExactBytes())
			for tok := 0; tok < g.Format.PageTokens; tok += 7 {
				k, v := cases.Gaussian(r, g.KVHeads*g.HeadDim), cases.Gaussian(r, g.KVHeads*g.HeadDim)
				for i := range k {
					k[i] *= float32(math.Exp2(float64(r.IntN(44) - 26)))
					if r.IntN(8) == 0 {
						v[i] = specials[r.IntN(len(specials))]
					}
				}
				ops.Store(g, got, tok, k, v)
				g.PutExact(want, tok, k, v)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s, head_dim %d: bytes differ from plain Go's", f.Name, g.HeadDim)
			}
		}
	}
}

// Coded pages have the bytes of plain Go, in one call or token by token.
func checkEncode(t *testing.T, ops kernels.Ops) {
	formats := append(cases.Formats(), cases.Format{Name: "hq2,clip=off", Calibrated: true}, cases.Format{Name: "hq4,clip=off"})
	for i, f := range formats {
		for j, g := range geometries(t, f) {
			if !g.Format.Coded() {
				continue
			}
			for kind := range 5 {
				exact := page(g, kind, uint64(i*10+j))
				kept := slices.Clone(exact)
				n := g.CodedBytes()
				all := bytes.Repeat([]byte{0x5a}, n+64)
				got, want := all[32:32+n:32+n], make([]byte, n)
				tokens := g.Format.PageTokens
				for _, step := range []int{tokens, 24 - j} {
					for lo := 0; lo < tokens; lo += step {
						a := quant.EncodeArgs{Exact: exact, Layer: 3, First: 5 * tokens, Lo: lo, Hi: min(lo+step, tokens),
							Important: func(head, half int) uint64 { return 0x0102_0408_8000_0003 >> uint(head+half) }}
						a.Coded = got
						ops.Encode(g, a)
						a.Coded = want
						g.Encode(a)
					}
					if !bytes.Equal(got, want) {
						t.Fatalf("%v, head_dim %d, page %d in steps of %d: codes differ from plain Go's%s", f, g.HeadDim, kind, step, firstDifference(g, got, want))
					}
				}
				if !bytes.Equal(exact, kept) {
					t.Fatalf("%v: the exact page was written", f)
				}
				if edge := bytes.Repeat([]byte{0x5a}, 32); !bytes.Equal(all[:32], edge) || !bytes.Equal(all[32+n:], edge) {
					t.Fatalf("%v, head_dim %d: bytes beside the page were written", f, g.HeadDim)
				}
			}
		}
	}
}

func firstDifference(g *quant.Geometry, a, b []byte) string {
	for i := range a {
		if a[i] != b[i] {
			return fmt.Sprintf(": head %d, byte %d of %d: %02x, want %02x", i/g.HeadBytes, i%g.HeadBytes, g.HeadBytes, a[i], b[i])
		}
	}
	return ""
}
