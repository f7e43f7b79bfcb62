package device

import (
	"errors"
	"time"

	"github.com/terse-llm/terse/attention"
	"github.com/terse-llm/terse/kernels/cuda"
	"github.com/terse-llm/terse/kvcache"
	"github.com/terse-llm/terse/model"
)

// run puts a step that is laid into the stream and waits for what it gives.
func (r *Runner) run(c *cuda.Context, b *model.Batch) (model.Result, error) {
	err := r.enqueue(c, b)
	if err == nil {
		err = r.begin(c, b)
	}
	if err != nil {
		r.ahead.live = false
		return model.Result{}, errors.Join(err, c.Synchronize(r.stream), c.Synchronize(r.copies))
	}
	if err := r.tell(c, b); err != nil {
		return model.Result{}, err
	}
	if err := c.Await(r.finished[r.in.side()]); err != nil {
		return model.Result{}, err
	}
	r.keepSums()
	return r.result(c)
}

// tell tells whoever watches of each layer when it is on the host, and when its
// important tokens' second planes are.
func (r *Runner) tell(c *cuda.Context, b *model.Batch) error {
	for i := range r.model.layers {
		if b.AfterLayer != nil {
			if len(r.step.staged) > 0 {
				if err := c.Await(r.arrived[i]); err != nil {
					return err
				}
			}
			b.AfterLayer(i)
		}
		if b.AfterAttend != nil {
			if len(r.step.staged) > 0 && len(r.step.watched) > 0 {
				if err := c.Await(r.choosing.brought[i]); err != nil {
					return err
				}
			}
			b.AfterAttend(i)
		}
	}
	return nil
}

// enqueue is run without the waiting.
func (r *Runner) enqueue(c *cuda.Context, b *model.Batch) error {
	s := &r.step
	if err := errors.Join(r.pages.settle(c), r.out.fit(c, r, s.wanted), r.prepareSums(c)); err != nil {
		return err
	}
	if r.graphable(b) {
		return r.replay(c, b)
	}
	if err := r.forgo(c); err != nil {
		return err
	}
	items := 0
	if s.plan != nil {
		items = copy(r.in.items, s.plan.Items())
	}
	if err := r.in.upload(c, items, r.stream); err != nil {
		return err
	}
	if err := r.layers(c, b); err != nil {
		return err
	}
	return r.fetch(c, b, r.in.side())
}

// layers puts the graph's arithmetic into the stream.
func (r *Runner) layers(c *cuda.Context, b *model.Batch) error {
	s, m, a, k := &r.step, r.model, &r.act, &r.kernels
	cfg := &m.config
	if err := c.Embed(k.layer, a.x, m.embed, r.in.tokensAt(), s.rows, cfg.Hidden, m.products, r.stream); err != nil {
		return err
	}
	if r.few() {
		return r.fewLayers(c, b)
	}
	var add cuda.Ptr // of the layer before, to the residual stream
	for i := range m.layers {
		if b.Abandoned() {
			return model.ErrAbandoned
		}
		l := &m.layers[i]
		if err := errors.Join(
			c.RMSNorm(k.layer, a.normed, a.x, add, l.attnNorm, s.rows, cfg.Hidden, cfg.NormEps, r.stream),
			r.project(c, i), r.append(c, i), r.stage(c, i),
		); err != nil {
			return err
		}
		last := i == len(m.layers)-1 && s.wanted == 0 // nobody wants logits: it is for its K and V
		if last && len(s.watched) == 0 {
			return nil
		}
		add = a.sum
		if err := errors.Join(r.attend(c, i), r.choose(c, i)); err != nil || last {
			return err
		}
		if err := errors.Join(
			c.RMSNorm(k.layer, a.normed, a.x, add, l.mlpNorm, s.rows, cfg.Hidden, cfg.NormEps, r.stream),
			r.mlp(c, l),
		); err != nil {
			return err
		}
	}
	return errors.Join(
		c.RMSNormOf(k.layer, a.normed, a.x, add, m.norm, r.in.wantedAt(), s.wanted, cfg.Hidden, cfg.NormEps, r.stream),
		r.multiply(c, r.out.logits, a.normed, m.head, s.wanted, cfg.Hidden, cfg.VocabSize),
		c.Argmax(k.layer, r.out.best, r.out.logits, s.wanted, cfg.VocabSize, r.stream))
}

// multiply is y = x·Wᵀ: of few rows by a kernel of our own, else by cuBLASLt.
func (r *Runner) multiply(c *cuda.Context, y, x, w cuda.Ptr, rows, in, out int) error {
	if few := r.kernels.few; few.Takes(rows, in) {
		return c.Few(few, cuda.Product{W: w, Rows: rows, In: in, Out: out, Y: y}, x, r.stream)
	}
	return c.Linear(y, x, w, rows, in, out, r.model.products, cuda.F32, 0, r.stream)
}

// linear is y = x·Wᵀ + bias for all rows.
func (r *Runner) linear(c *cuda.Context, y, x, w, bias cuda.Ptr, in, out int) error {
	err := r.multiply(c, y, x, w, r.step.rows, in, out)
	if err == nil && bias != 0 {
		err = c.AddBias(r.kernels.turner, y, bias, r.step.rows, out, r.stream)
	}
	return err
}

// project makes a layer's queries, keys and values.
func (r *Runner) project(c *cuda.Context, i int) error {
	a, l, cfg := &r.act, &r.model.layers[i], &r.model.config
	err := r.linear(c, a.qkv, a.normed, l.qkv, 0, cfg.Hidden, (cfg.Heads+2*cfg.KVHeads)*cfg.HeadDim)
	return errors.Join(err, c.Turn(r.kernels.turner, r.step.rows, r.turn(i), r.stream))
}

// turn is their way to what attention and the cache want.
func (r *Runner) turn(i int) cuda.Turn {
	m, a, l := r.model, &r.act, &r.model.layers[i]
	cfg := &m.config
	return cuda.Turn{
		Layer: i,
		X:     a.qkv, Bias: l.qkvBias, QNorm: l.qNorm, KNorm: l.kNorm, Eps: cfg.NormEps,
		Cos: m.cos, Sin: m.sin, Positions: r.in.positionsAt(), Pairs: cfg.Rotary.Dim / 2, Interleaved: cfg.Rotary.Interleaved,
		Q: a.q, K: a.k, V: a.v,
	}
}

// append writes and codes a layer's keys and values.
func (r *Runner) append(c *cuda.Context, i int) error {
	s := &r.step
	timed := i == 0 && len(s.prompts) > 0
	var errs []error
	if timed {
		errs = append(errs, c.Record(r.coding[0], r.stream))
	}
	if r.kernels.hack != nil {
		for n, seg := range s.segments {
			errs = append(errs, r.appendRows(c, i, n, seg))
		}
	} else {
		errs = append(errs, c.AppendEach(r.kernels.encoder, i, s.singles, r.in.positionsAt(), r.act.k, r.act.v, r.in.both(), r.stream))
		for n, seg := range s.prompts {
			errs = append(errs, r.appendRows(c, i, s.singles+n, seg))
		}
	}
	if timed {
		errs = append(errs, c.Record(r.coding[1], r.stream))
	}
	return errors.Join(errs...)
}

// appendRows is append for the rows of one segment.
func (r *Runner) appendRows(c *cuda.Context, layer, table int, seg attention.Segment) error {
	at := cuda.Ptr(4 * seg.Row * r.geometry.KVHeads * r.geometry.HeadDim)
	k, v, t := r.act.k+at, r.act.v+at, r.in.of(table)
	if h := r.kernels.hack; h != nil {
		return c.HackAppend(h, layer, seg.Pos, seg.Rows, k, v, t.Exact, t.Coded, r.stream)
	}
	return c.Append(r.kernels.encoder, layer, seg.Pos, seg.Rows, k, v, t.Exact, t.Coded, r.stream)
}

// attend is a layer's attention and the product of its outputs.
func (r *Runner) attend(c *cuda.Context, i int) error {
	s, m, a, l := &r.step, r.model, &r.act, &r.model.layers[i]
	scale := m.config.AttentionScale()
	errs := []error{r.attendSingles(c, i)}
	for n, seg := range s.prompts {
		attend := r.attendPrompt
		if r.kernels.hack != nil {
			attend = r.hackPrompt
		}
		errs = append(errs, attend(c, i, s.singles+n, seg, scale))
	}
	errs = append(errs, c.Leave(r.kernels.turner, i, a.turned, a.attended, s.rows, r.stream))
	width := m.config.Heads * m.config.HeadDim
	return errors.Join(append(errs, r.linear(c, a.sum, a.turned, l.out, l.outBias, width, m.config.Hidden))...)
}

// attendSingles attends for the single rows.
func (r *Runner) attendSingles(c *cuda.Context, i int) error {
	a, scale := &r.act, r.model.config.AttentionScale()
	if h := r.kernels.hack; h != nil {
		return c.HackAttend(h, r.in.both(), i, cuda.HackRows{Rows: r.step.singles, Positions: r.in.positionsAt()}, a.q, a.attended, scale, r.stream)
	}
	if r.step.plan == nil {
		return nil
	}
	return c.Attend(r.work.Step(r.in.stepItemsAt(), r.step.plan.Blocks()), r.in.both(), i, a.q, a.attended, scale, r.stream)
}

// attendPrompt attends for the rows of a prompt, exactly where the format says so.
// Rows whose recent tokens lie partly in pages of another prompt, which exist as codes
// only, read less of them exactly: a launch each for those that read equally much.
func (r *Runner) attendPrompt(c *cuda.Context, layer, table int, seg attention.Segment, scale float32) error {
	f, floor := r.geometry.Format, r.step.floors[table]
	exact, coded := r.in.row(kvcache.Exact, table), r.in.row(kvcache.Coded, table)
	width := 4 * r.model.config.Heads * r.geometry.HeadDim
	for done := 0; done < seg.Rows; {
		p, rows := r.kernels.prefill, seg.Rows-done
		if left := seg.View.PromptLen - seg.Pos - done; f.ExactPrefill && left > 0 {
			states := r.choosing.states + cuda.Ptr(8*(seg.Row+done)*r.model.config.Heads)
			p, rows = p.Exact(floor, states), min(rows, left)
		} else if n := seg.Pos + done + 1; floor > f.Sinks && n < floor+f.Recent {
			run := (n - floor) / f.PageTokens * f.PageTokens
			p, rows = p.Recent(run), min(rows, floor+run+f.PageTokens-n)
		}
		at := cuda.Ptr((seg.Row + done) * width)
		if err := c.Prefill(p, layer, seg.Pos+done, rows, coded, exact, r.act.q+at, r.act.attended+at, scale, r.stream); err != nil {
			return err
		}
		done += rows
	}
	return nil
}

// hackPrompt attends for the rows of a prompt in a hack layout, which may read the
// prompt exactly, but not what comes after it.
func (r *Runner) hackPrompt(c *cuda.Context, layer, table int, seg attention.Segment, scale float32) error {
	width := 4 * r.model.config.Heads * r.geometry.HeadDim
	for done := 0; done < seg.Rows; {
		rows := cuda.HackRows{Rows: seg.Rows - done, Position: seg.Pos + done}
		if left := seg.View.PromptLen - rows.Position; r.geometry.Format.ExactPrefill && left > 0 {
			rows.Exact, rows.Rows = true, min(rows.Rows, left)
		}
		at := cuda.Ptr((seg.Row + done) * width)
		if err := c.HackAttend(r.kernels.hack, r.in.of(table), layer, rows, r.act.q+at, r.act.attended+at, scale, r.stream); err != nil {
			return err
		}
		done += rows.Rows
	}
	return nil
}

// mlp is down(silu(gate(x))·up(x)).
func (r *Runner) mlp(c *cuda.Context, l *layer) error {
	a, cfg := &r.act, &r.model.config
	n := cfg.Intermediate
	if few := r.kernels.few; few.Takes(r.step.rows, cfg.Hidden) && l.gateUpBias == 0 {
		return errors.Join(
			c.Few(few, cuda.Product{W: l.gateUp, Rows: r.step.rows, In: cfg.Hidden, Out: n, Gated: a.gated}, a.normed, r.stream),
			r.linear(c, a.sum, a.gated, l.down, l.downBias, n, cfg.Hidden))
	}
	return errors.Join(
		r.linear(c, a.gateUp, a.normed, l.gateUp, l.gateUpBias, cfg.Hidden, 2*n),
		c.SwiGLU(r.kernels.layer, a.gated, a.gateUp, a.gateUp+cuda.Ptr(4*n), r.step.rows, n, 2*n, r.stream),
		r.linear(c, a.sum, a.gated, l.down, l.downBias, n, cfg.Hidden))
}

// fetch draws the tokens that are to be drawn and brings all to the host, and the
// logits of rows that need them there; side is that of the step's inputs.
func (r *Runner) fetch(c *cuda.Context, b *model.Batch, side int) error {
	n, o := r.step.wanted, &r.out
	if n == 0 {
		return c.Record(r.finished[side], r.stream)
	}
	if r.step.drawn {
		if err := c.Draw(r.kernels.drawer, o.best, o.logits, r.in.drawRowsAt(side), n, r.model.config.VocabSize, r.stream); err != nil {
			return err
		}
	}
	if err := c.DownloadAsync(o.bestHost[side][:4*n], o.best, r.stream); err != nil {
		return err
	}
	row := 4 * r.model.config.VocabSize
	for lo := 0; lo < n; {
		hi := lo
		for hi < n && !b.Picks[hi].Token {
			hi++
		}
		if hi > lo {
			if err := c.DownloadAsync(o.logitsHost[lo*row:hi*row], o.logits+cuda.Ptr(lo*row), r.stream); err != nil {
				return err
			}
		}
		lo = hi + 1
	}
	return c.Record(r.finished[side], r.stream)
}

func (r *Runner) result(c *cuda.Context) (model.Result, error) {
	n := r.step.wanted
	res := model.Result{
		Logits: cuda.Float32s(r.out.logitsHost[:4*n*r.model.config.VocabSize]),
		Tokens: cuda.Int32s(r.out.bestHost[r.in.side()][:4*n]),
	}
	if len(r.step.prompts) > 0 {
		us, err := c.Elapsed(r.coding[0], r.coding[1])
		if err != nil {
			return res, err
		}
		res.Stats.Quantise = time.Duration(us*1000) * time.Duration(len(r.model.layers))
	}
	return res, nil
}
