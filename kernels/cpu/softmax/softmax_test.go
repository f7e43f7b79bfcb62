package softmax

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/terse-llm/terse/internal/cpu"
)

// The assembly's idea of Tile is Tile.
func TestLayout(t *testing.T) {
	var x Tile
	for name, got := range map[string][2]uintptr{
		"P":       {unsafe.Offsetof(x.P), 4 * 1024},
		"End":     {unsafe.Offsetof(x.End), 5120},
		"Factor":  {unsafe.Offsetof(x.Factor), 5152},
		"QSum":    {unsafe.Offsetof(x.QSum), 5168},
		"Top":     {unsafe.Offsetof(x.Top), 5184},
		"Max":     {unsafe.Offsetof(x.Max), 5200},
		"Sum":     {unsafe.Offsetof(x.Sum), 5216},
		"Largest": {unsafe.Offsetof(x.Largest), 5232},
		"Centre":  {unsafe.Offsetof(x.Centre), 5248},
		"PSum":    {unsafe.Offsetof(x.PSum), 5264},
	} {
		if got[0] != got[1] {
			t.Errorf("%s is at %d, want %d", name, got[0], got[1])
		}
	}
}

// exp2 is within 10⁻⁶ of the truth, and 0 where it says so.
func TestExp2(t *testing.T) {
	for y := float32(0); y > -140; y -= 0.0037 {
		want := math.Exp2(float64(y))
		if y <= -125 {
			want = 0
		}
		if got := float64(Exp2(y)); math.Abs(got-want) > 6e-7*want {
			t.Fatalf("2^%v = %v, want %v", y, got, want)
		}
	}
	if Exp2(0) != 1 || Exp2(-3) != 0.125 || Exp2(float32(math.Inf(-1))) != 0 || !math.IsNaN(float64(Exp2(float32(math.NaN())))) {
		t.Errorf("2^0 = %v, 2^-3 = %v", Exp2(0), Exp2(-3))
	}
}

// inputs is everything that goes into a tile.
type inputs struct {
	dots               []int32
	step, bias, centre []float32
	first              Tile // scores to add to, and the caller's fields
}

func random(r *rand.Rand, spread float32) *inputs {
	in := &inputs{dots: make([]int32, Vectors*Tokens)}
	in.step, in.bias, in.centre = make([]float32, Tokens), make([]float32, Tokens), make([]float32, Tokens)
	for i := range in.dots {
		in.dots[i] = int32(r.IntN(97536) - 48768)
	}
	for i := range Tokens {
		in.step[i] = float32(r.Float64()) / 500
		in.bias[i], in.centre[i] = float32(r.NormFloat64()), float32(r.NormFloat64())
	}
	for v := range Vectors {
		for i := range Tokens {
			in.first.S[v][i] = float32(r.NormFloat64()) * spread
			in.first.P[v][i] = 0xaa
		}
		in.first.Factor[v] = spread * float32(0.5+r.Float64())
		in.first.QSum[v] = float32(r.IntN(2001) - 1000)
		in.first.End[v] = r.IntN(Tokens + 1)
	}
	return in
}

const far = 2e-6 // of the sum of absolute values: order and fused products

func near(got, want, size float32) bool {
	if want != want {
		return got != got
	}
	return got == want || math.Abs(float64(got-want)) <= far*float64(size)
}

// Every level's steps are the portable ones', each from the same input, and a
// vector's results do not depend on the others.
func TestLevels(t *testing.T) {
	for _, level := range cpu.Levels() {
		t.Run(level.String(), func(t *testing.T) {
			k, g := For(level), For(cpu.Generic)
			if k.Level != level && level < cpu.NEON { // arm64 has none yet
				t.Fatalf("kernels are of level %v", k.Level)
			}
			r := rand.New(rand.NewPCG(1, 2))
			for i := range 400 {
				in := random(r, []float32{0.1, 1, 30}[i%3])
				nq := 1 + r.IntN(Vectors)
				n := Tokens
				if i%4 == 0 {
					n = 16 * (1 + r.IntN(16))
					for v := range in.first.End {
						in.first.End[v] = r.IntN(n + 1)
					}
				}
				checkSteps(t, k, g, in, nq, n, i%2 == 0, i%5 != 0)
				checkAlone(t, k, in, nq, n)
			}
		})
	}
}

func checkSteps(t *testing.T, k, g *Kernels, in *inputs, nq, n int, add, centred bool) {
	t.Helper()
	got, want := in.first, in.first
	for v := range nq { // beyond what is seen nothing matters
		for i := got.End[v]; i < Tokens; i++ {
			got.S[v][i] = float32(math.NaN())
		}
	}
	k.Scores(&got, in.dots, in.step, in.bias, nq, add)
	g.Scores(&want, in.dots, in.step, in.bias, nq, add)
	for v := range nq {
		for i := range want.End[v] {
			size := in.step[i]*float32(math.Abs(float64(in.dots[v*Tokens+i]))) + float32(math.Abs(float64(want.QSum[v]*in.bias[i]))) + float32(math.Abs(float64(in.first.S[v][i])))
			if !near(got.S[v][i], want.S[v][i], size) {
				t.Fatalf("score %d of vector %d is %v, want %v", i, v, got.S[v][i], want.S[v][i])
			}
		}
		if top := maxOf(got.S[v][:got.End[v]]); got.Max[v] != top {
			t.Fatalf("maximum of vector %d is %v, want %v", v, got.Max[v], top)
		}
	}
	want = got
	k.FindMax(&want, nq)
	if want.Max != got.Max {
		t.Fatalf("maxima %v and %v", want.Max, got.Max)
	}
	for v := range nq {
		if got.Top[v] = got.Factor[v] * got.Max[v]; got.End[v] == 0 {
			got.Top[v] = 0
		}
	}
	want = got
	plain, plainWant := got, got
	k.Weigh(&plain, nq, n)
	g.Weigh(&plainWant, nq, n)
	checkWeights(t, &plain, &plainWant, nq, n, 1)
	centre := in.centre
	if !centred {
		centre = nil
	}
	k.WeighBy(&got, in.step, centre, nq, n)
	g.WeighBy(&want, in.step, centre, nq, n)
	checkWeights(t, &got, &want, nq, n, 1.0/500)
	for v := range nq {
		if plain.Sum[v] != got.Sum[v] || maxOf(got.S[v][:n]) != got.Largest[v] {
			t.Fatalf("vector %d: sums %v and %v, largest %v", v, plain.Sum[v], got.Sum[v], got.Largest[v])
		}
		if !near(got.Centre[v], want.Centre[v], 4*got.Sum[v]) {
			t.Fatalf("centre of vector %d is %v, want %v", v, got.Centre[v], want.Centre[v])
		}
	}
	want = got
	k.Quantise(&got, nq, n)
	g.Quantise(&want, nq, n)
	if got.P != want.P || got.PSum != want.PSum {
		t.Fatalf("codes differ: sums %v and %v", got.PSum, want.PSum)
	}
}

func maxOf(x []float32) float32 {
	top := float32(math.Inf(-1))
	for _, v := range x {
		top = max(top, v)
	}
	return top
}

// checkWeights compares weights of at most size, and their sums.
func checkWeights(t *testing.T, got, want *Tile, nq, n int, size float32) {
	t.Helper()
	for v := range nq {
		for i := range n {
			if !near(got.S[v][i], want.S[v][i], size) || i >= want.End[v] && got.S[v][i] != 0 {
				t.Fatalf("weight %d of %d of vector %d is %v, want %v", i, want.End[v], v, got.S[v][i], want.S[v][i])
			}
		}
		if !near(got.Sum[v], want.Sum[v], got.Sum[v]) {
			t.Fatalf("sum of vector %d is %v, want %v", v, got.Sum[v], want.Sum[v])
		}
	}
}

// checkAlone runs every vector alone in slot 0 and compares all bits.
func checkAlone(t *testing.T, k *Kernels, in *inputs, nq, n int) {
	t.Helper()
	all := in.first
	steps(k, &all, in, in.dots, nq, n)
	for v := range nq {
		var one Tile
		one.S[0], one.End[0], one.Factor[0], one.QSum[0] = in.first.S[v], in.first.End[v], in.first.Factor[v], in.first.QSum[v]
		steps(k, &one, in, in.dots[v*Tokens:], 1, n)
		a := fmt.Sprint(all.P[v][:n], all.S[v][:n], all.Sum[v], all.Largest[v], all.Centre[v], all.PSum[v], all.Max[v])
		b := fmt.Sprint(one.P[0][:n], one.S[0][:n], one.Sum[0], one.Largest[0], one.Centre[0], one.PSum[0], one.Max[0])
		if a != b {
			t.Fatalf("vector %d of %d alone gives other bits", v, nq)
		}
	}
}

func steps(k *Kernels, tile *Tile, in *inputs, dots []int32, nq, n int) {
	k.Scores(tile, dots, in.step, in.bias, nq, false)
	for v := range nq {
		tile.Top[v] = tile.Factor[v] * max(tile.Max[v], -1e30)
	}
	k.WeighBy(tile, in.step, in.centre, nq, n)
	k.Quantise(tile, nq, n)
}

// NaN scores make NaN sums, infinite ones do not harm the others, and what is not
// seen is not used.
func TestHostile(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, level := range cpu.Levels() {
		k := For(level)
		var tile Tile
		tile.End = [Vectors]int{20, 20, 0, 3}
		tile.Factor = [Vectors]float32{1, 1, 1, 1}
		step, centre := make([]float32, 32), make([]float32, 32)
		for i := range 32 {
			step[i], centre[i] = 1, 1
			if i >= 20 {
				step[i], centre[i] = nan, inf
			}
			for v := range Vectors {
				tile.S[v][i] = nan
			}
		}
		for v := range Vectors {
			for i := range tile.End[v] {
				tile.S[v][i] = -float32(i)
			}
		}
		tile.S[1][7] = nan
		tile.S[0][9] = -inf
		k.FindMax(&tile, 4)
		if tile.Max != [Vectors]float32{0, 0, -inf, 0} {
			t.Errorf("%v: maxima %v", level, tile.Max)
		}
		k.WeighBy(&tile, step, centre, 4, 32)
		k.Quantise(&tile, 4, 32)
		if tile.Sum[1] == tile.Sum[1] || tile.Sum[2] != 0 || tile.Sum[3] != 1.75 || tile.Centre[3] != 1.75 || tile.S[0][9] != 0 {
			t.Errorf("%v: sums %v, centres %v", level, tile.Sum, tile.Centre)
		}
		if tile.P[3] != [Tokens]uint8{255, 128, 64} || tile.PSum[3] != 447 || tile.P[2] != [Tokens]uint8{} {
			t.Errorf("%v: codes %v", level, tile.P[3][:8])
		}
	}
}

func TestPanics(t *testing.T) {
	k := For(cpu.Best())
	for name, f := range map[string]func(*Tile){
		"vectors":   func(x *Tile) { k.Weigh(x, 5, 16) },
		"tokens":    func(x *Tile) { k.Weigh(x, 1, 272) },
		"alignment": func(x *Tile) { k.Weigh(x, 1, 8) },
		"end":       func(x *Tile) { x.End[0] = 17; k.Weigh(x, 1, 16) },
		"negative":  func(x *Tile) { x.End[0] = -1; k.FindMax(x, 1) },
		"dots": func(x *Tile) {
			x.End[0] = 17
			k.Scores(x, make([]int32, 17), make([]float32, 32), make([]float32, 32), 1, false)
		},
		"steps":   func(x *Tile) { k.WeighBy(x, make([]float32, 15), nil, 1, 16) },
		"centres": func(x *Tile) { k.WeighBy(x, make([]float32, 16), make([]float32, 15), 1, 16) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f(new(Tile))
		}()
	}
}

// BenchmarkSteps prints nanoseconds per token of four vectors in a full tile.
func BenchmarkSteps(b *testing.B) {
	for _, level := range cpu.Levels() {
		k := For(level)
		in := random(rand.New(rand.NewPCG(3, 4)), 1)
		in.first.End = [Vectors]int{Tokens, Tokens, Tokens, Tokens}
		tile := in.first
		run := func(name string, f func()) {
			b.Run(name+"/"+level.String(), func(b *testing.B) {
				for b.Loop() {
					f()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/Tokens, "ns/token")
			})
		}
		run("scores", func() { k.Scores(&tile, in.dots, in.step, in.bias, 4, false) })
		tile = in.first
		run("weighBy", func() {
			tile.S = in.first.S
			k.WeighBy(&tile, in.step, nil, 4, Tokens)
		})
		run("quantise", func() { k.Quantise(&tile, 4, Tokens) })
	}
}

// The kernels agree with the portable ones on any scores, and with themselves
// however vectors are grouped.
func FuzzLevels(f *testing.F) {
	f.Add(uint64(1), uint8(0), float32(1))
	f.Add(uint64(2), uint8(7), float32(100))
	f.Fuzz(func(t *testing.T, seed uint64, shape uint8, spread float32) {
		if !(spread > 1e-3 && spread < 1e3) {
			return
		}
		r := rand.New(rand.NewPCG(seed, 7))
		nq, n := 1+int(shape%4), 16*(1+int(shape/4%16))
		for _, level := range cpu.Levels() {
			in := random(r, spread)
			for v := range in.first.End {
				in.first.End[v] = r.IntN(n + 1)
			}
			checkSteps(t, For(level), For(cpu.Generic), in, nq, n, shape%2 == 0, shape%3 == 0)
			checkAlone(t, For(level), in, nq, n)
		}
	})
}
