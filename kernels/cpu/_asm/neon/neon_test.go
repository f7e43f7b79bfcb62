package neon

import (
	"strings"
	"testing"
)

// every emits each instruction, with registers and numbers that reach all fields.
func every(f *Func) {
	for _, a := range []Arr{S2, S4, D2} {
		for _, op := range []func(Arr, V, V, V){f.FADD, f.FSUB, f.FMUL, f.FDIV, f.FMLA, f.FMLS, f.FMAX, f.FMIN, f.FADDP, f.FCMEQ, f.FCMGE, f.FCMGT} {
			op(a, 1, 30, 19)
		}
		for _, op := range []func(Arr, V, V){f.FABS, f.FNEG, f.FRINTN, f.FRINTM, f.FCVTNS, f.FCVTZS, f.SCVTF} {
			op(a, 31, 2)
		}
	}
	for _, a := range []Arr{B8, B16, H4, H8, S2, S4, D2} {
		for _, op := range []func(Arr, V, V, V){f.ADD, f.SUB, f.ADDP, f.CMGT, f.ZIP1, f.ZIP2, f.UZP1, f.TRN1, f.TRN2} {
			op(a, 5, 17, 29)
		}
		f.DUP(a, 3, 22, 1)
		f.SHL(a, 9, 18, 3)
		f.USHR(a, 9, 18, 3)
		f.SSHR(a, 9, 18, 3)
	}
	for _, a := range []Arr{B8, B16, H4, H8, S2, S4} {
		f.UMAX(a, 8, 20, 31)
		f.UMIN(a, 8, 20, 31)
		f.REV64(a, 25, 6)
		f.SADDLP(a, 13, 27)
		f.SADALP(a, 13, 27)
	}
	f.CMTST(S4, 5, 17, 29)
	f.CMTST(B8, 5, 17, 29)
	f.USHL(S4, 5, 17, 29)
	f.USHL(D2, 5, 17, 29)
	for _, op := range []func(d, n, m V){f.AND, f.BIC, f.ORR, f.EOR, f.BSL, f.BIT, f.BIF} {
		op(2, 21, 12)
	}
	f.MOV(7, 24)
	f.EXT(11, 4, 23, 12)
	f.INS(H8, 14, 5, 28, 7)
	f.INS(S4, 14, 3, 28, 1)
	for _, upper := range []bool{false, true} {
		f.SXTL(H8, 10, 26, upper)
		f.SXTL(S4, 10, 26, upper)
		f.SXTL(D2, 10, 26, upper)
		f.UXTL(H8, 10, 26, upper)
		f.UXTL(S4, 10, 26, upper)
		f.SHLL16(15, 1, upper)
		f.FCVTL(S4, 16, 2, upper)
		f.FCVTL(D2, 16, 2, upper)
		f.FCVTN(S4, 16, 2, upper)
		f.FCVTN(D2, 16, 2, upper)
		f.XTN(S4, 0, 31, upper)
		f.SQXTN(S4, 0, 31, upper)
		f.SQXTN(H8, 0, 31, upper)
		f.SQXTUN(S4, 0, 31, upper)
		f.SQXTUN(H8, 0, 31, upper)
		f.SMULL(30, 3, 19, upper)
		f.SMLAL(30, 3, 19, upper)
		f.UMLAL(30, 3, 19, upper)
	}
	for lane := range uint32(4) {
		f.SDOT(6, 29, 15, lane)
		f.UDOT(6, 29, 15, lane)
		f.FMLALane(6, 29, 15, lane)
		f.FMLSLane(6, 29, 15, lane)
		f.FMULLane(6, 29, 15, lane)
	}
	f.UMAXV(18, 9)
	f.FMAXV(18, 9)
	f.FMINV(18, 9)
	f.ADDV(18, 9)
	f.UADDLV(18, 9)
	f.Load(2, 20, 46, 31)
	f.Store(2, 31, 20, 46)
}

// The words are those that GNU as (binutils 2.40) makes of the text beside them.
func TestWords(t *testing.T) {
	out := new(File)
	f := &Func{b: &out.asm}
	every(f)
	got := strings.Split(strings.TrimSpace(out.asm.String()), "\n")
	want := strings.Split(strings.TrimSpace(words), "\n")
	if len(got) != len(want) {
		t.Errorf("%d instructions, %d known", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if g := strings.TrimPrefix(strings.TrimSpace(got[i]), "WORD $0x"); g != strings.Replace(want[i], " ", " // ", 1) {
			t.Errorf("%s, want %s", g, want[i])
		}
	}
}

// Arguments lie where the compiler puts them.
func TestLayout(t *testing.T) {
	f := &Func{places: map[string]place{}}
	size := f.layout("(x []float32, p, q *byte, n int, a, b float32, on bool) (sum float32)")
	for name, want := range map[string]int{"x_base": 0, "x_len": 8, "p": 24, "q": 32, "n": 40, "a": 48, "b": 52, "on": 56, "sum": 64} {
		if f.places[name].at != want {
			t.Errorf("%s at %d, want %d", name, f.places[name].at, want)
		}
	}
	if size != 68 {
		t.Errorf("%d bytes, want 68", size)
	}
}
