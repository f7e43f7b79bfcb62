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

// weightSpan is the longest run of tokens whose weights a backend may quantise
// with one scale.
const weightSpan = 256

func newCache(t *testing.T, f cases.Format, heads, d, n int, seed uint64) *cases.Cache {
	t.Helper()
	c, err := cases.NewCache(f, heads, d, n, seed)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// attend runs jobs with outputs that are poisoned and guarded.
func attend(t *testing.T, what string, ops kernels.Ops, jobs []kernels.AttnJob) {
	t.Helper()
	outs := make([]*output, len(jobs))
	for i := range jobs {
		outs[i] = newOutput(len(jobs[i].Q))
		jobs[i].Out = outs[i].data
	}
	ops.Attend(jobs)
	for _, o := range outs {
		o.check(t, what)
	}
}

func checkAttend(t *testing.T, ops kernels.Ops) {
	dims := []int{64, 80, 96, 128, 256}
	if testing.Short() {
		dims = dims[:2]
	}
	for fi, f := range cases.Formats() {
		for di, d := range dims {
			n := 263 + 37*((fi+3*di)%7) + 256*(di%2) // ragged everywhere
			c := newCache(t, f, 2, d, n, uint64(fi*10+di))
			for _, s := range [][2]int{{[]int{1, 2, 3}[di%3], 5}, {[]int{4, 7, 8}[fi%3], 2}, {6, 1}} {
				jobs := c.Jobs(s[0], s[1], uint64(fi))
				what := fmt.Sprintf("%v/d=%d/group=%d/%d rows of %d", f, d, s[0], s[1], n)
				attend(t, what, ops, jobs)
				for h := range jobs {
					checkJob(t, what, &jobs[h])
				}
			}
		}
	}
	// float16 has no rule for the size of a head.
	for _, d := range []int{1, 7, 20, 33} {
		c := newCache(t, cases.Format{Name: "f16"}, 1, d, 150, uint64(d))
		jobs := c.Jobs(2, 3, 1)
		what := fmt.Sprintf("f16/d=%d", d)
		attend(t, what, ops, jobs)
		checkJob(t, what, &jobs[0])
	}
}

// checkJob compares with attention over the values that the tiles stand for.
// Queries and weights coded to 8 bits are within quant's bounds, and float32 sums
// and exponentials add 4e-6 of values of size 1. The bounds are worst cases:
// typical errors, over all of a job, are far below and held to what is usual for
// the family (docs/formats.md, Error bounds).
func checkJob(t *testing.T, what string, j *kernels.AttnJob) {
	t.Helper()
	truth, d := Truth(j), j.Geometry.HeadDim
	var errors, values float64
	for i := range len(j.Limit) * j.Group {
		want, weights := Oracle(j, truth, i)
		if i%7 == 0 { // bounds take longer than all the rest
			bound := Bound(j, truth, i, weights, weightSpan)
			for ch, w := range want {
				near(t, what+fmt.Sprintf(", vector %d", i), ch, j.Out[i*d+ch], w, bound[ch]+4e-6*(1+math.Abs(w)))
			}
		}
		for ch, w := range want {
			e := float64(j.Out[i*d+ch]) - w
			errors, values = errors+e*e, values+w*w
		}
	}
	typical := map[quant.Family]float64{quant.FamilyF16: 4e-6, quant.FamilyHQ: 0.025, quant.FamilyHack: 0.03, quant.FamilyHackV2: 0.12,
		quant.FamilyGroup: 4e-6, quant.FamilyKIVI: 4e-6, quant.FamilyCacheGen: 4e-6, quant.FamilyKVQuant: 4e-6}
	if e := math.Sqrt(errors / values); !(e <= typical[j.Geometry.Format.Family]) {
		t.Errorf("%s: error %.5f of the output's rms", what, e)
	}
}

// A row's result depends on its own tokens only, to the last bit, however rows
// and heads are grouped into jobs.
func checkAttendInvariance(t *testing.T, ops kernels.Ops) {
	for fi, f := range cases.Formats() {
		const d, group, rows = 64, 3, 45
		c := newCache(t, f, 2, d, 333+256*(fi%3), uint64(fi))
		whole := c.Jobs(group, rows, 9)
		attend(t, f.String(), ops, whole)
		j := whole[1]
		for _, row := range []int{0, 1, 7, 30, 44} {
			one := j
			one.Q, one.Limit = j.Q[row*group*d:(row+1)*group*d], j.Limit[row:row+1]
			want := j.Out[row*group*d : (row+1)*group*d]
			jobs := []kernels.AttnJob{one}
			attend(t, f.String(), ops, jobs)
			same(t, fmt.Sprintf("%v: row %d of %d, alone and with the others", f, row, rows), jobs[0].Out, want)
			jobs[0].Tiles = nil
			for _, tile := range j.Tiles { // as if the sequence ended at this row
				if tile.Hi = min(tile.Hi, one.Limit[0]-tile.First); tile.Hi > tile.Lo {
					jobs[0].Tiles = append(jobs[0].Tiles, tile)
				}
			}
			attend(t, f.String(), ops, jobs)
			same(t, fmt.Sprintf("%v: row %d where tiles end with it", f, row), jobs[0].Out, want)
		}
		half := j // rows cut elsewhere
		half.Q, half.Limit = j.Q[20*group*d:], j.Limit[20:]
		jobs := []kernels.AttnJob{half}
		attend(t, f.String(), ops, jobs)
		same(t, f.String()+": rows from 20 on", jobs[0].Out, j.Out[20*group*d:])
	}
}

// A row that sees nothing gets zeros, and a row whose query is not finite leaves
// its neighbours alone.
func checkAttendEmptyRows(t *testing.T, ops kernels.Ops) {
	for _, f := range cases.Formats() {
		const d = 64
		c := newCache(t, f, 1, d, 260, 3)
		jobs := c.Jobs(1, 4, 4)
		attend(t, f.String(), ops, jobs)
		want := slices.Clone(jobs[0].Out)
		limits := slices.Clone(jobs[0].Limit)
		jobs[0].Limit[0], jobs[0].Limit[2] = 0, 0
		attend(t, f.String(), ops, jobs)
		empty := slices.Clone(want)
		clear(empty[:d])
		clear(empty[2*d : 3*d])
		same(t, f.String()+": rows without tokens", jobs[0].Out, empty)

		jobs[0].Limit = limits
		clear(jobs[0].Q[d : 2*d]) // a query of zeros: all weights equal
		attend(t, f.String(), ops, jobs)
		checkJob(t, f.String()+": a zero query", &jobs[0])
		for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), math.MaxFloat32} {
			jobs[0].Q[d+5] = bad
			attend(t, f.String(), ops, jobs)
			what := fmt.Sprintf("%v: beside a query with %g", f, bad)
			same(t, what, jobs[0].Out[:d], want[:d])
			same(t, what, jobs[0].Out[2*d:], want[2*d:])
		}
	}
}
