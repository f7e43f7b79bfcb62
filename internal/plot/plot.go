package plot

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Open begins a drawing of width and height pixels on white.
func Open(b *strings.Builder, width, height int) {
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12">`, width, height, width, height)
	fmt.Fprintf(b, `<rect width="%d" height="%d" fill="white"/>`, width, height)
}

// Close ends a drawing.
func Close(b *strings.Builder) { b.WriteString("</svg>") }

// Palette has a colour for the i-th series.
func Palette(i int) string {
	colours := []string{"#000000", "#e15759", "#4e79a7", "#59a14f", "#f28e2b", "#b07aa1", "#76b7b2", "#9c755f", "#edc948", "#ff9da7"}
	return colours[i%len(colours)]
}

// Ticks are about five round numbers from 0 to most.
func Ticks(most float64) []float64 {
	if !(most > 0) || math.IsInf(most, 1) {
		return []float64{0}
	}
	step := math.Pow(10, math.Floor(math.Log10(most)))
	for most/step < 4 {
		step /= 2
	}
	var at []float64
	for x := 0.0; x <= most*1.0001; x += step {
		at = append(at, x)
	}
	return at
}

// Point is one of a Scatter's, with half an interval above and below it.
type Point struct {
	Name         string
	X, Y         float64
	Above, Below float64
}

// Scatter draws named points, from 0 on both axes; with log, Y by its logarithm
// (points that are not positive are left out then).
func Scatter(points []Point, xName, yName string, log bool) string {
	const width, height, left, bottom, right, top = 760, 380, 70, 44, 130, 24
	var kept []Point
	most, low, high := 0.0, math.Inf(1), 0.0
	for _, p := range points {
		if math.IsNaN(p.X+p.Y) || log && p.Y <= 0 {
			continue
		}
		kept = append(kept, p)
		most, low, high = max(most, p.X), min(low, p.Y), max(high, p.Y+p.Above)
	}
	scale := func(y float64) float64 { return y / max(high, 1e-12) }
	marks := Ticks(high)
	if log {
		lo, hi := math.Floor(math.Log10(low)), math.Ceil(math.Log10(max(high, 1e-12)))
		scale = func(y float64) float64 {
			return (math.Log10(max(y, math.Pow(10, lo))) - lo) / max(hi-lo, 1)
		}
		marks = nil
		for e := lo; e <= hi; e++ {
			marks = append(marks, math.Pow(10, e))
		}
	}
	px := func(x float64) float64 { return left + x/max(most, 1e-12)*(width-left-right) }
	py := func(y float64) float64 { return height - bottom - scale(y)*(height-bottom-top) }
	var b strings.Builder
	Open(&b, width, height)
	fmt.Fprintf(&b, `<path d="M%d %d V%d H%d" fill="none" stroke="#888"/>`, left, top, height-bottom, width-right)
	if len(kept) > 0 {
		for _, y := range marks {
			fmt.Fprintf(&b, `<path d="M%d %.1f H%d" stroke="#eee"/><text x="%d" y="%.1f" text-anchor="end">%.4g</text>`, left, py(y), width-right, left-6, py(y)+4, y)
		}
		for _, x := range Ticks(most) {
			fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%.4g</text>`, px(x), height-bottom+16, x)
		}
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`, (left+width-right)/2, height-8, html.EscapeString(xName))
	fmt.Fprintf(&b, `<text x="%d" y="14">%s</text>`, left, html.EscapeString(yName))
	for i, p := range kept {
		c := Palette(i)
		if p.Above+p.Below > 0 {
			fmt.Fprintf(&b, `<path d="M%.1f %.1f V%.1f" stroke="%s"/>`, px(p.X), py(p.Y-p.Below), py(p.Y+p.Above), c)
		}
		fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="4" fill="%s"/><text x="%.1f" y="%.1f" fill="%s">%s</text>`, px(p.X), py(p.Y), c, px(p.X)+7, py(p.Y)-5, c, html.EscapeString(p.Name))
	}
	Close(&b)
	return b.String()
}

// Heat is a grid of shares, 0 to 1, each with a text; NaN is an empty cell.
type Heat struct {
	Rows, Columns []string
	Share         [][]float64
	Text          [][]string
}

// Draw draws the grid, from red (0) over white to green (1).
func (h *Heat) Draw() string {
	const left, top, cell, row = 90, 24, 84, 28
	var b strings.Builder
	Open(&b, left+cell*len(h.Columns)+10, top+row*len(h.Rows)+6)
	for i, name := range h.Columns {
		fmt.Fprintf(&b, `<text x="%d" y="16" text-anchor="middle">%s</text>`, left+cell*i+cell/2, html.EscapeString(name))
	}
	for r, name := range h.Rows {
		y := top + row*r
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, left-8, y+18, html.EscapeString(name))
		for c := range h.Columns {
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s" stroke="white"/><text x="%d" y="%d" text-anchor="middle">%s</text>`,
				left+cell*c, y, cell, row, warmth(h.Share[r][c]), left+cell*c+cell/2, y+18, html.EscapeString(h.Text[r][c]))
		}
	}
	Close(&b)
	return b.String()
}

// warmth is a share's colour.
func warmth(share float64) string {
	if math.IsNaN(share) {
		return "#eeeeee"
	}
	share = min(max(share, 0), 1)
	mix := func(from, to float64, t float64) int { return int(from + (to-from)*t + 0.5) }
	if share < 0.5 {
		t := share * 2
		return fmt.Sprintf("#%02x%02x%02x", mix(225, 255, t), mix(87, 255, t), mix(89, 255, t))
	}
	t := share*2 - 1
	return fmt.Sprintf("#%02x%02x%02x", mix(255, 89, t), mix(255, 161, t), mix(255, 79, t))
}
