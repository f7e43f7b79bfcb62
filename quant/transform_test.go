package quant

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func randomRow(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

func testCalibration(layers, heads, d int) *Calibration {
	r := rand.New(rand.NewPCG(3, 3))
	n := layers * heads * d
	return &Calibration{Layers: layers, KVHeads: heads, HeadDim: d, KMean: randomRow(r, n), VMean: randomRow(r, n)}
}

// withBasis gives c bases that are far from orthogonal.
func withBasis(c *Calibration) *Calibration {
	r := rand.New(rand.NewPCG(3, 4))
	d := c.HeadDim
	for range c.Layers * c.KVHeads {
		a := randomRow(r, d*d)
		for i := range d {
			a[i*d+i] += 2 * float32(math.Sqrt(float64(d)))
		}
		c.KBasis = append(c.KBasis, a...)
	}
	return c
}

func transformOf(t *testing.T, name string, d int, cal *Calibration) *Transform {
	t.Helper()
	g, err := NewGeometry(parse(t, name, cal != nil), 2, 2, d)
	if err != nil {
		t.Fatal(err)
	}
	tf, err := NewTransform(g, cal)
	if err != nil {
		t.Fatal(err)
	}
	return tf
}

func dotRow(a, b []float32) (s float64) {
	for i := range a {
		s += float64(a[i]) * float64(b[i])
	}
	return s
}

// In the cache's basis all scores of a query move by one constant, and weighted
// sums of V come back: attention is unchanged.
func TestTransformKeepsAttention(t *testing.T) {
	for _, name := range []string{"hq2", "hq2,rotate=off", "hq2,mean=off", "hack", "f16", "hq2,basis=balanced", "hq2,basis=balanced,rotate=off", "hq2+"} {
		for _, d := range []int{8, 64, 72, 80, 96, 128} {
			if name == "hq2+" && d < 32 {
				continue // a quarter is 16 at least
			}
			r := rand.New(rand.NewPCG(uint64(d), 1))
			tf := transformOf(t, name, d, withBasis(testCalibration(2, 2, d)))
			const tokens, heads, layer = 5, 4, 1
			k, v := randomRow(r, tokens*2*d), randomRow(r, tokens*2*d)
			q := randomRow(r, heads*d)
			k0, v0, q0 := slices.Clone(k), slices.Clone(v), slices.Clone(q)
			tf.Keys(Plain{}, layer, k)
			tf.Values(Plain{}, layer, v)
			tf.Queries(Plain{}, layer, q, heads)
			out, want := make([]float32, heads*d), make([]float32, heads*d)
			for h := range heads {
				kv := h / 2
				var shift float64
				for tok := range tokens {
					at := (tok*2 + kv) * d
					before, after := dotRow(q0[h*d:(h+1)*d], k0[at:at+d]), dotRow(q[h*d:(h+1)*d], k[at:at+d])
					if tok == 0 {
						shift = after - before
					}
					if math.Abs(after-before-shift) > 1e-4 {
						t.Fatalf("%s d%d: head %d token %d moves by %g, token 0 by %g", name, d, h, tok, after-before, shift)
					}
					for c := range d { // weights 0, 1, 2, … /10 sum to 1
						out[h*d+c] += float32(tok) / 10 * v[at+c]
						want[h*d+c] += float32(tok) / 10 * v0[at+c]
					}
				}
			}
			tf.Outputs(Plain{}, layer, out, heads)
			for i := range out {
				if math.Abs(float64(out[i]-want[i])) > 1e-5 {
					t.Fatalf("%s d%d: output %d is %g, want %g", name, d, i, out[i], want[i])
				}
			}
		}
	}
}

// Rotation spreads one large channel over its block, and other formats are left
// alone.
func TestRotationSpreads(t *testing.T) {
	x := make([]float32, 2*64)
	x[3] = 8
	transformOf(t, "hq2", 64, nil).Keys(Plain{}, 0, x)
	for c, v := range x[:64] {
		if math.Abs(math.Abs(float64(v))-1) > 1e-6 {
			t.Fatalf("channel %d is %g, want ±1", c, v)
		}
	}
	y := randomRow(rand.New(rand.NewPCG(1, 2)), 128)
	want := slices.Clone(y)
	tf := transformOf(t, "hack", 64, testCalibration(2, 2, 64))
	tf.Keys(Plain{}, 0, y)
	tf.Values(Plain{}, 0, y)
	tf.Queries(Plain{}, 0, y, 2)
	tf.Outputs(Plain{}, 0, y, 2)
	if !slices.Equal(y, want) {
		t.Error("hack's transform changes values")
	}
}

// The signs of the rotations are part of the format: caches travel.
func TestRotationSigns(t *testing.T) {
	f := func(half int, want uint64) {
		t.Helper()
		var got uint64
		for c, s := range newRotation(64, half).Signs {
			if s < 0 {
				got |= 1 << c
			}
		}
		if got != want {
			t.Errorf("signs of half %d: %#x, want %#x", half, got, want)
		}
	}
	f(HalfK, 0xb345d63d0223b88b)
	f(HalfV, 0x45fbee0a3bff3eda)
}

// Gains of leading channels leave scores alone, and are refused where they would not.
func TestTransformGains(t *testing.T) {
	cal := withBasis(testCalibration(2, 2, 64))
	g, err := NewGeometry(parse(t, "hq2,k2=shared:32,basis=balanced", true), 2, 2, 64)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewTransform(g, cal); err == nil || !strings.Contains(err.Error(), "terse calibrate") {
		t.Errorf("without gains: %v", err)
	}
	cal.KGain = make([]float32, cal.gains())
	for i := range cal.KGain {
		cal.KGain[i] = 0.25 + float32(i)
	}
	tf, err := NewTransform(g, cal)
	if err != nil {
		t.Fatal(err)
	}
	plain := transformOf(t, "hq2,basis=balanced,rotate=off", 64, cal)
	r := rand.New(rand.NewPCG(1, 1))
	for layer := range 2 {
		q, k := randomRow(r, 128), randomRow(r, 128)
		q2, k2 := slices.Clone(q), slices.Clone(k)
		tf.Queries(Plain{}, layer, q, 2)
		tf.Keys(Plain{}, layer, k)
		plain.Queries(Plain{}, layer, q2, 2)
		plain.Keys(Plain{}, layer, k2)
		for head := range 2 {
			at := head * 64
			if a, b := dotRow(q[at:at+64], k[at:at+64]), dotRow(q2[at:at+64], k2[at:at+64]); math.Abs(a-b) > 1e-3*(1+math.Abs(b)) {
				t.Errorf("layer %d head %d: a score of %g, want %g", layer, head, a, b)
			}
			gain := float64(cal.gain(layer, head, 32))
			if a, b := dotRow(k[at:at+32], k[at:at+32]), gain*gain*dotRow(k2[at:at+32], k2[at:at+32]); math.Abs(a-b) > 1e-3*b {
				t.Errorf("layer %d head %d: leading channels of square %g, want %g", layer, head, a, b)
			}
		}
	}
	cal.KGain[1] = 1e-4
	if _, err := NewTransform(g, cal); err == nil || !strings.Contains(err.Error(), "gain of layer 0, KV head 0") {
		t.Errorf("a gain of nearly nothing: %v", err)
	}
}

func TestTransformRefusesOtherShapes(t *testing.T) {
	g, err := NewGeometry(parse(t, "hq2", true), 2, 2, 64)
	if err != nil {
		t.Fatal(err)
	}
	_, err = NewTransform(g, testCalibration(2, 2, 32))
	if err == nil || !strings.Contains(err.Error(), "terse calibrate") {
		t.Errorf("a calibration of another shape: %v", err)
	}
}

// What wants the balanced basis says so where there is none, or none that can be
// undone.
func TestTransformRefusesBases(t *testing.T) {
	f := func(cal *Calibration, want string) {
		t.Helper()
		g, err := NewGeometry(parse(t, "hq2+", true), 2, 2, 64)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := NewTransform(g, cal); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	f(nil, "terse calibrate")
	f(testCalibration(2, 2, 64), "terse calibrate")
	c := withBasis(testCalibration(2, 2, 64))
	at := (2*1 + 0) * 64 * 64 // layer 1, head 0
	copy(c.KBasis[at+5*64:at+6*64], c.KBasis[at+9*64:at+10*64])
	f(c, "layer 1, KV head 0: it cannot be undone")
	for i := range 64 {
		c.KBasis[at+5*64+i] += float32(i%2) * 1e-4
	}
	f(c, "condition")
}

func TestGeometryRefuses(t *testing.T) {
	f := func(name string, headDim int, want string) {
		t.Helper()
		if _, err := NewGeometry(parse(t, name, true), 2, 2, headDim); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s at head_dim %d: %v, want %q", name, headDim, err, want)
		}
	}
	f("hq2", 0, "positive")
	f("hq2", 20, "multiple of 8")
	f("hack", 2048, "at most 1024")
	f("hq2,k2=lead:64", 64, "leading channels")
	if _, err := NewGeometry(parse(t, "f16", true), 2, 2, 20); err != nil {
		t.Errorf("f16 takes any head_dim: %v", err)
	}
}
