package eval

import (
	"context"
	"fmt"
	"slices"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/model/session"
)

// decodeTogether is how many texts one step of decoding goes on with. Results do
// not depend on it: weights read once a step are what it saves.
const decodeTogether = 8

// sessions makes sessions of a format that decode together, one for each length
// of a prompt. top is whether they read its top planes.
func (s Subject) sessions(format string, prompts []int, maxTokens int) (all []*session.Session, top bool, err error) {
	first, err := s.session(format, prompts[0], maxTokens)
	if err != nil {
		return nil, false, err
	}
	_, top, _ = parseFormat(format, s.Calibration != nil) // it is read already
	all = append(all, first)
	for _, prompt := range prompts[1:] {
		another := first.Another(maxTokens)
		mark(another, prompt, top)
		all = append(all, another)
	}
	return all, top, nil
}

// compareDecode is Compare's decoding: windows side by side, all one length.
func compareDecode(ctx context.Context, s Subject, windows [][]terse.Token, out []*Divergence, from int, progress func(done float64)) error {
	if from < 1 {
		return fmt.Errorf("cannot decode without a prompt: score from position 1 on at the earliest")
	}
	done := 0
	for group := range slices.Chunk(windows, decodeTogether) {
		g, err := newDecoding(s, group, from, out)
		if err != nil {
			return err
		}
		for at := from; at < len(group[0])-1; at++ {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := g.step(at); err != nil {
				return err
			}
			progress((float64(done) + float64(len(group)*at)/float64(len(group[0]))) / float64(len(windows)))
		}
		done += len(group)
		for i, d := range out {
			d.positions = append(d.positions, slices.Concat(g.positions[i]...)...)
		}
	}
	progress(1)
	return nil
}

// decoding is a group of windows in progress: in the exact model, and in every
// format.
type decoding struct {
	ops       kernels.Ops
	vocab     int
	windows   [][]terse.Token
	next      []terse.Token // of each window
	exact     []*session.Session
	sessions  [][]*session.Session // of each format; nil where it is the exact one
	positions [][][]position       // of each format and window
}

func newDecoding(s Subject, windows [][]terse.Token, from int, formats []*Divergence) (*decoding, error) {
	g := &decoding{ops: s.Model.Ops(), vocab: s.Model.Config.VocabSize, windows: windows, next: make([]terse.Token, len(windows))}
	start := func(format string) ([]*session.Session, error) {
		all, _, err := s.sessions(format, slices.Repeat([]int{from}, len(windows)), len(windows[0]))
		if err != nil {
			return nil, err
		}
		for i, run := range all {
			if _, err := prefill(run, windows[i][:from]); err != nil {
				return nil, err
			}
		}
		return all, nil
	}
	var err error
	if g.exact, err = start(exactFormat); err != nil {
		return nil, err
	}
	for _, d := range formats {
		var all []*session.Session
		if d.Format != exactFormat {
			if all, err = start(d.Format); err != nil {
				return nil, err
			}
		}
		g.sessions = append(g.sessions, all)
		g.positions = append(g.positions, make([][]position, len(windows)))
	}
	return g, nil
}

// step appends the windows' tokens at one position and scores what follows.
func (g *decoding) step(at int) error {
	for i, w := range g.windows {
		g.next[i] = w[at]
	}
	exact, err := session.Decode(g.exact, g.next, session.LastLogits)
	if err != nil {
		return err
	}
	rows := make([]position, len(g.windows))
	for f, all := range g.sessions {
		logits := exact
		if all != nil {
			if logits, err = session.Decode(all, g.next, session.LastLogits); err != nil {
				return err
			}
		}
		g.ops.Parallel(len(rows), kernels.TaskFunc(func(i int) {
			lo, hi := i*g.vocab, (i+1)*g.vocab
			rows[i] = compare(exact[lo:hi], logits[lo:hi], g.windows[i][at+1])
		}))
		for i, p := range rows {
			g.positions[f][i] = append(g.positions[f][i], p)
		}
	}
	return nil
}
