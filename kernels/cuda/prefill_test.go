package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

var prefillFormats = []attended{
	{"hq2", true, 128}, {"hq2", false, 64}, {"hq2,k2=tokens:24,v2=tokens:56", false, 128}, {"hq2,k2=lead:32", false, 128}, {"hq2,k2=lead:16", true, 64}, {"hq2", true, 64}, {"hq2", false, 128},
	{"hq3", true, 128}, {"hq3", false, 128}, {"hq4", true, 128}, {"hq4", false, 128}, {"hq2,sinks=0,recent=0", true, 128}, {"f16", true, 128},
	{"hq2,k2=tokens:8", true, 128}, {"hq2,k2=tokens:24", false, 64}, {"hq2,k2=tokens:16,v2=tokens:40", true, 64},
	{"hq3", true, 64}, {"hq3", false, 64}, {"hq4", true, 64}, {"hq4", false, 64}, {"hq2,sinks=0,recent=0", true, 64}, {"f16", true, 64},
	{"hq2,k2=lead:32", true, 128}, {"hq2,k2=lead:16", false, 64}, {"hq2,k2=lead:32", true, 64}, {"hq2,k2=lead:32", false, 64},
	{"hq2,k2=shared:112", true, 128}, {"hq2,k2=shared:16", true, 64}, {"hq2,k2=shared:48,important=6", true, 128}, {"hq2,k2=shared:48,important=50", true, 64},
	{"hq2,important=6", true, 128}, {"hq2,important=50", false, 128}, {"hq2,important=12", true, 64}, {"hq2,important=6", false, 64},
	{"hq3,important=6", true, 128}, {"hq3,important=30", false, 128}, {"hq3,important=6", true, 64}, {"hq3,important=6", false, 64}, {"hq2,v2=tokens:8", true, 128},
	{"hq2+,important=6", true, 128}, {"hq2+,important=12", true, 64}, {"hq2b/0", true, 64}, {"hq2b/128", true, 128},
}

// Rows of a prompt attend as the same queries do in decode's oracle, 0.3 % off at most:
// beside exact tokens queries and weights are float16 here.
func TestPrefill(t *testing.T) {
	formats := chosen(t, prefillFormats)
	if testing.Short() {
		formats = formats[:min(5, len(formats))]
	}
	on(t, func(c *Context, m Module) {
		checkPrompts(t, c, m, formats, false, pick([]int{0, 380}, []int{0, 380, 1200}), 70)
	})
}

var wideFormats = []attended{
	{"f16", true, 128}, {"hq4", false, 128}, {"hq2", true, 64}, {"f16", true, 64}, {"hq2,k2=lead:32", false, 128}, {"hq2,k2=shared:48", true, 128}, {"hq2,k2=lead:16", true, 64}, {"hq4", false, 64},
	{"hq2", true, 128}, {"hq3", true, 128}, {"hq2", false, 128}, {"hq3", false, 128}, {"hq4", true, 128},
	{"hq2,k2=lead:32", true, 128}, {"hq2,k2=shared:112", true, 128}, {"hq2b/128", true, 128}, {"hq2b/0", true, 128},
	{"hq2", false, 64}, {"hq3", true, 64}, {"hq3", false, 64}, {"hq4", true, 64}, {"hq2,k2=lead:16", false, 64}, {"hq2,k2=lead:32", true, 64}, {"hq2,k2=lead:32", false, 64},
	{"hq2,k2=shared:16", true, 64}, {"hq2b/64", true, 64}, {"hq2b/0", true, 64}, {"hq2,sinks=0,recent=0", true, 64},
}

// The same with Hopper's warpgroup products, which are emulated too; 0.5 % where keys
// of codes are float16.
func TestPrefillWide(t *testing.T) {
	formats := wideFormats
	if testing.Short() || !*gpuFlag && !*fullFlag {
		formats = formats[:8]
	}
	formats = chosen(t, formats)
	onBoth(t, func(t *testing.T, c *Context, m Module) {
		if *gpuFlag && (c.info.Major != hopperMajor || c.info.Minor != hopperMinor) {
			t.Skip("this GPU is not Hopper")
		}
		checkPrompts(t, c, m, formats, true, pick([]int{380, 900}, []int{0, 380, 1200}), pick(70, 200))
	})
}

// checkPrompts checks rows of prompts behind so many tokens.
func checkPrompts(t *testing.T, c *Context, m Module, formats []attended, wide bool, positions []int, rows int) {
	checks := newBeside()
	defer checks.Wait()
	for _, position := range positions {
		for s := range sequences(t, formats, pick(1, 2), position+rows) {
			mem := upload(t, c, s.g, s.seqs)
			for _, group := range pick([]int{4}, []int{1, 4, 7}) {
				p, err := c.newPrefiller(m, &Prefiller{g: s.g, group: group, wide: wide})
				ok(t, err)
				q := queries(rand.New(rand.NewPCG(5, 5)), rows*s.g.KVHeads*group, s.g.HeadDim)
				l := &lab{t: t, c: c}
				qMem, outMem := l.bytes(bytesOf(q)), l.bytes(poison(4*len(q)))
				scale := float32(1 / math.Sqrt(float64(s.g.HeadDim)))
				ok(t, c.Prefill(p, 0, position, rows, mem.tables.Coded, mem.tables.Exact, qMem, outMem, scale, 0))
				out := floats(l.back(outMem, 4*len(q)))
				l.close()
				name := fmt.Sprintf("%+v wide %v group %d rows %d…%d", s.of, wide, group, position, position+rows)
				checks.check(func() { checkPrefill(t, name, p, s.seqs[0], position, q, out) })
			}
			mem.free(t, c)
		}
	}
}

func checkPrefill(t *testing.T, name string, p *Prefiller, s *sequence, position int, q, out []float32) {
	t.Helper()
	vectors, dim := p.g.KVHeads*p.group, p.g.HeadDim
	errors := make([]float64, len(q)/dim)
	each(len(errors), func(i int) {
		row := *s
		row.n = position + i/vectors + 1
		want := row.oracle(p.g, i%vectors/p.group, q[i*dim:(i+1)*dim], 1/math.Sqrt(float64(dim)), p.g.Format.Coded() && !p.wide)
		errors[i] = want.off(out[i*dim : (i+1)*dim])
	})
	worst, limit := 0.0, 3e-3
	if p.wide && !p.alone && dim == 64 { // keys are float16 too
		limit = 5e-3
	}
	for i, e := range errors {
		if !(e < limit) {
			t.Errorf("%s: row %d, vector %d: off by %.3g", name, i/vectors, i%vectors, e)
			return
		}
		worst = max(worst, e)
	}
	t.Logf("%s: off by %.2g at most", name, worst)
}
