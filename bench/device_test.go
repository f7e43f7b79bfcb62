package bench

import (
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/terse-llm/terse/kernels/cuda"
	"github.com/terse-llm/terse/kernels/cuda/cudatest"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/model/device"
	"github.com/terse-llm/terse/model/modeltest"
	"github.com/terse-llm/terse/quant"
)

// A report has a row for every prompt and depth of every format, and says what a
// GPU cannot do instead of a time. (An emulated GPU times nothing.)
func TestDeviceReport(t *testing.T) {
	if !cuda.Built {
		t.Skip("this build has no CUDA")
	}
	lib := cudatest.Emulator(t)
	g, err := device.Open(device.Options{Driver: []string{lib}, Libraries: []string{filepath.Dir(lib)}})
	if err != nil {
		t.Fatal(err)
	}
	c := model.Config{
		Family: "llama", Layers: 2, Hidden: modeltest.Hidden * 2, Intermediate: modeltest.Inner, Heads: modeltest.Heads, KVHeads: modeltest.KVHeads,
		HeadDim: modeltest.HeadDim, VocabSize: modeltest.Vocab, MaxContext: 2048, NormEps: 1e-5, Rotary: model.Rotary{Theta: 1e4, Dim: modeltest.HeadDim},
	}
	m, err := g.Load(RandomWeights(c), c.MaxContext)
	if err != nil {
		t.Fatal(err)
	}
	madeUp, err := MadeUp(&c, 2.5)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Device(t.Context(), DeviceOptions{
		MadeUp: madeUp, GPU: g, Model: m, Config: &c, Formats: []string{"hq3", "int4", "hq2+", "hq2b"}, Prompts: []int{70}, Depths: []int{256}, Batches: []int{1}, Steps: 2, Chunk: 40, Rounds: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Prefills) != 4 || len(r.Rows) != 4 {
		t.Fatalf("%+v", r)
	}
	for _, i := range []int{0, 2, 3} {
		if r.Prefills[i].Err != "" || r.Rows[i].Err != "" {
			t.Errorf("%s: %q, %q", r.Rows[i].Format, r.Prefills[i].Err, r.Rows[i].Err)
		}
	}
	var table strings.Builder
	if err := r.Table(&table); err != nil || !strings.Contains(table.String(), "made-up calibration, times only: hq2+ hq2b\n") {
		t.Errorf("%v\n%s", err, table.String())
	}
	if p := r.Prefills[0]; p.Tokens != 70 || p.Rate <= 0 || p.Median <= 0 || p.Coding < 0 || p.Coding > 1 {
		t.Errorf("prefill: %+v", p)
	}
	if !strings.Contains(r.Prefills[1].Err, "int4") || !strings.Contains(r.Rows[1].Err, "int4") {
		t.Errorf("a format that GPUs do not serve: %+v, %+v", r.Prefills[1], r.Rows[1])
	}
	for _, c := range []interface{ Close() error }{m, g} {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Bases that are made up keep lengths, and layers are planned for the budget, not all
// alike.
func TestMadeUp(t *testing.T) {
	for _, dim := range []int{64, 128} {
		c := model.Config{Layers: 9, KVHeads: 2, HeadDim: dim}
		cal, err := MadeUp(&c, 2.5)
		if err != nil {
			t.Fatal(err)
		}
		for head := range c.Layers * c.KVHeads {
			m := cal.KBasis[head*dim*dim : (head+1)*dim*dim]
			for i := range dim * dim {
				sum, want := 0.0, 0.0
				for k := range dim {
					sum += float64(m[i/dim*dim+k]) * float64(m[i%dim*dim+k])
				}
				if i/dim == i%dim {
					want = 1
				}
				if math.Abs(sum-want) > 1e-5 {
					t.Fatalf("head %d: rows %d and %d: %g", head, i/dim, i%dim, sum)
				}
			}
		}
		for _, name := range []string{"hq2+", "hq2b", "hq2b,budget=2.7"} {
			f, err := quant.ParseFormat(name, true)
			if err != nil {
				t.Fatal(err)
			}
			g, err := c.CalibratedGeometry(f, cal)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := quant.NewTransform(g, cal); err != nil {
				t.Errorf("head_dim %d, %s: %v", dim, name, err)
			}
			bits, most := 8*float64(g.CodedPage())/float64(2*64*dim*c.KVHeads*c.Layers), 2.5
			if f.Budget > 0 {
				most = 2.7
			}
			if name != "hq2+" && !(bits > most-0.1 && bits <= most) {
				t.Errorf("head_dim %d, %s: %g bits", dim, name, bits)
			}
		}
		if all := slices.Compact(slices.Clone(cal.KPlan)); len(all) < 2 {
			t.Errorf("head_dim %d: all layers have %d leading channels", dim, all)
		}
	}
}
