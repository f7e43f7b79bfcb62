package attention

import (
	"fmt"
	"math"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
)

// groupRows is the most query rows of one job: enough that unpacking a page's
// codes is paid once for many rows, few enough to spread a chunk over cores.
const groupRows = 64

// Runner runs attention for one engine. It keeps scratch between calls and is
// not safe for concurrent use.
type Runner struct {
	ops       kernels.Ops
	geometry  *quant.Geometry
	transform *quant.Transform
	scale     float32

	q, out []float32 // gathered queries and outputs, [job][rows][group][head_dim]
	groups []rowGroup
	limits []int
	tiles  []kernels.Tile
	jobs   []kernels.AttnJob
	writes writes
	copies copies

	// Of prompts whose important tokens get the second plane.
	weighs    []kernels.AttnJob
	selects   selection
	scratches []quant.Scratch // [KV head]
}

// New makes a runner; scale multiplies q·k (1/sqrt(head_dim) for the Llama
// family).
func New(ops kernels.Ops, g *quant.Geometry, tf *quant.Transform, scale float32) *Runner {
	return &Runner{ops: ops, geometry: g, transform: tf, scale: scale}
}

// Segment is a run of query rows of one sequence: Rows rows from row Row of the
// batch on, at positions Pos, Pos+1, … whose K and V are already in View.
type Segment struct {
	View           *quant.View
	Row, Rows, Pos int
}

// Queries turns q, the [rows][heads][HeadDim] of the segments' rows after RoPE, into
// the cache's basis in place.
func (r *Runner) Queries(layer int, segs []Segment, q []float32) {
	r.transform.Queries(r.ops, layer, q, r.group(segs, q)*r.geometry.KVHeads)
}

// Attend computes attention(q) for one layer; Outputs has the results. It is done
// by ops, nil for the runner's own backend: what Until makes of that may give
// results that are worth nothing. Then it can be called again, for the same rows or
// fewer.
func (r *Runner) Attend(ops kernels.Ops, layer int, segs []Segment, q []float32) {
	if ops == nil {
		ops = r.ops
	}
	r.plan(layer, segs)
	r.gather(layer, q, r.group(segs, q))
	ops.Attend(r.jobs)
}

// Outputs puts the results of the last Attend, of the same segments, into out,
// [rows][heads][HeadDim], out of the cache's basis.
func (r *Runner) Outputs(layer int, segs []Segment, out []float32) {
	group := r.group(segs, out)
	if r.geometry.Format.Selects() {
		r.weigh(layer, segs)
	}
	r.scatter(group, out)
	r.transform.Outputs(r.ops, layer, out, group*r.geometry.KVHeads)
}

// group is the number of query heads per KV head in q, the segments' rows.
func (r *Runner) group(segs []Segment, q []float32) int {
	rows := 0
	for _, s := range segs {
		rows = max(rows, s.Row+s.Rows)
	}
	if rows == 0 {
		return 0
	}
	return len(q) / rows / r.geometry.HeadDim / r.geometry.KVHeads
}

// rowGroup is a run of rows of one segment that read the same tiles.
type rowGroup struct {
	row, rows int // of the batch
	seg       int // of the segments
	limits    int // where the rows' limits begin in Runner.limits
	lo, hi    int // of Runner.tiles
}

// plan cuts the segments into groups of rows with one reading rule each.
func (r *Runner) plan(layer int, segs []Segment) {
	r.groups, r.limits, r.tiles = r.groups[:0], r.limits[:0], r.tiles[:0]
	for i, s := range segs {
		for done := 0; done < s.Rows; {
			rule := ruleFor(s.View, s.Pos+done)
			n := 1
			for done+n < s.Rows && n < groupRows && ruleFor(s.View, s.Pos+done+n) == rule {
				n++
			}
			g := rowGroup{row: s.Row + done, rows: n, seg: i, limits: len(r.limits), lo: len(r.tiles)}
			for i := range n {
				r.limits = append(r.limits, s.Pos+done+i+1)
			}
			r.tiles = appendTiles(r.tiles, s.View, layer, rule, s.Pos+done+n)
			g.hi = len(r.tiles)
			r.groups = append(r.groups, g)
			done += n
		}
	}
}

// rule is what decides, for one query row, how each token is read: K exactly
// from fromK on and V from fromV on (beyond the sinks). Rows of equal rules
// share their tiles.
type rule struct{ fromK, fromV int }

// ruleFor is the rule of the query at position pos (hq.md 3.4 with n = pos+1).
func ruleFor(v *quant.View, pos int) rule {
	f := v.Geometry.Format
	if !f.Coded() || f.ExactPrefill && pos < v.PromptLen {
		return rule{}
	}
	n := pos + 1
	k, w := f.ExactFrom(n)
	return rule{never(k, n), never(w, n)}
}

// never makes "nothing of the n tokens is exact" one value for all n.
func never(from, n int) int {
	if from >= n {
		return math.MaxInt
	}
	return from
}

// appendTiles lists, in token order, how tokens [0, limit) are read under ru.
func appendTiles(out []kernels.Tile, v *quant.View, layer int, ru rule, limit int) []kernels.Tile {
	f := v.Geometry.Format
	for page := 0; page*f.PageTokens < limit; page++ {
		first := page * f.PageTokens
		last := min(first+f.PageTokens, limit)
		exact, coded := v.ExactLayer(page, layer), v.CodedLayer(page, layer)
		for lo := first; lo < last; {
			hi := nextEdge(lo, last, f.Sinks, ru)
			t := kernels.Tile{First: first, Lo: lo - first, Hi: hi - first}
			t.KCoded = lo >= f.Sinks && lo < ru.fromK
			t.VCoded = lo >= f.Sinks && lo < ru.fromV
			t.TopOnly = page < len(v.TopOnly) && v.TopOnly[page]
			bind(&t, exact, coded)
			out = append(out, t)
			lo = hi
		}
	}
	return out
}

// nextEdge is the first token after lo, at most last, where the way of reading
// may change.
func nextEdge(lo, last, sinks int, ru rule) int {
	hi := last
	for _, edge := range [...]int{sinks, ru.fromK, ru.fromV} {
		if edge > lo && edge < hi {
			hi = edge
		}
	}
	return hi
}

// bind gives the tile its bytes. A page that exists only as codes (reused from
// the prefix index) is read as codes whatever the rule says.
func bind(t *kernels.Tile, exact, coded []byte) {
	if exact == nil {
		t.KCoded, t.VCoded = true, true
	}
	if t.KCoded || t.VCoded {
		t.Coded = coded
	}
	if !t.KCoded || !t.VCoded {
		t.Exact = exact
	}
	if (t.KCoded || t.VCoded) && coded == nil {
		panic(fmt.Sprintf("BUG: tokens [%d,%d) are to be read as codes and have none", t.First+t.Lo, t.First+t.Hi))
	}
}

// gather makes one job per group of rows and KV head, with its queries (group
// heads of each row) side by side.
func (r *Runner) gather(layer int, q []float32, group int) {
	d, kv := r.geometry.HeadDim, r.geometry.KVHeads
	r.q, r.out = grow(r.q, len(q)), grow(r.out, len(q))
	r.jobs = r.jobs[:0]
	at := 0
	for _, g := range r.groups {
		for h := range kv {
			n := g.rows * group * d
			r.jobs = append(r.jobs, kernels.AttnJob{
				Geometry: r.geometry.At(layer), Layer: layer, Head: h, Group: group, Scale: r.scale,
				Q: r.q[at : at+n : at+n], Out: r.out[at : at+n : at+n],
				Limit: r.limits[g.limits:][:g.rows:g.rows], Tiles: r.tiles[g.lo:g.hi:g.hi],
			})
			at += n
		}
	}
	r.copies = copies{runner: r, batch: q, group: group}
	r.ops.Parallel(len(r.groups), &r.copies)
}

// scatter puts the jobs' outputs back into batch order.
func (r *Runner) scatter(group int, out []float32) {
	r.copies = copies{runner: r, batch: out, group: group, back: true}
	r.ops.Parallel(len(r.groups), &r.copies)
}

// copies moves heads between batch order and the jobs, one group of rows at a
// time.
type copies struct {
	runner *Runner
	batch  []float32 // [rows][heads][HeadDim]
	group  int
	back   bool // from the jobs' outputs; otherwise to their queries
}

// Do moves the heads of group i.
func (c *copies) Do(i int) {
	r, g := c.runner, &c.runner.groups[i]
	kv := r.geometry.KVHeads
	n := c.group * r.geometry.HeadDim
	for h := range kv {
		j := &r.jobs[i*kv+h]
		for row := range g.rows {
			batch := c.batch[((g.row+row)*kv+h)*n:][:n]
			if c.back {
				copy(batch, j.Out[row*n:])
			} else {
				copy(j.Q[row*n:(row+1)*n], batch)
			}
		}
	}
}

func grow(b []float32, n int) []float32 {
	if cap(b) < n {
		return make([]float32, n)
	}
	return b[:n]
}
