package plot

import (
	"fmt"
	"html"
	"math"
	"strings"
	"unicode/utf8"
)

const dotRadius = 4 // pixels

// textWidth is about how many pixels a text takes, in wide fonts.
func textWidth(text string) float64 { return 7.3 * float64(utf8.RuneCountInString(text)) }

// box is a rectangle in pixels.
type box struct{ x0, y0, x1, y1 float64 }

// shared is the area that two boxes have in common.
func (a box) shared(b box) float64 {
	return max(0, min(a.x1, b.x1)-max(a.x0, b.x0)) * max(0, min(a.y1, b.y1)-max(a.y0, b.y0))
}

// labels finds room for names beside their dots.
type labels struct {
	within      box // where names may be
	dots, taken []box
}

// place is where the name of the i-th dot is in nobody's way, or least so: beside
// its dot, else further up or down.
func (l *labels) place(i int, name string) box {
	const line = 13 // pixels of text's height
	d, w := l.dots[i], textWidth(name)
	middle := (d.y0 + d.y1) / 2
	best, least := box{d.x1 + 3, middle - line/2.0, d.x1 + 3 + w, middle + line/2.0}, math.Inf(1)
	for away := 0.0; away <= 8*line; away += line / 2.0 {
		for _, y := range []float64{middle - away, middle + away} {
			for _, x := range []float64{d.x1 + 3, d.x0 - 3 - w} {
				b := box{x, y - line/2.0, x + w, y + line/2.0}
				if b.x0 < l.within.x0 || b.x1 > l.within.x1 || b.y0 < l.within.y0 || b.y1 > l.within.y1 {
					continue
				}
				cost := 0.0
				for _, o := range l.dots {
					cost += b.shared(o)
				}
				for _, o := range l.taken {
					cost += b.shared(o)
				}
				if cost < least {
					best, least = b, cost
				}
			}
		}
		if least == 0 {
			break
		}
	}
	return best
}

// write writes the name of the i-th dot, with a line to it where it stands apart.
func (l *labels) write(b *strings.Builder, i int, name string) {
	at, d := l.place(i, name), l.dots[i]
	l.taken = append(l.taken, at)
	x, y := (d.x0+d.x1)/2, (d.y0+d.y1)/2
	middle := (at.y0 + at.y1) / 2
	anchor, end := "start", at.x0
	if at.x0 < x {
		anchor, end = "end", at.x1
	}
	if math.Abs(middle-y) > 2*dotRadius {
		fmt.Fprintf(b, `<path d="M%.1f %.1f L%.1f %.1f" stroke="#bbb"/>`, x, y, end, middle)
	}
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`, end, middle+4, anchor, html.EscapeString(name))
}
