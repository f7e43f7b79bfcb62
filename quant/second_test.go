package quant_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/quant/dequant"
)

// secondFormats have a second plane that can come apart from the first.
var secondFormats = []string{"hq3", "hq4", "hq2,k2=lead:16,v2=lead:32", "hq2,k2=tokens:8,v2=tokens:16", "hq2,important=10", "hq3,important=30"}

func codedPage(t testing.TB, g *quant.Geometry, seed uint64, important func(head, half int) uint64) (exact, coded []byte) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 9))
	exact, coded = make([]byte, g.ExactBytes()), make([]byte, g.CodedBytes())
	k, v := make([]float32, g.KVHeads*g.HeadDim), make([]float32, g.KVHeads*g.HeadDim)
	for tok := range g.Format.PageTokens {
		for i := range k {
			k[i], v[i] = float32(r.NormFloat64()), float32(r.NormFloat64())
		}
		g.PutExact(exact, tok, k, v)
	}
	g.Encode(quant.EncodeArgs{Exact: exact, Coded: coded, Hi: g.Format.PageTokens, Important: important})
	return exact, coded
}

func layOut(t testing.TB, name string, calibrated bool, d int) *quant.Geometry {
	t.Helper()
	f, err := quant.ParseFormat(name, calibrated)
	if err != nil {
		t.Fatal(err)
	}
	g, err := quant.NewGeometry(f, 1, 2, d)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// A page whose important tokens are named later is the page that was coded with
// them, and naming others undoes the first.
func TestGiveSecond(t *testing.T) {
	for _, name := range []string{"hq2,important=10", "hq3,important=30", "hq2,important=5,clip=off"} {
		for _, calibrated := range []bool{true, false} {
			for _, d := range []int{24, 64, 80} {
				g := layOut(t, name, calibrated, d)
				want := func(head, _ int) uint64 { return [...]uint64{0x8000_0000_0000_0101, 0}[head] }
				exact, early := codedPage(t, g, 3, want)
				_, late := codedPage(t, g, 3, nil)
				var w quant.Scratch
				for head := range 2 {
					g.GiveSecond(late, exact, head, 0xf0, &w)
					g.GiveSecond(late, exact, head, want(head, 0), &w)
				}
				if !bytes.Equal(early, late) {
					t.Errorf("%s, calibrated %v, head_dim %d: pages differ", g.Format.Name, calibrated, d)
				}
			}
		}
	}
}

// Tokens that are not important are what they are without important ones, and
// important ones lose far less (on Gaussian data 0.0145 of the variance, not 0.129).
func TestRefinedCodes(t *testing.T) {
	const set = uint64(0x8000_0000_0110_0103)
	for _, names := range [][2]string{{"hq2,important=10", "hq2"}, {"hq2,norm=off,important=10", "hq2,norm=off"}, {"hq3,important=10", "hq3"}} {
		for _, calibrated := range []bool{true, false} {
			g, plain := layOut(t, names[0], calibrated, 64), layOut(t, names[1], calibrated, 64)
			exact, page := codedPage(t, g, 7, func(int, int) uint64 { return set })
			without := make([]byte, plain.CodedBytes())
			plain.Encode(quant.EncodeArgs{Exact: exact, Coded: without, Hi: 64})
			for half := range 2 {
				x, y, z := dequant.Exact(g, exact, 1, half), dequant.Half(g, page, 1, half), dequant.Half(plain, without, 1, half)
				var refined, coarse float64
				for i := range x {
					switch {
					case set>>(i/g.HeadDim)&1 == 1 && g.HQ[half].Refined:
						refined, coarse = refined+(y[i]-x[i])*(y[i]-x[i]), coarse+(z[i]-x[i])*(z[i]-x[i])
					case y[i] != z[i]:
						t.Fatalf("%s, calibrated %v, half %d: token %d is not what it is in %s", names[0], calibrated, half, i/g.HeadDim, names[1])
					}
				}
				if g.HQ[half].Refined && !(refined < coarse/5) {
					t.Errorf("%s, calibrated %v, half %d: important tokens err by %.3g, without second planes by %.3g", names[0], calibrated, half, refined, coarse)
				}
			}
		}
	}
}

// A page is its top spans and its second ones, each byte once but for padding.
func TestSecondSpans(t *testing.T) {
	for _, name := range secondFormats {
		for _, calibrated := range []bool{true, false} {
			g := layOut(t, name, calibrated, 80)
			r := rand.New(rand.NewPCG(1, 4))
			sets := map[[2]int]uint64{}
			_, page := codedPage(t, g, 5, func(head, half int) uint64 {
				var set uint64
				for range r.IntN(g.HQ[half].LowRows + 1) {
					set |= 1 << r.IntN(64)
				}
				sets[[2]int{head, half}] = set
				return set
			})
			got := make([]byte, len(page))
			tops := 0
			for _, s := range g.TopSpans() {
				tops += copy(got[s.Off:s.Off+s.Len], page[s.Off:])
			}
			var data []byte
			for _, s := range g.SecondSpans(page) {
				data = append(data, page[s.Off:s.Off+s.Len]...)
			}
			if n, err := g.SecondLen(append(data, 1, 2, 3)); err != nil || n != len(data) || n > g.SecondMost() {
				t.Fatalf("%s: second planes of %d bytes, at most %d, read as %d: %v", name, len(data), g.SecondMost(), n, err)
			}
			g.PutSecond(got, data)
			if !bytes.Equal(got, page) {
				t.Errorf("%s, calibrated %v: pages differ", name, calibrated)
			}
			if tops+len(data) > len(page) {
				t.Errorf("%s: %d and %d bytes of a page of %d", name, tops, len(data), len(page))
			}
			if _, err := g.SecondLen(data[:len(data)-1]); err == nil {
				t.Errorf("%s: a byte less was not missed", name)
			}
		}
	}
}

// Second planes from anywhere are refused, or written where they belong.
func FuzzSecondLen(f *testing.F) {
	for i := range secondFormats {
		f.Add(uint8(i), []byte{1, 0, 0, 0, 0, 0, 0, 0x80})
	}
	f.Fuzz(func(t *testing.T, which uint8, data []byte) {
		g := layOut(t, secondFormats[int(which)%len(secondFormats)], which&0x80 != 0, 40)
		n, err := g.SecondLen(data)
		if err != nil {
			return
		}
		page := make([]byte, g.CodedBytes())
		g.PutSecond(page, data[:n])
		var back []byte
		for _, s := range g.SecondSpans(page) {
			back = append(back, page[s.Off:s.Off+s.Len]...)
		}
		if !bytes.Equal(back, data[:n]) {
			t.Fatalf("%d bytes were written as %d others", n, len(back))
		}
		for half := range 2 {
			if l := &g.HQ[half]; l.Mask >= 0 && bits.OnesCount64(binary.LittleEndian.Uint64(g.CodedHead(page, 1)[l.Mask:])) > l.LowRows {
				t.Fatal("a set too large was written")
			}
		}
	})
}

// What the end of a prompt takes of a page's head where an eighth of the tokens are
// important: floor, the reading of their exact values (4 KiB of 64) and writing of a
// quarter of that.
func BenchmarkGiveSecond(b *testing.B) {
	for _, d := range []int{64, 128} {
		b.Run(fmt.Sprintf("d=%d", d), func(b *testing.B) {
			g := layOut(b, "hq2,important=6", true, d)
			exact, page := codedPage(b, g, 3, nil)
			var w quant.Scratch
			for b.Loop() {
				g.GiveSecond(page, exact, 0, 0x0102_0408_8000_0003, &w)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/token")
		})
	}
}
