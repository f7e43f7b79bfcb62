package neon

import "math"

// Scratch is what the methods below use for themselves.
const Scratch R = 26

// Load loads the lowest bytes of v: 16, 8, 4 or 2; the rest become 0.
func (f *Func) Load(bytes int, base R, at int, v V) {
	if bytes == 2 {
		f.word(0x7d400000|uint32(at/2)<<10|uint32(base)<<5|uint32(v), "ldr h%d, [x%d, #%d]", v, uint32(base), at)
		return
	}
	f.Go("%s %d(%v), F%d", moves[bytes], at, base, v)
}

// Store stores them.
func (f *Func) Store(bytes int, v V, base R, at int) {
	if bytes == 2 {
		f.word(0x7d000000|uint32(at/2)<<10|uint32(base)<<5|uint32(v), "str h%d, [x%d, #%d]", v, uint32(base), at)
		return
	}
	f.Go("%s F%d, %d(%v)", moves[bytes], v, at, base)
}

var moves = map[int]string{16: "FMOVQ", 8: "FMOVD", 4: "FMOVS"}

// Spread loads four bytes into all lanes.
func (f *Func) Spread(base R, at int, v V) {
	f.Load(4, base, at, v)
	f.DUP(S4, v, v, 0)
}

// Zero clears registers.
func (f *Func) Zero(v ...V) {
	for _, v := range v {
		f.EOR(v, v, v)
	}
}

// Words sets all lanes to the bits, Floats to a number.
func (f *Func) Words(bits uint32, v V) {
	f.Go("MOVW $%#x, %v", bits, Scratch)
	f.Go("VDUP %v, V%d.S4", Scratch, v)
}

// Floats sets all lanes to x.
func (f *Func) Floats(x float32, v V) { f.Words(math.Float32bits(x), v) }

// Step is one vector of a sweep over arrays, or one element of what is left at
// their end.
type Step struct {
	U     int // the number of the vector within an unrolled round
	Lanes int // elements: 4, or 1
	f     *Func
}

// Load loads elements of size bytes of an array; lanes beyond them become 0.
func (s Step) Load(size int, base R, v V) { s.f.Load(s.Lanes*size, base, s.U*4*size, v) }

// Store stores elements.
func (s Step) Store(size int, v V, base R) { s.f.Store(s.Lanes*size, v, base, s.U*4*size) }

// Sweep calls body for every vector of arrays of n elements: rounds of unroll
// vectors, single ones, and what is left element by element. The arrays' registers
// and n change; sizes are those of elements. What body adds up depends on n and
// nothing else.
func (f *Func) Sweep(n R, unroll int, sizes map[R]int, body func(Step)) {
	rounds, singles, rest, done := f.NewLabel("rounds"), f.NewLabel("singles"), f.NewLabel("rest"), f.NewLabel("done")
	if unroll == 1 {
		singles = rest
	}
	f.loop(rounds, singles, n, 4*unroll, sizes, func() {
		for u := range unroll {
			body(Step{u, 4, f})
		}
	})
	if unroll > 1 {
		f.loop(singles, rest, n, 4, sizes, func() { body(Step{0, 4, f}) })
	}
	f.loop(rest, done, n, 1, sizes, func() { body(Step{0, 1, f}) })
	f.Label(done)
}

// loop repeats body while n is at least count, then goes to end.
func (f *Func) loop(label, end string, n R, count int, sizes map[R]int, body func()) {
	f.Label(label)
	f.Go("CMP $%d, %v", count, n)
	f.Go("BLT %s", end)
	body()
	for r := R(0); r < Scratch; r++ {
		if size := sizes[r]; size > 0 {
			f.Go("ADD $%d, %v", count*size, r)
		}
	}
	f.Go("SUB $%d, %v", count, n)
	f.Go("B %s", label)
}
