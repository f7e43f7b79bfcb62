package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/terse-llm/terse"
)

// reference is the answer of one worker that does everything.
func reference(t *testing.T, h host, nats, kv string, q question, flags ...string) answer {
	t.Helper()
	name := "whole" + onlyLetters(kv)
	args := []string{"--cluster", name}
	w := h.worker(t, nats, "both", name, append(append(args, "--kv", kv), flags...)...)
	defer w.stop()
	g := h.gateway(t, nats, args, name)
	defer g.stop()
	a := g.ask(q)
	if !strings.HasPrefix(a.timing.Route, "stay") || a.timing.KVBytes != 0 {
		t.Fatalf("the reference moved KV: %+v", a.timing)
	}
	if said := distinct(a); said < q.MaxTokens/4 {
		t.Fatalf("the reference says only %d different tokens, which proves little: %q", said, a.Choices[0].Text)
	}
	return a
}

func distinct(a answer) int {
	seen := map[string]bool{}
	for _, token := range a.Choices[0].Logprobs.Tokens {
		seen[token] = true
	}
	return len(seen)
}

// onlyLetters makes a part of a worker's name of a format's.
func onlyLetters(s string) string { return strings.NewReplacer(":", "", ",", "", "=", "").Replace(s) }

// wantSplit fails for an answer whose prompt was not computed elsewhere.
func wantSplit(t *testing.T, a answer) {
	t.Helper()
	if !strings.HasPrefix(a.timing.Route, "split") || a.timing.KVBytes <= 0 || a.timing.Retries != 0 || a.timing.Prefill == a.timing.Decode {
		t.Errorf("the request was not split: %+v", a.timing)
	}
}

// Prefill and decode as two processes say what one says, in every format.
func TestSplitEqualsWhole(t *testing.T) {
	prompt, n := passage(t, 0, 1000), 40
	list := formats()
	if !*full {
		prompt, n, list = passage(t, 0, 330), 16, []string{"hq3"}
	}
	h := loopback()
	nats := h.nats(t)
	for _, kv := range list {
		t.Run(kv, func(t *testing.T) {
			q := greedy(prompt, n)
			q.Repetition = 1.2 // some format goes round in circles on any prompt, which proves little
			want := reference(t, h, nats, kv, q)
			name := "split" + onlyLetters(kv)
			p := h.worker(t, nats, "prefill", name+"-p", "--cluster", name, "--kv", kv)
			d := h.worker(t, nats, "decode", name+"-d", "--cluster", name, "--kv", kv)
			g := h.gateway(t, nats, []string{"--cluster", name}, p.name, d.name)
			got := g.ask(q)
			wantSplit(t, got)
			same(t, "three processes", got, want)
			t.Logf("%.1f %% of f16's bytes for %d tokens", 100*got.timing.share(), len(prompt))
			for _, p := range []*process{g.process, d, p} {
				p.stop()
			}
			s := h.serve(t, "--kv", kv, "--local-below", "-1")
			defer s.stop()
			got = s.ask(q)
			wantSplit(t, got)
			same(t, "terse serve", got, want)
		})
	}
}

// Several of each role share the work and mix nothing up.
func TestSeveralOfEach(t *testing.T) {
	needFull(t)
	h := loopback()
	nats := h.nats(t)
	questions := make([]question, 8)
	for i := range questions {
		questions[i] = greedy(passage(t, 700*i, 300+20*i), 12)
	}
	var names []string
	for _, role := range []string{"prefill", "decode"} {
		for i := range 2 {
			names = append(names, h.worker(t, nats, role, fmt.Sprintf("%s-%d", role, i)).name)
		}
	}
	g := h.gateway(t, nats, nil, names...)
	asked := make([]*asking, len(questions))
	for i, q := range questions {
		asked[i] = g.begin(t.Context(), q)
	}
	used := map[string]bool{}
	answers := make([]answer, len(questions))
	for i := range asked {
		answers[i] = asked[i].wait()
		if answers[i].status != 200 {
			t.Fatalf("request %d: status %d, %s", i, answers[i].status, answers[i].body)
		}
		wantSplit(t, answers[i])
		used[answers[i].timing.Prefill], used[answers[i].timing.Decode] = true, true
	}
	g.awaitFree()
	everybodyWorks(t, g, names, used)
	g.awaitFree()
	whole := h.serve(t)
	for i, q := range questions {
		same(t, fmt.Sprintf("request %d", i), answers[i], whole.ask(q))
	}
}

// everybodyWorks asks until every worker has had something to do: workers take turns
// where requests overlap, and on a fast machine they may not.
func everybodyWorks(t *testing.T, g api, names []string, used map[string]bool) {
	t.Helper()
	var idle []string
	round := 0
	if !poll(func() bool {
		idle = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return used[name] })
		if len(idle) == 0 {
			return true
		}
		asked := make([]*asking, 8)
		for i := range asked {
			asked[i] = g.begin(t.Context(), greedy(passage(t, 31*(8*round+i)%6900, 1000), 64))
		}
		for _, b := range asked {
			a := b.wait()
			used[a.timing.Prefill], used[a.timing.Decode] = true, true
		}
		round++
		return false
	}) {
		t.Errorf("after %d rounds %q have had nothing to do", round, idle)
	}
}

// A conversation's second turn finds the pages of its first.
func TestPrefixReuse(t *testing.T) {
	s := loopback().serve(t, "--kv", "f16")
	prompt := passage(t, 0, 330)
	first := s.ask(greedy(prompt, 4))
	again := s.ask(greedy(prompt, 4))
	same(t, "again", again, first)
	if first.Usage.Details.Cached != 0 || again.Usage.Details.Cached < 256 {
		t.Errorf("cached tokens %d, then %d", first.Usage.Details.Cached, again.Usage.Details.Cached)
	}
	if first.timing.KVBytes == 0 || again.timing.KVBytes != 0 || !strings.HasPrefix(again.timing.Route, "stay") {
		t.Errorf("where the prompt was there already: %+v, after %+v", again.timing, first.timing)
	}
	longer := append(prompt, []terse.Token{300, 301, 302}...)
	if a := s.ask(greedy(longer, 4)); a.Usage.Details.Cached < 256 {
		t.Errorf("cached tokens of a longer prompt: %d", a.Usage.Details.Cached)
	}
	// Told to split, it moves only what is new.
	split := loopback().serve(t, "--kv", "f16", "--local-below", "-1")
	first = split.ask(greedy(prompt, 4))
	much := append(prompt, passage(t, 2000, 1000)...)
	a := split.ask(greedy(much, 4))
	wantSplit(t, a)
	if most := first.timing.KVBytes / 330 * (1000 + 64); a.Usage.Details.Cached < 256 || a.timing.KVBytes > most || a.timing.KVHeld == 0 {
		t.Errorf("%d tokens cached, %d bytes moved, want %d at most, %d held", a.Usage.Details.Cached, a.timing.KVBytes, most, a.timing.KVHeld)
	}
	whole := loopback().serve(t, "--kv", "f16")
	same(t, "with a held prefix", a, whole.ask(greedy(much, 4)))
}
