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
	Ops         kernels.Ops
	Calibration *quant.Calibration
}

// session makes a session of the subject in a KV format.
func (s Subject) session(format string, maxTokens int) (*session.Session, error) {
	f, err := quant.ParseFormat(format, s.Calibration != nil)
	if err != nil {
		return nil, err
	}
	g, err := s.Model.Config.Geometry(f)
	if err != nil {
		return nil, err
	}
	return session.New(s.Model, s.Ops, g, s.Calibration, maxTokens)
}

// Divergence is what a format does to next-token distributions over a text.
type Divergence struct {
	Format     string
	Tokens     int     // scored positions
	Perplexity float64 // of the format
	KL         float64 // mean KL(exact ‖ format), nats per token
	KLp99      float64
	Top1       float64 // share of positions where the most likely token is the exact model's

	kl   []float64
	nll  float64
	same int
}

// chunk is how many tokens one forward pass appends; results do not depend on
// it, memory does.
const chunk = 512

// Compare runs windows through the exact model and every format side by side and
// scores positions from (0-based, of a window's input tokens) on. progress is
// told the share done, 0 to 1.
func Compare(ctx context.Context, s Subject, windows [][]terse.Token, formats []string, from int, progress func(done float64)) ([]*Divergence, error) {
	out := make([]*Divergence, len(formats))
	for i, f := range formats {
		out[i] = &Divergence{Format: f}
	}
	for w, ids := range windows {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := compareWindow(s, ids, from, out); err != nil {
			return nil, err
		}
		progress(float64(w+1) / float64(len(windows)))
	}
	for _, d := range out {
		d.finish()
	}
	return out, nil
}

func compareWindow(s Subject, ids []terse.Token, from int, out []*Divergence) error {
	exact, err := s.session("f16", len(ids))
	if err != nil {
		return err
	}
	sessions := make([]*session.Session, len(out))
	for i, d := range out {
		if sessions[i], err = s.session(d.Format, len(ids)); err != nil {
			return err
		}
	}
	vocab := s.Model.Config.VocabSize
	for at := 0; at < len(ids); at += chunk {
		part := ids[at:min(at+chunk, len(ids))]
		want := session.NoLogits
		if at+len(part) > from {
			want = session.AllLogits
		}
		truth, err := exact.Forward(part, want)
		if err != nil {
			return err
		}
		for i, d := range out {
			logits, err := sessions[i].Forward(part, want)
			if err != nil {
				return err
			}
			for r := max(0, from-at); r < len(part) && at+r+1 < len(ids) && want == session.AllLogits; r++ {
				d.score(truth[r*vocab:(r+1)*vocab], logits[r*vocab:(r+1)*vocab], ids[at+r+1])
			}
		}
	}
	return nil
}

// score adds one position: the exact and the format's logits and the token that
// really follows.
func (d *Divergence) score(exact, coded []float32, next terse.Token) {
	topE, sumE := logSum(exact)
	topC, sumC := logSum(coded)
	kl := 0.0
	for i, e := range exact {
		lp := float64(e) - sumE
		kl += math.Exp(lp) * (lp - (float64(coded[i]) - sumC))
	}
	d.kl = append(d.kl, max(kl, 0))
	d.nll -= float64(coded[next]) - sumC
	if topE == topC {
		d.same++
	}
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

func (d *Divergence) finish() {
	d.Tokens = len(d.kl)
	if d.Tokens == 0 {
		return
	}
	n := float64(d.Tokens)
	for _, v := range d.kl {
		d.KL += v / n
	}
	slices.Sort(d.kl)
	d.KLp99 = d.kl[min(d.Tokens-1, d.Tokens*99/100)]
	d.Perplexity = math.Exp(d.nll / n)
	d.Top1 = float64(d.same) / n
}
