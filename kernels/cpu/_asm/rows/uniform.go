package rows

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Everywhere is a constant of 4 or 8 bytes in all lanes of 64 bytes of memory.
func Everywhere(name string, bytes int, x uint64) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for i := 0; i < 64; i += bytes {
		if bytes == 4 {
			DATA(i, U32(x))
		} else {
			DATA(i, U64(x))
		}
	}
	return m
}

// Uniform is the numbers that quant rounds stochastically with, 24 bits of
// mix(key ^ element) (SplitMix64), of as many elements as a vector has float32s.
type Uniform struct {
	Vec
	Key, Step reg.VecPhysical
	Element   [2]reg.VecPhysical // of the lanes of two vectors of 64-bit words
	Z         [2]reg.VecPhysical // overwritten; the numbers end up in the first
	T, W      reg.VecPhysical    // overwritten; W only at 256 bits

	golden, a, b, aHigh, bHigh, scale, lanes Mem
}

// NewUniform makes the constants, for all functions of a file.
func NewUniform() Uniform {
	const (
		golden = 0x9e3779b97f4a7c15
		a      = 0xbf58476d1ce4e5b9
		b      = 0x94d049bb133111eb
	)
	u := Uniform{
		golden: Everywhere("golden", 8, golden), a: Everywhere("mixA", 8, a), b: Everywhere("mixB", 8, b),
		aHigh: Everywhere("mixAHigh", 8, a>>32), bHigh: Everywhere("mixBHigh", 8, b>>32),
		scale: Everywhere("scale24", 4, 0x4b800000),
	}
	// At 512 bits the words of two vectors are 0…7 and 8…15. At 256 bits the lower
	// halves of words are taken by a shuffle, which needs 0 1 4 5 and 2 3 6 7.
	u.lanes = GLOBL("lanes", RODATA|NOPTR)
	for i, lane := range []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 4, 5, 2, 3, 6, 7} {
		DATA(8*i, U64(lane))
	}
	return u
}

// Start turns to the numbers of element first and those that follow it stride
// elements apart, drawn with key.
func (u *Uniform) Start(key Mem, first, stride reg.Register) {
	VPBROADCASTQ(key, u.Key)
	VMOVQ(first, u.Z[0].AsX())
	VPBROADCASTQ(u.Z[0].AsX(), u.Z[0])
	VMOVQ(stride, u.Step.AsX())
	VPBROADCASTQ(u.Step.AsX(), u.Step)
	for i, e := range u.Element {
		if u.Wide {
			VPMULUDQ(u.lanes.Offset(64*i), u.Step, e)
		} else {
			VPMULUDQ(u.lanes.Offset(128+32*i), u.Step, e)
		}
		VPADDQ(u.Z[0], e, e)
	}
	VPSLLQ(Imm(uint64(3+b(u.Wide))), u.Step, u.Step)
}

// Round turns the floats of y, which are not negative, into integers: the floor, or
// one more if the lane's number is below what is left. 24 bits of both are compared.
func (u *Uniform) Round(y, left reg.VecPhysical) {
	n := u.Z[0]
	VMOVAPS(y, left)
	VCVTTPS2DQ(y, y)
	u.draw()
	VCVTDQ2PS(n, n)
	VCVTDQ2PS(y, u.T)
	VSUBPS(u.T, left, left)
	VMULPS(u.scale, left, left)
	if u.Wide {
		VCMPPS(Imm(1), left, n, reg.K1)
		VPTERNLOGD(U8(0xff), u.T, u.T, u.T)
		VPSUBD(u.T, y, reg.K1, y)
		return
	}
	VCMPPS(Imm(1), left, n, n)
	VPSUBD(n, y, y)
}

// draw leaves the numbers of the next elements in Z[0].
func (u *Uniform) draw() {
	z := u.Z
	for i, e := range u.Element {
		VMOVAPS(e, z[i])
		u.xor(u.Key, z[i])
		VPADDQ(u.Step, e, e)
		VPADDQ(u.golden, z[i], z[i])
		u.mix(z[i], 30, u.a, u.aHigh)
		u.mix(z[i], 27, u.b, u.bHigh)
		VPSRLQ(Imm(31), z[i], u.T)
		u.xor(u.T, z[i])
		VPSRLQ(Imm(40), z[i], z[i])
	}
	if u.Wide {
		VPMOVQD(z[0], z[0].AsY())
		VPMOVQD(z[1], z[1].AsY())
		VINSERTI64X4(U8(1), z[1].AsY(), z[0], z[0])
		return
	}
	VSHUFPS(Imm(0x88), z[1], z[0], z[0])
}

// xor is dst ^= x.
func (u *Uniform) xor(x, dst reg.VecPhysical) {
	if u.Wide {
		VPXORQ(x, dst, dst)
		return
	}
	VPXOR(x, dst, dst)
}

// mix is a step of SplitMix64: z = (z ^ z>>n)·c.
func (u *Uniform) mix(z reg.VecPhysical, n uint64, c, high Mem) {
	t := u.T
	VPSRLQ(Imm(n), z, t)
	u.xor(t, z)
	if u.Wide {
		VPMULLQ(c, z, z)
		return
	}
	VPSRLQ(Imm(32), z, t)
	VPMULUDQ(c, t, t)
	VPMULUDQ(high, z, u.W)
	VPADDQ(u.W, t, t)
	VPSLLQ(Imm(32), t, t)
	VPMULUDQ(c, z, z)
	VPADDQ(t, z, z)
}
