package eval

import (
	"fmt"
	"slices"
)

// Grid is a task by depth and length: right answers of the cases whose answer
// stands in each part of the text.
type Grid struct {
	Task, Format string
	Lengths      []int    // of the rows
	Cells        [][]Cell // [length][part of the text]
}

// Cell is one of a Grid's.
type Cell struct{ Cases, Right int }

// Grids are the tasks whose cases have depths, by bins equal parts of the text,
// in every format.
func (r *Report) Grids(bins int) []*Grid {
	var grids []*Grid
	for i := range r.Tasks {
		t := &r.Tasks[i]
		if len(t.Depths) == 0 {
			continue
		}
		at := slices.IndexFunc(grids, func(g *Grid) bool { return g.Task == t.Task && g.Format == t.Format })
		if at < 0 {
			at = len(grids)
			grids = append(grids, &Grid{Task: t.Task, Format: t.Format})
		}
		g := grids[at]
		row, _ := slices.BinarySearch(g.Lengths, t.Length)
		g.Lengths = slices.Insert(g.Lengths, row, t.Length)
		g.Cells = slices.Insert(g.Cells, row, make([]Cell, bins))
		for n, depth := range t.Depths {
			c := &g.Cells[row][min(max(int(depth*float64(bins)), 0), bins-1)]
			if c.Cases++; t.Scores[n] == 1 {
				c.Right++
			}
		}
	}
	slices.SortStableFunc(grids, func(a, b *Grid) int {
		return slices.IndexFunc(grids, func(g *Grid) bool { return g.Task == a.Task }) - slices.IndexFunc(grids, func(g *Grid) bool { return g.Task == b.Task })
	})
	return grids
}

// Depths is a table of a task's answers by length and by bins parts of the text,
// first to last.
func (r *Report) Depths(bins int) string {
	head := []string{"task", "format"}
	for i := range bins {
		head = append(head, binName(i, bins))
	}
	table := [][]string{head}
	for _, g := range r.Grids(bins) {
		for i, length := range g.Lengths {
			row := []string{fmt.Sprintf("%s@%d", g.Task, length), "`" + g.Format + "`"}
			for _, c := range g.Cells[i] {
				row = append(row, c.text())
			}
			table = append(table, row)
		}
	}
	return align(table)
}

// binName is the i-th of bins parts of a text.
func binName(i, bins int) string {
	return fmt.Sprintf("%.0f–%.0f %%", 100*float64(i)/float64(bins), 100*float64(i+1)/float64(bins))
}

func (c Cell) text() string {
	if c.Cases == 0 {
		return missing
	}
	return fmt.Sprintf("%d/%d", c.Right, c.Cases)
}
