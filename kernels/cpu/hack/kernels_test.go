package hack

import (
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/internal/guard"
	"github.com/terse-llm/terse/quant"
)

// random is n bytes that end where nothing may be accessed: mostly extremes, which
// is where sums would overflow.
func random(t testing.TB, r *rand.Rand, n int) []byte {
	b := guard.Bytes(t, n)
	for i := range b {
		switch r.IntN(3) {
		case 0:
			b[i] = byte(r.Uint32())
		default:
			b[i] = 255
		}
	}
	return b
}

func int32s(t testing.TB, n int) []int32 {
	f := guard.Floats(t, n)
	return unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(f))), n)
}

// keyCode and valueCode find codes as docs/formats.md says.
func keyCode(p Plane, t, c int) int32 {
	at := 4*quant.KeyWord(p.Width, t, c/16) + c%4
	return int32(p.Data[at] >> (2 * (c % 16 / 4)) & 3)
}

func valueCode(p Plane, t, c int) int32 {
	at := 4*quant.ValueWord(p.Width, t/4, c/32, c%8) + t%4
	return int32(p.Data[at] >> (2 * (c % 32 / 8)) & 3)
}

// Every level's products are the sums over the codes, added to what is there, and
// nothing else is touched.
func TestQK(t *testing.T) {
	for seed := range uint64(120) {
		checkQK(t, seed)
	}
}

func checkQK(t *testing.T, seed uint64) {
	for _, level := range cpu.Levels() {
		r := rand.New(rand.NewPCG(seed, 1))
		n, width, pages := r.IntN(9)+1, 16*(r.IntN(17)+1), 64*(r.IntN(2)+1)
		words := Span{Lo: r.IntN(width / 16)}
		words.N = r.IntN(width/16-words.Lo) + 1
		tokens := Span{Lo: 32 * r.IntN(pages/32)}
		tokens.N = 32 * (r.IntN((pages-tokens.Lo)/32) + 1)
		plane, q, shift := Plane{random(t, r, pages*width/4), width}, random(t, r, n*width), 2*r.IntN(4)
		ld := pages + r.IntN(3)
		dots := int32s(t, (n-1)*ld+pages)
		want := make([]int32, len(dots))
		for i := range dots {
			dots[i] = r.Int32N(1000)
			want[i] = dots[i]
		}
		for i := range n {
			for tok := tokens.Lo; tok < tokens.Lo+tokens.N; tok++ {
				for c := 16 * words.Lo; c < 16*(words.Lo+words.N); c++ {
					want[i*ld+tok] += int32(q[i*width+c]) * keyCode(plane, tok, c) << shift
				}
			}
		}
		For(level).QK(dots, ld, n, q, plane, words, tokens, shift)
		if !slices.Equal(dots, want) {
			t.Fatalf("%v, seed %d: %d vectors, width %d, words %v, tokens %v: wrong", level, seed, n, width, words, tokens)
		}
	}
}

func TestPV(t *testing.T) {
	for seed := range uint64(120) {
		checkPV(t, seed)
	}
}

func checkPV(t *testing.T, seed uint64) {
	for _, level := range cpu.Levels() {
		r := rand.New(rand.NewPCG(seed, 2))
		n, width, pages := r.IntN(9)+1, 32*(r.IntN(9)+1), 64*(r.IntN(2)+1)
		groups := Span{Lo: r.IntN(width / 32)}
		groups.N = r.IntN(width/32-groups.Lo) + 1
		quads := Span{Lo: r.IntN(pages / 4)}
		quads.N = r.IntN(pages/4-quads.Lo) + 1
		ldp := pages + r.IntN(3)
		plane, p, shift := Plane{random(t, r, pages*width/4), width}, random(t, r, (n-1)*ldp+pages), 2*r.IntN(4)
		ld := width + r.IntN(3)
		out := int32s(t, (n-1)*ld+width)
		want := make([]int32, len(out))
		for i := range out {
			out[i] = r.Int32N(1000)
			want[i] = out[i]
		}
		for i := range n {
			for c := 32 * groups.Lo; c < 32*(groups.Lo+groups.N); c++ {
				for tok := 4 * quads.Lo; tok < 4*(quads.Lo+quads.N); tok++ {
					want[i*ld+c] += int32(p[i*ldp+tok]) * valueCode(plane, tok, c) << shift
				}
			}
		}
		For(level).PV(out, ld, n, p, ldp, plane, groups, quads, shift)
		if !slices.Equal(out, want) {
			t.Fatalf("%v, seed %d: %d vectors, width %d, groups %v, quads %v: wrong", level, seed, n, width, groups, quads)
		}
	}
}

func FuzzKernels(f *testing.F) {
	f.Add(uint64(1000))
	f.Fuzz(func(t *testing.T, seed uint64) {
		checkQK(t, seed)
		checkPV(t, seed)
	})
}
