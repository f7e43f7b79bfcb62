package eval

import (
	"context"
	"math"
	"slices"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/model/session"
	"github.com/terse-llm/terse/quant"
)

// Subject is a model to evaluate, with its calibration (nil where it has none).
type Subject struct {
	Model       *model.Model
	Calibration *quant.Calibration
}

// geometry lays a KV format out for the subject.
func (s Subject) geometry(format string) (g *quant.Geometry, top bool, err error) {
	f, top, err := parseFormat(format, s.Calibration != nil)
	if err != nil {
		return nil, false, err
	}
	if g, err = s.Model.Config.CalibratedGeometry(f, s.Calibration); err == nil {
		g, err = g.Profiled(s.Calibration)
	}
	if err == nil && top {
		err = checkTop(g)
	}
	return g, top, err
}

// session makes a session of the subject in a KV format, for a prompt and so many
// tokens in all.
func (s Subject) session(format string, prompt, maxTokens int) (*session.Session, error) {
	g, top, err := s.geometry(format)
	if err != nil {
		return nil, err
	}
	run, err := session.New(s.Model, g, s.Calibration, maxTokens)
	if err != nil {
		return nil, err
	}
	mark(run, prompt, top)
	return run, nil
}

// mark says how long a session's prompt is.
func mark(run *session.Session, prompt int, top bool) {
	if run.Select(prompt); top {
		run.TopPlanes(prompt)
	}
}

// Divergence is what a format does to next-token distributions over a text.
type Divergence struct {
	Format     string
	Tokens     int     // scored positions
	Perplexity float64 // of the format
	KL         float64 // mean KL(exact ‖ format), nats per token
	KLp99      float64
	Top1       float64 // share of positions where the most likely token is the exact model's
	Loss       float64 // log perplexity over the exact model's, position by position
	Margin     *Margin `json:",omitempty"` // nil in reports of earlier versions

	positions []position
}

// chunk is how many tokens one forward pass of a prompt appends. Results do not
// depend on it, memory does.
const chunk = 512

// scoredChunk is a chunk whose logits, 4 bytes each, fit in 16 MB a format.
func scoredChunk(vocab int) int { return min(chunk, max(16, 1<<22/vocab)) }

// Style is how a text gets into the cache.
type Style string

const (
	// Prefill appends it in chunks, whose queries each read what they would in
	// decoding: see docs/formats.md.
	Prefill Style = "prefill"
	// Decode appends token by token what follows the first ones, so that a format's
	// pages are coded when they are full, as in generating.
	Decode Style = "decode"
)

// Compare runs windows through the exact model and every format side by side and
// scores positions from (0-based, of a window's input tokens) on. In style Decode
// the tokens before from are a prompt. progress is told the share done, 0 to 1.
func Compare(ctx context.Context, s Subject, windows [][]terse.Token, formats []string, from int, style Style, progress func(done float64)) ([]*Divergence, error) {
	out := make([]*Divergence, len(formats))
	for i, f := range formats {
		out[i] = &Divergence{Format: f}
	}
	run := comparePrefill
	if style == Decode {
		run = compareDecode
	}
	if err := run(ctx, s, windows, out, from, progress); err != nil {
		return nil, err
	}
	for _, d := range out {
		d.finish()
	}
	return out, nil
}

func comparePrefill(ctx context.Context, s Subject, windows [][]terse.Token, out []*Divergence, from int, progress func(done float64)) error {
	for n, ids := range windows {
		w, err := newWindow(s, ids, from, out)
		if err != nil {
			return err
		}
		for w.at < len(ids) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := w.step(); err != nil {
				return err
			}
			progress((float64(n) + float64(w.at)/float64(len(ids))) / float64(len(windows)))
		}
	}
	return nil
}

// window is one text in progress: in the exact model, and in every format.
type window struct {
	ops      kernels.Ops
	vocab    int
	ids      []terse.Token
	at, from int
	exact    *session.Session
	formats  []*Divergence
	sessions []*session.Session // nil where the format is the exact one
}

func newWindow(s Subject, ids []terse.Token, from int, formats []*Divergence) (*window, error) {
	w := &window{ops: s.Model.Ops(), vocab: s.Model.Config.VocabSize, ids: ids, from: from, formats: formats}
	var err error
	if w.exact, err = s.session(exactFormat, from, len(ids)); err != nil {
		return nil, err
	}
	w.sessions = make([]*session.Session, len(formats))
	for i, d := range formats {
		if d.Format == exactFormat {
			continue
		}
		if w.sessions[i], err = s.session(d.Format, from, len(ids)); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// exactFormat is what others are compared with.
const exactFormat = "f16"

// step runs the next chunk through every format and scores its positions. A
// window's last token has no successor to be scored by.
func (w *window) step() error {
	end := min(w.at+scoredChunk(w.vocab), len(w.ids))
	if w.at < w.from { // what is not scored is the prompt
		end = min(end, w.from)
	}
	part := w.ids[w.at:end]
	lo, hi := max(0, w.from-w.at), min(len(part), len(w.ids)-1-w.at)
	want := session.NoLogits
	if lo < hi {
		want = session.AllLogits
	}
	exact, err := w.exact.Forward(part, want)
	if err != nil {
		return err
	}
	for i, d := range w.formats {
		logits := exact
		if s := w.sessions[i]; s != nil {
			if logits, err = s.Forward(part, want); err != nil {
				return err
			}
		}
		if lo < hi {
			d.positions = append(d.positions, w.score(exact, logits, lo, hi)...)
		}
	}
	w.at += len(part)
	return nil
}

// position is what one position adds to a divergence.
type position struct {
	kl, nll, loss float64
	same          bool
}

// score compares rows [lo, hi) of the chunk's logits.
func (w *window) score(exact, coded []float32, lo, hi int) []position {
	rows := make([]position, hi-lo)
	w.ops.Parallel(len(rows), kernels.TaskFunc(func(i int) {
		r := lo + i
		rows[i] = compare(exact[r*w.vocab:(r+1)*w.vocab], coded[r*w.vocab:(r+1)*w.vocab], w.ids[w.at+r+1])
	}))
	return rows
}

// compare scores one position: the exact and the format's logits, and the token
// that really follows.
func compare(exact, coded []float32, next terse.Token) position {
	topE, sumE := logSum(exact)
	topC, sumC := logSum(coded)
	kl := 0.0
	for i, e := range exact {
		lp := float64(e) - sumE
		kl += math.Exp(lp) * (lp - (float64(coded[i]) - sumC))
	}
	// Rounding can leave a zero slightly below zero.
	nll := sumC - float64(coded[next])
	return position{kl: max(kl, 0), nll: nll, loss: nll - (sumE - float64(exact[next])), same: topE == topC}
}

// logSum gives the index of the largest logit and the logarithm of the sum of
// their exponentials.
func logSum(logits []float32) (top int, lse float64) {
	for i, v := range logits {
		if v > logits[top] {
			top = i
		}
	}
	m := float64(logits[top])
	sum := 0.0
	for _, v := range logits {
		sum += math.Exp(float64(v) - m)
	}
	return top, m + math.Log(sum)
}

// finish makes figures of the positions.
func (d *Divergence) finish() {
	d.Tokens = len(d.positions)
	if d.Tokens == 0 {
		return
	}
	column := func(of func(p position) float64) []float64 {
		values := make([]float64, len(d.positions))
		for i, p := range d.positions {
			values[i] = of(p)
		}
		return values
	}
	kl := column(func(p position) float64 { return p.kl })
	nll := column(func(p position) float64 { return p.nll })
	loss := column(func(p position) float64 { return p.loss })
	same := column(func(p position) float64 {
		if p.same {
			return 1
		}
		return 0
	})
	d.Margin = &Margin{LogPerplexity: meanMargin(nll), Loss: meanMargin(loss), KL: meanMargin(kl), KLp99: tailMargin(kl), Top1: meanMargin(same)}
	d.KL, d.Perplexity, d.Loss, d.Top1 = mean(kl), math.Exp(mean(nll)), mean(loss), mean(same)
	slices.Sort(kl)
	d.KLp99 = percentile99(kl)
}
