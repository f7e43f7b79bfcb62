package quant_test

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/quant/dequant"
)

// someNUQ is a fit of about Gaussian data, whose channels differ.
func someNUQ(layers, heads, d int) *quant.NUQ {
	q := quant.NewNUQ(layers, heads, d, d/2)
	q.Interleaved = d%16 == 0
	for i := range q.Inverse {
		q.Inverse[i] = float32(math.Pow(1e4, -2*float64(i)/float64(d)))
	}
	for i := range q.Low {
		q.Low[i], q.High[i] = -2.5-float32(i%3)/8, 2.5+float32(i%5)/8
	}
	gauss := []float32{-1.51, -0.4528, 0.4528, 1.51} // Lloyd and Max, in deviations
	for layer := range layers {
		for half := range 2 {
			for bits := 2; bits <= 4; bits++ {
				book := quant.NUQBook(q.Books, layer, half, bits)
				for i := range book {
					book[i] = (2*float32(i)+1)/float32(len(book)) - 1
					if bits == 2 {
						book[i] = gauss[i] / []float32{2.6, 2.2}[half]
					}
				}
				copy(quant.NUQBook(q.Levels, layer, half, bits), book)
			}
		}
	}
	return q
}

func nuqGeometry(t testing.TB, name string, heads, d int) (*quant.Geometry, *quant.NUQ) {
	t.Helper()
	g := geometry(t, name, heads, d)
	fit, n := someNUQ(g.Layers, heads, d), g.Layers*heads*d
	cal := &quant.Calibration{Layers: g.Layers, KVHeads: heads, HeadDim: d, KMean: make([]float32, n), VMean: make([]float32, n), NUQ: fit}
	tf, err := quant.NewTransform(g, cal)
	if err != nil {
		t.Fatal(err)
	}
	return tf.Geometry(), fit
}

// exactRows is one head's K before RoPE, or V, of an exact page.
func exactRows(g *quant.Geometry, fit *quant.NUQ, exact []byte, first, head, half int) []float64 {
	x := dequant.Exact(g, exact, head, half)
	if half == quant.HalfV {
		return x
	}
	back := *fit
	back.Inverse = slices.Clone(fit.Inverse)
	for i := range back.Inverse {
		back.Inverse[i] *= -1
	}
	return dequant.Turned(x, g.HeadDim, &back, first)
}

// Every value gets the nearest level of its channel's range in K and of its token's in
// V, or is there itself: in K what lies beyond the range, as long as there is room, in V
// what lies farthest out.
func TestNUQCodes(t *testing.T) {
	for _, name := range []string{"kvquant", "kvquant,bits=3", "kvquant,bits=4"} {
		for _, d := range []int{8, 24, 64, 72, 80, 128, 256} {
			g, fit := nuqGeometry(t, name, 2, d)
			exact, coded := fill(g, gaussian(uint64(d))), make([]byte, g.CodedBytes())
			encode(g, exact, coded, 640)
			for half := range 2 {
				x, y := exactRows(g, fit, exact, 640, 1, half), dequant.NUQ(g, fit, coded, 1, 1, half)
				outliers := g.Outliers(nil, g.CodedHead(coded, 1), half, 0, 64)
				kept := map[int]bool{}
				for _, o := range outliers {
					kept[o.Place] = true
					if math.Abs(float64(o.Value)-x[o.Place]) > 1e-3*(1+math.Abs(x[o.Place])) {
						t.Fatalf("%s d%d half %d: an outlier is %g, kept as %g", name, d, half, x[o.Place], o.Value)
					}
				}
				if share := float64(len(kept)) / float64(len(x)); half == quant.HalfV && len(kept) != 64*quant.NUQOutliers(d) || share > 0.02 && d >= 64 {
					t.Errorf("%s d%d half %d: %.4f of the values are kept exactly", name, d, half, share)
				}
				checkLevels(t, g, fit, coded, x, y, kept, half)
			}
		}
	}
}

func checkLevels(t *testing.T, g *quant.Geometry, fit *quant.NUQ, coded []byte, x, y []float64, kept map[int]bool, half int) {
	t.Helper()
	d := g.HeadDim
	book := quant.NUQBook(fit.Books, 1, half, g.Format.Bits)
	for i := range x {
		if kept[i] {
			continue
		}
		c := (g.KVHeads+1)*d + i%d // layer 1, head 1
		lo, hi := float64(fit.Low[c]), float64(fit.High[c])
		if half == quant.HalfV {
			lo, hi = math.Inf(1), math.Inf(-1)
			for j := i / d * d; j < i/d*d+d; j++ {
				if !kept[j] {
					lo, hi = min(lo, x[j]), max(hi, x[j])
				}
			}
		} else if (x[i] < lo-1e-5 || x[i] > hi+1e-5) && len(kept) < g.NUQ[half].Slots {
			t.Fatalf("%s d%d: %g is beyond [%g,%g], and there was room to keep it", g.Format.Name, d, x[i], lo, hi)
		}
		best := math.Inf(1)
		for _, level := range book {
			best = min(best, math.Abs((hi+lo)/2+(hi-lo)/2*float64(level)-x[i]))
		}
		if e := math.Abs(x[i] - y[i]); e > best+2e-3*(hi-lo) { // V's range is rounded to float16
			t.Fatalf("%s d%d half %d: %g stands for %g, %g off; the nearest level is %g off", g.Format.Name, d, half, y[i], x[i], e, best)
		}
	}
}

// Codes do not depend on how the tokens came, nor on exact tokens of earlier calls:
// after a hand-over they are on another machine.
func TestNUQIncremental(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.SampledFrom([]string{"kvquant", "kvquant,bits=3", "kvquant,bits=4"}).Draw(rt, "format")
		g, _ := nuqGeometry(t, name, 1, rapid.SampledFrom([]int{8, 64, 80, 128}).Draw(rt, "head_dim"))
		first := 64 * rapid.IntRange(0, 3).Draw(rt, "page")
		gain := rapid.Float32Range(0.5, 3).Draw(rt, "gain") // where many values lie beyond their range
		draw := gaussian(rapid.Uint64().Draw(rt, "seed"))
		exact := fill(g, func() float32 { return gain * draw() })
		want, got := make([]byte, g.CodedBytes()), bytes.Repeat([]byte{0xaa}, g.CodedBytes())
		encode(g, exact, want, first)
		size := g.ExactType().RowBytes(g.HeadDim)
		for lo := 0; lo < 64; {
			hi := min(64, lo+rapid.IntRange(1, 40).Draw(rt, "chunk"))
			g.Encode(quant.EncodeArgs{Exact: exact, Coded: got, Layer: 1, First: first, Lo: lo, Hi: hi})
			clear(g.ExactK(exact, 0)[:hi*size])
			clear(g.ExactV(exact, 0)[:hi*size])
			lo = hi
		}
		if !bytes.Equal(got, want) {
			rt.Fatalf("%s: codes differ", name)
		}
	})
}

// What KVQuant's authors say of it (arXiv 2401.18079, sections 3.1 to 3.4): K is coded
// before RoPE, where a channel far out stays one; outliers kept apart leave the others
// their resolution; the error is that of the best levels for the data; the first token
// is exact.
func TestNUQPublished(t *testing.T) {
	g, fit := nuqGeometry(t, "kvquant", 2, 128)
	if bits := 8 * float64(g.CodedBytes()) / (2 * 2 * 64 * 128); bits < 2.4 || bits > 2.45 {
		t.Errorf("%.3f bits an element", bits)
	}
	if g.Format.Sinks != 1 {
		t.Errorf("%d first tokens are exact", g.Format.Sinks)
	}
	relative := func(page []byte, skip int, half int) float64 {
		coded := make([]byte, g.CodedBytes())
		encode(g, page, coded, 64)
		x, y := exactRows(g, fit, page, 64, 0, half), dequant.NUQ(g, fit, coded, 1, 0, half)
		var e, v float64
		for i := range x {
			if i%37 != skip {
				e, v = e+(x[i]-y[i])*(x[i]-y[i]), v+x[i]*x[i]
			}
		}
		return e / v
	}
	page := func(outlier float32) []byte {
		r, i := rand.New(rand.NewPCG(4, 4)), -1
		return fill(g, func() float32 {
			i++
			x := float32(r.NormFloat64())
			if i%4096 == 99 { // of K before RoPE two values in a thousand
				x = outlier
			}
			return x
		})
	}
	for half := range 2 {
		quiet := relative(page(0), -1, half)
		if quiet < 0.10 || quiet > 0.135 { // Lloyd and Max: 0.1175
			t.Errorf("half %d is off by %.4f of the variance", half, quiet)
		}
		if far := relative(page(40), -1, half); far > quiet { // the outliers have variance and no error
			t.Errorf("half %d: outliers take the error from %.4f to %.4f", half, quiet, far)
		}
	}
}

// A page from another machine may say anything of its outliers.
func TestNUQHostile(t *testing.T) {
	g, _ := nuqGeometry(t, "kvquant", 1, 64)
	coded := bytes.Repeat([]byte{0xff}, g.CodedBytes())
	for half := range 2 {
		for _, o := range g.Outliers(nil, coded, half, 10, 20) {
			if o.Place < 640 || o.Place >= 1280 {
				t.Errorf("half %d: an outlier at %d", half, o.Place)
			}
		}
	}
	g.Encode(quant.EncodeArgs{Exact: make([]byte, g.ExactBytes()), Coded: coded, Lo: 3, Hi: 9}) // goes on where it finds that
}

// Without codebooks there is no kvquant, and codebooks that make no sense are refused.
func TestNUQRefuses(t *testing.T) {
	g := geometry(t, "kvquant", 2, 64)
	if _, err := quant.NewTransform(g, nil); err == nil || !strings.Contains(err.Error(), "terse calibrate") {
		t.Errorf("kvquant without a calibration: %v", err)
	}
	f := func(want string, change func(q *quant.NUQ)) {
		t.Helper()
		fit := someNUQ(2, 2, 64)
		change(fit)
		cal := &quant.Calibration{Layers: 2, KVHeads: 2, HeadDim: 64, KMean: make([]float32, 256), VMean: make([]float32, 256), NUQ: fit}
		var b bytes.Buffer
		err := quant.WriteCalibration(&b, cal)
		if want == "" && err == nil {
			back, err := quant.ReadCalibration(&b)
			if err != nil || !slices.Equal(back.NUQ.Levels, fit.Levels) || !slices.Equal(back.NUQ.Low, fit.Low) || back.NUQ.Interleaved != fit.Interleaved {
				t.Errorf("codebooks do not come back: %v", err)
			}
			return
		}
		if want == "" || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	f("", func(q *quant.NUQ) {})
	f("", func(q *quant.NUQ) { q.Interleaved = false })
	f("pairs", func(q *quant.NUQ) { q.Inverse = make([]float32, 33) })
	f("pairs", func(q *quant.NUQ) { q.Inverse = nil })
	f("numbers", func(q *quant.NUQ) { q.Low = q.Low[1:] })
	f("goes from", func(q *quant.NUQ) { q.Low[3] = 100 })
	f("ascend", func(q *quant.NUQ) { q.Books[0] = 2 })
	f("outside", func(q *quant.NUQ) { q.Levels[0] = float32(math.NaN()) })
}
