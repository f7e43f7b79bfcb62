package cuda

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/terse-llm/terse/quant"
)

func floats(b []byte) []float32 {
	x := make([]float32, len(b)/4)
	for i := range x {
		x[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return x
}

// decodeBatch is sequences to decode a step of, on the host and on the device.
type decodeBatch struct {
	*lab
	m    Module
	g    *quant.Geometry
	seqs []*sequence
	mem  *onDevice
}

func newDecodeBatch(l *lab, m Module, g *quant.Geometry, seqs ...*sequence) *decodeBatch {
	return &decodeBatch{lab: l, m: m, g: g, seqs: seqs, mem: upload(l.t, l.c, g, seqs)}
}

func (b *decodeBatch) close() {
	b.mem.free(b.t, b.c)
	b.lab.close()
}

// queries are those of a step.
func (b *decodeBatch) queries(group int) []float32 {
	return queries(rand.New(rand.NewPCG(5, 3)), len(b.seqs)*b.g.KVHeads*group, b.g.HeadDim)
}

// once runs one step and gives the output.
func (b *decodeBatch) once(q []float32, group int, plan func(*Decoder, []int) *Plan) []float32 {
	t, c := b.t, b.c
	d, err := c.NewDecoder(b.m, b.g, group)
	ok(t, err)
	lengths := make([]int, len(b.seqs))
	for i, s := range b.seqs {
		lengths[i] = s.n
	}
	step, err := c.Prepare(d, plan(d, lengths))
	ok(t, err)
	qMem, outMem := b.bytes(bytesOf(q)), b.bytes(poison(4*len(q)))
	scale := float32(1 / math.Sqrt(float64(b.g.HeadDim)))
	for range 2 { // again: the counters of the first run are back at zero
		ok(t, c.Attend(step, b.mem.tables, 0, qMem, outMem, scale, 0))
		ok(t, c.Synchronize(0))
	}
	out := floats(b.back(outMem, 4*len(q)))
	ok(t, c.CloseStep(step))
	b.lab.close()
	return out
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

// The output is the float64 attention over what the codes stand for, with the int8
// queries and u8 weights: what is left is float32, 0.1 % at most.
func TestDecode(t *testing.T) {
	formats := chosen(t, decodeFormats)
	if testing.Short() {
		formats = formats[max(0, len(formats)-4):]
	}
	checks := newBeside()
	defer checks.Wait()
	on(t, func(c *Context, m Module) {
		for s := range sequences(t, formats, pick(1, 2), pick(600, 3000), 70, 256, 1) {
			b := newDecodeBatch(&lab{t: t, c: c}, m, s.g, s.seqs...)
			for _, group := range pick([]int{4, 8}, []int{1, 4, 5, 8, 12}) {
				q, outs := b.queries(group), map[string][]float32{}
				for _, blocks := range pick([]int{3}, []int{1, 3, 40}) {
					outs[fmt.Sprint(blocks, " blocks")] = b.once(q, group, func(d *Decoder, lengths []int) *Plan {
						return NewPlan(s.g.Format, lengths, s.g.KVHeads, group, d.queries, PlanOptions{Blocks: blocks, Warps: d.warps})
					})
				}
				checks.check(func() { checkDecode(t, fmt.Sprintf("%+v group %d", s.of, group), s.g, s.seqs, group, q, outs) })
			}
			b.close()
		}
	})
}

// made is a format's sequences.
type made struct {
	of   attended
	g    *quant.Geometry
	seqs []*sequence
}

// sequences makes some of each format, ahead of their use.
func sequences(t testing.TB, formats []attended, heads int, lengths ...int) iter.Seq[made] {
	geometries := make([]*quant.Geometry, len(formats))
	for i, f := range formats {
		geometries[i] = f.geometry(t, heads)
	}
	return ahead(len(formats), func(i int) made {
		s := made{of: formats[i], g: geometries[i], seqs: make([]*sequence, len(lengths))}
		each(len(lengths), func(k int) { s.seqs[k] = newSequence(s.g, lengths[k], uint64(1+k)) })
		return s
	})
}

// checkDecode compares outputs of the same queries, by name.
func checkDecode(t *testing.T, name string, g *quant.Geometry, seqs []*sequence, group int, q []float32, outs map[string][]float32) {
	t.Helper()
	d, rows := g.HeadDim, g.KVHeads*group
	want := make([]attention, len(seqs)*rows)
	each(len(want), func(i int) {
		want[i] = seqs[i/rows].oracle(g, i%rows/group, q[i*d:(i+1)*d], 1/math.Sqrt(float64(d)), g.Format.Coded())
	})
	worst := 0.0
	for how, out := range outs {
		for i := range want {
			e := want[i].off(out[i*d : (i+1)*d])
			if !(e < 1e-3) {
				t.Errorf("%s, %s: sequence of %d, row %d: off by %.3g", name, how, seqs[i/rows].n, i%rows, e)
				return
			}
			worst = max(worst, e)
		}
	}
	t.Logf("%s: off by %.2g at most", name, worst)
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
		once := func(seqs ...*sequence) []float32 {
			b := newDecodeBatch(&lab{t: t, c: c}, m, g, seqs...)
			defer b.close()
			return b.once(b.queries(group), group, run)
		}
		alone, company := once(s), once(s, newSequence(g, 300, 2), newSequence(g, 900, 3))
		if !slices.Equal(alone, company[:len(alone)]) {
			t.Error("the first sequence's output depends on the others")
		}
	})
}

// Sequences of one length, whose plan is a kernel's parameters, get the bits that the
// list of items gives.
func TestDecodeEven(t *testing.T) {
	formats := chosen(t, pick([]attended{{"hq2", true, 128}, {"f16", true, 64}}, decodeFormats))
	checks := newBeside()
	defer checks.Wait()
	on(t, func(c *Context, m Module) {
		for _, n := range pick([]int{900}, []int{70, 1000, 4500}) {
			for s := range sequences(t, formats, 2, n, n) {
				b := newDecodeBatch(&lab{t: t, c: c}, m, s.g, s.seqs...)
				for _, group := range pick([]int{4}, []int{3, 8}) {
					name, q := fmt.Sprintf("%+v group %d, %d tokens", s.of, group, n), b.queries(group)
					plan := func(list bool) func(d *Decoder, lengths []int) *Plan {
						return func(d *Decoder, lengths []int) *Plan {
							p := NewPlan(s.g.Format, lengths, s.g.KVHeads, group, d.queries, PlanOptions{Blocks: pick(9, 30), Warps: d.warps})
							if p.even.Parts == 0 {
								t.Errorf("%s: the plan has no short form", name)
							}
							if list {
								p.Pad(p.blocks+1, 99)
							}
							return p
						}
					}
					short, list := b.once(q, group, plan(false)), b.once(q, group, plan(true))
					if !slices.Equal(short, list) {
						t.Errorf("%s: the list of items gives something else", name)
					}
					checks.check(func() { checkDecode(t, name, s.g, s.seqs, group, q, map[string][]float32{"short": short}) })
				}
				b.close()
			}
		}
	})
}

func TestDecodeGraph(t *testing.T) {
	const group = 4
	on(t, func(c *Context, m Module) {
		g := geometry(t, "hq3", true, 1, 64)
		l := &lab{t: t, c: c}
		b := newDecodeBatch(l, m, g, newSequence(g, 600, 1), newSequence(g, 90, 2))
		q := b.queries(group)
		want := b.once(q, group, func(d *Decoder, lengths []int) *Plan { return d.Plan(c.info, lengths) })
		d, err := c.NewDecoder(m, g, group)
		ok(t, err)
		step, err := c.Prepare(d, d.Plan(c.info, []int{600, 90}))
		ok(t, err)
		qMem, outMem := l.bytes(bytesOf(q)), l.bytes(poison(4*len(q)))
		stream, err := c.NewStream()
		ok(t, err)
		graph, err := c.Capture(stream, func() error {
			return c.Attend(step, b.mem.tables, 0, qMem, outMem, float32(1/math.Sqrt(64)), stream)
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
		b.close()
	})
}
