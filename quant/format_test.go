package quant

import (
	"fmt"
	"testing"
)

// everyFormat are formats of every family and switch.
var everyFormat = []string{
	"f16", "hq2", "hq3", "hq4", "hq2,sinks=0,recent=0", "hq3,sinks=128,recent=256", "hq2,k2=lead:16,v2=tokens:8",
	"hack", "hack,rqe=off", "hack,partition=32", "hack,partition=128", "hack,partition=32,rqe=off", "hack,prefill=exact",
	"hack:v2", "hack:v2,rqe=off", "hack:v2,partition=32", "hack:v2,partition=128", "hack:v2,prefill=codes",
	"int8", "int4", "kivi", "kivi,bits=4,group=64,residual=64", "kivi,residual=256,prefill=codes",
	"kvquant", "kvquant,bits=3", "kvquant,bits=4,prefill=codes", "cachegen", "cachegen,prefill=codes", "cachegen,delta=10",
}

func parse(t testing.TB, name string, calibrated bool) Format {
	t.Helper()
	f, err := ParseFormat(name, calibrated)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// The rule of the exact windows: with n tokens up to and with itself, a query
// reads key j exactly if j < sinks or j >= 64·floor((n-recent)/64).
func TestExactFrom(t *testing.T) {
	f := func(name string, n, wantK, wantV int) {
		t.Helper()
		if k, v := parse(t, name, true).ExactFrom(n); k != wantK || v != wantV {
			t.Errorf("%s with %d tokens: exact from %d, %d, want %d, %d", name, n, k, v, wantK, wantV)
		}
	}
	f("f16", 1000, 0, 0)
	f("hq2", 1, 0, 0)
	f("hq2", 128, 0, 0)
	f("hq2", 191, 0, 0)
	f("hq2", 192, 64, 64)
	f("hq2", 255, 64, 64)
	f("hq2", 256, 128, 128)
	f("hq2,recent=0", 63, 0, 0)
	f("hq2,recent=0", 64, 64, 64)
	f("hack", 63, 63, 0)
	f("hack", 64, 64, 64)
	f("hack", 100, 100, 64)
	f("hack,partition=32", 100, 100, 96)
	f("hack,partition=128", 300, 300, 256)
	f("hack,rqe=off", 100, 100, 100)
	f("hack:v2", 100, 64, 64)
	f("hack:v2,rqe=off", 100, 100, 100)
	f("int8", 100, 100, 100)
	f("cachegen", 100, 100, 100)
	f("kvquant", 100, 100, 100)
	f("kivi", 1, 0, 0)
	f("kivi", 128, 0, 0)
	f("kivi", 129, 128, 0)
	f("kivi", 130, 128, 1)
	f("kivi", 300, 256, 171)
	f("kivi,residual=64", 300, 256, 235)
	for n := range 2000 {
		want := 0
		if n >= 128 {
			want = (n - 128) / 64 * 64
		}
		f("hq3", n, want, want)
		if k, _ := parse(t, "hq3", true).ExactFrom(n); n >= 192 && (n-k < 128 || n-k >= 192) {
			t.Fatalf("%d tokens: %d are exact", n, n-k)
		}
	}
}

// holder is what a worker holds of a sequence: per half and token.
type holder struct {
	f            Format
	n            int
	exact, coded [2]map[int]bool
}

func newHolder(f Format) *holder {
	h := &holder{f: f}
	for half := range 2 {
		h.exact[half], h.coded[half] = map[int]bool{}, map[int]bool{}
	}
	return h
}

// code marks what [Geometry.Encode] can code of page's tokens below n.
func (h *holder) code(page int) {
	f := h.f
	first := page * f.PageTokens
	last := min(first+f.PageTokens, h.n)
	for half := range 2 {
		width, whole := f.Partition, f.RQE
		switch {
		case f.Family == FamilyHQ:
			width, whole = f.PageTokens, true
		case f.Family == FamilyHack && half == HalfK || f.Family == FamilyGroup || f.Family == FamilyCacheGen || f.Family == FamilyKVQuant:
			width = 1
		}
		for lo := first; lo < last; lo += width {
			h.codeBlock(half, lo, lo+width, min(lo+width, last), whole)
		}
	}
}

func (h *holder) codeBlock(half, lo, end, hi int, whole bool) {
	if hi < end && whole {
		return
	}
	for j := lo; j < hi; j++ {
		if !h.exact[half][j] {
			return
		}
	}
	for j := lo; j < hi; j++ {
		h.coded[half][j] = true
	}
}

// write appends a token.
func (h *holder) write() {
	h.exact[HalfK][h.n], h.exact[HalfV][h.n] = true, true
	h.n++
	if lo, hi := h.f.CodedPages(h.n); (h.n-1)/h.f.PageTokens >= lo && (h.n-1)/h.f.PageTokens < hi {
		h.code((h.n - 1) / h.f.PageTokens)
	}
}

// drop lets go, after the last token's query, of the exact pages that are not
// needed any more.
func (h *holder) drop(promptLen int) {
	lo, _ := h.f.ExactPages(h.n, promptLen)
	for half := range 2 {
		for j := range h.exact[half] {
			if page := j / h.f.PageTokens; page < lo && page >= h.f.SinkPages() {
				delete(h.exact[half], j)
			}
		}
	}
}

// check fails if the query that has h.n tokens lacks anything.
func (h *holder) check(t *testing.T, what string, exactQuery bool) {
	t.Helper()
	var from [2]int
	from[HalfK], from[HalfV] = h.f.ExactFrom(h.n)
	for j := range h.n {
		for half := range 2 {
			exact := j < h.f.Sinks || j >= from[half] || !h.f.Coded() || exactQuery
			if exact && !h.exact[half][j] || !exact && !h.coded[half][j] {
				t.Fatalf("%s: with %d tokens, token %d of half %d (exact: %v) is missing", what, h.n, j, half, exact)
			}
		}
	}
}

// A worker that lets go of exact pages as ExactPages allows, and a decoder that
// was given just the hand-over, both hold everything that any later query reads
// in the form it reads it.
func TestPagesAndHandover(t *testing.T) {
	for _, name := range everyFormat {
		f := parse(t, name, true)
		for _, n := range []int{1, 3, 5, 31, 32, 63, 64, 65, 100, 127, 128, 129, 191, 192, 193, 255, 256, 300, 383, 384, 449, 640} {
			own := newHolder(f)
			for own.n < n {
				own.write()
				own.check(t, name+" prefill", f.ExactPrefill)
				own.drop(n)
			}
			got := adopt(t, f, n)
			for range 150 {
				own.write()
				own.check(t, name+" own", false)
				own.drop(n)
				got.write()
				got.check(t, fmt.Sprintf("%s handed over at %d", name, n), false)
				got.drop(n)
			}
		}
	}
}

// adopt makes a decoder's holder of the hand-over of n tokens, checking that
// nothing is moved twice.
func adopt(t *testing.T, f Format, n int) *holder {
	t.Helper()
	h := newHolder(f)
	h.n = n
	var from [2]int
	from[HalfK], from[HalfV] = f.heldFrom(n)
	sent := map[int]bool{}
	for _, p := range f.Handover(n) {
		first := p.Page * f.PageTokens
		if p.Lo < 0 || p.Lo >= p.Hi || first+p.Hi > n || !p.K && !p.V {
			t.Fatalf("%s, %d tokens: part %+v", f.Name, n, p)
		}
		for half, moved := range []bool{p.K, p.V} {
			for j := first + p.Lo; moved && j < first+p.Hi; j++ {
				if p.Coded && (j < f.Sinks || j >= from[half]) {
					// In the page, but no code there to be read, or not yet (kivi).
					h.coded[half][j] = h.coded[half][j] || f.Family == FamilyKIVI
					continue
				}
				if h.exact[half][j] || h.coded[half][j] && f.Family != FamilyKIVI {
					t.Fatalf("%s, %d tokens: token %d of half %d is handed over twice", f.Name, n, j, half)
				}
				h.exact[half][j] = !p.Coded
				h.coded[half][j] = h.coded[half][j] || p.Coded
			}
		}
		sent[p.Page] = sent[p.Page] || p.Coded
	}
	lo, hi := f.CodedPages(n)
	for page := lo; page < hi; page++ {
		if !sent[page] {
			h.code(page)
		}
	}
	return h
}

// The hand-over of a 4,096-token prompt is within the wire budget.
func TestHandoverBytes(t *testing.T) {
	f := func(name string, limit float64) {
		t.Helper()
		g, err := NewGeometry(parse(t, name, true), 1, 2, 64)
		if err != nil {
			t.Fatal(err)
		}
		bytes := 0
		for _, p := range g.Format.Handover(4096) {
			for _, s := range g.PartSpans(p) {
				bytes += s.Len
			}
		}
		if got := float64(bytes) / (4096 * 2 * 2 * 64 * 2); got > limit {
			t.Errorf("%s: %.1f %% of f16, want at most %.0f %%", name, 100*got, 100*limit)
		}
	}
	f("f16", 1)
	f("hq2", 0.21)
	f("hq3", 0.27)
	f("hack", 0.18)
}
