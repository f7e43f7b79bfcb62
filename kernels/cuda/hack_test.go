package cuda

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/ref"
	"github.com/terse-llm/terse/quant"
)

var hackFormats = []struct {
	name string
	dim  int
}{
	{"hack", 128}, {"hack:v2", 64},
	{"hack", 64}, {"hack,bits=4,round=nearest", 128}, {"hack,bits=8,partition=32,se=off", 64}, {"hack,partition=128", 128}, {"hack,rqe=off", 64},
	{"hack:v2", 128}, {"hack:v2,partition=32,round=stochastic", 128}, {"hack:v2,bits=8,partition=128,se=off", 64}, {"hack:v2,bits=4,rqe=off", 128},
}

// hackLab is one sequence's cache on the device and, coded by quant, on the host.
type hackLab struct {
	lab
	h            *Hack
	g            *quant.Geometry
	n            int
	exact, coded [][]byte // [page]
	mem          [2][]Ptr
	tables       Tables
}

// hackLayer is the layer tested, of two: the rounding depends on it.
const hackLayer = 1

func newHackLab(t testing.TB, c *Context, m Module, name string, dim, group, n int) *hackLab {
	t.Helper()
	f, err := quant.ParseFormat(name, false)
	ok(t, err)
	g, err := quant.NewGeometry(f, hackLayer+1, 2, dim)
	ok(t, err)
	h, err := c.NewHack(m, g, group)
	ok(t, err)
	l := &hackLab{lab: lab{t: t, c: c, r: rand.New(rand.NewPCG(uint64(dim), 21))}, h: h, g: g, n: n}
	pages := (n + f.PageTokens - 1) / f.PageTokens
	var addresses [2][]uint64
	for range pages {
		l.exact, l.coded = append(l.exact, make([]byte, g.ExactBytes())), append(l.coded, make([]byte, g.CodedBytes()))
		for form, size := range []int{g.ExactBytes(), g.CodedBytes()} {
			p := l.bytes(poison((hackLayer + 1) * size))
			l.mem[form] = append(l.mem[form], p)
			addresses[form] = append(addresses[form], uint64(p))
		}
	}
	l.tables = Tables{Exact: l.bytes(bytesOf(addresses[0])), Coded: l.bytes(bytesOf(addresses[1])), Pages: pages}
	l.fill()
	return l
}

// fill appends the tokens in chunks of any size, on both sides.
func (l *hackLab) fill() {
	g, tokens := l.g, l.g.Format.PageTokens
	width := g.KVHeads * g.HeadDim
	k, v := hardRows(l.r, l.n, width), hardRows(l.r, l.n, width)
	for _, x := range [][]float32{k, v} {
		for i := range x {
			x[i] = float32(math.Tanh(float64(x[i]))) * 3 // softmax must not hang on one token
		}
	}
	kMem, vMem := l.bytes(bytesOf(k)), l.bytes(bytesOf(v))
	for at := 0; at < l.n; {
		rows := min(l.n-at, 1+l.r.IntN(90))
		off := Ptr(4 * at * width)
		ok(l.t, l.c.HackAppend(l.h, hackLayer, at, rows, kMem+off, vMem+off, l.tables.Exact, l.tables.Coded, 0))
		for end := at + rows; at < end; {
			page, lo := at/tokens, at%tokens
			hi := min(tokens, lo+end-at)
			for i := lo; i < hi; i++ {
				row := (page*tokens + i) * width
				g.PutExact(l.exact[page], i, k[row:row+width], v[row:row+width])
			}
			g.Encode(quant.EncodeArgs{Exact: l.exact[page], Coded: l.coded[page], Layer: hackLayer, First: page * tokens, Lo: lo, Hi: hi})
			at += hi - lo
		}
	}
	ok(l.t, l.c.Synchronize(0))
}

// The pages' codes are byte for byte what quant makes.
func (l *hackLab) checkPages(name string) {
	l.t.Helper()
	size := l.g.CodedBytes()
	for page := range l.coded {
		got := l.back(l.mem[1][page], (hackLayer+1)*size)[hackLayer*size:]
		if !bytes.Equal(got, l.coded[page]) {
			at := 0
			for got[at] == l.coded[page][at] {
				at++
			}
			l.t.Errorf("%s: byte %d of page %d (of a head: %d of %d) is %#x, want %#x", name, at, page, at%l.g.HeadBytes, l.g.HeadBytes, got[at], l.coded[page][at])
			return
		}
	}
}

// reference is the attention of the query at position, by kernels/ref on the host's
// pages: [KV head][group][dim].
func (l *hackLab) reference(position int, exactly bool, q []float32) []float32 {
	g, f, n := l.g, l.g.Format, position+1
	fromK, fromV := f.ExactFrom(n)
	if exactly {
		fromK, fromV = 0, 0
	}
	var tiles []kernels.Tile
	for lo := 0; lo < n; {
		first := lo / f.PageTokens * f.PageTokens
		hi := min(n, first+f.PageTokens)
		for _, edge := range []int{f.Sinks, fromK, fromV} {
			if edge > lo && edge < hi {
				hi = edge
			}
		}
		tiles = append(tiles, kernels.Tile{
			First: first, Lo: lo - first, Hi: hi - first, Exact: l.exact[first/f.PageTokens], Coded: l.coded[first/f.PageTokens],
			KCoded: lo >= f.Sinks && lo < fromK, VCoded: lo >= f.Sinks && lo < fromV,
		})
		lo = hi
	}
	out, head := make([]float32, len(q)), len(q)/g.KVHeads
	var jobs []kernels.AttnJob
	for h := range g.KVHeads {
		jobs = append(jobs, kernels.AttnJob{
			Geometry: g, Layer: hackLayer, Head: h, Group: l.h.group, Q: q[h*head : (h+1)*head], Out: out[h*head : (h+1)*head],
			Limit: []int{n}, Scale: float32(1 / math.Sqrt(float64(g.HeadDim))), Tiles: tiles,
		})
	}
	ref.New(1).Attend(jobs)
	return out
}

// attend runs rows and compares each with the reference: 1e-3 at most, as both
// code queries and weights alike but for the rounding of sums.
func (l *hackLab) attend(name string, tables Tables, rows HackRows, positions []int) {
	l.t.Helper()
	width := l.g.KVHeads * l.h.group * l.g.HeadDim
	qMem, q := l.normal(rows.Rows * width)
	out := l.bytes(poison(4 * len(q)))
	ok(l.t, l.c.HackAttend(l.h, tables, hackLayer, rows, qMem, out, float32(1/math.Sqrt(float64(l.g.HeadDim))), 0))
	got := floats(l.back(out, 4*len(q)))
	worst := 0.0
	for row, position := range positions {
		plain := l.reference(position, rows.Exact, q[row*width:(row+1)*width])
		want := make([]float64, len(plain))
		for i, x := range plain {
			want[i] = float64(x)
		}
		e := relative(got[row*width:(row+1)*width], want)
		if !(e < 1e-3) {
			l.t.Errorf("%s: row at %d: relative error %.3g", name, position, e)
			return
		}
		worst = max(worst, e)
	}
	l.t.Logf("%s: worst relative error %.2g", name, worst)
}

// Pages of the hack layouts are those of quant, and rows of prompts and of decode
// steps attend on them as kernels/ref does.
func TestHack(t *testing.T) {
	formats := hackFormats
	if testing.Short() {
		formats = formats[:2]
	}
	on(t, func(c *Context, m Module) {
		for i, f := range formats {
			n, name := pick(160, 300), fmt.Sprintf("%s dim %d", f.name, f.dim)
			l := newHackLab(t, c, m, f.name, f.dim, 3, n)
			l.checkPages(name)
			rows := pick(2, 40)
			prompt := HackRows{Rows: rows, Position: n - rows}
			var at []int
			for row := range rows {
				at = append(at, n-rows+row)
			}
			if l.g.Format.RQE { // else rows read what later tokens made of the open block
				l.attend(name+" prompt", l.tables, prompt, at)
			}
			if prompt.Exact = true; i < 2 {
				l.attend(name+" prompt, exact", l.tables, prompt, at)
			}
			// two sequences of the same pages
			table := func(p Ptr) Ptr { return l.bytes(bytes.Repeat(l.back(p, 8*l.tables.Pages), 2)) }
			two := Tables{Exact: table(l.tables.Exact), Coded: table(l.tables.Coded), Pages: l.tables.Pages}
			positions := []int{n - 1, 129}
			if !l.g.Format.RQE {
				positions[1] = n - 1
			}
			p32 := l.bytes(bytesOf([]int32{int32(positions[0]), int32(positions[1])}))
			l.attend(name+" decode", two, HackRows{Rows: 2, Positions: p32}, positions)
			l.close()
		}
	})
}
