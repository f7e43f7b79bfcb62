package plot

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

// elements counts a drawing's elements by name; it must be well-formed.
func elements(t *testing.T, svg string) map[string]int {
	t.Helper()
	count := map[string]int{}
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return count
		}
		if err != nil {
			t.Fatalf("%v in %s", err, svg)
		}
		if e, ok := token.(xml.StartElement); ok {
			count[e.Name.Local]++
			for _, a := range e.Attr {
				if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
					t.Errorf("%s of %s is %s", a.Name.Local, e.Name.Local, a.Value)
				}
			}
		}
	}
}

func TestScatter(t *testing.T) {
	points := []Point{{Name: "a<b>&", X: 1, Y: 0.1, Above: 0.05, Below: 0.2}, {Name: "zero", X: 2}, {Name: "none", X: math.NaN(), Y: 1}}
	if n := elements(t, Scatter(points, "x < 1", "y & z", false))["circle"]; n != 2 {
		t.Errorf("%d points are drawn, want 2", n)
	}
	if n := elements(t, Scatter(points, "x", "y", true))["circle"]; n != 1 {
		t.Errorf("%d points are drawn by their logarithm, want 1", n)
	}
	if n := elements(t, Scatter(nil, "x", "y", true))["circle"]; n != 0 {
		t.Errorf("%d points of none", n)
	}
}

func TestHeat(t *testing.T) {
	h := Heat{Rows: []string{"1<2"}, Columns: []string{"a", "b", "c"}, Share: [][]float64{{0, 1, math.NaN()}}, Text: [][]string{{"0/1", "1/1", "–"}}}
	svg := h.Draw()
	if n := elements(t, svg)["rect"]; n != 4 {
		t.Errorf("%d cells and ground, want 4", n)
	}
	for _, colour := range []string{warmth(0), warmth(1), "#eeeeee"} {
		if !strings.Contains(svg, colour) {
			t.Errorf("no %s in %s", colour, svg)
		}
	}
}

func TestTicks(t *testing.T) {
	for _, most := range []float64{1e-9, 0.3, 1, 7, 8000, 1e12} {
		if at := Ticks(most); len(at) < 5 || len(at) > 11 || at[0] != 0 || at[len(at)-1] > 1.001*most {
			t.Errorf("ticks to %g: %v", most, at)
		}
	}
	for _, none := range []float64{0, -1, math.NaN(), math.Inf(1)} {
		if at := Ticks(none); len(at) != 1 {
			t.Errorf("ticks to %g: %v", none, at)
		}
	}
}
