package quant

import "encoding/binary"

// HQHalf says where K or V of one KV head lies in a coded page of an hq format:
// byte offsets from the start of the head. docs/formats.md describes the bytes.
type HQHalf struct {
	// Segments are runs of channels with a scale of their own: one for the whole
	// head, or the leading 4-bit channels and then the 2-bit rest.
	Segments  [2]Segment
	NSegments int
	// Mask is the offset of the u64 set of tokens that have the second plane, -1
	// unless it is there for some tokens only.
	Mask int
	// LowRows is the number of rows of the second plane: the page's tokens, or
	// the most tokens the set may hold, in token order.
	LowRows int
	// Refined says that scales and zeros are those of the 2-bit code for every
	// token, and that a second plane refines it: the 4-bit code that the two planes
	// make steps by a quarter (SecondImportant).
	Refined bool
}

// Segment is a run of channels of one half. Widths are channels padded to whole
// words: to 16 in K and to 32 in V.
type Segment struct {
	Lo, Hi, Width int
	Scale         int // [token] float16
	Zero          int // [token] float16, -1 in symmetric formats
	Top           int // the plane that all tokens have
	Low           int // the second plane, -1 where there is none
	// Shared says that the segment's scales are those of the next one, of which its
	// own are a quarter (symmetric formats).
	Shared bool
}

// HackHalf says where K or V of one KV head lies in a coded page of a hack
// format or of kivi, which has hack:v2's layout without sums: byte offsets from
// the start of the head.
type HackHalf struct {
	Width   int    // channels padded to whole words, as in Segment
	Planes  [4]int // 2-bit planes of a code, most significant first
	NPlanes int
	// Min and Scale are float16 (hack:v2: bfloat16), [token][part] if
	// PerToken and [block][channel] otherwise.
	Min, Scale int
	PerToken   bool
	// Sums of codes, SumBytes wide: of K [token][part], of V [block][channel]; -1
	// with se=off.
	Sums, SumBytes int
	Parts          int // partitions of a head's channels; the last may be shorter
	PartWidth      int
	Blocks         int // blocks of Partition tokens in a page
}

// Part gives the channels [lo, hi) of partition p of a head of d channels.
func (h *HackHalf) Part(p, d int) (lo, hi int) {
	return p * h.PartWidth, min(d, (p+1)*h.PartWidth)
}

// cursor hands out aligned byte ranges.
type cursor int

// planeAlign is the alignment of every array of a page: a GPU lane loads 16
// bytes at once, and the padding costs nothing at the usual shapes.
const planeAlign = 16

func (c *cursor) take(n int) int {
	at := int(*c)
	*c = cursor(roundUp(at+n, planeAlign))
	return at
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// wordWidth is the number of channels that one word (K) or one group of eight
// words (V) spans.
func wordWidth(half int) int {
	if half == HalfK {
		return 16
	}
	return 32
}

func (g *Geometry) layHQ() {
	var c cursor
	for half, h := range []Half{g.Format.K, g.Format.V} {
		g.HQ[half] = g.layHQHalf(&c, half, h)
	}
	g.HeadBytes = int(c)
}

func (g *Geometry) layHQHalf(c *cursor, half int, h Half) HQHalf {
	l := HQHalf{NSegments: 1, Mask: -1}
	l.Segments[0] = Segment{Hi: g.HeadDim, Zero: -1, Low: -1}
	switch h.Second {
	case SecondAll:
		l.LowRows = g.Format.PageTokens
	case SecondTokens, SecondImportant:
		l.LowRows = h.Tokens
		l.Refined = h.Second == SecondImportant
	case SecondLeading, SecondShared:
		l.LowRows = g.Format.PageTokens
		l.NSegments = 2
		l.Segments[0].Hi = h.leading(g.HeadDim)
		l.Segments[1] = Segment{Lo: l.Segments[0].Hi, Hi: g.HeadDim, Zero: -1, Low: -1}
	}
	segments := l.Segments[:l.NSegments]
	for i := range segments {
		s := &segments[i]
		s.Width = roundUp(s.Hi-s.Lo, wordWidth(half))
		if s.Shared = h.Second == SecondShared && i == 0; s.Shared {
			continue
		}
		s.Scale = c.take(2 * g.Format.PageTokens)
		if !g.Format.Symmetric {
			s.Zero = c.take(2 * g.Format.PageTokens)
		}
	}
	if segments[0].Shared {
		segments[0].Scale = segments[1].Scale
	}
	if h.Second == SecondTokens || h.Second == SecondImportant {
		l.Mask = c.take(8)
	}
	for i := range segments {
		segments[i].Top = c.take(planeBytes(g.Format.PageTokens, segments[i].Width))
	}
	if l.LowRows > 0 { // last, so that it can be dropped or come later
		segments[0].Low = c.take(planeBytes(l.LowRows, segments[0].Width))
	}
	return l
}

func (g *Geometry) layHack() {
	var c cursor
	for half := range 2 {
		g.Hack[half] = g.layHackHalf(&c, half)
	}
	g.HeadBytes = int(c)
}

func (g *Geometry) layHackHalf(c *cursor, half int) HackHalf {
	f, d := g.Format, g.HeadDim
	width := min(f.Partition, d)
	l := HackHalf{
		Width: roundUp(d, wordWidth(half)), NPlanes: f.Bits / 2, Sums: -1,
		PerToken: (f.Family == FamilyHack) == (half == HalfK),
		Parts:    (d + width - 1) / width, PartWidth: width, Blocks: f.PageTokens / f.Partition,
	}
	params, sums, terms := l.Blocks*d, l.Blocks*d, f.Partition
	if l.PerToken {
		params = f.PageTokens * l.Parts
	}
	if half == HalfK {
		sums, terms = f.PageTokens*l.Parts, width
	}
	l.Min = c.take(2 * params)
	l.Scale = c.take(2 * params)
	if f.SE {
		l.SumBytes = 1
		if terms*(1<<f.Bits-1) > 255 {
			l.SumBytes = 2
		}
		l.Sums = c.take(l.SumBytes * sums)
	}
	for i := range l.NPlanes {
		l.Planes[i] = c.take(planeBytes(f.PageTokens, l.Width))
	}
	return l
}

// planeBytes is the size of a 2-bit plane of rows tokens and width channels.
func planeBytes(rows, width int) int { return rows * width / 4 }

// KeyWord is the index of the 32-bit word that holds channels [16w, 16w+16) of a
// row of a K plane of the given width: byte b, bit pair i is channel 16w+4i+b.
// Eight rows' words lie side by side.
func KeyWord(width, row, w int) int { return (row/8*(width/16)+w)*8 + row%8 }

// ValueWord is the index of the 32-bit word that holds, of a V plane of the
// given width, rows 4·quad+b (byte b) and channels 32g+8i+c8 (bit pair i).
func ValueWord(width, quad, g, c8 int) int { return (quad*(width/32)+g)*8 + c8 }

// packKeys writes rows [lo, hi) of a K plane from the codes' bit pairs at shift:
// codes is [row][stride], of which the first n channels are real.
func packKeys(plane []byte, width int, codes []uint8, stride, n, lo, hi int, shift uint) {
	for row := lo; row < hi; row++ {
		line := codes[row*stride : row*stride+n]
		for w := range width / 16 {
			var word uint32
			if all := 16*w + 16; all <= n { // a byte has a channel of every four
				a, b := binary.LittleEndian.Uint64(line[all-16:])>>shift, binary.LittleEndian.Uint64(line[all-8:])>>shift
				a = a&0x0303030303030303 | b&0x0303030303030303<<4
				binary.LittleEndian.PutUint32(plane[4*KeyWord(width, row, w):], uint32(a|a>>30))
				continue
			}
			for j := 16 * w; j < min(16*w+16, n); j++ {
				b, i := j%4, j%16/4
				word |= uint32(line[j]>>shift&3) << (8*b + 2*i)
			}
			binary.LittleEndian.PutUint32(plane[4*KeyWord(width, row, w):], word)
		}
	}
}

// packValues is packKeys for a V plane; lo and hi are multiples of 4.
func packValues(plane []byte, width int, codes []uint8, stride, n, lo, hi int, shift uint) {
	for quad := lo / 4; quad < hi/4; quad++ {
		whole := n / 32 * 8
		for at := 0; at < whole; at += 8 {
			var rows [4]uint64 // a byte of each of eight words
			for b := range rows {
				line := codes[(4*quad+b)*stride+4*at:][:32]
				for i := range 4 {
					rows[b] |= binary.LittleEndian.Uint64(line[8*i:]) >> shift & 0x0303030303030303 << (2 * i)
				}
			}
			out := plane[4*ValueWord(width, quad, at/8, 0):][:32]
			for c8 := range 8 {
				word := rows[0]&0xff | rows[1]&0xff<<8 | rows[2]&0xff<<16 | rows[3]&0xff<<24
				binary.LittleEndian.PutUint32(out[4*c8:], uint32(word))
				rows[0], rows[1], rows[2], rows[3] = rows[0]>>8, rows[1]>>8, rows[2]>>8, rows[3]>>8
			}
		}
		for at := whole; at < width/4; at++ { // eight words for every 32 channels
			g, c8 := at/8, at%8
			var word uint32
			for i := range 4 {
				j := 32*g + 8*i + c8
				if j >= n {
					break
				}
				for b := range 4 {
					word |= uint32(codes[(4*quad+b)*stride+j]>>shift&3) << (8*b + 2*i)
				}
			}
			binary.LittleEndian.PutUint32(plane[4*ValueWord(width, quad, g, c8):], word)
		}
	}
}

// pack writes rows [lo, hi) of a plane of either half.
func pack(half int, plane []byte, width int, codes []uint8, stride, n, lo, hi int, shift uint) {
	if half == HalfK {
		packKeys(plane, width, codes, stride, n, lo, hi, shift)
		return
	}
	packValues(plane, width, codes, stride, n, lo, hi, shift)
}
