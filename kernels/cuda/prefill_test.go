package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
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

// Rows of a prompt attend as the same queries do in decode's oracle: 1.5 % at most,
// 3e-3 where all is exact (queries are float16 there).
func TestPrefill(t *testing.T) {
	formats := prefillFormats
	if testing.Short() {
		formats = formats[:5]
	}
	on(t, func(c *Context, m Module) {
		for _, f := range formats {
			for _, group := range pick([]int{4}, []int{1, 4, 7}) {
				for _, at := range pick([]int{0, 380}, []int{0, 380, 1200}) {
					checkPrefill(t, c, m, &Prefiller{g: f.geometry(t, pick(1, 2)), group: group}, f, at, 70)
				}
			}
		}
	})
}

var wideFormats = []attended{
	{"f16", true, 128}, {"hq4", false, 128}, {"hq2", true, 128}, {"f16", true, 64}, {"hq2,k2=lead:32", false, 128}, {"hq2,k2=shared:48", true, 128}, {"hq3", true, 128}, {"hq2", false, 128}, {"hq3", false, 128}, {"hq4", true, 128},
	{"hq2,k2=lead:32", true, 128}, {"hq2,k2=shared:112", true, 128}, {"hq2b/128", true, 128}, {"hq2b/0", true, 128},
}

// The same with Hopper's warpgroup products, which are emulated too.
func TestPrefillWide(t *testing.T) {
	formats := wideFormats
	if testing.Short() || !*gpuFlag && !*fullFlag {
		formats = formats[:6]
	}
	onBoth(t, func(t *testing.T, c *Context, m Module) {
		if *gpuFlag && (c.info.Major != hopperMajor || c.info.Minor != hopperMinor) {
			t.Skip("this GPU is not Hopper")
		}
		for _, f := range formats {
			for _, group := range pick([]int{4}, []int{1, 4, 7}) {
				for _, at := range pick([]int{380, 900}, []int{0, 380, 1200}) {
					checkPrefill(t, c, m, &Prefiller{g: f.geometry(t, pick(1, 2)), group: group, wide: true}, f, at, pick(70, 200))
				}
			}
		}
	})
}

func checkPrefill(t *testing.T, c *Context, m Module, p *Prefiller, f attended, position, rows int) {
	t.Helper()
	g, group, heads, dim := p.g, p.group, p.g.KVHeads, f.dim
	s := newSequence(g, position+rows, 7)
	mem := upload(t, c, g, []*sequence{s})
	p, err := c.newPrefiller(m, p)
	ok(t, err)
	r := rand.New(rand.NewPCG(5, 5))
	q := make([]float32, rows*heads*group*dim)
	for i := range q {
		q[i] = float32(r.NormFloat64())
	}
	qMem, err := c.Alloc(4 * len(q))
	ok(t, err)
	outMem, err := c.Alloc(4 * len(q))
	ok(t, err)
	raw := poison(4 * len(q))
	ok(t, c.Upload(qMem, bytesOf(q)))
	ok(t, c.Upload(outMem, raw))
	scale := 1 / math.Sqrt(float64(dim))
	ok(t, c.Prefill(p, 0, position, rows, mem.tables.Coded, mem.tables.Exact, qMem, outMem, float32(scale), 0))
	ok(t, c.Download(raw, outMem))
	out := floats(raw)
	ok(t, c.Free(qMem))
	ok(t, c.Free(outMem))
	mem.free(t, c)

	errors := make([]float64, rows*heads*group)
	var wait sync.WaitGroup
	for i := range errors {
		wait.Go(func() {
			row := *s
			row.n = position + i/(heads*group) + 1
			want := row.oracle(g, i/group%heads, q[i*dim:(i+1)*dim], scale)
			errors[i] = relative(out[i*dim:(i+1)*dim], want)
		})
	}
	wait.Wait()
	name := fmt.Sprintf("%+v wide %v group %d rows %d…%d", f, p.wide, group, position, position+rows)
	worst := 0.0
	for i, e := range errors {
		n, limit := position+i/(heads*group)+1, 0.015
		if from, _ := g.Format.ExactFrom(n); from <= g.Format.Sinks {
			limit = 3e-3
		}
		if !(e < limit) {
			t.Errorf("%s: row %d, vector %d: relative error %.3g", name, i/(heads*group), i%(heads*group), e)
			return
		}
		worst = max(worst, e)
	}
	t.Logf("%s: worst relative error %.2g", name, worst)
}
