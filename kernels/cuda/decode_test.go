package cuda

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/quant/dequant"
)

// sequence is one layer of a sequence's cache: random tokens in both forms.
type sequence struct {
	n            int
	exact, coded [][]byte

	exactly, meant []kv // per head: as stored, as the codes mean it
}

// kv is K and V of a head, [token][channel].
type kv struct{ k, v []float64 }

func geometry(t testing.TB, name string, calibrated bool, heads, dim int) *quant.Geometry {
	t.Helper()
	f, err := quant.ParseFormat(name, calibrated)
	ok(t, err)
	g, err := quant.NewGeometry(f, 1, heads, dim)
	ok(t, err)
	return g
}

// newSequence fills n tokens of Gaussian K and V with some channels larger and
// off centre, some tokens larger, and some all zero.
func newSequence(g *quant.Geometry, n int, seed uint64) *sequence {
	g = g.At(0)
	r := rand.New(rand.NewPCG(seed, 1))
	s := &sequence{n: n}
	width := g.KVHeads * g.HeadDim
	k, v := make([]float32, width), make([]float32, width)
	for t := range n {
		page, at := t/g.Format.PageTokens, t%g.Format.PageTokens
		if at == 0 {
			s.exact = append(s.exact, poison(g.ExactBytes()))
			s.coded = append(s.coded, poison(g.CodedBytes()))
		}
		gain := 1.0
		switch r.IntN(50) {
		case 0:
			gain = 0
		case 1:
			gain = 2.5
		}
		for i := range k {
			k[i] = float32(gain * (1 + float64(i%7)/4) * (r.NormFloat64() + 0.3*float64(i%3-1)))
			v[i] = float32(gain * (r.NormFloat64() + 0.2))
		}
		g.PutExact(s.exact[page], at, k, v)
		if at == g.Format.PageTokens-1 {
			g.Encode(quant.EncodeArgs{Exact: s.exact[page], Coded: s.coded[page], First: t - at, Hi: at + 1,
				Important: func(_, half int) uint64 { return someSet(r, g.HQ[half].LowRows) }})
		}
	}
	for head := range g.KVHeads {
		var exactly, meant kv
		for page := range s.exact {
			exactly.k = append(exactly.k, dequant.Exact(g, s.exact[page], head, quant.HalfK)...)
			exactly.v = append(exactly.v, dequant.Exact(g, s.exact[page], head, quant.HalfV)...)
			if g.Format.Coded() && (page+1)*g.Format.PageTokens <= n { // the last may not be coded
				meant.k = append(meant.k, dequant.Half(g, s.coded[page], head, quant.HalfK)...)
				meant.v = append(meant.v, dequant.Half(g, s.coded[page], head, quant.HalfV)...)
			}
		}
		s.exactly, s.meant = append(s.exactly, exactly), append(s.meant, meant)
	}
	return s
}

// someSet is up to n tokens of a page, often n, at times none.
func someSet(r *rand.Rand, n int) uint64 {
	var set uint64
	if r.IntN(4) == 0 {
		return 0
	}
	for range n - r.IntN(2)*r.IntN(n+1) {
		set |= 1 << r.IntN(64)
	}
	return set
}

// poison is n bytes of NaN, as float16 and as float32.
func poison(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 0xff
	}
	return b
}

// coded is q as the kernels see it beside codes: int8 with one scale.
func codedQuery(q []float32) []float64 {
	top := 0.0
	for _, x := range q {
		top = max(top, math.Abs(float64(x)))
	}
	y := make([]float64, len(q))
	for i, x := range q {
		y[i] = math.Floor(float64(x)*127/top+0.5) * top / 127
	}
	return y
}

// oracle is the attention of query q over one head of s in float64: exact tokens
// as stored, the others as what their codes stand for, multiplied by the int8
// query. What is left to differ is the weights' u8.
func (s *sequence) oracle(g *quant.Geometry, head int, q []float32, scale float64) []float64 {
	f, d := g.Format, g.HeadDim
	from := 0
	if f.Coded() {
		from, _ = f.ExactFrom(s.n)
	}
	scores, values := make([]float64, s.n), make([][]float64, s.n)
	top := math.Inf(-1)
	plain, coded := make([]float64, d), codedQuery(q)
	for c, x := range q {
		plain[c] = float64(x)
	}
	for t := range s.n {
		k, v, query := s.exactly[head].k, s.exactly[head].v, plain
		if t >= f.Sinks && t < from {
			k, v, query = s.meant[head].k, s.meant[head].v, coded
		}
		for c, x := range query {
			scores[t] += x * k[t*d+c] * scale
		}
		values[t] = v[t*d : (t+1)*d]
		top = max(top, scores[t])
	}
	out, sum := make([]float64, d), 0.0
	for t, x := range scores {
		w := math.Exp(x - top)
		sum += w
		for c, v := range values[t] {
			out[c] += w * v
		}
	}
	for c := range out {
		out[c] /= sum
	}
	return out
}

// onDevice is a batch's caches on the device.
type onDevice struct {
	tables Tables
	owned  []Ptr
}

func upload(t testing.TB, c *Context, g *quant.Geometry, seqs []*sequence) *onDevice {
	d := new(onDevice)
	put := func(b []byte) Ptr {
		p, err := c.Alloc(len(b))
		ok(t, err)
		ok(t, c.Upload(p, b))
		d.owned = append(d.owned, p)
		return p
	}
	for _, s := range seqs {
		d.tables.Pages = max(d.tables.Pages, len(s.exact))
	}
	coded, exact := make([]uint64, len(seqs)*d.tables.Pages), make([]uint64, len(seqs)*d.tables.Pages)
	for i, s := range seqs {
		for page := range s.exact {
			exact[i*d.tables.Pages+page] = uint64(put(s.exact[page]))
			if g.Format.Coded() {
				coded[i*d.tables.Pages+page] = uint64(put(s.coded[page]))
			}
		}
	}
	d.tables.Coded, d.tables.Exact = put(bytesOf(coded)), put(bytesOf(exact))
	return d
}

func (d *onDevice) free(t testing.TB, c *Context) {
	for _, p := range d.owned {
		ok(t, c.Free(p))
	}
}

func floats(b []byte) []float32 {
	x := make([]float32, len(b)/4)
	for i := range x {
		x[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return x
}

// decodeOnce runs one step over seqs and gives q and the output.
func decodeOnce(t testing.TB, c *Context, m Module, g *quant.Geometry, seqs []*sequence, group int, plan func(*Decoder, []int) *Plan, seed uint64) (q, out []float32) {
	d, err := c.NewDecoder(m, g, group)
	ok(t, err)
	lengths := make([]int, len(seqs))
	for i, s := range seqs {
		lengths[i] = s.n
	}
	step, err := c.Prepare(d, plan(d, lengths))
	ok(t, err)
	mem := upload(t, c, g, seqs)
	r := rand.New(rand.NewPCG(seed, 3))
	q = make([]float32, len(seqs)*g.KVHeads*group*g.HeadDim)
	for i := range q {
		q[i] = float32(r.NormFloat64())
	}
	qMem, err := c.Alloc(4 * len(q))
	ok(t, err)
	outMem, err := c.Alloc(4 * len(q))
	ok(t, err)
	ok(t, c.Upload(qMem, bytesOf(q)))
	raw := poison(4 * len(q))
	ok(t, c.Upload(outMem, raw))
	scale := float32(1 / math.Sqrt(float64(g.HeadDim)))
	for range 2 { // again: the counters of the first run are back at zero
		ok(t, c.Attend(step, mem.tables, 0, qMem, outMem, scale, 0))
		ok(t, c.Synchronize(0))
	}
	ok(t, c.Download(raw, outMem))
	ok(t, c.CloseStep(step))
	ok(t, c.Free(qMem))
	ok(t, c.Free(outMem))
	mem.free(t, c)
	return q, floats(raw)
}

// relative is ‖got - want‖ / ‖want‖.
func relative(got []float32, want []float64) float64 {
	var e, n float64
	for i, x := range want {
		e += (float64(got[i]) - x) * (float64(got[i]) - x)
		n += x * x
	}
	return math.Sqrt(e / n)
}

// attended is a format that attention kernels are tested with.
type attended struct {
	name       string
	calibrated bool
	dim        int
}

var decodeFormats = []attended{
	{"hq2", true, 128}, {"hq2", false, 128}, {"hq3", true, 128}, {"hq3", false, 128}, {"hq4", true, 128}, {"hq4", false, 128},
	{"hq2,k2=lead:32", false, 128}, {"f16", true, 128},
	{"hq2", false, 64}, {"hq3", true, 64}, {"hq3", false, 64}, {"hq4", true, 64}, {"hq4", false, 64},
	{"hq2,k2=lead:16", true, 64}, {"hq2,k2=lead:16", false, 64}, {"hq2,k2=lead:32", true, 64}, {"hq2,k2=lead:32", false, 64}, {"f16", true, 64},
	{"hq2,k2=tokens:8", true, 128}, {"hq2,k2=tokens:56,v2=tokens:56", false, 128}, {"hq2,k2=tokens:24", false, 64}, {"hq2,k2=tokens:16,v2=tokens:40", true, 64},
	{"hq2,k2=tokens:8", false, 128}, {"hq2,k2=tokens:24,v2=tokens:8", true, 128}, {"hq2,k2=tokens:56", true, 64}, {"hq2,k2=tokens:8,v2=tokens:8", false, 64},
	{"hq2,k2=shared:112", true, 128}, {"hq2,k2=shared:16", true, 64}, {"hq2,k2=shared:32,important=12", true, 128}, {"hq2,k2=shared:48,important=50", true, 64},
	{"hq2,important=6", true, 128}, {"hq2,important=50", false, 128}, {"hq2,important=12", true, 64}, {"hq2,important=6", false, 64},
	{"hq3,important=6", true, 128}, {"hq3,important=30", false, 128}, {"hq3,important=6", true, 64}, {"hq3,important=6", false, 64}, {"hq2,v2=tokens:8", true, 128},
	{"hq2+,important=6", true, 128}, {"hq2+,important=12", true, 64}, {"hq2b/0", true, 128}, {"hq2b/128", true, 128}, {"hq2b,important=6/64", true, 64},
	{"hq2,k2=lead:32", true, 128}, {"hq2", true, 64}, {"hq2,k2=tokens:40,v2=tokens:16", true, 128}, {"hq2,k2=shared:64,important=6", true, 128},
}

// geometry lays the format out; behind a slash its name has a layer's planned channels.
func (f attended) geometry(t testing.TB, heads int) *quant.Geometry {
	name, plan, planned := strings.Cut(f.name, "/")
	if !planned {
		return geometry(t, f.name, f.calibrated, heads, f.dim)
	}
	n, err := strconv.Atoi(plan)
	ok(t, err)
	format, err := quant.ParseFormat(name, true)
	ok(t, err)
	g, err := quant.NewCalibratedGeometry(format, &quant.Calibration{Layers: 1, KVHeads: heads, HeadDim: f.dim, KPlan: []uint16{uint16(n)}}, 1, heads, f.dim)
	ok(t, err)
	return g
}

// The output is the float64 attention over what the codes stand for, up to the
// int8 queries and u8 weights: 1.3 % at most, 1e-3 where all is exact.
func TestDecode(t *testing.T) {
	formats := decodeFormats
	if testing.Short() {
		formats = formats[len(formats)-4:]
	}
	on(t, func(c *Context, m Module) {
		for _, f := range formats {
			for _, group := range pick([]int{4, 8}, []int{1, 4, 5, 8, 12}) {
				g := f.geometry(t, pick(1, 2))
				seqs := []*sequence{newSequence(g, pick(600, 3000), 1), newSequence(g, 70, 2), newSequence(g, 256, 3), newSequence(g, 1, 4)}
				for _, blocks := range pick([]int{3}, []int{1, 3, 40}) {
					q, out := decodeOnce(t, c, m, g, seqs, group, func(d *Decoder, lengths []int) *Plan {
						return NewPlan(g.Format, lengths, g.KVHeads, group, d.queries, PlanOptions{Blocks: blocks, Warps: d.warps})
					}, 5)
					checkDecode(t, fmt.Sprintf("%+v group %d blocks %d", f, group, blocks), g, seqs, group, q, out)
				}
			}
		}
	})
}

func checkDecode(t *testing.T, name string, g *quant.Geometry, seqs []*sequence, group int, q, out []float32) {
	t.Helper()
	d, rows := g.HeadDim, g.KVHeads*group
	errors := make([]float64, len(seqs)*rows)
	var wait sync.WaitGroup
	for i := range errors {
		wait.Go(func() {
			want := seqs[i/rows].oracle(g, i%rows/group, q[i*d:(i+1)*d], 1/math.Sqrt(float64(d)))
			errors[i] = relative(out[i*d:(i+1)*d], want)
		})
	}
	wait.Wait()
	worst := 0.0
	for i, e := range errors {
		s, limit := seqs[i/rows], 0.013
		if from, _ := g.Format.ExactFrom(s.n); from <= g.Format.Sinks {
			limit = 1e-3
		}
		if !(e < limit) {
			t.Errorf("%s: sequence of %d, row %d: relative error %.3g", name, s.n, i%rows, e)
			return
		}
		worst = max(worst, e)
	}
	t.Logf("%s: worst relative error %.2g", name, worst)
}

// pick is a test's size: on the emulated GPU and with -short, or on one and with -full.
func pick[T any](short, full T) T {
	if *fullFlag || *gpuFlag && !testing.Short() {
		return full
	}
	return short
}

// A sequence that is cut by Run alone gives the same bits whatever is beside it,
// and so does a step that is replayed as a graph.
func TestDecodeAlone(t *testing.T) {
	const group = 4
	on(t, func(c *Context, m Module) {
		g := geometry(t, "hq2", true, 2, 128)
		s := newSequence(g, 1400, 1)
		run := func(d *Decoder, lengths []int) *Plan {
			return NewPlan(g.Format, lengths, g.KVHeads, group, d.queries, PlanOptions{Blocks: 9, Warps: d.warps, Run: 8})
		}
		_, alone := decodeOnce(t, c, m, g, []*sequence{s}, group, run, 5)
		_, company := decodeOnce(t, c, m, g, []*sequence{s, newSequence(g, 300, 2), newSequence(g, 900, 3)}, group, run, 5)
		if !slices.Equal(alone, company[:len(alone)]) {
			t.Error("the first sequence's output depends on the others")
		}
	})
}

// Sequences of one length, whose plan is a kernel's parameters, get the bits that the
// list of items gives.
func TestDecodeEven(t *testing.T) {
	on(t, func(c *Context, m Module) {
		for _, f := range pick([]attended{{"hq2", true, 128}, {"f16", true, 64}}, decodeFormats) {
			for _, group := range pick([]int{4}, []int{3, 8}) {
				for _, n := range pick([]int{900}, []int{70, 1000, 4500}) {
					g := f.geometry(t, 2)
					seqs := []*sequence{newSequence(g, n, 1), newSequence(g, n, 2)}
					plan := func(list bool) func(d *Decoder, lengths []int) *Plan {
						return func(d *Decoder, lengths []int) *Plan {
							p := NewPlan(g.Format, lengths, g.KVHeads, group, d.queries, PlanOptions{Blocks: pick(9, 30), Warps: d.warps})
							if p.even.Parts == 0 {
								t.Errorf("%+v, %d tokens: the plan has no short form", f, n)
							}
							if list {
								p.Pad(p.blocks+1, 99)
							}
							return p
						}
					}
					q, short := decodeOnce(t, c, m, g, seqs, group, plan(false), 5)
					checkDecode(t, fmt.Sprintf("%+v group %d tokens %d", f, group, n), g, seqs, group, q, short)
					if _, list := decodeOnce(t, c, m, g, seqs, group, plan(true), 5); !slices.Equal(short, list) {
						t.Errorf("%+v group %d, %d tokens: the list of items gives something else", f, group, n)
					}
				}
			}
		}
	})
}

func TestDecodeGraph(t *testing.T) {
	const group = 4
	on(t, func(c *Context, m Module) {
		g := geometry(t, "hq3", true, 1, 64)
		seqs := []*sequence{newSequence(g, 600, 1), newSequence(g, 90, 2)}
		q, want := decodeOnce(t, c, m, g, seqs, group, func(d *Decoder, lengths []int) *Plan { return d.Plan(c.info, lengths) }, 5)
		d, err := c.NewDecoder(m, g, group)
		ok(t, err)
		step, err := c.Prepare(d, d.Plan(c.info, []int{600, 90}))
		ok(t, err)
		mem := upload(t, c, g, seqs)
		l := &lab{t: t, c: c}
		qMem, outMem := l.bytes(bytesOf(q)), l.bytes(poison(4*len(q)))
		stream, err := c.NewStream()
		ok(t, err)
		graph, err := c.Capture(stream, func() error {
			return c.Attend(step, mem.tables, 0, qMem, outMem, float32(1/math.Sqrt(64)), stream)
		})
		ok(t, err)
		for range 2 {
			ok(t, c.Upload(outMem, poison(4*len(q))))
			ok(t, c.Replay(graph, stream))
			ok(t, c.Synchronize(stream))
			if got := floats(l.back(outMem, 4*len(q))); !slices.Equal(got, want) {
				t.Error("a replayed step differs")
			}
		}
		ok(t, c.CloseGraph(graph))
		ok(t, c.CloseStream(stream))
		ok(t, c.CloseStep(step))
		mem.free(t, c)
		l.close()
	})
}
