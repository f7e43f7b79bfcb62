package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/quant"
)

// Chunked prefill in a batch with others gives the tokens of one text run alone.
func TestGenerateEqualsOneText(t *testing.T) {
	for _, format := range formats() {
		t.Run(format, func(t *testing.T) {
			r := newRig(t, format, nil).start(t)
			var wg sync.WaitGroup
			for i, n := range []int{1, 5, 64, 130, 333, 700} {
				wg.Go(func() {
					p := prompt(uint64(i), n)
					got, last, err := r.collect(context.Background(), request(fmt.Sprint(i), p, 70))
					if err != nil {
						t.Errorf("prompt of %d: %v", n, err)
						return
					}
					want := r.greedy(t, p, 70)
					if fmt.Sprint(got) != fmt.Sprint(want) {
						t.Errorf("prompt of %d: got %v, want %v", n, got, want)
					}
					if last.Finish != terse.FinishLength || last.Usage.CompletionTokens != 70 || last.Usage.PromptTokens != n || last.Timing.TTFT <= 0 {
						t.Errorf("prompt of %d: last output %+v usage %+v", n, last, last.Usage)
					}
					if c := last.Timing; c.Attend <= 0 || c.Attend >= c.Decode {
						t.Errorf("prompt of %d: attention took %v of %v of decoding", n, c.Attend, c.Decode)
					}
					if c := last.Timing; c.Queue+c.Prefill+c.Quantise != c.TTFT {
						t.Errorf("prompt of %d: queue %v, prefill %v and quantise %v are not the %v to the first token", n, c.Queue, c.Prefill, c.Quantise, c.TTFT)
					}
				})
			}
			wg.Wait()
		})
	}
}

// handover moves a prompt between two engines as the wire does, part by part,
// and decodes on the second.
func handover(ctx context.Context, from, to *rig, req *terse.Request, emit func(terse.Output) error) error {
	_, err := handoverRest(ctx, from, to, req, emit)
	return err
}

// handoverRest is handover, and says how many tokens' pages the second held.
func handoverRest(ctx context.Context, from, to *rig, req *terse.Request, emit func(terse.Output) error) (had int, err error) {
	err = to.Receive(ctx, req, emit, func(ctx context.Context, view *quant.View, held int) (Prefilled, error) {
		var out Prefilled
		remote := *req
		remote.ID += "/0"
		sink := newCopier(from.cfg.Runner.Geometry(), view, len(req.Prompt))
		sink.hold(held)
		had = held
		err := from.Prefill(ctx, &remote, sink, func(p Prefilled) error {
			if sink.left > 0 {
				return errors.New("the hand-over is not complete")
			}
			out = p
			return nil
		})
		return out, err
	})
	return had, err
}

// copier is a Sink that copies whole parts into another view.
type copier struct {
	g       *quant.Geometry
	to      *quant.View
	n       int
	parts   []quant.Part
	copied  [][]bool // [layer][part]
	left    int
	stopped bool
}

func newCopier(g *quant.Geometry, to *quant.View, n int) *copier {
	c := &copier{g: g, to: to, n: n, parts: g.Format.Handover(n), copied: make([][]bool, g.Layers)}
	for i := range c.copied {
		c.copied[i] = make([]bool, len(c.parts))
	}
	c.left = g.Layers * len(c.parts)
	return c
}

// hold leaves out what the other side has.
func (c *copier) hold(tokens int) {
	for layer := range c.copied {
		for i, p := range c.parts {
			if (p.Page+1)*c.g.Format.PageTokens <= tokens {
				c.copied[layer][i] = true
				c.left--
			}
		}
	}
}

func (c *copier) Stop() { c.stopped = true }

func (c *copier) Selected(layer int, from *quant.View) {
	for i, p := range c.parts {
		if p.Planes == quant.SecondPlane && !c.copied[layer][i] {
			c.take(layer, i, from)
		}
	}
}

func (c *copier) Written(layer, tokens int, from *quant.View) {
	for i, p := range c.parts {
		if c.copied[layer][i] || p.Planes == quant.SecondPlane || tokens < c.n && p.Page*c.g.Format.PageTokens+p.Hi > tokens {
			continue
		}
		c.take(layer, i, from)
	}
}

func (c *copier) take(layer, part int, from *quant.View) {
	p := c.parts[part]
	c.copied[layer][part] = true
	c.left--
	src, dst := from.ExactLayer(p.Page, layer), c.to.ExactLayer(p.Page, layer)
	if p.Coded {
		src, dst = from.CodedLayer(p.Page, layer), c.to.CodedLayer(p.Page, layer)
	}
	spans := c.g.At(layer).PartSpans(p)
	if p.Planes == quant.SecondPlane {
		spans = c.g.At(layer).SecondSpans(src)
	}
	for _, s := range spans {
		copy(dst[s.Off:s.Off+s.Len], src[s.Off:])
	}
	if c.to.Came != nil {
		c.to.Came([]quant.Piece{{Layer: layer, Page: p.Page, Coded: p.Coded}})
	}
}

// Prefill here and decode there gives the tokens of one engine, in every format,
// for prompts on and around every page and window edge.
func TestSplitEqualsOneText(t *testing.T) {
	for _, format := range formats() {
		t.Run(format, func(t *testing.T) {
			p, d := newRig(t, format, nil).start(t), newRig(t, format, nil).start(t)
			lengths := []int{1, 63, 64, 65, 127, 128, 191, 192, 193, 256, 319, 400, 640}
			if testing.Short() {
				lengths = []int{63, 192, 319}
			}
			for i, n := range lengths {
				req := request(fmt.Sprint("s", i), prompt(uint64(n), n), 140)
				var got []terse.Token
				var last terse.Output
				err := handover(context.Background(), p, d, req, func(o terse.Output) error {
					got = append(got, o.Tokens...)
					last = o
					return nil
				})
				if err != nil {
					t.Fatalf("prompt of %d: %v", n, err)
				}
				sameTokens(t, fmt.Sprintf("prompt of %d", n), got, p.greedy(t, req.Prompt, 140))
				if last.Usage.CompletionTokens != 140 {
					t.Fatalf("usage %+v", last.Usage)
				}
			}
		})
	}
}

// A cache too small for all at once preempts and recomputes; the tokens stay.
func TestPreemptionKeepsTokens(t *testing.T) {
	for _, format := range formats() {
		t.Run(format, func(t *testing.T) {
			page := func(c *Config) {
				g := c.Runner.Geometry()
				c.KVMemory = int64(13*g.ExactPage() + 8*g.CodedPage())
				c.MaxContext = 420
			}
			r := newRig(t, format, page).start(t)
			var wg sync.WaitGroup
			for i := range 5 {
				wg.Go(func() {
					p := prompt(uint64(40+i), 90+10*i)
					got, _, err := r.collect(context.Background(), request(fmt.Sprint(i), p, 250))
					if err != nil {
						t.Errorf("request %d: %v", i, err)
						return
					}
					if want := r.greedy(t, p, 250); fmt.Sprint(got) != fmt.Sprint(want) {
						t.Errorf("request %d changed its tokens", i)
					}
				})
			}
			wg.Wait()
		})
	}
}

// A second request with the same beginning reuses its pages; f16 gives the same
// tokens.
func TestPrefixReuse(t *testing.T) {
	for _, format := range formats() {
		t.Run(format, func(t *testing.T) {
			r := newRig(t, format, nil).start(t)
			p := prompt(9, 500)
			if _, _, err := r.collect(context.Background(), request("a", p, 5)); err != nil {
				t.Fatal(err)
			}
			got, last, err := r.collect(context.Background(), request("b", p, 40))
			if err != nil {
				t.Fatal(err)
			}
			if last.Usage.CachedTokens < 320 {
				t.Errorf("only %d of 500 tokens were reused", last.Usage.CachedTokens)
			}
			if format == "f16" {
				sameTokens(t, "with reused pages", got, r.greedy(t, p, 40))
			}
		})
	}
}

func TestCancelFreesEverything(t *testing.T) {
	var pause atomic.Int64
	r := newRig(t, "hq3", paced(&pause)).start(t)
	pause.Store(int64(time.Millisecond)) // else a request may be over before its caller has heard of it
	for i := range 40 {
		ctx, cancel := context.WithCancel(context.Background())
		seen := 0
		err := r.Generate(ctx, request(fmt.Sprint(i), prompt(uint64(i), 100+i), 1000), func(terse.Output) error {
			if seen++; seen == 1+i%5 {
				cancel()
			}
			return nil
		})
		cancel()
		if terse.CodeOf(err) != terse.CodeCancelled {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	waitIdle(t, r)
}

// waitIdle fails unless the engine soon holds no request and no referenced page.
func waitIdle(t *testing.T, r *rig) {
	t.Helper()
	waitFor(t, "nothing is held", func() bool { l := r.Load(); return l.Running == 0 && l.Waiting == 0 && l.KVUsed == 0 })
}

// A fetch that fails frees the reservation, and its error comes through.
func TestFailedFetchFreesPages(t *testing.T) {
	r := newRig(t, "hq3", nil).start(t)
	lost := &terse.Error{Code: terse.CodeWorkerLost, Message: "gone"}
	err := r.Receive(context.Background(), request("x", prompt(1, 300), 10), func(terse.Output) error { return nil },
		func(context.Context, *quant.View, int) (Prefilled, error) { return Prefilled{}, lost })
	if terse.CodeOf(err) != terse.CodeWorkerLost {
		t.Fatalf("got %v", err)
	}
	waitIdle(t, r)
}

func TestRefusals(t *testing.T) {
	r := newRig(t, "hq3", func(c *Config) { c.MaxContext = 300 }).start(t)
	f := func(code terse.Code, says string, change func(*terse.Request)) {
		t.Helper()
		req := request("r", prompt(1, 100), 10)
		change(req)
		_, _, err := r.collect(context.Background(), req)
		if terse.CodeOf(err) != code || !strings.Contains(fmt.Sprint(err), says) {
			t.Errorf("want %s with %q, got %v", code, says, err)
		}
	}
	f(terse.CodeInvalid, "empty", func(q *terse.Request) { q.Prompt = nil })
	f(terse.CodeInvalid, "vocabulary", func(q *terse.Request) { q.Prompt[3] = 96 })
	f(terse.CodeInvalid, "vocabulary", func(q *terse.Request) { q.Prompt[3] = -1 })
	f(terse.CodeInvalid, "negative", func(q *terse.Request) { q.MaxTokens = -1 })
	f(terse.CodeContextLength, "300", func(q *terse.Request) { q.Prompt = prompt(1, 400) })
}

// Prompt scores are the model's own, for every prompt token after the first.
func TestPromptScores(t *testing.T) {
	r := newRig(t, "f16", nil).start(t)
	req := request("p", prompt(5, 333), 0)
	req.Sampling.PromptLogprobs = 2
	var scores []terse.Scored
	err := r.Generate(context.Background(), req, func(o terse.Output) error {
		scores = append(scores, o.Prompt...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(scores) != 332 {
		t.Fatalf("%d scores for 333 tokens", len(scores))
	}
	for i, s := range scores {
		if s.Token != req.Prompt[i+1] || s.Logprob.Logprob > 0 || len(s.Top) != 2 || s.Top[0].Logprob < s.Top[1].Logprob {
			t.Fatalf("score %d: %+v", i, s)
		}
	}
}

// Requests that run when the engine stops end with an error, as do later ones.
func TestStop(t *testing.T) {
	var pause atomic.Int64
	r := newRig(t, "f16", paced(&pause))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	_, _, err := r.collect(context.Background(), request("warm", prompt(1, 3), 1))
	if err != nil {
		t.Fatal(err)
	}
	pause.Store(int64(keptUp)) // else it may be over first
	err = r.Generate(context.Background(), request("x", prompt(1, 30), 2000), func(terse.Output) error { cancel(); return nil })
	if terse.CodeOf(err) != terse.CodeWorkerLost {
		t.Errorf("running request: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, _, err := r.collect(context.Background(), request("y", prompt(1, 30), 2)); terse.CodeOf(err) != terse.CodeWorkerLost {
		t.Errorf("later request: %v", err)
	}
}

// Sampling draws by request and position, whatever runs beside it.
func TestSamplingIsReproducible(t *testing.T) {
	r := newRig(t, "hq3", nil).start(t)
	ask := func(id string) []terse.Token {
		req := request(id, prompt(3, 50), 60)
		req.Sampling.Temperature, req.Sampling.TopP, req.Sampling.Seed = 1, 0.95, 42
		got, _, err := r.collect(context.Background(), req)
		if err != nil {
			t.Error(err)
		}
		return got
	}
	want := ask("a")
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() { sameTokens(t, "beside others", ask(fmt.Sprint(i)), want) })
	}
	wg.Wait()
}

// A prompt that another one began with is handed over whole: the pages that it
// reuses may have no exact form, and its exact tail must not lie in them.
func TestHandoverOfAReusedPrefix(t *testing.T) {
	for _, format := range formats() {
		t.Run(format, func(t *testing.T) {
			p, d := newRig(t, format, nil).start(t), newRig(t, format, nil).start(t)
			long := prompt(1, 640)
			for i, n := range []int{640, 300, 192, 129, 450, 640} {
				var last terse.Output
				err := handover(t.Context(), p, d, request(fmt.Sprint("r", i), long[:n], 5), func(o terse.Output) error {
					last = o
					return nil
				})
				if err != nil {
					t.Fatalf("prompt of %d: %v", n, err)
				}
				if i == 5 && last.Usage.CachedTokens == 0 {
					t.Error("nothing was reused")
				}
			}
		})
	}
}
