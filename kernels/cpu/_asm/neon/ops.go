package neon

import "fmt"

// Arr is the arrangement of a vector register: size (log2 of a lane's bytes) and
// whether all 16 bytes are meant.
type Arr struct {
	size uint32
	q    uint32
}

// Arrangements.
var (
	B8, B16 = Arr{0, 0}, Arr{0, 1}
	H4, H8  = Arr{1, 0}, Arr{1, 1}
	S2, S4  = Arr{2, 0}, Arr{2, 1}
	D2      = Arr{3, 1}
)

func (a Arr) String() string { return fmt.Sprintf("%d%c", (8<<a.q)>>a.size, "bhsd"[a.size]) }

// half is the arrangement of lanes half as wide: of 8 bytes, or, upper, of 16 of
// which the instruction takes the upper half.
func (a Arr) half(upper bool) Arr {
	if upper {
		return Arr{a.size - 1, 1}
	}
	return Arr{a.size - 1, 0}
}

func (v V) in(a Arr) string { return fmt.Sprintf("v%d.%v", v, a) }

// three is an instruction of three registers of one arrangement.
func (f *Func) three(name string, base uint32, a Arr, d, n, m V) {
	f.word(base|a.q<<30|uint32(m)<<16|uint32(n)<<5|uint32(d), "%s %s, %s, %s", name, d.in(a), n.in(a), m.in(a))
}

// two is one of two registers of one arrangement.
func (f *Func) two(name string, base uint32, a Arr, d, n V) {
	f.word(base|a.q<<30|uint32(n)<<5|uint32(d), "%s %s, %s", name, d.in(a), n.in(a))
}

// of float32 (S4, S2) or float64 (D2): sz is bit 22.
func (a Arr) sz() uint32 { return (a.size - 2) << 22 }

// Floats: d = n op m.
func (f *Func) FADD(a Arr, d, n, m V)  { f.three("fadd", 0x0e20d400|a.sz(), a, d, n, m) }
func (f *Func) FSUB(a Arr, d, n, m V)  { f.three("fsub", 0x0ea0d400|a.sz(), a, d, n, m) }
func (f *Func) FMUL(a Arr, d, n, m V)  { f.three("fmul", 0x2e20dc00|a.sz(), a, d, n, m) }
func (f *Func) FDIV(a Arr, d, n, m V)  { f.three("fdiv", 0x2e20fc00|a.sz(), a, d, n, m) }
func (f *Func) FMLA(a Arr, d, n, m V)  { f.three("fmla", 0x0e20cc00|a.sz(), a, d, n, m) }
func (f *Func) FMLS(a Arr, d, n, m V)  { f.three("fmls", 0x0ea0cc00|a.sz(), a, d, n, m) }
func (f *Func) FMAX(a Arr, d, n, m V)  { f.three("fmax", 0x0e20f400|a.sz(), a, d, n, m) }
func (f *Func) FMIN(a Arr, d, n, m V)  { f.three("fmin", 0x0ea0f400|a.sz(), a, d, n, m) }
func (f *Func) FADDP(a Arr, d, n, m V) { f.three("faddp", 0x2e20d400|a.sz(), a, d, n, m) }
func (f *Func) FCMEQ(a Arr, d, n, m V) { f.three("fcmeq", 0x0e20e400|a.sz(), a, d, n, m) }
func (f *Func) FCMGE(a Arr, d, n, m V) { f.three("fcmge", 0x2e20e400|a.sz(), a, d, n, m) }
func (f *Func) FCMGT(a Arr, d, n, m V) { f.three("fcmgt", 0x2ea0e400|a.sz(), a, d, n, m) }
func (f *Func) FABS(a Arr, d, n V)     { f.two("fabs", 0x0ea0f800|a.sz(), a, d, n) }
func (f *Func) FNEG(a Arr, d, n V)     { f.two("fneg", 0x2ea0f800|a.sz(), a, d, n) }
func (f *Func) FRINTN(a Arr, d, n V)   { f.two("frintn", 0x0e218800|a.sz(), a, d, n) }
func (f *Func) FRINTM(a Arr, d, n V)   { f.two("frintm", 0x0e219800|a.sz(), a, d, n) }
func (f *Func) FCVTNS(a Arr, d, n V)   { f.two("fcvtns", 0x0e21a800|a.sz(), a, d, n) }
func (f *Func) FCVTZS(a Arr, d, n V)   { f.two("fcvtzs", 0x0ea1b800|a.sz(), a, d, n) }
func (f *Func) SCVTF(a Arr, d, n V)    { f.two("scvtf", 0x0e21d800|a.sz(), a, d, n) }

// Integers and bits.
func (f *Func) ADD(a Arr, d, n, m V)  { f.three("add", 0x0e208400|a.size<<22, a, d, n, m) }
func (f *Func) SUB(a Arr, d, n, m V)  { f.three("sub", 0x2e208400|a.size<<22, a, d, n, m) }
func (f *Func) ADDP(a Arr, d, n, m V) { f.three("addp", 0x0e20bc00|a.size<<22, a, d, n, m) }
func (f *Func) CMGT(a Arr, d, n, m V) { f.three("cmgt", 0x0e203400|a.size<<22, a, d, n, m) }
func (f *Func) UMAX(a Arr, d, n, m V) { f.three("umax", 0x2e206400|a.size<<22, a, d, n, m) }
func (f *Func) UMIN(a Arr, d, n, m V) { f.three("umin", 0x2e206c00|a.size<<22, a, d, n, m) }
func (f *Func) REV64(a Arr, d, n V)   { f.two("rev64", 0x0e200800|a.size<<22, a, d, n) }
func (f *Func) AND(d, n, m V)         { f.three("and", 0x0e201c00, B16, d, n, m) }
func (f *Func) BIC(d, n, m V)         { f.three("bic", 0x0e601c00, B16, d, n, m) }
func (f *Func) ORR(d, n, m V)         { f.three("orr", 0x0ea01c00, B16, d, n, m) }
func (f *Func) EOR(d, n, m V)         { f.three("eor", 0x2e201c00, B16, d, n, m) }

// BSL makes d the bits of n where d has ones, of m elsewhere; BIT takes n's bits
// into d where m has ones, BIF where it has none.
func (f *Func) BSL(d, n, m V) { f.three("bsl", 0x2e601c00, B16, d, n, m) }
func (f *Func) BIT(d, n, m V) { f.three("bit", 0x2ea01c00, B16, d, n, m) }
func (f *Func) BIF(d, n, m V) { f.three("bif", 0x2ee01c00, B16, d, n, m) }

// MOV copies a register.
func (f *Func) MOV(d, n V) {
	f.word(0x4ea01c00|uint32(n)<<16|uint32(n)<<5|uint32(d), "mov %s, %s", d.in(B16), n.in(B16))
}

// Permutations.
func (f *Func) ZIP1(a Arr, d, n, m V) { f.three("zip1", 0x0e003800|a.size<<22, a, d, n, m) }
func (f *Func) ZIP2(a Arr, d, n, m V) { f.three("zip2", 0x0e007800|a.size<<22, a, d, n, m) }
func (f *Func) UZP1(a Arr, d, n, m V) { f.three("uzp1", 0x0e001800|a.size<<22, a, d, n, m) }
func (f *Func) TRN1(a Arr, d, n, m V) { f.three("trn1", 0x0e002800|a.size<<22, a, d, n, m) }
func (f *Func) TRN2(a Arr, d, n, m V) { f.three("trn2", 0x0e006800|a.size<<22, a, d, n, m) }

// EXT is 16 bytes of n and then m, from byte at on.
func (f *Func) EXT(d, n, m V, at uint32) {
	f.word(0x6e000000|uint32(m)<<16|at<<11|uint32(n)<<5|uint32(d), "ext %s, %s, %s, #%d", d.in(B16), n.in(B16), m.in(B16), at)
}

// imm5 is how lane instructions name a lane.
func imm5(size, lane uint32) uint32 { return (lane<<1 | 1) << size << 16 }

// DUP copies a lane to all lanes.
func (f *Func) DUP(a Arr, d, n V, lane uint32) {
	f.word(0x0e000400|a.q<<30|imm5(a.size, lane)|uint32(n)<<5|uint32(d), "dup %s, v%d.%c[%d]", d.in(a), n, "bhsd"[a.size], lane)
}

// INS copies lane from of n to lane to of d.
func (f *Func) INS(size Arr, d V, to uint32, n V, from uint32) {
	s := size.size
	f.word(0x6e000400|imm5(s, to)|from<<s<<11|uint32(n)<<5|uint32(d), "mov v%d.%c[%d], v%d.%c[%d]", d, "bhsd"[s], to, n, "bhsd"[s], from)
}

// Shifts by n bits, of every lane.
func (f *Func) SHL(a Arr, d, n V, by uint32) {
	f.shift("shl", 0x0f005400, a, a, d, n, 8<<a.size+by, by)
}
func (f *Func) USHR(a Arr, d, n V, by uint32) {
	f.shift("ushr", 0x2f000400, a, a, d, n, 16<<a.size-by, by)
}
func (f *Func) SSHR(a Arr, d, n V, by uint32) {
	f.shift("sshr", 0x0f000400, a, a, d, n, 16<<a.size-by, by)
}

func (f *Func) shift(name string, base uint32, to, from Arr, d, n V, immhb, by uint32) {
	f.word(base|from.q<<30|immhb<<16|uint32(n)<<5|uint32(d), "%s %s, %s, #%d", name, d.in(to), n.in(from), by)
}

// Widening: a is the arrangement of d, upper whether n's upper half is widened.
func (f *Func) SXTL(a Arr, d, n V, upper bool) { f.widen("sshll", 0x0f00a400, a, d, n, upper) }
func (f *Func) UXTL(a Arr, d, n V, upper bool) { f.widen("ushll", 0x2f00a400, a, d, n, upper) }

func (f *Func) widen(name string, base uint32, a Arr, d, n V, upper bool) {
	h := a.half(upper)
	f.shift(second(name, upper), base, a, h, d, n, 8<<h.size, 0)
}

func second(name string, upper bool) string {
	if upper {
		return name + "2"
	}
	return name
}

// SHLL16 puts the 16-bit lanes of n into the upper halves of d's.
func (f *Func) SHLL16(d, n V, upper bool) {
	h := S4.half(upper)
	f.word(0x2e613800|h.q<<30|uint32(n)<<5|uint32(d), "%s %s, %s, #16", second("shll", upper), d.in(S4), n.in(h))
}

// FCVTL widens to a (S4 from float16, D2 from float32).
func (f *Func) FCVTL(a Arr, d, n V, upper bool) {
	h := a.half(upper)
	f.word(0x0e217800|(a.size-2)<<22|h.q<<30|uint32(n)<<5|uint32(d), "%s %s, %s", second("fcvtl", upper), d.in(a), n.in(h))
}

// FCVTN narrows from a into the lower half of d, whose rest becomes 0, or the
// upper one.
func (f *Func) FCVTN(a Arr, d, n V, upper bool) {
	h := a.half(upper)
	f.word(0x0e216800|(a.size-2)<<22|h.q<<30|uint32(n)<<5|uint32(d), "%s %s, %s", second("fcvtn", upper), d.in(h), n.in(a))
}

// Integers narrowed from a: without regard to what is lost, or saturated, signed
// or to unsigned.
func (f *Func) XTN(a Arr, d, n V, upper bool)    { f.narrow("xtn", 0x0e212800, a, d, n, upper) }
func (f *Func) SQXTN(a Arr, d, n V, upper bool)  { f.narrow("sqxtn", 0x0e214800, a, d, n, upper) }
func (f *Func) SQXTUN(a Arr, d, n V, upper bool) { f.narrow("sqxtun", 0x2e212800, a, d, n, upper) }

func (f *Func) narrow(name string, base uint32, a Arr, d, n V, upper bool) {
	h := a.half(upper)
	f.word(base|h.size<<22|h.q<<30|uint32(n)<<5|uint32(d), "%s %s, %s", second(name, upper), d.in(h), n.in(a))
}

// Products of bytes as 16-bit lanes, of the lower or the upper halves.
func (f *Func) SMULL(d, n, m V, upper bool) { f.long("smull", 0x0e20c000, d, n, m, upper) }
func (f *Func) SMLAL(d, n, m V, upper bool) { f.long("smlal", 0x0e208000, d, n, m, upper) }

func (f *Func) long(name string, base uint32, d, n, m V, upper bool) {
	h := H8.half(upper)
	f.word(base|h.q<<30|uint32(m)<<16|uint32(n)<<5|uint32(d), "%s %s, %s, %s", second(name, upper), d.in(H8), n.in(h), m.in(h))
}

// Sums of neighbours of a's lanes, twice as wide; SADALP adds them to d.
func (f *Func) SADDLP(a Arr, d, n V) { f.pairs("saddlp", 0x0e202800, a, d, n) }
func (f *Func) SADALP(a Arr, d, n V) { f.pairs("sadalp", 0x0e206800, a, d, n) }

func (f *Func) pairs(name string, base uint32, a Arr, d, n V) {
	f.word(base|a.size<<22|a.q<<30|uint32(n)<<5|uint32(d), "%s %s, %s", name, d.in(Arr{a.size + 1, a.q}), n.in(a))
}

// UMLAL is SMLAL of unsigned bytes.
func (f *Func) UMLAL(d, n, m V, upper bool) { f.long("umlal", 0x2e208000, d, n, m, upper) }

// SDOT adds to every 32-bit lane of d the products of four bytes of n with the
// four of m's lane.
func (f *Func) SDOT(d, n, m V, lane uint32) {
	f.word(0x4f80e000|lane&1<<21|lane>>1<<11|uint32(m)<<16|uint32(n)<<5|uint32(d), "sdot %s, %s, v%d.4b[%d]", d.in(S4), n.in(B16), m, lane)
}

// UDOT is SDOT of unsigned bytes.
func (f *Func) UDOT(d, n, m V, lane uint32) {
	f.word(0x6f80e000|lane&1<<21|lane>>1<<11|uint32(m)<<16|uint32(n)<<5|uint32(d), "udot %s, %s, v%d.4b[%d]", d.in(S4), n.in(B16), m, lane)
}

// USHL shifts every lane of n to the left by m's.
func (f *Func) USHL(a Arr, d, n, m V) { f.three("ushl", 0x2e204400|a.size<<22, a, d, n, m) }

// CMTST sets the lanes where n and m have a bit in common to ones.
func (f *Func) CMTST(a Arr, d, n, m V) { f.three("cmtst", 0x0e208c00|a.size<<22, a, d, n, m) }

// Float32 products with one lane of m.
func (f *Func) FMLALane(d, n, m V, lane uint32) { f.lane("fmla", 0x4f801000, d, n, m, lane) }
func (f *Func) FMLSLane(d, n, m V, lane uint32) { f.lane("fmls", 0x4f805000, d, n, m, lane) }
func (f *Func) FMULLane(d, n, m V, lane uint32) { f.lane("fmul", 0x4f809000, d, n, m, lane) }

func (f *Func) lane(name string, base uint32, d, n, m V, lane uint32) {
	f.word(base|lane&1<<21|lane>>1<<11|uint32(m)<<16|uint32(n)<<5|uint32(d), "%s %s, %s, v%d.s[%d]", name, d.in(S4), n.in(S4), m, lane)
}

// Over all lanes, into d's lowest.
func (f *Func) UMAXV(d, n V)  { f.across("umaxv", 0x6eb0a800, S4, "s", d, n) }
func (f *Func) FMAXV(d, n V)  { f.across("fmaxv", 0x6e30f800, S4, "s", d, n) }
func (f *Func) FMINV(d, n V)  { f.across("fminv", 0x6eb0f800, S4, "s", d, n) }
func (f *Func) ADDV(d, n V)   { f.across("addv", 0x4eb1b800, S4, "s", d, n) }
func (f *Func) UADDLV(d, n V) { f.across("uaddlv", 0x6e303800, B16, "h", d, n) }

func (f *Func) across(name string, word uint32, a Arr, to string, d, n V) {
	f.word(word|uint32(n)<<5|uint32(d), "%s %s%d, %s", name, to, d, n.in(a))
}
