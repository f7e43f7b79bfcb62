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
	if n := elements(t, Scatter(points, Axis{Name: "x < 1"}, Axis{Name: "y & z"}))["circle"]; n != 2 {
		t.Errorf("%d points are drawn, want 2", n)
	}
	if n := elements(t, Scatter(points, Axis{}, Axis{Log: true}))["circle"]; n != 1 {
		t.Errorf("%d points are drawn by their logarithm, want 1", n)
	}
	if n := elements(t, Scatter(nil, Axis{Log: true}, Axis{Log: true}))["circle"]; n != 0 {
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

// Names keep clear of dots and of each other, however near their points are.
func TestLabels(t *testing.T) {
	l := labels{within: box{0, 0, 400, 200}}
	for i := range 12 {
		x, y := 200+float64(i%3), 100+float64(i)
		l.dots = append(l.dots, box{x - 4, y - 4, x + 4, y + 4})
	}
	for i := range l.dots {
		b := l.place(i, "a format")
		for _, o := range append(l.dots, l.taken...) {
			if b.shared(o) > 0 {
				t.Errorf("name %d at %v is on %v", i, b, o)
			}
		}
		if b.shared(l.within) < (b.x1-b.x0)*(b.y1-b.y0)-1e-9 {
			t.Errorf("name %d at %v is outside", i, b)
		}
		l.taken = append(l.taken, b)
	}
	long := strings.Repeat("long", 30)
	if b := l.place(0, long); b.x1-b.x0 != textWidth(long) {
		t.Errorf("a name that fits nowhere is at %v", b)
	}
}

func TestLogTicks(t *testing.T) {
	f := func(low, high float64, want ...float64) {
		t.Helper()
		got := logTicks(low, high)
		if len(got) != len(want) {
			t.Fatalf("%g to %g: %v, want %v", low, high, got, want)
		}
		for i := range want {
			if math.Abs(got[i]/want[i]-1) > 1e-9 {
				t.Errorf("%g to %g: %v, want %v", low, high, got, want)
			}
		}
	}
	f(2.25, 16, 2, 3, 5, 10, 20)
	f(1, 1, 1)
	f(0.0002, 2.5, 0.0001, 0.001, 0.01, 0.1, 1, 10)
	f(30, 90, 30, 50, 100)
}
