package eval

import (
	"slices"
	"testing"
)

// Top planes are read behind the prompt only, and lose more there than all planes.
func TestTopPlanes(t *testing.T) {
	s, tok := defaultSubject(t), defaultTokenizer(t)
	windows := sampleWindows(t, tok, "children", 448, 1)
	got, err := Compare(t.Context(), s, windows, []string{"hq4", "hq4@top"}, 384, Prefill, func(float64) {})
	if err != nil {
		t.Fatal(err)
	}
	if all, top := got[0].KL, got[1].KL; !(top > 3*all) {
		t.Errorf("KL %v with all planes, %v with top planes", all, top)
	}
	var rows [2][]float32
	for i, format := range []string{"hq4", "hq4@top"} {
		run, err := s.session(format, 384, 448)
		if err != nil {
			t.Fatal(err)
		}
		logits, err := prefill(run, windows[0][:384])
		if err != nil {
			t.Fatal(err)
		}
		rows[i] = slices.Clone(logits)
	}
	if !slices.Equal(rows[0], rows[1]) {
		t.Error("the prompt itself was computed on top planes")
	}
}
