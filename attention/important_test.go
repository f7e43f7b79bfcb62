package attention

import (
	"testing"

	"github.com/terse-llm/terse/quant"
)

// What is watched are the last queries of the prompt, in whatever segments.
func TestWatched(t *testing.T) {
	f := func(pos, rows, prompt, lo, hi int) {
		t.Helper()
		s := Segment{View: view(t, "hq2,important=10", prompt), Pos: pos, Rows: rows}
		l, h := s.Watched()
		if l < h != (lo < hi) || l < h && (l != lo || h != hi) {
			t.Errorf("rows [%d,%d) of a segment of %d at %d", l, h, rows, pos)
		}
		if Selects([]Segment{s}) != (lo < hi) {
			t.Errorf("a segment of %d at %d: Selects is wrong", rows, pos)
		}
	}
	f(0, 512, 4096, 0, 0)
	f(0, 300, 300, 236, 300)
	f(0, 30, 30, 0, 30)
	f(512, 64, 600, 24, 64)
	f(576, 24, 600, 0, 24)
	f(600, 1, 600, 0, 0)
	f(592, 16, 600, 0, 8) // generated tokens are computed again with the prompt's last ones
	if s := (Segment{View: view(t, "hq2", 300), Rows: 300}); Selects([]Segment{s}) {
		t.Error("hq2 selects")
	}
}

func view(t *testing.T, format string, prompt int) *quant.View {
	t.Helper()
	f, err := quant.ParseFormat(format, true)
	if err != nil {
		t.Fatal(err)
	}
	g, err := quant.NewGeometry(f, 1, 1, 64)
	if err != nil {
		t.Fatal(err)
	}
	return &quant.View{Geometry: g, PromptLen: prompt}
}
