package device

import (
	"bytes"
	"testing"

	"github.com/terse-llm/terse/kernels/cuda/cudatest"
	"github.com/terse-llm/terse/quant"
)

// What is brought to the host of a text that was computed for nobody else is what
// would have come there if it had been, and is brought once; decoding goes on.
func TestBring(t *testing.T) {
	gpus := []int{cudatest.Late, cudatest.CopiesFirst}
	if *gpuFlag {
		gpus = []int{0}
	}
	for _, n := range gpus {
		x := newTinyOn(t, 1, n)
		for _, kv := range []string{"hq3", "f16", "hack:v2"} {
			if testing.Short() && kv != "hq3" {
				continue
			}
			g := x.geometry(kv)
			o := RunnerOptions{Rows: 140, Sequences: 4, Context: 512}
			watched, alone := newBench(t, x.onDevice(g, o), 4<<20), newBench(t, x.onDevice(g, o), 4<<20)
			watched.staged = true
			texts := []*text{{ids: random(1, 300), prompt: 280}, {ids: random(1, 300), prompt: 280}}
			for _, chunk := range []int{100, 120, 60, 10} { // the last is decoded
				for i, b := range []*bench{watched, alone} {
					if b.staged {
						b.batch.AfterLayer = func(int) {}
					}
					if texts[i].n < 280 {
						b.add(texts[i], chunk)
						b.step(texts[i])
						continue
					}
					for range chunk {
						b.add(texts[i], 1)
						b.step(texts[i]) // all of whole is on the host by now
					}
				}
			}
			const whole = 256
			var view quant.View
			bring := func() {
				t.Helper()
				alone.pages.Stage(&texts[1].table, 280, &view)
				if err := alone.r.Bring(&view, whole); err != nil {
					t.Fatal(err)
				}
			}
			bring()
			same := 0
			for _, p := range g.Format.Handover(whole) {
				for layer := range g.Layers {
					got, want := view.ExactLayer(p.Page, layer), texts[0].view.ExactLayer(p.Page, layer)
					if p.Coded {
						got, want = view.CodedLayer(p.Page, layer), texts[0].view.CodedLayer(p.Page, layer)
					}
					for _, s := range g.PartSpans(p) {
						if !bytes.Equal(got[s.Off:s.Off+s.Len], want[s.Off:s.Off+s.Len]) {
							t.Errorf("%s on GPU %d: other bytes of %+v in layer %d", kv, n, p, layer)
						}
						same += s.Len
					}
				}
			}
			if same == 0 {
				t.Fatal("nothing was to be brought")
			}
			first := view.Exact[0]
			first[0]++
			marked := first[0]
			bring()
			if view.Exact[0][0] != marked {
				t.Errorf("%s: a page is brought twice", kv)
			}
			for i, b := range []*bench{watched, alone} {
				b.add(texts[i], 1)
			}
			if a, b := watched.step(texts[0]), alone.step(texts[1]); far(b, a) != 0 {
				t.Errorf("%s: bringing pages changes what follows", kv)
			}
		}
	}
}
