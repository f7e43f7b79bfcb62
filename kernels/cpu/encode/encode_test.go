package encode

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/quant"
)

// formats are hq formats of every layout, and others that are left to quant.
var formats = []string{
	"hq2", "hq2,sym=off", "hq2,clip=off", "hq2,norm=off", "hq3", "hq3,sym=off", "hq4", "hq4,sym=off,clip=off",
	"hq2,k2=lead:16,v2=lead:32", "hq2,sym=off,k2=lead:32,v2=lead:48", "hq2,k2=tokens:8,v2=tokens:56", "hq2,k2=shared:16", "hq2,k2=shared:48,norm=off",
	"hq2,sym=off,k2=tokens:16,v2=tokens:8", "hq2,important=10", "hq3,sym=off,important=40", "hack", "hack,round=nearest", "hack,bits=4,partition=32,se=off", "hack,bits=8,rqe=off", "hack:v2", "hack:v2,round=stochastic,partition=128",
	"kivi", "kivi,bits=4", "int8", "int4", "cachegen", "f16", "f32",
}

func geometry(t testing.TB, name string, heads, d int) *quant.Geometry {
	t.Helper()
	f, err := quant.ParseFormat(name, true)
	if err != nil {
		t.Fatal(err)
	}
	g, err := quant.NewGeometry(f, 1, heads, d)
	if err != nil {
		t.Skip(err) // more leading channels than there are
	}
	return g.At(0)
}

// pages are contents of exact pages.
var pages = map[string]func(r *rand.Rand) uint16{
	"gaussian": func(r *rand.Rand) uint16 { return half(r.NormFloat64()) },
	"any bits": func(r *rand.Rand) uint16 { return uint16(r.Uint32()) },
	"zeros":    func(r *rand.Rand) uint16 { return uint16(r.IntN(2)) << 15 }, // of both signs
	"small":    func(r *rand.Rand) uint16 { return uint16(r.IntN(3)) | uint16(r.IntN(2))<<15 },
	"ends":     func(r *rand.Rand) uint16 { return 0x7bff + uint16(r.IntN(3)) | uint16(r.IntN(2))<<15 },
	"constant": func(*rand.Rand) uint16 { return 0xb9a3 },
	"outliers": func(r *rand.Rand) uint16 {
		if r.IntN(30) == 0 {
			return half(1000 * r.NormFloat64())
		}
		return half(0.1 * r.NormFloat64())
	},
}

// half is some float16 near x.
func half(x float64) uint16 {
	b := math.Float32bits(float32(x))
	e := int(b>>23&0xff) - 112
	if e <= 0 || e > 30 {
		return uint16(b >> 16 & 0x8000)
	}
	return uint16(b>>16&0x8000 | uint32(e)<<10 | b>>13&0x3ff)
}

func randomPage(g *quant.Geometry, r *rand.Rand, value func(*rand.Rand) uint16) []byte {
	page := make([]byte, g.ExactBytes())
	for i := 0; i+1 < len(page); i += 2 {
		binary.LittleEndian.PutUint16(page[i:], value(r))
	}
	return page
}

// some is a set of up to n tokens that differs by head and half.
func some(h *quant.HQHalf, seed uint64) uint64 {
	r := rand.New(rand.NewPCG(seed, 2))
	var set uint64
	for range r.IntN(h.LowRows + 1) {
		set |= 1 << r.IntN(64)
	}
	return set
}

// poisoned is n bytes between guards.
func poisoned(n, offset int) (b []byte, check func(t testing.TB)) {
	const guard = 64
	all := bytes.Repeat([]byte{0xa5}, n+2*guard)
	from := guard - offset%32
	return all[from : from+n : from+n], func(t testing.TB) {
		t.Helper()
		for i, v := range all {
			if (i < from || i >= from+n) && v != 0xa5 {
				t.Fatalf("byte %d beside %d bytes was overwritten", i-from, n)
			}
		}
	}
}

// checkPage holds every level's page to quant's.
func checkPage(t testing.TB, g *quant.Geometry, exact []byte, s *Scratch, seed uint64) {
	t.Helper()
	args := func(coded []byte, hi int) quant.EncodeArgs {
		return quant.EncodeArgs{Exact: exact, Coded: coded, First: 64, Lo: 0, Hi: hi,
			Important: func(head, half int) uint64 { return some(&g.HQ[half], seed+uint64(2*head+half)) }}
	}
	for _, hi := range []int{g.Format.PageTokens, g.Format.PageTokens - 1} {
		want, _ := poisoned(g.CodedBytes(), int(seed))
		g.Encode(args(want, hi))
		for _, l := range cpu.Levels() {
			got, check := poisoned(g.CodedBytes(), int(seed))
			For(l).Encode(g, args(got, hi), s)
			check(t)
			if !bytes.Equal(got, want) {
				t.Fatalf("%s d %d level %v: %s", g.Format.Name, g.HeadDim, l, difference(g, got, want))
			}
		}
	}
}

// difference says where pages begin to differ.
func difference(g *quant.Geometry, got, want []byte) string {
	for i := range got {
		if got[i] != want[i] {
			return fmt.Sprintf("byte %d of head %d is %#x, want %#x (layout %+v)", i%g.HeadBytes, i/g.HeadBytes, got[i], want[i], g.HQ)
		}
	}
	return "same"
}

func TestEncode(t *testing.T) {
	var s Scratch // serves all geometries
	for _, name := range formats {
		for _, d := range []int{8, 16, 24, 40, 64, 72, 80, 96, 128, 256, 1024} {
			t.Run(fmt.Sprintf("%s/%d", name, d), func(t *testing.T) {
				g := geometry(t, name, 2, d)
				for content, value := range pages {
					if d > 128 && content != "any bits" {
						continue
					}
					r := rand.New(rand.NewPCG(uint64(d), uint64(len(content))))
					checkPage(t, g, randomPage(g, r, value), &s, uint64(d))
				}
			})
		}
	}
}

func TestPutExact(t *testing.T) {
	odd := []float32{0, float32(math.Copysign(0, -1)), 1e-8, -6e-8, 3e-5, 65503, 65505, 65519.9, 65520, -1e5,
		float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), -float32(math.NaN()), 1e-40}
	for _, name := range []string{"f16", "hq2", "f32"} {
		for d := 1; d < 140; d++ {
			if name == "hq2" && d%8 != 0 {
				continue
			}
			g := geometry(t, name, 3, d)
			r := rand.New(rand.NewPCG(uint64(d), 1))
			k, v := make([]float32, 4*3*d), make([]float32, 4*3*d)
			for i := range k {
				k[i], v[i] = float32(r.NormFloat64()), odd[r.IntN(len(odd))]
			}
			for _, tok := range []int{0, 17, g.Format.PageTokens - 1} {
				want, _ := poisoned(g.ExactBytes(), d)
				rows := min(4, g.Format.PageTokens-tok)
				k, v := k[:rows*3*d], v[:rows*3*d]
				for row := range rows {
					at := row * 3 * d
					g.PutExact(want, tok+row, k[at:at+3*d], v[at:at+3*d])
				}
				for _, l := range cpu.Levels() {
					got, check := poisoned(g.ExactBytes(), d)
					For(l).PutExact(g, got, tok, k, v)
					check(t)
					if !bytes.Equal(got, want) {
						t.Fatalf("%s d %d token %d level %v: another page than quant's", name, d, tok, l)
					}
				}
			}
		}
	}
}

// Every float32 rounds to the float16 that quant makes of it.
func TestNarrowRounds(t *testing.T) {
	g := geometry(t, "f16", 1, 1024)
	step := uint32(0x1357)
	if testing.Short() {
		step *= 64
	}
	x := make([]float32, 1024)
	for bits := uint64(0); bits < 1<<32; {
		for i := range x {
			x[i] = math.Float32frombits(uint32(bits))
			bits += uint64(step)
		}
		want := make([]byte, g.ExactBytes())
		g.PutExact(want, 3, x, x)
		for _, l := range cpu.Levels() {
			got := make([]byte, g.ExactBytes())
			For(l).PutExact(g, got, 3, x, x)
			if !bytes.Equal(got, want) {
				t.Fatalf("level %v: numbers before bits %#x are stored differently", l, bits)
			}
		}
	}
}

func TestNoAllocations(t *testing.T) {
	row := make([]float32, 2*64)
	s := new(Scratch)
	for _, name := range []string{"hq2,k2=tokens:8", "hack", "hack:v2", "int4", "hq3,sym=off"} {
		g := geometry(t, name, 2, 64)
		exact, coded := make([]byte, g.ExactBytes()), make([]byte, g.CodedBytes())
		for _, l := range cpu.Levels() {
			k := For(l)
			run := func() {
				k.PutExact(g, exact, 1, row, row)
				k.Encode(g, quant.EncodeArgs{Exact: exact, Coded: coded, Hi: 64}, s)
			}
			run()
			if n := testing.AllocsPerRun(10, run); n != 0 {
				t.Errorf("%s, level %v: %v allocations", name, l, n)
			}
		}
	}
}

// FuzzEncode holds every level to quant on any page.
func FuzzEncode(f *testing.F) {
	f.Add(uint8(0), uint8(1), uint64(1), []byte{0, 128, 0, 0, 255, 127})
	f.Add(uint8(8), uint8(9), uint64(7), []byte{1, 60, 0, 124, 0, 252, 0, 126})
	f.Fuzz(func(t *testing.T, format, dim uint8, seed uint64, page []byte) {
		f, err := quant.ParseFormat(formats[int(format)%len(formats)], true)
		if err != nil {
			t.Fatal(err)
		}
		g, err := quant.NewGeometry(f, 1, 1, 8*(1+int(dim)%20))
		if err != nil {
			t.Skip()
		}
		g = g.At(0)
		exact := make([]byte, g.ExactBytes())
		for i := range exact {
			if len(page) > 0 {
				exact[i] = page[(i+i/64)%len(page)]
			}
		}
		checkPage(t, g, exact, new(Scratch), seed)
	})
}

// BenchmarkStore is what a page of the KV cache costs a layer of a
// Llama-3.2-1B: 64 tokens, 8 KV heads of 64 channels.
func BenchmarkStore(b *testing.B) {
	for _, name := range []string{"hq2", "hq2,sym=off", "hq3", "hq4", "hq2,k2=tokens:8", "hack", "hack:v2", "kivi", "int4", "int8", "cachegen"} {
		g := geometry(b, name, 8, 64)
		exact := randomPage(g, rand.New(rand.NewPCG(1, 1)), pages["gaussian"])
		coded := make([]byte, g.CodedBytes())
		const width = 8 * 64
		rows := make([]float32, 64*width)
		for i := range rows {
			rows[i] = float32(i%13) - 6
		}
		for _, l := range cpu.Levels() {
			k, s := For(l), new(Scratch)
			bench := func(what string, tokens int, f func()) {
				b.Run(fmt.Sprintf("%s-8x64/%s/%v", what, name, l), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						f()
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*tokens), "ns/token")
				})
			}
			bench("encode", 64, func() {
				k.Encode(g, quant.EncodeArgs{Exact: exact, Coded: coded, Hi: 64}, s)
			})
			if name == "hq2" {
				bench("putexact-page", 64, func() { k.PutExact(g, exact, 0, rows, rows) })
				bench("putexact-token", 64, func() {
					for t := range 64 {
						k.PutExact(g, exact, t, rows[t*width:][:width], rows[t*width:][:width])
					}
				})
			}
		}
	}
}
