package quant

import (
	"math"
	"testing"
)

// f32 keeps every bit, takes twice the bytes of f16, and is never taken for it.
func TestWideExactPages(t *testing.T) {
	f, err := ParseFormat("f32", true)
	if err != nil || f.Name != "f32" || f.Coded() {
		t.Fatalf("%+v %v", f, err)
	}
	g, err := NewGeometry(f, 1, 2, 64)
	if err != nil {
		t.Fatal(err)
	}
	narrow, err := ParseFormat("f16", true)
	if err != nil || narrow.Wide || narrow.Name != "f16" {
		t.Fatalf("%+v %v", narrow, err)
	}
	page := make([]byte, g.ExactBytes())
	if len(page) != 2*64*2*64*4 {
		t.Fatalf("a page has %d bytes", len(page))
	}
	k, v := make([]float32, 128), make([]float32, 128)
	for i := range k {
		k[i], v[i] = float32(math.Pi*float64(i)), float32(1e30*float64(i))
	}
	g.PutExact(page, 63, k, v)
	for head := range 2 {
		gotK, gotV := floats(g.ExactK(page, head)[63*256:]), floats(g.ExactV(page, head)[63*256:])
		for c := range 64 {
			if gotK[c] != k[head*64+c] || gotV[c] != v[head*64+c] {
				t.Fatalf("head %d channel %d: %g %g", head, c, gotK[c], gotV[c])
			}
		}
	}
	for _, s := range g.ExactSpans(3, 5, true, false) {
		if s.Len != 2*64*4 {
			t.Fatalf("span %+v", s)
		}
	}
}
