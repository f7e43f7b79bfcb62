package quant

import (
	"encoding/binary"

	"github.com/terse-llm/terse/tensor"
)

// encodeHack codes what tokens [Lo, Hi) complete of one head's half.
func (g *Geometry) encodeHack(a *EncodeArgs, w *Scratch, page, src []byte, head, half int) {
	l := &g.Hack[half]
	if g.Format.Family == FamilyHack && half == HalfK { // token by token: no block to wait for
		g.encodeTokens(a, w, page, src, head, half, a.Lo, a.Hi)
		return
	}
	width := g.Format.Partition
	for b := a.Lo / width; b < l.Blocks && b*width < a.Hi; b++ {
		lo, hi := b*width, min((b+1)*width, a.Hi)
		if hi < (b+1)*width && g.Format.RQE {
			return // the open block stays exact
		}
		if l.PerToken {
			g.encodeTokens(a, w, page, src, head, half, lo, hi)
		} else {
			g.encodeChannels(a, w, page, src, head, half, lo, hi)
		}
	}
}

// codedFrom is the first token of the page, at least lo, that is ever read as a
// code: the blocks are aligned to pages while sinks take the first tokens of
// the first block, which must not widen its range.
func (g *Geometry) codedFrom(first, lo int) int { return max(lo, g.Format.Sinks-first) }

// encodeTokens codes tokens [lo, hi) with one min and scale per token and
// partition of the channels.
func (g *Geometry) encodeTokens(a *EncodeArgs, w *Scratch, page, src []byte, head, half, lo, hi int) {
	l, d, last := &g.Hack[half], g.HeadDim, g.lastCode()
	w.load(src, d, lo, hi)
	clear(w.codes[lo*d : roundUp(hi, 4)*d])
	round := g.Format.Rounding(a.Layer, head, half)
	for t := g.codedFrom(a.First, lo); t < hi; t++ {
		x, codes, r := w.x[t*d:(t+1)*d], w.codes[t*d:(t+1)*d], round.At(a.First+t)
		for p := range l.Parts {
			from, to := l.Part(p, d)
			lo, hi := w.extremes(x[from:to])
			m, inv := g.putParams(l, page, t*l.Parts+p, lo, hi)
			w.fill(from, to, m, inv)
		}
		w.levels(codes, x, 0, last, r)
	}
	g.finishHack(w, page, half, lo, hi)
}

// encodeChannels codes tokens [lo, hi) of one block with one min and scale per
// channel.
func (g *Geometry) encodeChannels(a *EncodeArgs, w *Scratch, page, src []byte, head, half, lo, hi int) {
	l, d, last := &g.Hack[half], g.HeadDim, g.lastCode()
	from := g.codedFrom(a.First, lo)
	if from >= hi {
		return
	}
	w.load(src, d, lo, hi)
	clear(w.codes[lo*d : roundUp(hi, 4)*d])
	round := g.Format.Rounding(a.Layer, head, half)
	w.ranges(w.x[from*d:hi*d], hi-from, d)
	block := lo / g.Format.Partition
	for c := range d {
		w.zero[c], w.inverse[c] = g.putParams(l, page, block*d+c, w.lo[c], w.hi[c])
	}
	for t := from; t < hi; t++ {
		w.levels(w.codes[t*d:(t+1)*d], w.x[t*d:(t+1)*d], 0, last, round.At(a.First+t))
	}
	g.finishHack(w, page, half, lo, hi)
}

// lastCode is the largest code of a hack format.
func (g *Geometry) lastCode() float32 { return float32(int(1)<<g.Format.Bits - 1) }

// putParams stores the min and the scale of one partition's range as entry i
// and returns the min and the inverse of the scale, as stored: codes are
// computed against what a reader will find.
func (g *Geometry) putParams(l *HackHalf, page []byte, i int, lo, hi float32) (m, inv float32) {
	put, get := tensor.F32ToF16, tensor.F16ToF32
	if g.Format.Family == FamilyHackV2 {
		put, get = tensor.F32ToBF16, tensor.BF16ToF32
	}
	stored := put(lo)
	m = get(stored)
	binary.LittleEndian.PutUint16(page[l.Min+2*i:], stored)
	stored = put(max(0, hi-m) / g.lastCode())
	if get(stored) == 0 {
		stored = put(1)
	}
	binary.LittleEndian.PutUint16(page[l.Scale+2*i:], stored)
	return m, 1 / get(stored)
}

// finishHack stores the planes and the sums of tokens [lo, hi).
func (g *Geometry) finishHack(w *Scratch, page []byte, half, lo, hi int) {
	l, d := &g.Hack[half], g.HeadDim
	end := hi
	if half == HalfV { // a word holds four tokens; those beyond hi have code 0
		end = roundUp(hi, 4)
	}
	for i := range l.NPlanes {
		pack(half, page[l.Planes[i]:], l.Width, w.codes, d, d, lo, end, uint(2*(l.NPlanes-1-i)))
	}
	switch {
	case l.Sums < 0:
	case half == HalfK:
		for t := lo; t < hi; t++ {
			for p := range l.Parts {
				from, to := l.Part(p, d)
				l.putSum(page, t*l.Parts+p, sumCodes(w.codes[t*d+from:t*d+to]))
			}
		}
	default:
		g.sumColumns(w, lo, hi)
		block := lo / g.Format.Partition
		for c, sum := range w.sums[:d] {
			l.putSum(page, block*d+c, int(sum))
		}
	}
}

// sumCodes adds up codes, eight at a time while there are so many.
func sumCodes(codes []uint8) (sum int) {
	const even = 0x00ff00ff00ff00ff
	for ; len(codes) >= 8; codes = codes[8:] {
		x := binary.LittleEndian.Uint64(codes)
		x = x&even + x>>8&even
		sum += int(x * 0x0001000100010001 >> 48)
	}
	for _, c := range codes {
		sum += int(c)
	}
	return sum
}

// sumColumns sets w.sums to every channel's sum of the codes of tokens [lo, hi). d is
// a multiple of 8: eight channels are added at once, as long as their sums fit bytes.
func (g *Geometry) sumColumns(w *Scratch, lo, hi int) {
	d, run := g.HeadDim, 255/int(g.lastCode())
	clear(w.sums[:d])
	for ; lo < hi; lo += run {
		end := min(lo+run, hi)
		for c := 0; c < d; c += 8 {
			var x uint64
			for t := lo; t < end; t++ {
				x += binary.LittleEndian.Uint64(w.codes[t*d+c:])
			}
			for i := range 8 {
				w.sums[c+i] += uint16(x >> (8 * i) & 0xff)
			}
		}
	}
}

func (l *HackHalf) putSum(page []byte, i, sum int) {
	if l.SumBytes == 1 {
		page[l.Sums+i] = uint8(sum)
		return
	}
	binary.LittleEndian.PutUint16(page[l.Sums+2*i:], uint16(sum))
}
