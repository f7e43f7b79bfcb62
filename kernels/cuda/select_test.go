package cuda

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/terse-llm/terse/quant"
)

// What rows give to tokens is what float64 says, for rows at once and one run after
// another, and nothing is written beside it.
func TestWeigh(t *testing.T) {
	on(t, func(c *Context, m Module) {
		for _, dim := range []int{64, 128} {
			for _, group := range pick([]int{3}, []int{1, 3, 8}) {
				checkWeigh(t, c, m, dim, group)
			}
		}
	})
}

func checkWeigh(t *testing.T, c *Context, m Module, dim, group int) {
	const heads, prompt, rows, lo, hi = 2, 300, 11, 64, 192
	g := geometry(t, "hq2,important=6", true, heads, dim)
	s := newSequence(g, prompt, 3)
	mem := upload(t, c, g, []*sequence{s})
	l := &lab{t: t, c: c, r: rand.New(rand.NewPCG(uint64(dim), 2))}
	sel, err := c.NewSelector(m, g, group, prompt)
	ok(t, err)
	p, err := c.NewPrefiller(m, g, group)
	ok(t, err)
	n := rows * heads * group
	q, host := l.normal(n * dim)
	out, states := l.bytes(poison(4*n*dim)), l.bytes(poison(8*n))
	scale := 1 / math.Sqrt(float64(dim))
	ok(t, c.Prefill(p.Exact(0, states), 0, prompt-rows, rows, mem.tables.Coded, mem.tables.Exact, q, out, float32(scale), 0))
	weigh := func(first, rows int, more bool) {
		at := Ptr(first * heads * group)
		ok(t, c.Weigh(sel, Watched{
			Position: prompt - 11 + first, Rows: rows, Q: q + 4*at*Ptr(dim), States: states + 8*at,
			Exact: mem.tables.Exact, Coded: mem.tables.Coded, Lo: lo, Hi: hi, Prompt: prompt, More: more,
		}, float32(scale), 0))
	}
	want := make([]float64, heads*prompt)
	for v := range n {
		head, x := v/group%heads, make([]float64, prompt-rows+v/(heads*group)+1)
		sum := 0.0
		for tok := range x {
			for ch := range dim {
				x[tok] += float64(host[v*dim+ch]) * s.exactly[head].k[tok*dim+ch] * scale
			}
			x[tok] = math.Exp(x[tok])
			sum += x[tok]
		}
		for tok := lo; tok < min(hi, len(x)); tok++ {
			want[head*prompt+tok] += x[tok] / sum
		}
	}
	for _, runs := range [][]int{{rows}, {4, 7}} {
		ok(t, c.Upload(sel.sums, poison(4*heads*prompt)))
		first := 0
		for _, rows := range runs {
			weigh(first, rows, first > 0)
			first += rows
		}
		got := floats(l.back(sel.sums, 4*heads*prompt))
		for i, w := range want {
			tok := i % prompt
			if tok < lo || tok >= hi {
				if !math.IsNaN(float64(got[i])) {
					t.Errorf("dim %d group %d: token %d of head %d is written", dim, group, tok, i/prompt)
				}
			} else if !(math.Abs(float64(got[i])-w) < 3e-3*w+1e-6) { // normed by float16 queries
				t.Errorf("dim %d group %d %v: token %d of head %d weighs %g, want %g", dim, group, runs, tok, i/prompt, got[i], w)
				return
			}
		}
	}
	ok(t, c.CloseSelector(sel))
	mem.free(t, c)
	l.close()
}

// From equal sums the device chooses the tokens that quant.Format does, and
// pages become what package quant makes of them, byte for byte.
func TestChoose(t *testing.T) {
	formats := []string{"hq2,important=6", "hq2,important=50", "hq3,important=1", "hq2,k2=shared:48,important=12"}
	on(t, func(c *Context, m Module) {
		for i, name := range formats {
			for _, dim := range []int{64, 128} {
				for _, calibrated := range []bool{true, false} {
					if calibrated || i < 3 { // leading channels share the scale of symmetric codes
						checkChoose(t, c, m, geometry(t, name, calibrated, 2, dim), uint64(10*i+dim))
					}
				}
			}
		}
	})
}

func checkChoose(t *testing.T, c *Context, m Module, g *quant.Geometry, seed uint64) {
	const heads, prompt, lo, hi = 2, 64*26 + 5, 64, 64 * 24
	r := rand.New(rand.NewPCG(seed, 6))
	s := newSequence(g, prompt, seed)
	mem := upload(t, c, g, []*sequence{s})
	l := &lab{t: t, c: c, r: r}
	sel, err := c.NewSelector(m, g, 2, prompt)
	ok(t, err)
	for kind := range 4 {
		sums := make([]float32, heads*prompt)
		for i := range sums {
			switch kind {
			case 0: // as attention's: few large ones
				sums[i] = float32(math.Exp(3 * r.NormFloat64()))
			case 1: // many equal ones
				sums[i] = float32(r.IntN(3))
			case 2: // all alike
				sums[i] = 0
			default: // most in few pages
				sums[i] = float32(r.Float64() / float64(1+i%prompt/64))
			}
		}
		ok(t, c.Upload(sel.sums, bytesOf(sums)))
		ok(t, c.Choose(sel, Watched{Exact: mem.tables.Exact, Coded: mem.tables.Coded, Lo: lo, Hi: hi, Prompt: prompt}, 0))
		ok(t, c.Synchronize(0))
		var w quant.Scratch
		addresses := l.back(mem.tables.Coded, 8*len(s.coded))
		for head := range heads {
			sets := g.Format.ImportantTokens(sums[head*prompt+lo : head*prompt+hi])
			if got := l.back(sel.sets+Ptr(8*head*len(sets)), 8*len(sets)); !slices.Equal(got, bytesOf(sets)) {
				t.Errorf("%s dim %d, weights of kind %d: head %d has other tokens", g.Format.Name, g.HeadDim, kind, head)
				return
			}
			for i, set := range sets {
				g.GiveSecond(s.coded[lo/64+i], s.exact[lo/64+i], head, set, &w)
			}
		}
		for page, want := range s.coded {
			got := l.back(Ptr(binary.LittleEndian.Uint64(addresses[8*page:])), len(want))
			if !bytes.Equal(got, want) {
				t.Errorf("%s: page %d differs", fmt.Sprint(g.Format.Name, " dim ", g.HeadDim, ", weights of kind ", kind), page)
				return
			}
		}
	}
	ok(t, c.CloseSelector(sel))
	mem.free(t, c)
	l.close()
}
