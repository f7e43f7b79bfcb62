package plot

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Style is what pages with drawings look like, on light and on dark screens. A
// drawing has a ground of its own, white on both.
const Style = `:root{color-scheme:light dark}body{background:Canvas;color:CanvasText;font:15px/1.5 sans-serif;max-width:75em;margin:2em auto;padding:0 1em}` +
	`svg{max-width:100%;height:auto;border-radius:4px}.scroll{overflow-x:auto}table{border-collapse:collapse}` +
	`td,th{padding:.2em .7em;text-align:right;white-space:nowrap;border-bottom:1px solid #8886}td:first-child,th:first-child{text-align:left}pre{white-space:pre-wrap}`

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

// Heat is a grid of shares, 0 to 1, each with a text; NaN is an empty cell.
type Heat struct {
	Rows, Columns []string
	Share         [][]float64
	Text          [][]string
}

// Draw draws the grid, from red (0) over white to green (1).
func (h *Heat) Draw() string {
	const top, cell, row = 24, 84, 28
	left := 16
	for _, name := range h.Rows {
		left = max(left, 16+int(textWidth(name)))
	}
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
