package kerneltest

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/kerneltest/cases"
	"github.com/terse-llm/terse/quant"
)

// Pages of which only the top planes may be read are read so, whatever lies in
// the others, beside pages that are read whole.
func checkAttendTopOnly(t *testing.T, ops kernels.Ops) {
	for fi, f := range cases.Formats() {
		c := newCache(t, f, 2, 64, 800, uint64(fi))
		if g := c.Geometry; !g.HasSecond() {
			continue
		}
		for _, top := range []func(page int) bool{func(int) bool { return true }, func(page int) bool { return page%3 == fi%3 }} {
			jobs := c.Jobs(3, 6, uint64(fi))
			for h := range jobs {
				for i := range jobs[h].Tiles {
					jobs[h].Tiles[i].TopOnly = top(jobs[h].Tiles[i].First / 64)
				}
			}
			attend(t, f.String(), ops, jobs)
			for h := range jobs {
				checkJob(t, f.String()+", top planes only", &jobs[h])
			}
			want := slices.Clone(jobs[1].Out)
			for i := range jobs[1].Tiles {
				if tile := &jobs[1].Tiles[i]; tile.TopOnly && tile.Coded != nil {
					tile.Coded = slices.Clone(tile.Coded)
					spoilSecond(c.Geometry, tile.Coded)
				}
			}
			attend(t, f.String(), ops, jobs[1:2])
			same(t, f.String()+": second planes that are not there yet changed", jobs[1].Out, want)
		}
	}
}

// spoilSecond overwrites what the second planes of a page hold.
func spoilSecond(g *quant.Geometry, page []byte) {
	for _, s := range g.SecondSpans(page) {
		if s.Len > 8 { // not a set, which says what the scales are
			for i := range s.Len {
				page[s.Off+i] ^= 0xa5
			}
		}
	}
}

// The weights of tokens are those of attention, within the errors of scores, and
// their sums do not depend on how rows come in jobs.
func checkWeigh(t *testing.T, ops kernels.Ops) {
	for fi, f := range cases.Formats() {
		c := newCache(t, f, 2, 64, 333+256*(fi%3), uint64(fi))
		if family := c.Geometry.Format.Family; family != quant.FamilyHQ && family != quant.FamilyF16 {
			continue
		}
		const group, rows = 3, 21
		jobs := c.Jobs(group, rows, 9)
		outs := make([]*output, len(jobs))
		for h := range jobs {
			outs[h] = newOutput(c.Tokens)
			clear(outs[h].data)
			jobs[h].Weights, jobs[h].Out = outs[h].data, nil
		}
		ops.Weigh(jobs)
		for h := range jobs {
			outs[h].check(t, f.String())
			checkWeights(t, f.String(), &jobs[h])
		}
		j := jobs[1]
		again := make([]float32, c.Tokens)
		for lo, n := 0, 1; lo < rows; lo, n = lo+n, n+2 {
			part, hi := j, min(lo+n, rows)
			part.Q, part.Limit, part.Weights = j.Q[lo*group*64:hi*group*64], j.Limit[lo:hi], again
			ops.Weigh([]kernels.AttnJob{part})
		}
		same(t, f.String()+": weights of rows one after another", again, j.Weights)
	}
}

func checkWeights(t *testing.T, what string, j *kernels.AttnJob) {
	t.Helper()
	truth := Truth(j)
	want, bound := make([]float64, len(j.Weights)), make([]float64, len(j.Weights))
	for i := range len(j.Limit) * j.Group {
		_, weights := Oracle(j, truth, i)
		q := j.Q[i*j.Geometry.HeadDim:][:j.Geometry.HeadDim]
		var worst float64
		for ti := range truth {
			for tok := truth[ti].Lo; tok < truth[ti].End(j, i) && truth[ti].KCoded; tok++ {
				worst = max(worst, queryError(j, &truth[ti], q, tok)*float64(j.Scale))
			}
		}
		for ti := range truth {
			for tok := truth[ti].Lo; tok < truth[ti].End(j, i); tok++ {
				at, w := truth[ti].First+tok, weights[ti][tok]
				want[at] += w
				bound[at] += w*(math.Exp(2*worst)-1) + 1e-6
			}
		}
	}
	for at, w := range want {
		near(t, fmt.Sprintf("%s, weights", what), at, j.Weights[at], w, bound[at])
	}
}
