package e2e

import (
	"flag"
	"testing"
)

var gpus = flag.Int("gpus", 0, "GPUs of this machine to test on")

// gpuFormats are the KV formats that GPUs serve.
func gpuFormats() []string {
	return []string{"f16", "hq2", "hq2+", "hq3", "hq4", "hq2b,important=6", "hack:v2"}
}

// A prompt computed on one GPU and answered on another gives what one GPU says
// alone, as two processes and as one; with a processor on either side, and beside a
// processor alone, it gives the same but for rounding, after which texts part.
// (Engines without processes around them do so in CI, on emulated GPUs.)
func TestGPUs(t *testing.T) {
	if *gpus == 0 {
		t.Skip("wants GPUs: run with -gpus and their number")
	}
	last := "cuda:0"
	if *gpus > 1 {
		last = "cuda:1"
	}
	prompt, n := passage(t, 0, 1000), 40
	h := loopback()
	nats := h.nats(t)
	for _, kv := range gpuFormats() {
		t.Run(kv, func(t *testing.T) {
			q := greedy(prompt, n)
			q.Repetition = 1.2
			processor := reference(t, h, nats, kv, q, "--device", "cpu")
			alone := reference(t, h, nats, kv, q, "--device", "cuda:0")
			report(t, "one GPU alone", alone, processor)
			for _, pair := range [][2]string{{"cuda:0", last}, {"cpu", last}, {"cuda:0", "cpu"}} {
				name := "split" + onlyLetters(kv+pair[0]+pair[1])
				p := h.worker(t, nats, "prefill", name+"-p", "--cluster", name, "--kv", kv, "--device", pair[0])
				d := h.worker(t, nats, "decode", name+"-d", "--cluster", name, "--kv", kv, "--device", pair[1])
				g := h.gateway(t, nats, []string{"--cluster", name}, p.name, d.name)
				what := pair[0] + " to " + pair[1]
				got := g.ask(q)
				wantSplit(t, got)
				report(t, what, got, processor)
				if pair[0] == "cuda:0" && pair[1] == last {
					same(t, what, got, alone)
				}
				for _, p := range []*process{g.process, d, p} {
					p.stop()
				}
			}
			s := h.serve(t, "--kv", kv, "--device", "cuda:0,"+last)
			defer s.stop()
			got := s.ask(q)
			wantSplit(t, got)
			same(t, "terse serve --device cuda:0,"+last, got, alone)
		})
	}
}

// report logs how long an answer took and how many of its tokens are the
// processor's before they part, of which there must be some.
func report(t *testing.T, what string, got, want answer) {
	t.Helper()
	g, w := got.Choices[0].Logprobs.Tokens, want.Choices[0].Logprobs.Tokens
	same := 0
	for same < len(w) && same < len(g) && g[same] == w[same] {
		same++
	}
	if same < 4 {
		t.Errorf("%s: %q, the processor says %q", what, g, w)
	}
	p := got.timing
	t.Logf("%s: %d of %d tokens are the processor's; prefill %.1f ms, transfer not hidden %.1f ms, %d bytes of KV", what, same, len(w), p.Prefilling, p.Transfer, p.KVBytes)
}
