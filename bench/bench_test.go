package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/kernels/cpu/fused"
	"github.com/terse-llm/terse/kernels/kerneltest/cases"
	"github.com/terse-llm/terse/kernels/ref"
)

func TestSampleOf(t *testing.T) {
	f := func(times []float64, median, low, high time.Duration) {
		t.Helper()
		if s := sampleOf(times); s.Median != median || s.Low != low || s.High != high || s.Rounds != len(times) {
			t.Errorf("%v gives %+v", times, s)
		}
	}
	f([]float64{7}, 7, 7, 7)
	f([]float64{30, 10, 20}, 20, 15, 25)
	f([]float64{4, 1, 3, 2, 5}, 3, 2, 4)
}

// Things are timed in turns, as often as each other, and stopping stops.
func TestRounds(t *testing.T) {
	var order strings.Builder
	all := []*timed{{run: func() { order.WriteByte('a') }, runs: 2}, {run: func() { order.WriteByte('b') }, runs: 1}}
	if err := rounds(context.Background(), all, 0); err != nil {
		t.Fatal(err)
	}
	if got := order.String(); got != strings.Repeat("aab", fewest) {
		t.Errorf("order %q", got)
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if err := rounds(ctx, all, time.Hour); err == nil {
		t.Error("a stopped run went on")
	}
}

func TestFloor(t *testing.T) {
	l := Limits{Read: 10, FMA: 100, Int8: 200}
	for _, c := range []struct {
		bytes, flops, ints float64
		want               time.Duration
		why                string
	}{{1000, 0, 0, 100, "memory"}, {1000, 20000, 0, 200, "f32"}, {10, 0, 60000, 300, "int8"}, {0, 0, 0, 0, ""}} {
		if d, why := l.floor(c.bytes, c.flops, c.ints); d != c.want || why != c.why {
			t.Errorf("%+v: %v by %q", c, d, why)
		}
	}
	if d, why := (&Limits{Read: 1}).floor(5, 100, 100); d != 5 || why != "memory" {
		t.Errorf("rates that are not known: %v by %q", d, why)
	}
}

// A run of a few kernels gives rows with floors, in a table and in JSON.
func TestKernels(t *testing.T) {
	o := KernelOptions{Ops: ref.New(2), Level: cpu.Best(), Filter: regexp.MustCompile(`rmsnorm|store|attend/prefill64/.*/4K/hq2$`), Time: time.Millisecond}
	if testing.Short() {
		o.Filter = regexp.MustCompile(`rmsnorm|store`)
	}
	r, err := Kernels(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	r.Machine = NewMachine(2, o.Level, "test", "ref")
	for _, row := range r.Rows {
		if row.Median <= 0 || row.Low > row.Median || row.High < row.Median || row.Rounds < fewest || strings.HasPrefix(row.Name, "attend") != (row.Floor > 0) || row.GBps <= 0 {
			t.Errorf("row %+v", row)
		}
		if strings.HasSuffix(row.Name, "hq2") && (row.Speed <= 0 || !strings.HasSuffix(row.Base, "f16")) {
			t.Errorf("%s is compared with %q: %g", row.Name, row.Base, row.Speed)
		}
	}
	if n := len(r.Rows); n != 4 && !testing.Short() {
		t.Errorf("%d rows", n) // with the f16 that hq2 is compared with
	}
	var table, text bytes.Buffer
	if err := r.Table(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2 threads, " + o.Level.String(), "rmsnorm/512x2048", "GB/s", "of floor"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, table.String())
		}
	}
	var back KernelReport
	if err := r.JSON(&text); err != nil || json.Unmarshal(text.Bytes(), &back) != nil || len(back.Rows) != len(r.Rows) {
		t.Errorf("JSON: %v\n%s", err, text.String())
	}
	o.Filter = regexp.MustCompile("nothing")
	if _, err := Kernels(context.Background(), o); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("no kernel: %v", err)
	}
}

// The control computes attention: over int8 it is off by about a hundredth.
func TestFusedDecode(t *testing.T) {
	for _, level := range cpu.Levels() {
		for bits, bound := range map[int]float64{4: 0.15, 8: 0.015} {
			a := cases.Attention{HeadDim: 64, Group: 3, Heads: 2, Rows: 1, Tokens: 4096}
			layout := fused.NewLayout(a.HeadDim, bits)
			d := newFusedDecode(a, level, &layout)
			d.run(ref.New(2))
			r := rand.New(rand.NewPCG(1, 1))
			k, v := cases.Gaussian(r, fusedPage*a.HeadDim), cases.Gaussian(r, fusedPage*a.HeadDim)
			var q []float32 // the last vector of the last head, whose output is still there
			for range a.Heads {
				q = cases.Gaussian(r, a.Group*a.HeadDim)[(a.Group-1)*a.HeadDim:]
			}
			want, sum := make([]float64, a.HeadDim), 0.0
			for tok := range fusedPage { // all pages are the same
				var score float64
				for c := range q {
					score += float64(q[c]) * float64(k[tok*a.HeadDim+c])
				}
				w := math.Exp(score / math.Sqrt(float64(a.HeadDim)))
				sum += w
				for c := range want {
					want[c] += w * float64(v[tok*a.HeadDim+c])
				}
			}
			var off, size float64
			for c := range want {
				off += math.Pow(want[c]/sum-float64(d.out[c]), 2)
				size += math.Pow(want[c]/sum, 2)
			}
			if e := math.Sqrt(off / size); !(e < bound) {
				t.Errorf("%v, int%d: off by %.3f of the output", level, bits, e)
			}
		}
	}
}
