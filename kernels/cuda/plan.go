package cuda

import "github.com/terse-llm/terse/quant"

// item is what a block of a decode kernel works on (src/page.cuh, Item).
type item struct {
	Sequence, Head, FirstQuery int32
	Lo, Hi                     int32 // coded pages
	ExactLo, ExactHi           int32 // exact tokens, the sinks and then the recent ones
	Sinks, Skip                int32 // exact token i is token i, or i + Skip from Sinks on
	ExactWarps                 int32
	Slot, First, Parts         int32
	Next                       int32 // of the same block, -1 at its end
	_                          [2]int32
}

// even is the part of a kernel's parameters that says a plan whose work is all cut
// alike: nothing of it is fetched from memory (src/page.cuh, Even).
type even struct {
	Parts                uint16 // of a head; 0: the items are needed
	MorePages, MoreUnits uint16 // the first so many parts have a page more, the last so many a unit
	Settled              uint16
	Lo, Pages            int32 // the first page, and pages of a part
	ExactWarps           [4]uint8
}

// evenPlan is that and the rest of it.
type evenPlan struct {
	even
	units, exactHi, sinks, skip int32
	heads                       int // KV heads of a sequence
}

// Plan spreads one decode step's attention over a device: which block reads
// which tokens. It depends on lengths alone, and serves all layers.
type Plan struct {
	items  []item // block b begins with item b
	blocks int
	slots  int // of partial states
	even   evenPlan
}

// PlanOptions says how tokens are cut.
type PlanOptions struct {
	Blocks int // that run at once on the device
	Warps  int // of a block
	// Run, if positive, cuts every sequence into runs of so many pages whatever
	// else is in the batch: then a sequence's result does not depend on its
	// company, bit for bit, at some cost.
	Run int
	// Floors, where not nil, has for each sequence the token below which nothing
	// beyond the sinks exists exactly: pages that come from another prompt.
	Floors []int
}

// work is what one group of queries of one KV head of one sequence reads.
type work struct {
	item
	pages, units int // coded pages, units of 16 exact tokens
}

// planner collects a plan's items in the order of the blocks.
type planner struct {
	items []item
	ends  []int // where each block's items end
	slots int
}

// end ends a block.
func (p *planner) end() {
	if n := len(p.items); len(p.ends) == 0 && n > 0 || len(p.ends) > 0 && n > p.ends[len(p.ends)-1] {
		p.ends = append(p.ends, n)
	}
}

// link puts every block's first item at the block's own index.
func (p *planner) link() *Plan {
	plan := &Plan{items: make([]item, len(p.ends), len(p.items)), blocks: len(p.ends), slots: p.slots}
	lo := 0
	for b, hi := range p.ends {
		at := b
		for i := lo; i < hi; i++ {
			it := p.items[i]
			it.Next = -1
			if i > lo {
				plan.items[at].Next = int32(len(plan.items))
				at = len(plan.items)
				plan.items = append(plan.items, it)
				continue
			}
			plan.items[at] = it
		}
		lo = hi
	}
	return plan
}

// exactUnit is the number of exact tokens that a warp takes at a time, unitCost
// what they cost a block in coded pages (8 KiB against 4.3), and unitTime what
// they cost a warp (two rounds to memory, nothing on its way before).
const (
	exactUnit = 16
	unitCost  = 2
	unitTime  = 4
)

func (w *work) cost() int { return w.pages + unitCost*w.units }

// NewPlan plans queries at the ends of sequences of the given lengths (each
// counts the query's own token). Every KV head has group query heads, handled
// queries at a time.
func NewPlan(f quant.Format, lengths []int, heads, group, queries int, o PlanOptions) *Plan {
	var all []work
	total := 0
	for seq, n := range lengths {
		floor := 0
		if o.Floors != nil {
			floor = o.Floors[seq]
		}
		for head := range heads {
			for first := 0; first < group; first += queries {
				w := newWork(f, n, floor)
				w.Sequence, w.Head, w.FirstQuery = int32(seq), int32(head), int32(first)
				all = append(all, w)
				total += w.cost()
			}
		}
	}
	p := new(planner)
	var alike evenPlan
	switch {
	case o.Run > 0:
		for i := range all {
			p.even(&all[i], max(1, (all[i].cost()+o.Run-1)/o.Run), o.Warps)
		}
	case len(all) <= o.Blocks:
		p.spread(all, total, o)
		if group <= queries && len(all) > 0 {
			alike = p.alike(all, heads, o.Warps)
		}
	default:
		p.stream(all, total, o)
	}
	plan := p.link()
	plan.even = alike
	return plan
}

// newWork is what a query with n tokens reads, as quant.Format says, of a
// sequence that has exact pages from floor on.
func newWork(f quant.Format, n, floor int) work {
	var w work
	from := 0
	if f.Coded() {
		from, _ = f.ExactFrom(n)
		from = max(from, floor)
	}
	sinks := min(f.Sinks, n)
	if from <= sinks { // all of it is exact
		w.Sinks, w.ExactHi = int32(n), int32(n)
	} else {
		w.Lo, w.Hi = int32(sinks/f.PageTokens), int32(from/f.PageTokens)
		w.Sinks, w.Skip = int32(sinks), int32(from-sinks)
		w.ExactHi = int32(sinks + n - from)
	}
	w.pages = int(w.Hi - w.Lo)
	w.units = (int(w.ExactHi) + exactUnit - 1) / exactUnit
	return w
}

// spread gives each of few pieces of work a number of blocks in proportion.
func (p *planner) spread(all []work, total int, o PlanOptions) {
	for i := range all {
		cost := all[i].cost()
		parts := min(cost*o.Blocks/max(total, 1), enough(cost, o.Warps))
		p.even(&all[i], max(1, parts), o.Warps)
	}
}

// enough is the number of parts that some pages are cut into at most: one if every
// warp of a block has a page at most, as parts must be merged; otherwise as many as
// give each warp one, or up to fewParts of leastPages: the warps of a block share its
// multiprocessor's instructions, and few parts are merged in little more time than two.
func enough(pages, warps int) int {
	const fewParts, leastPages = 8, 4
	if pages <= warps {
		return 1
	}
	return max((pages+warps-1)/warps, min(fewParts, (pages+leastPages-1)/leastPages))
}

// even cuts work into equal parts, a block each. What is left over goes to the
// first parts, of pages, and to the last, of exact tokens.
func (p *planner) even(w *work, parts, warps int) {
	first := p.slots
	var at, unit int
	for k := range parts {
		pages, units := w.pages/parts, w.units/parts
		if k < w.pages%parts {
			pages++
		}
		if k >= parts-w.units%parts {
			units++
		}
		p.part(w, [2]int{at, at + pages}, [2]int{unit, unit + units}, k, parts, first, warps)
		at, unit = at+pages, unit+units
		p.end()
	}
	p.slots += parts
}

// alike is the plan's short form if all work that even has cut is the same but for
// its sequence and head.
func (p *planner) alike(all []work, heads, warps int) evenPlan {
	w := all[0]
	for _, other := range all {
		other.Sequence, other.Head = w.Sequence, w.Head
		if other != w {
			return evenPlan{}
		}
	}
	parts := len(p.ends) / len(all)
	e := evenPlan{
		even: even{
			Parts: uint16(parts), MorePages: uint16(w.pages % parts), MoreUnits: uint16(w.units % parts),
			Lo: w.Lo, Pages: int32(w.pages / parts),
		},
		units: int32(w.units / parts), exactHi: w.ExactHi, sinks: w.Sinks, skip: w.Skip, heads: heads,
	}
	for i := range e.ExactWarps {
		e.ExactWarps[i] = uint8(exactWarps(w.pages/parts+i%2, w.units/parts+i/2, warps))
	}
	return e
}

// mergeCost is what merging one part more costs, in pages.
const mergeCost = 12

// stream gives every block an equal run of all the work, cutting a piece of it
// wherever a block ends: no block waits for another that has a piece more. Where that
// is nearly a piece's end the block ends there, since parts must be merged; what it
// takes more or less does not add up over the blocks, of which there are as many as
// run at once.
func (p *planner) stream(all []work, total int, o PlanOptions) {
	crumb := min(total/o.Blocks/16, mergeCost)
	block, at := 0, 0 // at: what the pieces so far cost
	end := func(block int) int { return total * (block + 1) / o.Blocks }
	next := func() {
		p.end()
		block++
	}
	for i := range all {
		for block < o.Blocks-1 && end(block) <= at+crumb {
			next()
		}
		w := &all[i]
		cost := w.cost()
		parts := 1
		for b := block; end(b) < at+cost-crumb; b++ {
			parts++
		}
		lo := 0
		for k := range parts {
			hi := cost
			if k < parts-1 {
				hi = end(block) - at
			}
			p.add(w, lo, hi, max(cost, 1), k, parts, p.slots, o.Warps)
			if k < parts-1 {
				next()
			}
			lo = hi
		}
		p.slots += parts
		at += cost
	}
	p.end()
}

// add makes part k of parts: the share [lo, hi)/of of the pages and of the exact
// tokens.
func (p *planner) add(w *work, lo, hi, of, k, parts, first, warps int) {
	p.part(w, [2]int{w.pages * lo / of, w.pages * hi / of}, [2]int{w.units * lo / of, w.units * hi / of}, k, parts, first, warps)
}

// part makes part k of parts of some of w's pages and units of exact tokens.
func (p *planner) part(w *work, pages, units [2]int, k, parts, first, warps int) {
	it := w.item
	it.Lo, it.Hi = w.Lo+int32(pages[0]), w.Lo+int32(pages[1])
	it.ExactLo, it.ExactHi = int32(units[0]*exactUnit), min(w.ExactHi, int32(units[1]*exactUnit))
	it.ExactWarps = exactWarps(pages[1]-pages[0], units[1]-units[0], warps)
	it.First, it.Slot, it.Parts = int32(first), int32(first+k), int32(parts)
	p.items = append(p.items, it)
}

// exactWarps splits a block's warps between pages and units of exact tokens so
// that the longer of the two is shortest.
func exactWarps(pages, units, warps int) int32 {
	if units == 0 {
		return 0
	}
	if pages == 0 {
		return int32(warps)
	}
	best, least := 1, 1<<62
	for e := 1; e < warps; e++ {
		t := max(unitTime*((units+e-1)/e), (pages+warps-e-1)/(warps-e))
		if t < least {
			best, least = e, t
		}
	}
	return int32(best)
}
