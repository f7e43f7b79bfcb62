package plot

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Axis is one of a Scatter's: from 0 on, or by the logarithm.
type Axis struct {
	Name string
	Log  bool
}

// Point is one of a Scatter's, with half an interval above and below it.
type Point struct {
	Name         string
	Series       int // its colour in the Palette
	X, Y         float64
	Above, Below float64
}

// Scatter draws named points. What is not positive is left out of an axis by its
// logarithm.
func Scatter(points []Point, x, y Axis) string {
	const width, height, left, bottom, right, top = 760, 380, 70, 44, 90, 30
	var kept []Point
	across, up := span{low: math.Inf(1)}, span{low: math.Inf(1)}
	for _, p := range points {
		if math.IsNaN(p.X+p.Y) || x.Log && p.X <= 0 || y.Log && p.Y <= 0 {
			continue
		}
		kept = append(kept, p)
		across.add(p.X)
		up.add(p.Y)
		up.add(p.Y + p.Above)
	}
	scaleX, scaleY := x.scale(across), y.scale(up)
	px := func(v float64) float64 { return left + scaleX.of(v)*(width-left-right) }
	py := func(v float64) float64 { return height - bottom - scaleY.of(v)*(height-bottom-top) }
	var b strings.Builder
	Open(&b, width, height)
	for _, v := range scaleY.ticks {
		fmt.Fprintf(&b, `<path d="M%d %.1f H%d" stroke="#eee"/><text x="%d" y="%.1f" text-anchor="end">%.4g</text>`, left, py(v), width-right, left-6, py(v)+4, v)
	}
	for _, v := range scaleX.ticks {
		fmt.Fprintf(&b, `<path d="M%.1f %d v4" stroke="#888"/><text x="%.1f" y="%d" text-anchor="middle">%.4g</text>`, px(v), height-bottom, px(v), height-bottom+16, v)
	}
	fmt.Fprintf(&b, `<path d="M%d %d V%d H%d" fill="none" stroke="#888"/>`, left, top, height-bottom, width-right)
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`, (left+width-right)/2, height-8, html.EscapeString(x.Name))
	fmt.Fprintf(&b, `<text x="8" y="14">%s</text>`, html.EscapeString(y.Name))
	l := labels{within: box{left, top - 8, width, height - bottom}}
	for _, p := range kept {
		l.dots = append(l.dots, box{px(p.X) - dotRadius, py(p.Y) - dotRadius, px(p.X) + dotRadius, py(p.Y) + dotRadius})
	}
	for i, p := range kept {
		c := Palette(p.Series)
		if p.Above+p.Below > 0 {
			fmt.Fprintf(&b, `<path d="M%.1f %.1f V%.1f" stroke="%s"/>`, px(p.X), py(p.Y-p.Below), py(p.Y+p.Above), c)
		}
		fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="%d" fill="%s"/>`, px(p.X), py(p.Y), dotRadius, c)
		l.write(&b, i, p.Name)
	}
	Close(&b)
	return b.String()
}

// span is the range of an axis' values.
type span struct{ low, high float64 }

func (s *span) add(v float64) { s.low, s.high = min(s.low, v), max(s.high, v) }

// scale puts values onto an axis, 0 to 1.
type scale struct {
	of    func(v float64) float64
	ticks []float64
}

func (a Axis) scale(s span) scale {
	if !a.Log || s.low > s.high { // the latter: there is none
		return scale{func(v float64) float64 { return max(v, 0) / max(s.high, 1e-12) }, Ticks(s.high)}
	}
	ticks := logTicks(s.low, s.high)
	lo, hi := math.Log(ticks[0]), math.Log(ticks[len(ticks)-1])
	return scale{func(v float64) float64 {
		return (math.Log(max(v, ticks[0])) - lo) / max(hi-lo, 1e-12) // an interval may reach below
	}, ticks}
}

// logTicks are round numbers of which the first is not above low, and the last
// not below high: powers of ten, and over two of them or less 2, 3 and 5 times
// those.
func logTicks(low, high float64) []float64 {
	steps := []float64{1, 2, 3, 5}
	if high > 100*low {
		steps = steps[:1]
	}
	var at []float64
	for e := math.Floor(math.Log10(low)); ; e++ {
		for _, s := range steps {
			v := s * math.Pow(10, e)
			if v <= low {
				at = at[:0]
			}
			if at = append(at, v); v >= high {
				return at
			}
		}
	}
}
