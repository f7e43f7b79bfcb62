package cuda

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/ref"
	"github.com/terse-llm/terse/quant"
)

// turnCase is a geometry with means, and what heads go through.
type turnCase struct {
	g           *quant.Geometry
	tf          *quant.Transform
	heads       int
	interleaved bool
	pairs       int
	norm, bias  bool
}

func newTurnCase(t *testing.T, r *rand.Rand, dim int) turnCase {
	return newTurnCaseOf(t, r, "hq2", dim)
}

func newTurnCaseOf(t *testing.T, r *rand.Rand, name string, dim int) turnCase {
	f, err := quant.ParseFormat(name, true)
	ok(t, err)
	g, err := quant.NewGeometry(f, 2, 2, dim)
	ok(t, err)
	cal := &quant.Calibration{Layers: 2, KVHeads: 2, HeadDim: dim}
	for range 4 * dim {
		cal.KMean, cal.VMean = append(cal.KMean, float32(r.NormFloat64())), append(cal.VMean, float32(r.NormFloat64()))
	}
	cal.KBasis = someBasis(r, 4, dim)
	tf, err := quant.NewTransform(g, cal)
	ok(t, err)
	return turnCase{g: g, tf: tf, heads: 6, pairs: dim / 2}
}

// What a layer does between its products and attention is what package kernels
// does with the same numbers.
func TestTurn(t *testing.T) {
	on(t, func(c *Context, m Module) {
		r := rand.New(rand.NewPCG(1, 12))
		for _, dim := range []int{64, 128} {
			plain := newTurnCase(t, r, dim)
			odd := plain
			odd.interleaved, odd.pairs, odd.norm, odd.bias = true, dim/4, true, true
			qwen := plain
			qwen.norm, qwen.bias = true, true
			for _, tc := range []turnCase{plain, odd, qwen, newTurnCaseOf(t, r, "hq2+", dim)} {
				lab := &lab{t: t, c: c, r: r}
				tc.check(lab, m)
				tc.checkLeave(lab, m)
				lab.close()
			}
		}
	})
}

func (tc *turnCase) check(l *lab, m Module) {
	const rows, positions, eps = 5, 9, 1e-5
	g, d, kv := tc.g, tc.g.HeadDim, tc.g.KVHeads
	tn, err := l.c.NewTurner(m, g, tc.tf, tc.heads, F16)
	ok(l.t, err)
	all := tc.heads + 2*kv
	a := Turn{Layer: 1, Pairs: tc.pairs, Interleaved: tc.interleaved, Eps: eps}
	var x, bias, qNorm, kNorm, cos, sin []float32
	a.X, x = l.normal(rows * all * d)
	if tc.bias {
		a.Bias, bias = l.normal(all * d)
	}
	if tc.norm {
		a.QNorm, qNorm = l.normal(d)
		a.KNorm, kNorm = l.normal(d)
	}
	a.Cos, cos = l.normal(positions * tc.pairs)
	a.Sin, sin = l.normal(positions * tc.pairs)
	at := []int32{7, 0, 3, 3, 8}
	a.Positions = l.bytes(bytesOf(at))
	a.Q, a.K, a.V = l.bytes(poison(4*rows*tc.heads*d)), l.bytes(poison(4*rows*kv*d)), l.bytes(poison(4*rows*kv*d))
	ok(l.t, l.c.Turn(tn, rows, a, 0))

	ops := ref.New(1)
	angles := &kernels.Angles{Pairs: tc.pairs, Interleaved: tc.interleaved}
	for _, p := range at {
		angles.Cos = append(angles.Cos, cos[int(p)*tc.pairs:][:tc.pairs]...)
		angles.Sin = append(angles.Sin, sin[int(p)*tc.pairs:][:tc.pairs]...)
	}
	part := func(first, heads int, norm []float32, rope bool) []float32 {
		var y []float32
		for row := range rows {
			for i := range heads * d {
				v := x[(row*all+first)*d+i]
				if tc.bias {
					v += bias[first*d+i]
				}
				y = append(y, v)
			}
		}
		if norm != nil {
			ops.RMSNorm(y, y, norm, eps)
		}
		if rope {
			ops.RoPE(y, heads, d, angles)
		}
		return y
	}
	q := part(0, tc.heads, qNorm, true)
	tc.tf.Queries(ops, 1, q, tc.heads)
	for _, w := range []struct {
		name string
		got  Ptr
		want []float32
	}{{"Q", a.Q, q}, {"K", a.K, part(tc.heads, kv, kNorm, true)}, {"V", a.V, part(tc.heads+kv, kv, nil, false)}} {
		if e := relative(floats(l.back(w.got, 4*len(w.want))), widened(w.want)); !(e < 1e-6) {
			l.t.Errorf("%s of head_dim %d, %+v: relative error %g", w.name, d, tc, e)
		}
	}
	ok(l.t, l.c.CloseTurner(tn))
}

func widened(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

func (tc *turnCase) checkLeave(l *lab, m Module) {
	const rows = 3
	tn, err := l.c.NewTurner(m, tc.g, tc.tf, tc.heads, BF16)
	ok(l.t, err)
	n := rows * tc.heads * tc.g.HeadDim
	x, want := l.normal(n)
	out := l.bytes(poison(2 * n))
	ok(l.t, l.c.Leave(tn, 1, out, x, rows, 0))
	tc.tf.Outputs(ref.New(1), 1, want, tc.heads)
	if e := relative(products(l.back(out, 2*n), BF16), widened(want)); !(e < half(BF16)) {
		l.t.Errorf("Leave of head_dim %d: relative error %g", tc.g.HeadDim, e)
	}
	bias, b := l.normal(tc.g.HeadDim)
	ok(l.t, l.c.AddBias(tn, x, bias, n/tc.g.HeadDim, tc.g.HeadDim, 0))
	first := binary.LittleEndian.Uint32(l.back(x, 4))
	if got := math.Float32frombits(first); math.IsNaN(float64(got)) || b[0] == 0 {
		l.t.Errorf("AddBias gives %g", got)
	}
	ok(l.t, l.c.CloseTurner(tn))
}

// Many rows come out as they do in other numbers of many, and as a few at a time, but
// for queries in a balanced basis: all but.
func TestTurnMany(t *testing.T) {
	on(t, func(c *Context, m Module) {
		r := rand.New(rand.NewPCG(2, 12))
		for _, dim := range []int{64, 128} {
			odd := newTurnCase(t, r, dim)
			odd.interleaved, odd.pairs, odd.norm, odd.bias = true, dim/4, true, true
			for _, tc := range []turnCase{newTurnCaseOf(t, r, "hq2+", dim), odd} {
				tc.checkMany(&lab{t: t, c: c, r: r}, m)
			}
		}
	})
}

func (tc *turnCase) checkMany(l *lab, m Module) {
	const rows, positions = 2*manyRows + 5, 50
	t, c, dim, kv, all := l.t, l.c, tc.g.HeadDim, tc.g.KVHeads, tc.heads+2*tc.g.KVHeads
	tn, err := c.NewTurner(m, tc.g, tc.tf, tc.heads, F16)
	ok(t, err)
	at := make([]int32, rows)
	for i := range at {
		at[i] = int32(l.r.IntN(positions))
	}
	a := Turn{Layer: 1, Pairs: tc.pairs, Interleaved: tc.interleaved, Eps: 1e-5, Positions: l.bytes(bytesOf(at))}
	a.X, _ = l.normal(rows * all * dim)
	a.Cos, _ = l.normal(positions * tc.pairs)
	a.Sin, _ = l.normal(positions * tc.pairs)
	if tc.bias {
		a.Bias, _ = l.normal(all * dim)
	}
	if tc.norm {
		a.QNorm, _ = l.normal(dim)
		a.KNorm, _ = l.normal(dim)
	}
	run := func(each ...int) (queries, others []byte) {
		a := a
		a.Q, a.K, a.V = l.bytes(poison(4*rows*tc.heads*dim)), l.bytes(poison(4*rows*kv*dim)), l.bytes(poison(4*rows*kv*dim))
		q, k, v := a.Q, a.K, a.V
		for i, row := 0, 0; row < rows; i++ {
			n := min(each[min(i, len(each)-1)], rows-row)
			ok(t, c.Turn(tn, n, a, 0))
			a.X, a.Positions = a.X+Ptr(4*n*all*dim), a.Positions+Ptr(4*n)
			a.Q, a.K, a.V = a.Q+Ptr(4*n*tc.heads*dim), a.K+Ptr(4*n*kv*dim), a.V+Ptr(4*n*kv*dim)
			row += n
		}
		return l.back(q, 4*rows*tc.heads*dim), append(l.back(k, 4*rows*kv*dim), l.back(v, 4*rows*kv*dim)...)
	}
	q, others := run(rows)
	tn.mapBlocks = 1 // which come back for more
	if q2, others2 := run(manyRows, manyRows+5); !bytes.Equal(q, q2) || !bytes.Equal(others, others2) {
		t.Errorf("%s, head_dim %d: in two parts they differ", tc.g.Format.Name, dim)
	}
	few, others2 := run(7)
	if !bytes.Equal(others, others2) {
		t.Errorf("%s, head_dim %d: K or V differ a few at a time", tc.g.Format.Name, dim)
	}
	if e := relative(floats(q), widened(floats(few))); !(e < 1e-5) || e > 0 && !tc.g.Format.Balanced {
		t.Errorf("%s, head_dim %d: a few at a time queries differ by %g", tc.g.Format.Name, dim, e)
	}
	l.close()
	ok(t, c.CloseTurner(tn))
}

// AppendEach writes what Append writes, sequence by sequence.
func TestAppendEach(t *testing.T) {
	on(t, func(c *Context, m Module) {
		r := rand.New(rand.NewPCG(3, 12))
		tc := newTurnCase(t, r, 64)
		g, l := tc.g, &lab{t: t, c: c, r: r}
		e, err := c.NewEncoder(m, g, tc.tf)
		ok(t, err)
		positions := []int32{64 + 63, -1, 64 + 5, 127, 3}
		const pages = 2
		n := len(positions)
		k, _ := l.normal(n * g.KVHeads * g.HeadDim)
		v, _ := l.normal(n * g.KVHeads * g.HeadDim)
		exactBytes, codedBytes := g.Layers*g.ExactBytes(), g.Layers*g.CodedBytes()
		old := make([]byte, exactBytes)
		for i := 0; i < len(old); i += 2 {
			binary.LittleEndian.PutUint16(old[i:], uint16(0x3000+r.IntN(0x1000)))
		}
		run := func(each bool) (all []byte) {
			var exact, coded []Ptr
			for range n * pages {
				exact, coded = append(exact, l.bytes(old)), append(coded, l.bytes(make([]byte, codedBytes)))
			}
			tables := Tables{Exact: l.bytes(bytesOf(exact)), Coded: l.bytes(bytesOf(coded)), Pages: pages}
			if each {
				ok(t, c.AppendEach(e, 1, n, l.bytes(bytesOf(positions)), k, v, tables, 0))
			} else {
				row := Ptr(4 * g.KVHeads * g.HeadDim)
				for i, p := range positions {
					if p >= 0 {
						at := Ptr(8 * pages * i)
						ok(t, c.Append(e, 1, int(p), 1, k+Ptr(i)*row, v+Ptr(i)*row, tables.Exact+at, tables.Coded+at, 0))
					}
				}
			}
			for i := range exact {
				all = append(append(all, l.back(exact[i], exactBytes)...), l.back(coded[i], codedBytes)...)
			}
			return all
		}
		if string(run(true)) != string(run(false)) {
			t.Error("they differ")
		}
		l.close()
		ok(t, c.CloseEncoder(e))
	})
}

// Enter is Turn and AppendEach.
func TestEnter(t *testing.T) {
	on(t, func(c *Context, m Module) {
		r := rand.New(rand.NewPCG(5, 12))
		for i := range 4 {
			dim := 64 << (i % 2)
			tc := newTurnCaseOf(t, r, []string{"hq2", "hq2+"}[i/2], dim)
			g, l := tc.g, &lab{t: t, c: c, r: r}
			e, err := c.NewEncoder(m, g, tc.tf)
			ok(t, err)
			tn, err := c.NewTurner(m, g, tc.tf, tc.heads, BF16)
			ok(t, err)
			positions := []int32{63, -1, 5}
			n, all := len(positions), tc.heads+2*g.KVHeads
			exactBytes, codedBytes := g.Layers*g.ExactBytes(), g.Layers*g.CodedBytes()
			old := make([]byte, exactBytes)
			for i := 0; i < len(old); i += 2 {
				binary.LittleEndian.PutUint16(old[i:], uint16(0x3000+r.IntN(0x1000)))
			}
			a := Turn{Pairs: tc.pairs, Positions: l.bytes(bytesOf(positions))}
			a.X, _ = l.normal(n * all * dim)
			a.Cos, _ = l.normal(64 * tc.pairs)
			a.Sin, _ = l.normal(64 * tc.pairs)
			run := func(both bool) (out []byte) {
				var exact, coded []Ptr
				for range n {
					exact, coded = append(exact, l.bytes(old)), append(coded, l.bytes(make([]byte, codedBytes)))
				}
				tables := Tables{Exact: l.bytes(bytesOf(exact)), Coded: l.bytes(bytesOf(coded)), Pages: 1}
				kv := 4 * n * g.KVHeads * dim
				a.Q, a.K, a.V = l.bytes(poison(4*n*tc.heads*dim)), l.bytes(poison(kv)), l.bytes(poison(kv))
				if both {
					ok(t, c.Enter(tn, e, 1, n, a, tables, 0))
				} else {
					ok(t, c.Turn(tn, n, a, 0))
					ok(t, c.AppendEach(e, 1, n, a.Positions, a.K, a.V, tables, 0))
				}
				for i := range exact {
					out = append(append(out, l.back(exact[i], exactBytes)...), l.back(coded[i], codedBytes)...)
				}
				return append(append(append(out, l.back(a.Q, 4*n*tc.heads*dim)...), l.back(a.K, kv)...), l.back(a.V, kv)...)
			}
			if string(run(true)) != string(run(false)) {
				t.Errorf("%s, head_dim %d: they differ", g.Format.Name, dim)
			}
			l.close()
			ok(t, c.CloseEncoder(e))
			ok(t, c.CloseTurner(tn))
		}
	})
}

// A padded plan has the same work in blocks that it had, and nothing in others.
func TestPad(t *testing.T) {
	f, err := quant.ParseFormat("hq2", true)
	ok(t, err)
	for _, lengths := range [][]int{{700}, {70, 5000, 300, 64}, {9}} {
		o := PlanOptions{Blocks: 12, Warps: 4}
		plain, padded := NewPlan(f, lengths, 2, 4, 4, o), NewPlan(f, lengths, 2, 4, 4, o)
		padded.Pad(20, 99)
		if padded.Blocks() != 20 || len(padded.Items()) != itemBytes*(len(plain.items)+20-plain.blocks) {
			t.Fatalf("%v: %d blocks, %d bytes of items", lengths, padded.Blocks(), len(padded.Items()))
		}
		for b := range 20 {
			at := b
			if b >= plain.blocks {
				if it := padded.items[b]; it.Sequence != 99 || it.Lo != it.Hi || it.ExactLo != it.ExactHi || it.Next != -1 {
					t.Errorf("%v: block %d has %+v", lengths, b, it)
				}
				continue
			}
			for i := b; i >= 0; i, at = int(plain.items[i].Next), int(padded.items[at].Next) {
				want := plain.items[i]
				want.Next = padded.items[at].Next
				if padded.items[at] != want || want.Next < 0 != (plain.items[i].Next < 0) {
					t.Errorf("%v: block %d has %+v, want %+v", lengths, b, padded.items[at], want)
				}
			}
		}
	}
}

// Where another prompt's pages have no exact form, they are read as codes.
func TestFloors(t *testing.T) {
	f, err := quant.ParseFormat("hq2", true)
	ok(t, err)
	for _, c := range []struct{ n, floor, codedTo, skip int }{{400, 0, 256, 192}, {400, 320, 320, 256}, {400, 192, 256, 192}, {100, 64, 0, 0}} {
		w := newWork(f, c.n, c.floor)
		if int(w.Hi)*f.PageTokens != c.codedTo || int(w.Skip) != c.skip {
			t.Errorf("%d tokens, exact from %d on: coded to page %d, skip %d", c.n, c.floor, w.Hi, w.Skip)
		}
	}
}
