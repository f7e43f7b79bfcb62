package device

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/model/modeltest"
	"github.com/terse-llm/terse/quant"
)

// The built-in model's largest logits and greedy texts are those of transformers
// in float32, as near as products in 16 bits are. The emulated GPU takes a few
// tokens of the first prompt.
func TestGolden(t *testing.T) {
	var golden struct {
		Golden []struct {
			IDs    []terse.Token `json:"ids"`
			Top    [][2]float64  `json:"last_logits_top"`
			Greedy []terse.Token `json:"greedy"`
		} `json:"golden"`
	}
	data, err := os.ReadFile(filepath.Join("..", "..", "internal", "defaultmodel", "testdata", "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	x, cal := defaultModel(t)
	prompts := golden.Golden
	if !*gpuFlag {
		if testing.Short() {
			t.Skip("the emulated GPU takes seconds for a token of this model")
		}
		prompts = prompts[:1]
	}
	for _, kv := range []string{"f16", "hq3"} {
		f, err := quant.ParseFormat(kv, true)
		if err != nil {
			t.Fatal(err)
		}
		g, err := x.config.Geometry(f)
		if err != nil {
			t.Fatal(err)
		}
		r, err := x.NewRunner(g, cal, RunnerOptions{Rows: 512, Sequences: 1, Context: 1024})
		if err != nil {
			t.Fatal(err)
		}
		b := newBench(t, r, 64<<20)
		for i, p := range prompts {
			n := len(p.Greedy)
			if !*gpuFlag {
				n = len(p.IDs) + 4
			}
			s := &text{ids: append([]terse.Token(nil), p.IDs...), prompt: len(p.IDs)}
			b.add(s, len(s.ids))
			logits := b.step(s)
			worst, span := 0.0, p.Top[0][1]-p.Top[len(p.Top)-1][1]
			for _, want := range p.Top {
				worst = max(worst, math.Abs(float64(logits[int(want[0])])-want[1]))
			}
			same := true
			agreed := 0
			for len(s.ids) < n {
				s.ids = append(s.ids, terse.Token(argmax(logits)))
				if same = same && s.ids[len(s.ids)-1] == p.Greedy[len(s.ids)-1]; same {
					agreed++
				}
				b.add(s, 1)
				logits = b.step(s)
			}
			t.Logf("%s, prompt %d: the largest logits differ by %.2g of %.3g; %d of %d tokens are the same", kv, i, worst, span, agreed, n-len(p.IDs))
			if worst > 0.04*span || agreed < 4 { // activations of eight significant bits
				t.Errorf("%s, prompt %d: too far", kv, i)
			}
			b.cache.Free(&s.table)
		}
		closed(t, r)
	}
}

// defaultModel is the built-in model on the GPU, with its calibration.
func defaultModel(t *testing.T) (*Model, *quant.Calibration) {
	t.Helper()
	w, cal := modeltest.BuiltIn(t)
	m, err := openGPU(t, 0).Load(w, 1024)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, m) })
	return m, cal
}
