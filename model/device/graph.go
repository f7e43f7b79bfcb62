package device

import (
	"errors"

	"github.com/terse-llm/terse/kernels/cuda"
	"github.com/terse-llm/terse/model"
)

// graphKey is what decides which graph can run a step of single rows.
type graphKey struct {
	rows   int // padded
	blocks int // of the attention's grid
}

// graphable reports whether a step can be one of the graphs: single rows alone,
// all of which give logits, and nobody watches.
func (r *Runner) graphable(b *model.Batch) bool {
	s := &r.step
	return !r.options.NoGraphs && r.kernels.hack == nil && s.rows > 0 && s.singles == s.rows && s.wanted == s.rows && len(s.staged) == 0 && bucketOf(s.rows) <= min(r.options.Rows, r.options.Sequences)
}

// bucketOf is the number of rows that a step of n is padded to.
func bucketOf(n int) int {
	switch {
	case n <= 2:
		return n
	case n <= 16:
		return (n + 3) / 4 * 4
	case n <= 64:
		return (n + 7) / 8 * 8
	}
	return (n + 31) / 32 * 32
}

// replay runs the step as a graph, which the second step of its size makes: the
// first, run piece by piece, is when cuBLASLt chooses how to compute.
func (r *Runner) replay(c *cuda.Context, b *model.Batch) error {
	s, real := &r.step, r.step.rows
	key, items := r.pad(r.in.hostInputs, real, s.plan)
	if r.begun(b, key, items) {
		return nil
	}
	if err := errors.Join(r.forgo(c), r.in.upload(c, items, r.stream)); err != nil {
		return err
	}
	s.rows, s.singles, s.wanted = key.rows, key.rows, key.rows
	err := r.out.fit(c, r, key.rows)
	if err == nil {
		err = r.launch(c, key)
	}
	s.rows, s.singles, s.wanted = real, real, real
	if err != nil {
		return err
	}
	return r.fetch(c, b, r.in.side())
}

// pad makes inputs of some rows those of a graph, which it names. items is the bytes
// of the plan's items.
func (r *Runner) pad(in *hostInputs, rows int, plan *cuda.Plan) (key graphKey, items int) {
	key.rows, key.blocks = bucketOf(rows), r.dev.Info.SMs
	for i := rows; i < key.rows; i++ {
		in.tokens[i], in.positions[i], in.wanted[i] = 0, -1, int32(i)
	}
	for key.blocks < plan.Blocks() {
		key.blocks *= 2
	}
	plan.Pad(key.blocks, r.options.Rows)
	return key, copy(in.items, plan.Items())
}

// graphPair is a step's graph for the inputs of each side.
type graphPair [2]cuda.Graph

func (r *Runner) launch(c *cuda.Context, key graphKey) error {
	pair, seen := r.graphs[key]
	if !seen {
		r.graphs[key] = nil
		return r.layers(c, &model.Batch{})
	}
	if pair == nil {
		var err error
		if pair, err = r.capture(c); err != nil {
			return err
		}
		r.graphs[key] = pair
	}
	return c.Replay(pair[r.in.side()], r.stream)
}

func (r *Runner) capture(c *cuda.Context) (*graphPair, error) {
	pair, hand := &graphPair{}, r.in.hostInputs
	defer func() { r.in.hostInputs = hand }()
	for i, side := range r.in.sides {
		r.in.hostInputs = side
		var err error
		if pair[i], err = c.Capture(r.stream, func() error { return r.layers(c, &model.Batch{}) }); err != nil {
			return nil, errors.Join(err, closePair(c, pair))
		}
	}
	return pair, nil
}

// closePair ends what there is of a pair.
func closePair(c *cuda.Context, pair *graphPair) error {
	var errs []error
	for i := 0; pair != nil && i < len(pair); i++ {
		if pair[i] != 0 {
			errs = append(errs, c.CloseGraph(pair[i]))
		}
	}
	return errors.Join(errs...)
}

// forget drops the graphs, whose buffers have moved.
func (r *Runner) forget(c *cuda.Context) error {
	r.ahead.live = false
	for key, pair := range r.graphs {
		if err := closePair(c, pair); err != nil {
			return err
		}
		delete(r.graphs, key)
	}
	return nil
}
