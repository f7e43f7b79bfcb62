package cpu

import (
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/cpu/codes"
	"github.com/terse-llm/terse/quant"
)

// upcoming is tiles that a core reads after those at hand, to be fetched
// meanwhile: of the same item, or of the one that it probably takes next.
type upcoming struct {
	it    *attendItem
	tiles []kernels.Tile
}

// after is what follows the item's tile before end.
func (s *attender) after(it *attendItem, end int) upcoming {
	if f := s.follow; end == it.to && f != nil {
		return upcoming{f, f.job.Tiles[f.from:f.to]}
	}
	return upcoming{it, it.job.Tiles[end:it.to]}
}

// passes is the stretches of a page that a tile's passes over planes read, in
// their order. Each pass fetches what the next one reads: that spreads the fetching
// evenly over the time, and nothing waits in the cache for long. Only a tile's
// first vectors fetch.
type passes struct {
	stretch [6]struct{ off, len int }
	n, pass int
	on      bool
	then    codes.Ahead // what is read after the tile
	parts   [4][]byte   // its pages
}

func (p *passes) prepare(g *quant.Geometry) {
	p.n = 0
	for half := range g.HQ {
		l := &g.HQ[half]
		for i, seg := range l.Segments[:l.NSegments] {
			off, end := seg.Top, seg.Top+pageTokens*seg.Width/4
			if i == 0 {
				off = seg.Scale // all scales come first
			}
			low := seg.Width * l.LowRows / 4
			if seg.Low >= 0 && l.LowRows < pageTokens {
				end = seg.Low + low // it lies behind, and has no pass of its own
			}
			p.add(off, end)
			if seg.Low >= 0 && l.LowRows == pageTokens {
				p.add(seg.Low, seg.Low+low)
			}
		}
	}
}

// start begins a tile's passes for some vectors, with fetching or without.
func (p *passes) start(on bool) { p.pass, p.on = 0, on }

func (p *passes) add(off, end int) {
	p.stretch[p.n].off, p.stretch[p.n].len = off, end-off
	p.n++
}

// expect sets what the last pass over n pages fetches: the first stretches of the
// coded pages that come next, or an exact page's keys in parts.
func (s *attender) expect(next upcoming, n int) {
	p := &s.passes
	p.then = codes.Ahead{}
	if len(next.tiles) == 0 {
		return
	}
	g, t := next.it.job.Geometry, next.tiles
	if t[0].KCoded {
		last := 0
		for i := range n { // where there are fewer, the last one again
			if i < len(t) && t[i].KCoded {
				last = i
			}
			p.parts[i] = g.CodedHead(t[last].Coded, next.it.job.Head)
		}
		p.then.Off, p.then.Len = p.stretch[0].off, p.stretch[0].len
	} else {
		keys := s.exactAhead(next.it, &t[0], quant.HalfK)
		p.then.Len = len(keys) / n
		for i := range n {
			p.parts[i] = keys[i*p.then.Len:]
		}
	}
	p.then.Pages = p.parts[:n]
}

// fetch is what the next pass over planes is to fetch.
func (s *attender) fetch() codes.Ahead {
	p := &s.passes
	if !p.on {
		return codes.Ahead{}
	}
	if p.pass++; p.pass == p.n {
		return p.then
	}
	return codes.Ahead{Pages: s.pages, Off: p.stretch[p.pass].off, Len: p.stretch[p.pass].len}
}
