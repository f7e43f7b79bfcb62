package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/terse-llm/terse/internal/cpu"
	kernelscpu "github.com/terse-llm/terse/kernels/cpu"
	"github.com/terse-llm/terse/quant"
)

// fused is the Rotator whose products with matrices are fused and summed in order, as
// the kernels' and those of processors that have the instruction.
type fused struct{ quant.Plain }

func (fused) Map(x []float32, heads, d int, m []float32) {
	group := heads / (len(m) / (d * d))
	y := make([]float32, d)
	for i := 0; i < len(x); i += d {
		clear(y)
		for in, v := range x[i : i+d] {
			at := (i/d%heads/group*d + in) * d
			for out, w := range m[at : at+d] {
				y[out] = mulAdd(v, w, y[out])
			}
		}
		copy(x[i:], y)
	}
}

// mulAdd is a·b + c rounded once: the float64 sum, whose last bit says whether
// there was more, rounds to the nearest float32.
func mulAdd(a, b, c float32) float32 {
	p, z := float64(a)*float64(b), float64(c)
	sum := p + z
	part := sum - p
	rest := (p - (sum - part)) + (z - part)
	bits := math.Float64bits(sum)
	if math.IsNaN(rest) || rest == 0 || bits&1 == 1 {
		return float32(sum)
	}
	if (rest > 0) == (sum > 0) {
		return float32(math.Float64frombits(bits + 1))
	}
	return float32(math.Float64frombits(bits - 1))
}

// Processors with fused multiply-adds take vectors into a balanced basis as the kernels
// do, to the bit.
func TestFused(t *testing.T) {
	levels := cpu.Levels()
	r := rand.New(rand.NewPCG(6, 9))
	for _, level := range levels {
		if level == cpu.Generic {
			continue
		}
		ops := kernelscpu.New(1, level)
		for _, dim := range []int{64, 128} {
			const rows, heads, kv = 21, 6, 2
			m := someBasis(r, kv, dim)
			want := hardRows(r, rows*heads, dim)
			got := slices.Clone(want)
			fused{}.Map(want, heads, dim, m)
			ops.Map(got, heads, dim, m)
			for i := range got {
				if g, w := got[i], want[i]; g != w && (g == g || w == w) {
					t.Fatalf("%v, dim %d: number %d is %g, want %g", level, dim, i, g, w)
				}
			}
		}
		ops.Close()
	}
}

// turnerOf makes a turner with random bases, where g's format has one, and no means.
func turnerOf(t testing.TB, c *Context, m Module, g *quant.Geometry, heads int) (*Turner, *quant.Transform) {
	t.Helper()
	none := make([]float32, g.KVHeads*g.HeadDim)
	cal := &quant.Calibration{Layers: 1, KVHeads: g.KVHeads, HeadDim: g.HeadDim, KMean: none, VMean: none, KBasis: someBasis(rand.New(rand.NewPCG(1, 4)), g.KVHeads, g.HeadDim)}
	tf, err := quant.NewTransform(g, cal)
	ok(t, err)
	tn, err := c.NewTurner(m, g, tf, heads, BF16)
	ok(t, err)
	return tn, tf
}

// turn is what rows at position 0 are turned with, all channels by RoPE.
func (l *lab) turn(rows, heads int, g *quant.Geometry) Turn {
	kv := 4 * rows * g.KVHeads * g.HeadDim
	a := Turn{Pairs: g.HeadDim / 2, Positions: l.bytes(make([]byte, 4*rows))}
	a.X, _ = l.normal(rows * (heads + 2*g.KVHeads) * g.HeadDim)
	a.Cos, _ = l.normal(g.HeadDim / 2)
	a.Sin, _ = l.normal(g.HeadDim / 2)
	a.Q, a.K, a.V = l.bytes(make([]byte, 4*rows*heads*g.HeadDim)), l.bytes(make([]byte, kv)), l.bytes(make([]byte, kv))
	return a
}

// TestTableMap prints what turning 2,048 rows takes, whole, without the balanced basis,
// and with it as few rows are turned.
func TestTableMap(t *testing.T) {
	needTable(t)
	const rows, heads, kvHeads = 2048, 32, 8
	on(t, func(c *Context, m Module) {
		b := newBench(t, c, m)
		for _, dim := range []int{64, 128} {
			g := geometry(t, "hq2+", true, kvHeads, dim)
			tn, _ := turnerOf(t, c, m, g, heads)
			l := &lab{t: t, c: c, r: rand.New(rand.NewPCG(1, 3))}
			a := l.turn(rows, heads, g)
			many := b.median(t, 21, func() error { return c.Turn(tn, rows, a, 0) })
			p := tn.params(rows, a)
			turn := func() error { return c.launchTurn(tn, &p, 0) }
			few := b.median(t, 21, turn)
			p.Map, p.Each = 0, manyHeads
			fmt.Printf("hq2+ d%d: queries, keys and values of %d rows turned in %.1f µs; without the basis %.1f; as few rows are, %.1f\n", dim, rows, many, b.median(t, 21, turn), few)
			l.close()
			ok(t, c.CloseTurner(tn))
		}
	})
}

// TestTableEnter prints what a few rows take on their way to attention, in one launch.
func TestTableEnter(t *testing.T) {
	needTable(t)
	const heads, kvHeads, dim = 32, 8, 128
	on(t, func(c *Context, m Module) {
		b := newBench(t, c, m)
		for _, name := range []string{"hq2", "hq2+"} {
			g := geometry(t, name, true, kvHeads, dim)
			tn, tf := turnerOf(t, c, m, g, heads)
			e, err := c.NewEncoder(m, g, tf)
			ok(t, err)
			for _, rows := range []int{1, 8, 24} {
				mem := randomCache(t, c, g, rows, 64)
				l := &lab{t: t, c: c, r: rand.New(rand.NewPCG(1, 3))}
				a := l.turn(rows, heads, g)
				fmt.Printf("%s d%d: %d rows entered in %.1f µs\n", name, dim, rows, b.median(t, 31, func() error { return c.Enter(tn, e, 0, rows, a, mem.tables, 0) }))
				l.close()
				mem.free(t, c)
			}
			ok(t, c.CloseEncoder(e))
			ok(t, c.CloseTurner(tn))
		}
	})
}
