package codes

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// plane is codes in rows, packed as docs/formats.md says.
type plane struct {
	codes       []uint8 // [row][width]
	words       []byte
	width, rows int
}

func randomPlane(r *rand.Rand, half, width, rows int) *plane {
	p := &plane{make([]uint8, rows*width), make([]byte, rows*width/4), width, rows}
	for i := range p.codes {
		p.codes[i] = uint8(r.IntN(4))
		if r.IntN(3) == 0 { // so that sums come near their bounds
			p.codes[i] = 3
		}
	}
	for t := range rows {
		for c := range width {
			at, b, i := 4*quant.KeyWord(width, t, c/16), c%4, c%16/4
			if half == quant.HalfV {
				at, b, i = 4*quant.ValueWord(width, t/4, c/32, c%8), t%4, c%32/8
			}
			w := binary.LittleEndian.Uint32(p.words[at:])
			binary.LittleEndian.PutUint32(p.words[at:], w|uint32(p.codes[t*width+c])<<(8*b+2*i))
		}
	}
	return p
}

// The products are the sums that docs/formats.md writes, at every level, width
// and number of rows, bit for bit, and nothing around them is touched.
func TestProducts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, width := range []int{16, 32, 48, 64, 80, 96, 112, 128, 144, 240, 256, 272, 1024} {
		for _, rows := range []int{8, 16, 24, 56, 64} {
			p := randomPlane(r, quant.HalfK, width, rows)
			for _, nq := range []int{1, 2, 4} {
				q := make([]int8, nq*width)
				for i := range q {
					q[i] = int8(r.IntN(255) - 127)
					if rows == 8 { // the extremes
						q[i] = []int8{-127, 127}[r.IntN(nq+1)/nq]
					}
				}
				for _, level := range cpu.Levels() {
					for _, low := range []bool{false, true} {
						checkProducts(t, For(level), p, q, nq, low)
					}
				}
			}
		}
	}
}

const sentinel = int32(-0x5a5a5a5a)

func checkProducts(t *testing.T, k *Kernels, p *plane, q []int8, nq int, low bool) {
	t.Helper()
	const offset = 3
	all := make([]int32, offset+(nq-1)*Tokens+p.rows+5)
	for i := range all {
		all[i] = sentinel
	}
	dots := all[offset : offset+(nq-1)*Tokens+p.rows]
	before := func(v, t int) int32 { return int32(100*v + t) }
	for v := range nq {
		for t := range p.rows {
			if low {
				dots[v*Tokens+t] = before(v, t)
			}
		}
	}
	k.Products(dots, q, p.words, nq, p.width, p.rows, low)
	for i, got := range all {
		v, row := (i-offset+Tokens)/Tokens-1, (i-offset+Tokens)%Tokens
		if v < 0 || v >= nq || row >= p.rows {
			if got != sentinel {
				t.Fatalf("%v, width %d, %d rows, %d vectors: wrote outside, at %d", k.Level, p.width, p.rows, nq, i)
			}
			continue
		}
		var want int32
		if low {
			want = 4 * before(v, row)
		}
		for c, code := range p.codes[row*p.width : (row+1)*p.width] {
			want += int32(q[v*p.width+c]) * int32(code)
		}
		if got != want {
			t.Fatalf("%v, width %d, %d rows, %d vectors, low %v: vector %d, row %d: %d, want %d", k.Level, p.width, p.rows, nq, low, v, row, got, want)
		}
	}
}

func TestWeightedSums(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, width := range []int{32, 64, 96, 128, 160, 256, 288, 1024} {
		for _, quads := range []int{1, 2, 3, 6, 15, 16} {
			p := randomPlane(r, quant.HalfV, width, 4*quads)
			for _, nq := range []int{1, 2, 4} {
				weights := make([]uint8, (nq-1)*Tokens+4*quads)
				for i := range weights {
					weights[i] = uint8(r.IntN(256))
					if width == 32 {
						weights[i] = 255
					}
				}
				for _, level := range cpu.Levels() {
					checkSums(t, For(level), p, weights, nq)
				}
			}
		}
	}
}

func checkSums(t *testing.T, k *Kernels, p *plane, weights []uint8, nq int) {
	t.Helper()
	const offset = 5
	all := make([]int32, offset+nq*p.width+3)
	for i := range all {
		all[i] = sentinel
	}
	sums := all[offset : offset+nq*p.width]
	for i := range sums {
		sums[i] = int32(i)
	}
	k.WeightedSums(sums, weights, p.words, nq, p.width, p.rows/4)
	for i, got := range all {
		at := i - offset
		if at < 0 || at >= nq*p.width {
			if got != sentinel {
				t.Fatalf("%v, width %d: wrote outside, at %d", k.Level, p.width, i)
			}
			continue
		}
		v, c, want := at/p.width, at%p.width, int32(at)
		for row := range p.rows {
			want += int32(weights[v*Tokens+row]) * int32(p.codes[row*p.width+c])
		}
		if got != want {
			t.Fatalf("%v, width %d, %d quads, %d vectors: vector %d, channel %d: %d, want %d", k.Level, p.width, p.rows/4, nq, v, c, got, want)
		}
	}
}

// The assembly's idea of Merge is Merge.
func TestLayout(t *testing.T) {
	var m Merge
	got := [...]uintptr{unsafe.Offsetof(m.Alpha), unsafe.Offsetof(m.Scale), unsafe.Offsetof(m.Centre), unsafe.Offsetof(m.Sum), unsafe.Offsetof(m.LowSum)}
	if got != [...]uintptr{0, 16, 32, 48, 64} {
		t.Errorf("fields at %v", got)
	}
}

// Merging is the formula of docs/formats.md in float64, and leaves the channels of
// other segments alone.
func TestMerge(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 3))
	for _, n := range []int{8, 16, 24, 64, 80, 128, 248} {
		for _, nq := range []int{1, 2, 4} {
			for _, second := range []bool{false, true} {
				width := (n + 31) &^ 31
				sums, low := make([]int32, nq*width), make([]int32, nq*width)
				m := new(Merge)
				for i := range sums {
					sums[i], low[i] = int32(r.IntN(195840)), int32(r.IntN(195840))
				}
				for v := range nq {
					m.Alpha[v], m.Scale[v], m.Centre[v] = r.Float32(), r.Float32()/255, r.Float32()
					m.Sum[v] = int32(r.IntN(65280))
					if second {
						m.LowSum[v] = int32(r.IntN(int(m.Sum[v]) + 1))
					}
				}
				if !second {
					low = nil
				}
				before := make([]float32, nq*(n+5))
				for i := range before {
					before[i] = float32(r.NormFloat64())
				}
				for _, level := range cpu.Levels() {
					got := append([]float32(nil), before...)
					For(level).Merge(m, got[:(nq-1)*(n+5)+n], sums, low, nq, n+5, width, n)
					checkMerged(t, level, m, got, before, sums, low, width, n)
				}
			}
		}
	}
}

func checkMerged(t *testing.T, level cpu.Level, m *Merge, got, before []float32, sums, low []int32, width, n int) {
	t.Helper()
	for i, x := range got {
		v, c := i/(n+5), i%(n+5)
		want, size := float64(before[i]), 0.0
		if c < n {
			y := float64(sums[v*width+c]) - 1.5*float64(m.Sum[v])
			if low != nil {
				y += (float64(low[v*width+c]) - 1.5*float64(m.LowSum[v])) / 4
			}
			size = math.Abs(want) + math.Abs(float64(m.Scale[v])*y) + 1
			want = float64(m.Alpha[v])*want + float64(m.Scale[v])*y + float64(m.Centre[v])
		}
		if math.Abs(float64(x)-want) > 3e-7*size {
			t.Fatalf("%v: vector %d, channel %d is %v, want %v", level, v, c, x, want)
		}
	}
}

// Codes of a query round half up, at every level alike.
func TestQuantise(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 4))
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for n := 0; n <= 136; n += 8 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(r.NormFloat64()) * 10
			if n%16 == 0 { // ties, and exact extremes
				x[i] = float32(r.IntN(509)-254) / 2
			}
		}
		cases := [][]float32{x, make([]float32, n)}
		if n > 0 {
			for _, odd := range []float32{nan, inf, -inf, 1e-35, -3e38} {
				y := append([]float32(nil), x...)
				y[r.IntN(n)] = odd
				cases = append(cases, y)
			}
		}
		for j, x := range cases {
			checkQuantised(t, x, j < 2)
		}
	}
	codes := make([]int8, 8)
	x := []float32{127, -127, 0.5, -0.5, 1.5, -1.5, 1.49, -1.51}
	for _, level := range cpu.Levels() {
		k := For(level)
		if sum := k.Quantise(codes, x, k.MaxAbs(x)); sum != 1 || [8]int8(codes) != [8]int8{127, -127, 1, 0, 2, -1, 1, -2} {
			t.Errorf("%v: codes %v, sum %d", level, codes, sum)
		}
	}
}

func checkQuantised(t *testing.T, x []float32, ordinary bool) {
	t.Helper()
	g := For(cpu.Generic)
	want := make([]int8, len(x)+16)
	top := g.MaxAbs(x)
	sum := g.Quantise(want, x, top)
	var total int32
	for i, c := range want {
		total += int32(c)
		if c == -128 || i < len(x) && ordinary && top > 0 && math.Abs(float64(x[i]/top*127)-float64(c)) > 0.5001 {
			t.Fatalf("%v of %v has code %d", x[i], top, c)
		}
	}
	if total != sum {
		t.Fatalf("sum %d, want %d", sum, total)
	}
	for _, level := range cpu.Levels() {
		k := For(level)
		got := make([]int8, len(x)+16)
		for i := range got {
			got[i] = -128
		}
		if m := k.MaxAbs(x); m != top {
			t.Fatalf("%v: the largest of %v is %v, want %v", level, x, m, top)
		}
		if s := k.Quantise(got, x, top); s != sum || string(bytesOf(got)) != string(bytesOf(want)) {
			t.Fatalf("%v: codes of %v\n%v, want\n%v (sums %d and %d)", level, x, got, want, s, sum)
		}
	}
}

func bytesOf(x []int8) []byte {
	b := make([]byte, len(x))
	for i, v := range x {
		b[i] = byte(v)
	}
	return b
}

// Scales become steps and biases as docs/formats.md says, bit for bit alike.
func TestScales(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 5))
	for n := 8; n <= 64; n += 8 {
		scale, zero := make([]byte, 2*n), make([]byte, 2*n)
		for i := range n {
			tensor.PutF16(scale, i, r.Float32())
			tensor.PutF16(zero, i, float32(r.NormFloat64()))
		}
		for _, set := range []uint64{0, ^uint64(0), r.Uint64()} {
			for _, level := range cpu.Levels() {
				for _, z := range [][]byte{nil, zero} {
					checkScales(t, For(level), n, scale, z, set)
				}
			}
		}
	}
}

func checkScales(t *testing.T, k *Kernels, n int, scale, zero []byte, set uint64) {
	t.Helper()
	ks, kb, vs, vb := make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
	k.KeyScales(ks, kb, scale, zero, set, false)
	k.ValueScales(vs, vb, scale, zero, set)
	for i := range n {
		s, z := tensor.GetF16(scale, i), float32(0)
		middle, factor := float32(1.5), float32(1)
		if set>>i&1 == 1 {
			middle, factor = 7.5, 4
		}
		bias, centre := -middle*s, float32(0)
		if zero != nil {
			z = tensor.GetF16(zero, i)
			bias, centre = z, float32(middle*s)+z
		}
		if ks[i] != s || kb[i] != bias || vs[i] != factor*s || vb[i] != centre {
			t.Fatalf("%v, token %d of %d: %v %v %v %v, want %v %v %v %v", k.Level, i, n, ks[i], kb[i], vs[i], vb[i], s, bias, factor*s, centre)
		}
	}
}

func TestPanics(t *testing.T) {
	k := For(cpu.Best())
	i32, i8, b, f := make([]int32, 2048), make([]int8, 512), make([]byte, 4096), make([]float32, 128)
	for name, f := range map[string]func(){
		"three vectors":    func() { k.Products(i32, i8, b, 3, 64, 64, false) },
		"narrow":           func() { k.Products(i32, i8, b, 1, 8, 64, false) },
		"no rows":          func() { k.Products(i32, i8, b, 1, 64, 0, false) },
		"odd rows":         func() { k.Products(i32, i8, b, 1, 64, 12, false) },
		"short dots":       func() { k.Products(i32[:63], i8, b, 1, 64, 64, false) },
		"short q":          func() { k.Products(i32, i8[:63], b, 1, 64, 64, false) },
		"short plane":      func() { k.Products(i32, i8, b[:1023], 1, 64, 64, false) },
		"narrow values":    func() { k.WeightedSums(i32, b, b, 1, 48, 16) },
		"too many quads":   func() { k.WeightedSums(i32, b, b, 1, 64, 17) },
		"short sums":       func() { k.WeightedSums(i32[:127], b, b, 2, 64, 16) },
		"short weights":    func() { k.WeightedSums(i32, b[:319], b, 2, 64, 16) },
		"short values":     func() { k.WeightedSums(i32, b, b[:1023], 2, 64, 16) },
		"no pages":         func() { k.PageProducts(i32, i8, 1, Planes{nil, 0, 64, 64}, false, Ahead{}) },
		"many pages":       func() { k.PageProducts(i32, i8, 1, Planes{[][]byte{b, b, b, b, b}, 0, 64, 64}, false, Ahead{}) },
		"short page":       func() { k.PageProducts(i32, i8, 1, Planes{[][]byte{b, b[:1039]}, 16, 64, 64}, false, Ahead{}) },
		"before a page":    func() { k.PageProducts(i32, i8, 1, Planes{[][]byte{b}, -16, 64, 64}, false, Ahead{}) },
		"short value page": func() { k.PageSums(i32, b, 1, Planes{[][]byte{b, b[:1039]}, 16, 64, 64}, Ahead{}) },
		"odd channels":     func() { k.Merge(new(Merge), f, i32, nil, 1, 64, 64, 12) },
		"overlapping rows": func() { k.Merge(new(Merge), f, i32, nil, 2, 32, 64, 64) },
		"short output":     func() { k.Merge(new(Merge), f, i32, nil, 4, 32, 32, 40) },
		"short second":     func() { k.Merge(new(Merge), f, i32, i32[:63], 1, 64, 64, 64) },
		"odd query":        func() { k.Quantise(i8, f[:7], 1) },
		"short codes":      func() { k.Quantise(i8[:7], f[:8], 1) },
		"odd maximum":      func() { k.MaxAbs(f[:7]) },
		"many scales":      func() { k.KeyScales(f[:72], f, b, nil, 0, false) },
		"short scales":     func() { k.KeyScales(f[:8], f, b[:15], nil, 0, false) },
		"short zeros":      func() { k.ValueScales(f[:8], f, b, b[:15], 0) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

// Kernels allocate nothing.
func TestAllocations(t *testing.T) {
	i32, i8, b, f := make([]int32, 2048), make([]int8, 512), make([]byte, 4096), make([]float32, 512)
	for _, level := range cpu.Levels() {
		k := For(level)
		if n := testing.AllocsPerRun(5, func() {
			k.Quantise(i8, f[:128], k.MaxAbs(f[:128]))
			k.KeyScales(f[:64], f[64:], b, b, 1, false)
			k.Products(i32, i8, b, 4, 128, 64, false)
			k.WeightedSums(i32, b, b, 4, 128, 16)
			pages := [2][]byte{b, b}
			k.PageProducts(i32, i8, 4, Planes{pages[:], 16, 128, 64}, false, Ahead{pages[:], 0, 2048})
			k.PageSums(i32, b, 4, Planes{pages[:], 16, 128, 64}, Ahead{pages[:], 0, 2048})
			m := Merge{Sum: [Vectors]int32{1, 2, 3, 4}}
			k.Merge(&m, f, i32, i32, 4, 128, 128, 128)
		}); n != 0 {
			t.Errorf("%v: %v allocations", level, n)
		}
	}
}

// The kernels agree with the portable ones on anything.
func FuzzLevels(f *testing.F) {
	f.Add(uint64(1), uint8(3), uint8(1), uint8(2))
	f.Add(uint64(2), uint8(15), uint8(7), uint8(1))
	f.Fuzz(func(t *testing.T, seed uint64, wide, tall, vectors uint8) {
		r := rand.New(rand.NewPCG(seed, 9))
		nq, rows := 1<<(vectors%3), 8*(1+int(tall%8))
		width := 32 * (1 + int(wide%32))
		plane := make([]byte, rows*width/4)
		q, p := make([]int8, nq*width), make([]uint8, nq*Tokens)
		for i := range plane {
			plane[i] = byte(r.Uint32())
		}
		for i := range q {
			q[i] = int8(r.IntN(255) - 127)
		}
		for i := range p {
			p[i] = uint8(r.Uint32())
		}
		for _, level := range cpu.Levels()[1:] {
			compare(t, For(level), plane, q, p, nq, width, rows)
		}
	})
}

func compare(t *testing.T, k *Kernels, plane []byte, q []int8, p []uint8, nq, width, rows int) {
	t.Helper()
	g := For(cpu.Generic)
	got, want := make([]int32, nq*max(Tokens, width)), make([]int32, nq*max(Tokens, width))
	for _, low := range []bool{false, true} {
		k.Products(got, q, plane, nq, width, rows, low)
		g.Products(want, q, plane, nq, width, rows, low)
	}
	k.WeightedSums(got, p, plane, nq, width, rows/4)
	g.WeightedSums(want, p, plane, nq, width, rows/4)
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%v, width %d, %d rows, %d vectors: element %d is %d, want %d", k.Level, width, rows, nq, i, got[i], want[i])
		}
	}
}
