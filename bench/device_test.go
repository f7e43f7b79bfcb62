package bench

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/terse-llm/terse/kernels/cuda"
	"github.com/terse-llm/terse/kernels/cuda/cudatest"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/model/device"
	"github.com/terse-llm/terse/model/modeltest"
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
	r, err := Device(t.Context(), DeviceOptions{
		GPU: g, Model: m, Config: &c, Formats: []string{"hq3", "int4"}, Prompts: []int{70}, Depths: []int{256}, Batches: []int{1}, Steps: 2, Chunk: 40, Rounds: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Prefills) != 2 || len(r.Rows) != 2 || r.Prefills[0].Err != "" || r.Rows[0].Err != "" {
		t.Fatalf("%+v", r)
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
