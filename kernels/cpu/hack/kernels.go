package hack

import (
	"encoding/binary"

	"github.com/terse-llm/terse/internal/cpu"
)

// Kernels is the integer kernels of one level.
type Kernels struct{ level cpu.Level }

// For gives the kernels of a level that this machine and build have. Levels
// without kernels of their own get the generic ones.
func For(l cpu.Level) Kernels { return Kernels{l} }

// Plane is a 2-bit plane of K or V: its words and its width, channels padded to
// whole words (16 in K, 32 in V).
type Plane struct {
	Data  []byte
	Width int
}

// Span is Lo … Lo+N-1 of something.
type Span struct{ Lo, N int }

// keyStep is the tokens that the kernels take at a time.
const keyStep = 32

// QK adds 2^shift times the products of n query vectors with codes of K to dots:
// dots[i·ld + t] for token t of tokens, whose ends are multiples of 32. The sum
// goes over 16-channel words of them; q[i·plane.Width + c] is channel c of vector
// i.
func (k Kernels) QK(dots []int32, ld, n int, q []byte, plane Plane, words, tokens Span, shift int) {
	w := plane.Width
	switch {
	case n < 1 || words.N < 1 || tokens.N < 1:
		return
	case w%16 != 0 || words.Lo < 0 || words.Lo+words.N > w/16, len(q) < n*w,
		tokens.Lo < 0 || tokens.Lo%keyStep != 0 || tokens.N%keyStep != 0,
		len(plane.Data) < (tokens.Lo+tokens.N)*w/4,
		ld < tokens.Lo+tokens.N || len(dots) < (n-1)*ld+tokens.Lo+tokens.N:
		panic("BUG: products with K beyond its planes")
	}
	dots = dots[tokens.Lo:]
	data := plane.Data[tokens.Lo*w/4:]
	for n > 0 {
		g := group(n)
		// 64 channels at a time: 16-bit sums hold 32 pairs of 2·255·3 in 64.
		for lo := words.Lo; lo < words.Lo+words.N; lo += 4 {
			k.qk(g, dots, ld, data[32*lo:], w, q[16*lo:], min(4, words.Lo+words.N-lo), tokens.N/8, shift)
		}
		n -= g
		if n > 0 {
			dots, q = dots[g*ld:], q[g*w:]
		}
	}
}

// PV adds 2^shift times the products of n vectors of weights with codes of V to
// out: out[i·ld + c] for the channels of 32-channel groups of the plane. The sum
// goes over quads of four tokens; p[i·ldp + t] is the weight of token t.
func (k Kernels) PV(out []int32, ld, n int, p []byte, ldp int, plane Plane, groups, quads Span, shift int) {
	w := plane.Width
	switch {
	case n < 1 || groups.N < 1 || quads.N < 1:
		return
	case w%32 != 0 || groups.Lo < 0 || groups.Lo+groups.N > w/32, quads.Lo < 0 || len(plane.Data) < (quads.Lo+quads.N)*w,
		ldp < 4*(quads.Lo+quads.N) || len(p) < (n-1)*ldp+4*(quads.Lo+quads.N),
		ld < 32*(groups.Lo+groups.N) || len(out) < (n-1)*ld+32*(groups.Lo+groups.N):
		panic("BUG: products with V beyond its planes")
	}
	out = out[32*groups.Lo:]
	for n > 0 {
		g := group(n)
		for lo := quads.Lo; lo < quads.Lo+quads.N; lo += 16 { // 64 tokens, as in QK
			k.pv(g, out, ld, plane.Data[lo*w+32*groups.Lo:], w, p[4*lo:], ldp, min(16, quads.Lo+quads.N-lo), groups.N, shift)
		}
		n -= g
		if n > 0 {
			out, p = out[g*ld:], p[g*ldp:]
		}
	}
}

// group is how many of n vectors go together.
func group(n int) int {
	switch {
	case n >= 4:
		return 4
	case n >= 2:
		return 2
	}
	return 1
}

// The generic kernels multiply four vectors at once: a word holds four 16-bit
// lanes, and one multiplication by a code does four products. 64 products of
// 255·3 fit a lane, which is what QK and PV hand over at a time.

// lane64 sets x[i] to element i of each of n vectors of bytes, stride apart.
func lane64(x []uint64, n int, v []byte, stride int) {
	clear(x)
	for l := range n {
		for i, b := range v[l*stride : l*stride+len(x)] {
			x[i] |= uint64(b) << (16 * l)
		}
	}
}

// genericQK: plane starts with the words to sum over, of eight tokens each, and so
// does q; a group of eight tokens has width/16 words.
func genericQK(n int, dots []int32, ld int, plane []byte, width int, q []byte, words, groups, shift int) {
	var x [64]uint64
	lane64(x[:16*words], n, q, width)
	for g := range groups {
		for t := range 8 {
			var sum uint64
			for w := range words {
				word := binary.LittleEndian.Uint32(plane[2*width*g+32*w+4*t:])
				for i := 0; i < 16; i += 4 {
					y, codes := (*[4]uint64)(x[16*w+i:]), word&0x03030303
					sum += y[0]*uint64(codes&3) + y[1]*uint64(codes>>8&3) + y[2]*uint64(codes>>16&3) + y[3]*uint64(codes>>24)
					word >>= 2
				}
			}
			for i := range n {
				dots[i*ld+8*g+t] += int32(sum>>(16*i)&0xffff) << shift
			}
		}
	}
}

// genericPV: plane starts with the words of the first group of channels, and p with
// the weights of the first quad of tokens.
func genericPV(n int, out []int32, ld int, plane []byte, width int, p []byte, ldp, quads, groups, shift int) {
	var x [64]uint64
	lane64(x[:4*quads], n, p, ldp)
	for g := range groups {
		for c8 := range 8 {
			var sums [4]uint64
			for quad := range quads {
				word := binary.LittleEndian.Uint32(plane[width*quad+32*g+4*c8:])
				for b, y := range (*[4]uint64)(x[4*quad:]) {
					code := word >> (8 * b)
					sums[0] += y * uint64(code&3)
					sums[1] += y * uint64(code>>2&3)
					sums[2] += y * uint64(code>>4&3)
					sums[3] += y * uint64(code>>6&3)
				}
			}
			for pair, sum := range sums {
				for i := range n {
					out[i*ld+32*g+8*pair+c8] += int32(sum>>(16*i)&0xffff) << shift
				}
			}
		}
	}
}
