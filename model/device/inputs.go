package device

import (
	"errors"
	"slices"

	"github.com/terse-llm/terse/kernels/cuda"
	"github.com/terse-llm/terse/kvcache"
	"github.com/terse-llm/terse/quant"
)

// hostInputs are a step's inputs in pinned memory, and where they go.
type hostInputs struct {
	device                    cuda.Ptr
	host                      []byte      // all that follows
	tokens, positions, wanted []int32     // of rows
	draws                     []cuda.Draw // of wanted
	items                     []byte
}

// inputs are what changes from step to step, in pinned memory and where it goes on
// the device: at fixed places, so that a graph can read it.
type inputs struct {
	*hostInputs                     // of the step at hand: one of sides
	sides            [2]*hostInputs // the other one is of the step after it, where that is begun
	drawsAt, itemsAt int            // in either

	// Tables of the addresses of pages, [kind][segment][pages], the same on both
	// sides but for what changed.
	tables     [2][]uint64
	tablesHost []byte
	tablesAt   [2]cuda.Ptr
	width      int // pages of a sequence
	changed    []tableRange
	addresses  []uint64
}

// tableRange is a run of a table's entries.
type tableRange struct{ kind, lo, hi int }

func (in *inputs) open(c *cuda.Context, r *Runner) (err error) {
	rows, sequences := r.options.Rows+1, r.options.Sequences
	in.drawsAt = (3*4*rows + 63) / 64 * 64
	in.itemsAt = (in.drawsAt + rows*cuda.DrawBytes + 63) / 64 * 64
	size := in.itemsAt
	if d := r.kernels.decoder; d != nil {
		size += d.MaxItems(r.dev.Info, sequences)
	}
	for i := range in.sides {
		h := &hostInputs{}
		in.sides[i] = h
		if h.host, err = c.HostAlloc(size); err != nil {
			return err
		}
		if h.device, err = r.alloc(c, size); err != nil {
			return err
		}
		ints := cuda.Int32s(h.host[:3*4*rows])
		h.tokens, h.positions, h.wanted = ints[:rows], ints[rows:2*rows], ints[2*rows:]
		h.draws = cuda.Draws(h.host[in.drawsAt : in.drawsAt+rows*cuda.DrawBytes])
		clear(h.draws)
		h.items = h.host[in.itemsAt:]
	}
	in.hostInputs = in.sides[0]

	in.width = (r.options.Context + r.geometry.Format.PageTokens - 1) / r.geometry.Format.PageTokens
	n := sequences * in.width
	if in.tablesHost, err = c.HostAlloc(2 * 8 * n); err != nil {
		return err
	}
	clear(in.tablesHost)
	all := cuda.Uint64s(in.tablesHost)
	in.tables = [2][]uint64{all[:n], all[n:]}
	at, err := r.alloc(c, 2*8*n)
	if err != nil {
		return err
	}
	in.tablesAt = [2]cuda.Ptr{at, at + cuda.Ptr(8*n)}
	return errors.Join(c.FillAsync(at, 0, 2*8*n, r.stream))
}

func (in *inputs) close(c *cuda.Context) error {
	errs := []error{c.FreeHost(in.tablesHost)}
	for _, h := range in.sides {
		if h != nil {
			errs = append(errs, c.FreeHost(h.host))
		}
	}
	return errors.Join(errs...)
}

// side is which of the two the inputs of the step at hand are.
func (in *inputs) side() int {
	if in.hostInputs == in.sides[0] {
		return 0
	}
	return 1
}

// turn makes the other side that of the step at hand.
func (in *inputs) turn() { in.hostInputs = in.sides[1-in.side()] }

// The places of the inputs on the device, of the step at hand or of a side.
func (in *inputs) tokensAt() cuda.Ptr    { return in.device }
func (in *inputs) positionsAt() cuda.Ptr { return in.device + cuda.Ptr(4*len(in.tokens)) }
func (in *inputs) wantedAt() cuda.Ptr    { return in.device + cuda.Ptr(8*len(in.tokens)) }
func (in *inputs) stepItemsAt() cuda.Ptr { return in.device + cuda.Ptr(in.itemsAt) }
func (in *inputs) drawRowsAt(side int) cuda.Ptr {
	return in.sides[side].device + cuda.Ptr(in.drawsAt)
}

// row is where a segment's table begins.
func (in *inputs) row(k kvcache.Kind, segment int) cuda.Ptr {
	return in.tablesAt[k] + cuda.Ptr(8*segment*in.width)
}

// of is the tables of one segment, both all.
func (in *inputs) of(segment int) cuda.Tables {
	return cuda.Tables{Coded: in.row(kvcache.Coded, segment), Exact: in.row(kvcache.Exact, segment), Pages: in.width}
}

func (in *inputs) both() cuda.Tables {
	return cuda.Tables{Coded: in.tablesAt[kvcache.Coded], Exact: in.tablesAt[kvcache.Exact], Pages: in.width}
}

// table makes row i of the tables that of a view and notes what changes by it.
func (in *inputs) table(p *pages, i int, v *quant.View) {
	for k, ids := range [2][]int32{kvcache.Exact: v.ExactIDs, kvcache.Coded: v.CodedIDs} {
		in.addresses = slices.Grow(in.addresses[:0], len(ids))[:len(ids)]
		p.arena.Addresses(kvcache.Kind(k), ids, uint64(p.base), in.addresses)
		row := in.tables[k][i*in.width:][:len(ids)]
		lo, hi := 0, len(ids)
		for lo < hi && row[lo] == in.addresses[lo] {
			lo++
		}
		for hi > lo && row[hi-1] == in.addresses[hi-1] {
			hi--
		}
		if lo < hi {
			copy(row[lo:hi], in.addresses[lo:hi])
			in.changed = append(in.changed, tableRange{k, i*in.width + lo, i*in.width + hi})
		}
	}
}

// upload puts a step's inputs into the stream.
func (in *inputs) upload(c *cuda.Context, items int, s cuda.Stream) error {
	for _, t := range in.changed {
		at := 8 * (t.kind*len(in.tables[0]) + t.lo)
		if err := c.UploadAsync(in.tablesAt[t.kind]+cuda.Ptr(8*t.lo), in.tablesHost[at:at+8*(t.hi-t.lo)], s); err != nil {
			return err
		}
	}
	in.changed = in.changed[:0]
	return in.send(c, in.hostInputs, items, s)
}

// send puts one side's inputs, but for the tables, into the stream.
func (in *inputs) send(c *cuda.Context, h *hostInputs, items int, s cuda.Stream) error {
	return c.UploadAsync(h.device, h.host[:in.itemsAt+items], s)
}

// outputs are what a step gives, on both sides.
type outputs struct {
	logits, best cuda.Ptr
	rows         int // that there is room for
	logitsHost   []byte
	bestHost     [2][]byte // of the sides of the inputs
}

func (o *outputs) open(c *cuda.Context, r *Runner) error { return o.fit(c, r, r.options.Sequences) }

// fit makes room for rows.
func (o *outputs) fit(c *cuda.Context, r *Runner, rows int) (err error) {
	if rows <= o.rows {
		return nil
	}
	if err := c.Synchronize(r.stream); err != nil {
		return err
	}
	if err := o.close(c); err != nil {
		return err
	}
	vocab := r.model.config.VocabSize
	if o.logits, err = c.Alloc(4 * rows * vocab); err != nil {
		return err
	}
	if o.best, err = c.Alloc(4 * rows); err != nil {
		return err
	}
	if o.logitsHost, err = c.HostAlloc(4 * rows * vocab); err != nil {
		return err
	}
	for i := range o.bestHost {
		if o.bestHost[i], err = c.HostAlloc(4 * rows); err != nil {
			return err
		}
	}
	o.rows = rows
	return r.forget(c)
}

func (o *outputs) close(c *cuda.Context) error {
	var errs []error
	for _, p := range []cuda.Ptr{o.logits, o.best} {
		if p != 0 {
			errs = append(errs, c.Free(p))
		}
	}
	errs = append(errs, c.FreeHost(o.logitsHost), c.FreeHost(o.bestHost[0]), c.FreeHost(o.bestHost[1]))
	*o = outputs{}
	return errors.Join(errs...)
}
