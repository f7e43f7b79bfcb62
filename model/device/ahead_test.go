package device

import (
	"fmt"
	"slices"
	"testing"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kernels/cuda/cudatest"
	"github.com/terse-llm/terse/model"
)

// row puts s's last token into the batch, for the token after it: the most likely
// one, or one drawn by s's own numbers.
func (b *bench) row(s *text, more bool) {
	b.t.Helper()
	if !b.cache.Grow(&s.table, s.n+1, s.prompt) {
		b.t.Fatal("the cache is full")
	}
	b.pages.View(&s.table, s.prompt, &s.view)
	b.batch.Append(s.ids[s.n:s.n+1], &s.view, s.n)
	s.n++
	p := model.Pick{More: more}
	if s.prompt%2 == 1 {
		u := func(n int) float64 { return float64(n*s.prompt%97) / 97 }
		p.Temperature, p.TopK, p.U, p.Next = 0.9, 20, u(s.n), u(s.n+1)
	}
	b.batch.WantToken(p)
}

// rows decodes one token of each text.
func (b *bench) rows(more bool, all ...*text) {
	b.t.Helper()
	for _, s := range all {
		b.row(s, more)
	}
	res, err := b.r.Step(&b.batch)
	if err != nil {
		b.t.Fatal(err)
	}
	for i, s := range all {
		s.ids = append(s.ids, terse.Token(res.Tokens[i]))
		b.cache.Trim(&s.table, s.n, s.prompt)
		b.cache.Commit(&s.table, s.ids, s.n)
	}
	b.batch.Reset()
}

// generate has texts come, go on over the ends of pages and leave, and says what they
// are in the end and the last logits.
func generate(t *testing.T, x *tiny, kv string, more bool) (ids [][]terse.Token, logits []float32, a ahead) {
	t.Helper()
	r := x.onDevice(x.geometry(kv), RunnerOptions{Rows: 140, Sequences: 4, Context: 512})
	b := newBench(t, r, 1<<20)
	var all []*text
	for i, n := range []int{100, 61, 44, 90} {
		all = append(all, &text{ids: random(uint64(i), n+1), prompt: n})
	}
	come := func(s *text) { b.add(s, s.prompt); b.step(s) }
	times := func(n int, s ...*text) {
		for range n {
			b.rows(more, s...)
		}
	}
	come(all[0])
	times(5, all[0])
	come(all[1])
	times(12, all[:2]...) // both over the end of a page
	times(3, all[1])      // one waits
	times(3, all[0], all[1])
	b.cache.Free(&all[0].table) // and its pages are another's
	come(all[3])
	times(2, all[1], all[3])
	come(all[2])
	times(4, all[1], all[2], all[3])
	b.rows(false, all[1:]...)
	times(3, all[2])
	for _, s := range all {
		ids = append(ids, s.ids)
	}
	b.add(all[2], 1)
	return ids, b.step(all[2]), r.ahead
}

// A step that is begun before the one before it is read gives what it would give
// then, and one that does not follow nothing, whenever the GPU does its work.
func TestAhead(t *testing.T) {
	gpus := []int{cudatest.AtOnce, cudatest.Late, cudatest.CopiesFirst, cudatest.KernelsFirst, cudatest.Random}
	if *gpuFlag {
		gpus = gpus[:1]
	}
	formats := []string{"hq3", "f16"}
	if testing.Short() {
		formats = formats[:1]
	}
	x := newTinyOn(t, 1, cudatest.AtOnce)
	for _, kv := range formats {
		want, logits, a := generate(t, x, kv, false)
		if a.used+a.lost > 0 {
			t.Fatalf("%s: %d steps were begun that nobody spoke of", kv, a.used+a.lost)
		}
		for _, n := range gpus {
			t.Run(fmt.Sprintf("%s/%d", kv, n), func(t *testing.T) {
				got, last, a := generate(t, newTinyOn(t, 1, n), kv, true)
				for i := range want {
					if !slices.Equal(got[i], want[i]) {
						t.Errorf("text %d: %v, step by step %v", i, got[i], want[i])
					}
				}
				if !slices.Equal(last, logits) {
					t.Errorf("the last logits are %.2g apart", far(last, logits))
				}
				if a.used < 15 || a.lost < 4 {
					t.Errorf("%d steps were begun early, and %d for nothing", a.used, a.lost)
				}
			})
		}
		gpus = gpus[:min(len(gpus), 2)] // what the other ones find does not hang on the format
	}
}
