package quant_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/quant/dequant"
)

// modelPage is a page of tokens as models have them: some channels far out, others
// nearly still.
func modelPage(g *quant.Geometry, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 8))
	i := 0
	return fill(g, func() float32 {
		i++
		return float32(r.NormFloat64() * math.Exp2(float64(i*7%g.HeadDim%9)-5))
	})
}

func cacheGen(t testing.TB, name string, layers, heads, d int) *quant.Geometry {
	t.Helper()
	f, err := quant.ParseFormat(name, false)
	if err != nil {
		t.Fatal(err)
	}
	g, err := quant.NewGeometry(f, layers, heads, d)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// profiled is g with the distributions of pages like modelPage's.
func profiled(t testing.TB, g *quant.Geometry) *quant.Geometry {
	t.Helper()
	counts, err := quant.NewLevelCounts(g.Format.Name, g.Layers, g.KVHeads, g.HeadDim)
	if err != nil {
		t.Fatal(err)
	}
	for layer := range g.Layers {
		for seed := range uint64(8) {
			counts.Add(layer, modelPage(g, seed), 64)
		}
	}
	n := g.Layers * g.KVHeads * g.HeadDim
	cal := &quant.Calibration{Layers: g.Layers, KVHeads: g.KVHeads, HeadDim: g.HeadDim, KMean: make([]float32, n), VMean: make([]float32, n)}
	if g.Format.Delta > 0 {
		cal.Deltas = counts.Frequencies()
	} else {
		cal.Levels = counts.Frequencies()
	}
	var file bytes.Buffer
	if err := quant.WriteCalibration(&file, cal); err != nil {
		t.Fatal(err)
	}
	if cal, err = quant.ReadCalibration(&file); err != nil {
		t.Fatal(err)
	}
	out, err := g.Profiled(cal)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// What is packed comes back byte for byte, of any number of tokens, coded or (of
// noise, which no code makes smaller) not.
func TestPack(t *testing.T) {
	var s quant.PackScratch
	for i, d := range []int{8, 64, 80, 128, 8, 64, 80} {
		plain := cacheGen(t, []string{"cachegen", "cachegen,delta=10"}[i/4], 9, 2, d)
		for _, model := range []*quant.Geometry{plain, profiled(t, plain)} {
			for layer := range 4 { // of all kinds
				g := model.At(layer)
				for _, n := range []int{1, 2, 3, 16, 17, 63, 64} {
					for kind, exact := range [][]byte{modelPage(g, uint64(n)), fill(g, func() float32 { return 0 }), noisePage(g, uint64(n))} {
						what := fmt.Sprintf("%s, head_dim %d, layer %d, %d tokens, kind %d", g.Format.Name, d, layer, n, kind)
						page := make([]byte, g.CodedBytes())
						g.Encode(quant.EncodeArgs{Exact: exact, Coded: page, Layer: layer, Hi: n})
						data := g.Pack([]byte("before"), page, n, &s)[6:]
						if got, err := g.PackedLen(append(slices.Clone(data), 1, 2, 3), n); err != nil || got != len(data) || got > g.PackedMost(n) {
							t.Fatalf("%s: %d bytes are said to be %d (%v), at most %d", what, len(data), got, err, g.PackedMost(n))
						}
						got := bytes.Repeat([]byte{0xa5}, g.CodedBytes())
						if err := g.Unpack(got, data, n, &s); err != nil {
							t.Fatalf("%s: %v", what, err)
						}
						if !bytes.Equal(got, page) {
							t.Fatalf("%s: another page comes back", what)
						}
					}
				}
			}
		}
	}
}

// noisePage has all levels equally often.
func noisePage(g *quant.Geometry, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 9))
	return fill(g, func() float32 { return 2*r.Float32() - 1 })
}

// A page of levels that come as the calibration has it takes what their entropy says,
// within 1 %, scales aside; and what PackedTypical says.
func TestPackedSize(t *testing.T) {
	g := profiled(t, cacheGen(t, "cachegen", 9, 4, 64))
	var s quant.PackScratch
	for layer := range g.Layers {
		g := g.At(layer)
		counts := map[[3]int]float64{}
		size, symbols, tokens := 0, 0.0, 0.0
		for seed := range uint64(8) {
			page := make([]byte, g.CodedBytes())
			g.Encode(quant.EncodeArgs{Exact: modelPage(g, seed), Coded: page, Layer: layer, Hi: 64})
			size += len(g.Pack(nil, page, 64, &s)) - 4 - 4*64 - 16
			for half := range 2 {
				for head := range g.KVHeads {
					codes, _ := dequant.Codes(g, page, head, half)
					for i, code := range codes {
						counts[[3]int{half, head*g.HeadDim + i%g.HeadDim, code}]++
						symbols++
					}
				}
			}
			tokens += 64
		}
		bits := 0.0
		for _, n := range counts {
			bits -= n * math.Log2(n/tokens)
		}
		t.Logf("layer %d: %.4f bits a level, entropy %.4f", layer, float64(8*size)/symbols, bits/symbols)
		if got := float64(8 * size); got > 1.01*bits {
			t.Errorf("layer %d: %.0f bits, the entropy is %.0f", layer, got, bits)
		}
		if got, want := float64(size)/8, float64(g.PackedTypical(64)-4-4*64-16); math.Abs(got-want) > 0.02*want {
			t.Errorf("layer %d: a page takes %.0f bytes, PackedTypical says %.0f", layer, got, want)
		}
	}
}

// A calibration of another model, and frequencies that are none, are refused.
func TestProfiledRefuses(t *testing.T) {
	g := cacheGen(t, "cachegen", 9, 2, 64)
	other := &quant.Calibration{Layers: 8, KVHeads: 2, HeadDim: 64, Levels: []uint16{1}}
	if _, err := g.Profiled(other); err == nil {
		t.Error("another model's levels were taken")
	}
	if same, err := g.Profiled(&quant.Calibration{}); err != nil || same != g {
		t.Error("a calibration without levels should change nothing")
	}
}

// Bytes from anywhere unpack to codes or to an error; what unpacks packs to the same
// page, and nothing is read or written outside.
func FuzzUnpack(f *testing.F) {
	models := map[bool]*quant.Geometry{false: cacheGen(f, "cachegen", 9, 2, 16), true: cacheGen(f, "cachegen,delta=10", 9, 2, 16)}
	var s quant.PackScratch
	for i := range 8 {
		layer, deltas := i%4, i > 3
		g := models[deltas]
		for _, exact := range [][]byte{modelPage(g, 1), noisePage(g, 1)} {
			page := make([]byte, g.At(layer).CodedBytes())
			g.Encode(quant.EncodeArgs{Exact: exact, Coded: page, Layer: layer, Hi: 64})
			f.Add(g.At(layer).Pack(nil, page, 5, &s), uint8(layer), uint8(5), deltas)
			f.Add(g.At(layer).Pack(nil, page, 64, &s), uint8(layer), uint8(64), deltas)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, layer, tokens uint8, deltas bool) {
		g, n := models[deltas].At(int(layer%9)), 1+int(tokens)%64
		size, err := g.PackedLen(data, n)
		if err != nil {
			return
		}
		page := bytes.Repeat([]byte{0xa5}, g.CodedBytes()+8)
		err = g.Unpack(page[:g.CodedBytes()], data[:size], n, &s)
		if !bytes.Equal(page[g.CodedBytes():], bytes.Repeat([]byte{0xa5}, 8)) {
			t.Fatal("wrote beyond the page")
		}
		if err != nil {
			return
		}
		page = page[:g.CodedBytes()]
		again := make([]byte, g.CodedBytes())
		if err := g.Unpack(again, g.Pack(nil, page, n, &s), n, &s); err != nil || !bytes.Equal(again, page) {
			t.Fatalf("a page that was unpacked does not survive packing (%v)", err)
		}
		for half := range 2 {
			for _, x := range dequant.Half(g, page, 1, half) {
				if math.IsNaN(x) || math.IsInf(x, 0) {
					t.Fatal("a value that is no number")
				}
			}
		}
	})
}

func BenchmarkPack(b *testing.B) {
	g := profiled(b, cacheGen(b, "cachegen", 9, 8, 128))
	var s quant.PackScratch
	for _, layer := range []int{0, 8} {
		g := g.At(layer)
		page := make([]byte, g.CodedBytes())
		g.Encode(quant.EncodeArgs{Exact: modelPage(g, 77), Coded: page, Layer: layer, Hi: 64})
		levels := float64(2 * 64 * g.KVHeads * g.HeadDim)
		var data []byte
		b.Run(fmt.Sprintf("pack/layer=%d", layer), func(b *testing.B) {
			for b.Loop() {
				data = g.Pack(data[:0], page, 64, &s)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/levels, "ns/level")
			b.ReportMetric(float64(8*len(data))/levels, "bits/level")
		})
		b.Run(fmt.Sprintf("unpack/layer=%d", layer), func(b *testing.B) {
			for b.Loop() {
				if err := g.Unpack(page, data, 64, &s); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/levels, "ns/level")
		})
	}
}
