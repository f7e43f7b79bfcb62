package model

import (
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/attention"
	level "github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/cpu"
	"github.com/terse-llm/terse/kernels/ref"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/weights"
	"github.com/terse-llm/terse/weights/weightstest"
)

// bench is a model with exact pages, and the sequences that run on it.
type bench struct {
	t       *testing.T
	model   *Model
	runner  *attention.Runner
	g       *quant.Geometry
	scratch Scratch
}

// newBench binds src to pages of a KV format: f16, or f32 where the graph alone
// is in question.
func newBench(t *testing.T, src *weights.Source, kv string) *bench {
	t.Helper()
	return newBenchOn(t, src, kv, nil, bestOps(t))
}

// newDefaultBench is the built-in model as it is served, with its calibration.
func newDefaultBench(t *testing.T, kv string, ops kernels.Ops) *bench {
	t.Helper()
	src, cal := weightstest.BuiltIn(t)
	return newBenchOn(t, src, kv, cal, ops)
}

// bestOps is the backend that this machine computes with.
func bestOps(t *testing.T) kernels.Ops {
	ops := cpu.Best(runtime.GOMAXPROCS(0))
	t.Cleanup(ops.Close)
	return ops
}

// backends are the plain one and every level of the processor's that this
// machine and build have.
func backends(t *testing.T) []kernels.Ops {
	all := []kernels.Ops{ref.New(2)}
	for _, l := range level.Levels() {
		ops := cpu.New(2, l)
		t.Cleanup(ops.Close)
		all = append(all, ops)
	}
	return all
}

// newBenchOn is newBench with a calibration, or nil, and on a backend.
func newBenchOn(t *testing.T, src *weights.Source, kv string, cal *quant.Calibration, ops kernels.Ops) *bench {
	t.Helper()
	c, err := ConfigOf(src)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Bind(c, src, ops)
	if err != nil {
		t.Fatal(err)
	}
	f, err := quant.ParseFormat(kv, cal != nil)
	if err != nil {
		t.Fatal(err)
	}
	g, err := c.Geometry(f)
	if err != nil {
		t.Fatal(err)
	}
	tf, err := quant.NewTransform(g, cal)
	if err != nil {
		t.Fatal(err)
	}
	return &bench{t: t, model: m, g: g, runner: attention.New(ops, g, tf, c.AttentionScale())}
}

func open(t *testing.T, path string) *weights.Source {
	t.Helper()
	src, err := weights.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	return src
}

// sequence is one sequence's pages and how far they are written.
type sequence struct {
	view quant.View
	pos  int
}

func (b *bench) newSequence() *sequence { return &sequence{view: quant.View{Geometry: b.g}} }

// add puts the next tokens of s into the batch.
func (b *bench) add(batch *Batch, s *sequence, tokens []terse.Token) {
	for len(s.view.Exact)*b.g.Format.PageTokens < s.pos+len(tokens) {
		s.view.Exact = append(s.view.Exact, make([]byte, b.g.ExactPage()))
	}
	batch.Append(tokens, &s.view, s.pos)
	s.pos += len(tokens)
}

// run computes a batch; every row of the result is a copy.
func (b *bench) run(batch *Batch) [][]float32 {
	b.t.Helper()
	logits, _, err := b.model.Forward(b.runner, batch, &b.scratch)
	if err != nil {
		b.t.Fatal(err)
	}
	var rows [][]float32
	for row := range slices.Chunk(logits, b.model.Config.VocabSize) {
		rows = append(rows, slices.Clone(row))
	}
	return rows
}

// feed runs tokens in chunks and returns the last one's logits.
func (b *bench) feed(s *sequence, tokens []terse.Token, chunk int) []float32 {
	b.t.Helper()
	var last []float32
	for part := range slices.Chunk(tokens, chunk) {
		var batch Batch
		b.add(&batch, s, part)
		batch.WantLast()
		last = b.run(&batch)[0]
	}
	return last
}

// all is the logits of every token of a text.
func (b *bench) all(tokens []terse.Token) [][]float32 {
	b.t.Helper()
	var batch Batch
	b.add(&batch, b.newSequence(), tokens)
	batch.WantAll(len(tokens))
	return b.run(&batch)
}

// closeCall is the difference of the two largest logits below which either
// token is right: float16 keys and another order of summation may swap them.
const closeCall = 1e-2

// answer is a sequence that generates greedily: the logits so far and the tokens
// that should follow.
type answer struct {
	s      *sequence
	logits []float32
	want   []terse.Token
}

// follow generates all answers together and compares with what is wanted. Where
// the choice is a close call it follows want, so that one swap does not end the
// comparison.
func (b *bench) follow(answers ...*answer) {
	b.t.Helper()
	for i := 0; len(answers) > 0; i++ {
		var batch Batch
		var left []*answer
		for n, a := range answers {
			w, best := a.want[i], argmax(a.logits)
			if best != w && a.logits[best]-a.logits[w] >= closeCall {
				b.t.Fatalf("answer %d: token %d of %d is %d, want %d, whose logit is %g lower", n, i, len(a.want), best, w, a.logits[best]-a.logits[w])
			}
			if i < len(a.want)-1 {
				b.add(&batch, a.s, []terse.Token{w})
				batch.WantLast()
				left = append(left, a)
			}
		}
		answers = left
		for n, row := range b.run(&batch) {
			answers[n].logits = row
		}
	}
}

func argmax(x []float32) terse.Token {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return terse.Token(best)
}

// spread is the range of a row of logits.
func spread(x []float32) float64 { return float64(slices.Max(x) - slices.Min(x)) }

// distance is the largest difference of two rows.
func distance(a, b []float32) float64 {
	var d float64
	for i := range a {
		if e := math.Abs(float64(a[i]) - float64(b[i])); !(e <= d) {
			d = e
		}
	}
	return d
}

// logProb is the natural log-probability of token t.
func logProb(logits []float32, t terse.Token) float64 {
	top := float64(slices.Max(logits))
	var sum float64
	for _, v := range logits {
		sum += math.Exp(float64(v) - top)
	}
	return float64(logits[t]) - top - math.Log(sum)
}

// relative is the rms difference of two texts' logits over the deviation of the
// second's.
func relative(got, want [][]float32) float64 {
	var diff, sum, square, n float64
	for r := range want {
		for i, w := range want[r] {
			d := float64(got[r][i]) - float64(w)
			diff, sum, square, n = diff+d*d, sum+float64(w), square+float64(w)*float64(w), n+1
		}
	}
	return math.Sqrt(diff / (square - sum*sum/n))
}
