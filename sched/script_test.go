package sched

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/internal/script"
	"github.com/terse-llm/terse/kvcache"
	"github.com/terse-llm/terse/quant"
)

// Pages of four tokens keep the scripts readable.
var formats = map[string]quant.Format{
	"f16":     {Name: "f16", Family: quant.FamilyF16, PageTokens: 4},
	"hq":      {Name: "hq2", Family: quant.FamilyHQ, PageTokens: 4, Sinks: 4, Recent: 8, Symmetric: true},
	"hack":    {Name: "hack", Family: quant.FamilyHack, PageTokens: 4, Bits: 2, Partition: 2, SE: true, RQE: true},
	"hack:v2": {Name: "hack:v2", Family: quant.FamilyHackV2, PageTokens: 4, Bits: 2, Partition: 4, RQE: true, Sinks: 2, ExactPrefill: true},
}

type failer interface {
	Helper()
	Fatal(...any)
}

// testCache has room for so many exact and coded pages.
func testCache(t failer, format string, exact, coded int) *kvcache.Cache {
	t.Helper()
	g := &quant.Geometry{Format: formats[format], Layers: 1, KVHeads: 1, HeadDim: 16, HeadBytes: 80}
	c, err := kvcache.New(g, int64(exact*g.ExactBytes()+coded*g.CodedBytes()))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestScripts(t *testing.T) {
	script.Run(t, "testdata/*.txt", func(t *testing.T) func(script.Command) string {
		d := &driver{}
		return func(c script.Command) string { return d.do(t, c) }
	})
}

// driver gathers events until "step". A second passes with every step.
type driver struct {
	cache  *kvcache.Cache
	s      *Scheduler
	events []Event
	rows   []Work
	now    time.Time
}

func (d *driver) do(t *testing.T, c script.Command) string {
	switch c.Name {
	case "sched":
		d.cache = testCache(t, c.Arg(0), c.Int("exact", 100), c.Int("coded", 0))
		d.s = New(Config{
			Cache: d.cache, MaxSeqs: c.Int("seqs", 0), StepTokens: c.Int("step", 8),
			MaxWaiting: c.Int("waiting", 0), MaxContext: c.Int("ctx", 1000),
		})
		return ""
	case "step":
		return show(d.step(c))
	case "decode": // n steps that answer all rows; prints what else happened
		var out string
		for i := range c.Int("n", 1) {
			d.sampleAll()
			plan := d.step(c)
			plan.Rows = nil
			if s := show(plan); s != "nothing\n" {
				out += fmt.Sprintf("step %d: %s", i+1, s)
			}
		}
		return out
	case "stats":
		return fmt.Sprintf("%+v\n", d.s.Stats())
	case "sampled":
		if c.Arg(0) == "all" {
			d.sampleAll()
			return ""
		}
	}
	d.events = append(d.events, event(c))
	return ""
}

func (d *driver) step(c script.Command) Plan {
	d.now = d.now.Add(time.Second)
	plan := d.s.Step(d.events, d.now)
	d.events, d.rows = d.events[:0], plan.Rows
	if err := d.s.Check(); err != nil {
		c.Fatalf("%v", err)
	}
	return plan
}

// sampleAll answers every row of the last plan that asks for a token.
func (d *driver) sampleAll() {
	for _, w := range d.rows {
		if w.Sample {
			d.events = append(d.events, &Sampled{ID: w.ID, Token: 7})
		}
	}
}

func event(c script.Command) Event {
	id := ID(c.Arg(0))
	switch c.Name {
	case "add":
		prompt := make([]terse.Token, c.Int("prompt", 0))
		for i := range prompt {
			prompt[i] = terse.Token(c.Int("from", 100) + i)
		}
		mode := map[string]Mode{"local": ModeLocal, "prefill": ModePrefill, "remote": ModeRemote}[c.String("mode", "local")]
		return Add{ID: id, Prompt: prompt, MaxTokens: c.Int("max", 10), Mode: mode, PromptScores: c.Bool("scores"),
			Resumed: c.Int("resumed", 0), Reuse: c.Int("reuse", 0)}
	case "sampled":
		return &Sampled{ID: id, Token: terse.Token(c.Int("token", 7)), Finished: c.Bool("finished")}
	case "cancel":
		return Cancel{ID: id}
	case "kvready":
		return KVReady{ID: id, First: terse.Token(c.Int("first", 7))}
	case "kvfailed":
		return KVFailed{ID: id}
	case "release":
		return Release{ID: id}
	}
	c.Fatalf("no command %q", c.Name)
	return nil
}

func show(p Plan) string {
	var b strings.Builder
	for _, a := range p.Admitted {
		fmt.Fprintf(&b, "admitted %s cached=%d waited=%v\n", a.ID, a.CachedTokens, a.Waited)
	}
	for _, r := range p.Reserved {
		fmt.Fprintf(&b, "reserved %s exact=%d coded=%d held=%d waited=%v\n", r.ID, pages(r.Table.Exact), pages(r.Table.Coded), r.HeldTokens, r.Waited)
	}
	for _, r := range p.Rejected {
		fmt.Fprintf(&b, "rejected %s %s: %s\n", r.ID, r.Err.Code, r.Err.Message)
	}
	for _, id := range p.Preempted {
		fmt.Fprintf(&b, "preempted %s\n", id)
	}
	for _, id := range p.Dropped {
		fmt.Fprintf(&b, "dropped %s\n", id)
	}
	for _, w := range p.Rows {
		fmt.Fprintf(&b, "row %s %d+%d", w.ID, w.From, len(w.Tokens))
		if w.Sample {
			b.WriteString(" sample")
		}
		if w.AllLogits {
			b.WriteString(" logits")
		}
		b.WriteString("\n")
	}
	if b.Len() == 0 {
		return "nothing\n"
	}
	return b.String()
}

func pages(ids []kvcache.PageID) int {
	n := 0
	for _, id := range ids {
		if id != kvcache.None {
			n++
		}
	}
	return n
}
