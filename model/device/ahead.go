package device

import (
	"errors"
	"slices"

	"github.com/terse-llm/terse/kernels/cuda"
	"github.com/terse-llm/terse/model"
)

// ahead is the step that most likely follows the one at hand, begun before the host
// has read the tokens that it is of: they are on the device. Where another step
// follows, what it has computed is not looked at. It has written K and V behind the
// ends of its sequences, which nobody counts, and whoever has these pages by then
// writes to them later in the stream.
type ahead struct {
	live  bool
	rows  int // without padding
	key   graphKey
	items int // bytes
	used  int // times that it was what followed
	lost  int // and was not
}

// begin puts the step after a graph's into the stream, where all of its sequences go
// on, pick tokens alike, and need no other pages for it. Pages begin and end with
// other tables and other exact windows.
func (r *Runner) begin(c *cuda.Context, b *model.Batch) error {
	s, page := &r.step, r.geometry.Format.PageTokens
	if !r.graphable(b) {
		return nil
	}
	lengths := make([]int, s.rows)
	for i, seg := range s.segments {
		if at := (seg.Pos + 1) % page; at == 0 || at == page-1 || seg.Pos+2 > r.options.Context {
			return nil
		}
		if p := b.Picks[i]; !p.Token || !p.More {
			return nil
		}
		lengths[i] = seg.Pos + 2
	}
	side := 1 - r.in.side()
	in := r.in.sides[side]
	clear(in.tokens[:s.rows])
	for i := range s.rows {
		in.positions[i], in.wanted[i] = r.in.positions[i]+1, r.in.wanted[i]
		next := b.Picks[i]
		next.U = next.Next
		in.draws[i] = drawOf(next)
	}
	key, items := r.pad(in, s.rows, r.kernels.decoder.PlanFrom(r.dev.Info, lengths, s.floors[:s.rows]))
	pair := r.graphs[key]
	if pair == nil {
		return nil
	}
	// All but the tokens goes to the device beside the step at hand: what was there
	// before was a step's that is over.
	if err := errors.Join(r.in.send(c, in, items, r.sends), c.Record(r.sent, r.sends), c.Wait(r.stream, r.sent)); err != nil {
		return err
	}
	if err := c.CopyAsync(in.device, r.out.best, 4*s.rows, r.stream); err != nil {
		return err
	}
	if err := c.Replay(pair[side], r.stream); err != nil {
		return err
	}
	r.ahead.live, r.ahead.rows, r.ahead.key, r.ahead.items = true, s.rows, key, items
	return r.fetch(c, b, side)
}

// begun reports whether the step that is laid is the one that was begun; it is the
// one at hand then.
func (r *Runner) begun(b *model.Batch, key graphKey, items int) bool {
	a, in, other := &r.ahead, &r.in, r.in.sides[1-r.in.side()]
	n := r.step.rows
	if !a.live || a.rows != n || a.key != key || a.items != items || len(in.changed) > 0 ||
		slices.ContainsFunc(b.Picks, func(p model.Pick) bool { return !p.Token }) ||
		!slices.Equal(in.tokens[:n], cuda.Int32s(r.out.bestHost[in.side()][:4*n])) ||
		!slices.Equal(in.positions[:n], other.positions[:n]) || !slices.Equal(in.wanted[:n], other.wanted[:n]) ||
		!slices.Equal(in.draws[:n], other.draws[:n]) || !slices.Equal(in.items[:items], other.items[:items]) {
		return false
	}
	a.live = false
	a.used++
	in.turn()
	return true
}

// forgo waits for a step that was begun and does not follow: its inputs are others'
// then.
func (r *Runner) forgo(c *cuda.Context) error {
	if !r.ahead.live {
		return nil
	}
	r.ahead.live = false
	r.ahead.lost++
	return c.Await(r.finished[1-r.in.side()])
}
