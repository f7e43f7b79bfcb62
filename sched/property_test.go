package sched

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kvcache"
)

// world plays the engine for two schedulers with equal histories. It knows what
// every page must hold and checks each row of each plan against it.
type world struct {
	t       *rapid.T
	format  string
	cfg     Config
	s, twin *Scheduler
	reqs    []*request
	pages   map[pageKey]string // what was written last
	events  []Event
	now     time.Time
	named   int

	hosted   []*hosted
	lent     []*kvcache.Table // of s; twinLent are those of the twin
	twinLent []*kvcache.Table
}

type pageKey struct {
	kind kvcache.Kind
	id   kvcache.PageID
}

type request struct {
	id        ID
	mode      Mode
	tokens    []terse.Token
	promptLen int
	max       int
	scores    bool
	written   int
	table     *kvcache.Table // reserved or computed into
	reserved  bool           // its KV may be written
	held      bool
	cancelled bool
	ended     bool // its last token was reported
	scored    []bool
}

func newWorld(rt *rapid.T, format string) *world {
	exact := rapid.IntRange(6, 14).Draw(rt, "exact")
	coded := rapid.IntRange(6, 14).Draw(rt, "coded")
	cfg := Config{
		MaxSeqs:    rapid.IntRange(1, 6).Draw(rt, "seqs"),
		StepTokens: rapid.IntRange(1, 20).Draw(rt, "step"),
		MaxWaiting: rapid.IntRange(1, 5).Draw(rt, "waiting"),
		MaxContext: 48,
	}
	w := &world{t: rt, format: format, pages: make(map[pageKey]string), now: time.Unix(0, 0)}
	w.cfg = cfg
	w.cfg.Cache = testCache(rt, format, exact, coded)
	w.s = New(w.cfg)
	cfg.Cache = testCache(rt, format, exact, coded)
	w.twin = New(cfg)
	return w
}

func (w *world) find(id ID) *request {
	i := slices.IndexFunc(w.reqs, func(r *request) bool { return r.id == id })
	if i < 0 {
		w.t.Fatalf("the plan names %s, which is gone", id)
	}
	return w.reqs[i]
}

func (w *world) add(rt *rapid.T) {
	ids := rapid.SliceOfN(rapid.Int32Range(0, 1), 1, 40).Draw(rt, "prompt")
	w.named++
	r := &request{
		id:   ID(fmt.Sprintf("r%d", w.named)),
		mode: rapid.SampledFrom([]Mode{ModeLocal, ModeLocal, ModePrefill, ModeRemote}).Draw(rt, "mode"),
		max:  rapid.IntRange(0, 20).Draw(rt, "max"), promptLen: len(ids),
	}
	for _, id := range ids {
		r.tokens = append(r.tokens, terse.Token(id))
	}
	r.scores = r.mode == ModeLocal && rapid.IntRange(0, 3).Draw(rt, "scores") == 0
	r.scored = make([]bool, r.promptLen)
	w.reqs = append(w.reqs, r)
	w.events = append(w.events, Add{ID: r.id, Prompt: slices.Clone(r.tokens), MaxTokens: r.max, Mode: r.mode, PromptScores: r.scores})
}

// pick chooses a request that ok says is in the right state.
func (w *world) pick(rt *rapid.T, ok func(*request) bool) *request {
	var from []*request
	for _, r := range w.reqs {
		if ok(r) && !r.cancelled {
			from = append(from, r)
		}
	}
	if len(from) == 0 {
		rt.Skip("none")
	}
	return rapid.SampledFrom(from).Draw(rt, "request")
}

func (w *world) cancel(r *request) {
	r.cancelled = true
	w.events = append(w.events, Cancel{ID: r.id})
}

func (w *world) kvReady(r *request) {
	r.reserved = false
	w.write(r, r.promptLen)
	r.written = r.promptLen
	w.take(r)
	w.events = append(w.events, KVReady{ID: r.id, First: r.tokens[len(r.tokens)-1]})
}

func (w *world) kvFailed(r *request) {
	r.reserved, r.cancelled = false, true
	w.events = append(w.events, KVFailed{ID: r.id})
}

func (w *world) release(r *request) {
	r.held, r.cancelled = false, true
	w.events = append(w.events, Release{ID: r.id})
}

// take gives a request its next token, the same for the same text.
func (w *world) take(r *request) {
	sum := terse.Token(0)
	for i, t := range r.tokens {
		sum += t * terse.Token(i+1)
	}
	r.tokens = append(r.tokens, sum%2)
	r.ended = r.ended || len(r.tokens)-r.promptLen >= r.max
}

// step steps both schedulers and carries out the plan. It reports whether
// anything was planned.
func (w *world) step() bool {
	w.now = w.now.Add(time.Second)
	plan := w.s.Step(w.events, w.now)
	twin := w.twin.Step(w.events, w.now)
	if a, b := render(plan), render(twin); a != b {
		w.t.Fatalf("equal events, different plans:\n%s\n%s", a, b)
	}
	w.events = w.events[:0]
	if err := w.s.Check(); err != nil {
		w.t.Fatal(err)
	}
	w.settle(plan)
	w.checkBudget(plan)
	written := make(map[pageKey]ID)
	for _, work := range plan.Rows {
		w.carryOut(work, written)
	}
	return len(plan.Rows)+len(plan.Admitted)+len(plan.Reserved)+len(plan.Rejected)+len(plan.Dropped) > 0
}

func render(p Plan) string {
	var b strings.Builder
	b.WriteString(show(p))
	for _, work := range p.Rows {
		fmt.Fprintln(&b, work.ID, work.Tokens, work.Table.Exact, work.Table.Coded, work.PromptLen)
	}
	return b.String()
}

func (w *world) settle(p Plan) {
	gone := make(map[ID]bool)
	for _, r := range p.Rejected {
		gone[r.ID] = true
	}
	for _, id := range p.Dropped {
		r := w.find(id)
		scored := r.mode == ModeLocal && r.max == 0 && r.written == r.promptLen
		if !r.cancelled && !r.ended && !scored {
			w.t.Fatalf("%s was dropped with %d of %d tokens", id, len(r.tokens)-r.promptLen, r.max)
		}
		gone[id] = true
	}
	if len(p.Preempted) > 0 && len(p.Admitted)+len(p.Reserved) > 0 {
		w.t.Fatalf("%v lose their pages, and others come in", p.Preempted)
	}
	for _, id := range p.Preempted {
		r := w.find(id)
		if r.mode == ModePrefill || r.reserved {
			w.t.Fatalf("%s lost its pages while others use them", id)
		}
		r.written, r.mode = 0, ModeLocal
	}
	for _, a := range p.Admitted {
		w.find(a.ID).written = a.CachedTokens
	}
	for _, a := range p.Reserved {
		r := w.find(a.ID)
		r.table, r.reserved = a.Table, true
	}
	w.reqs = slices.DeleteFunc(w.reqs, func(r *request) bool { return gone[r.id] })
	for _, id := range p.Unhosted {
		w.forget(id)
	}
}

// checkBudget verifies the size of a plan: the step's tokens, of which prompts
// may take a page even if there are none left.
func (w *world) checkBudget(p Plan) {
	decodes, prompts := 0, 0
	for _, work := range p.Rows {
		last := work.From+len(work.Tokens) == len(w.find(work.ID).tokens)
		if last && len(work.Tokens) == 1 && prompts == 0 {
			decodes++
		} else {
			prompts += len(work.Tokens)
		}
	}
	if prompts > max(4, w.cfg.StepTokens-decodes) {
		w.t.Fatalf("%d prompt tokens beside %d decodes in a step of %d", prompts, decodes, w.cfg.StepTokens)
	}
}

func (w *world) carryOut(work Work, written map[pageKey]ID) {
	r := w.find(work.ID)
	end := work.From + len(work.Tokens)
	switch {
	case r.cancelled:
		w.t.Fatalf("%s is computed and was cancelled", r.id)
	case work.From != r.written:
		w.t.Fatalf("%s goes on at %d, has %d written", r.id, work.From, r.written)
	case !slices.Equal(work.Tokens, r.tokens[work.From:end]):
		w.t.Fatalf("%s computes %v at %d, its text is %v", r.id, work.Tokens, work.From, r.tokens)
	case work.PromptLen != r.promptLen:
		w.t.Fatalf("%s has prompt %d, the work says %d", r.id, r.promptLen, work.PromptLen)
	}
	w.checkPages(r, work)
	w.checkScores(r, work)
	r.table = work.Table
	for _, k := range w.write(r, end) {
		if other, twice := written[k]; twice {
			w.t.Fatalf("%s and %s write %v in one step", r.id, other, k)
		}
		written[k] = r.id
	}
	r.written = end
	if work.Sample {
		if end != len(r.tokens) {
			w.t.Fatalf("%s samples at %d of %d", r.id, end, len(r.tokens))
		}
		w.take(r)
		r.held = r.mode == ModePrefill
		w.events = append(w.events, &Sampled{ID: r.id, Token: r.tokens[end]})
	}
}

// checkPages verifies that all that was written before is still there, page by
// page, in whichever forms the table has.
func (w *world) checkPages(r *request, work Work) {
	for i := range (work.From + 3) / 4 {
		want := mark(r.tokens[:min(work.From, 4*i+4)])
		for kind, id := range map[kvcache.Kind]kvcache.PageID{kvcache.Exact: work.Table.Exact[i], kvcache.Coded: work.Table.Coded[i]} {
			if id == kvcache.None {
				continue
			}
			// A step may have added the coded form of the open page: not written yet.
			if got := w.pages[pageKey{kind, id}]; got != want && (kind == kvcache.Exact || 4*i+4 <= work.From) {
				w.t.Fatalf("%s: %s page %d (id %d) holds %q, want %q", r.id, kind, i, id, got, want)
			}
		}
	}
}

// checkScores verifies that prompt logits come once, and only where asked for.
func (w *world) checkScores(r *request, work Work) {
	for i := work.From; i < min(work.From+len(work.Tokens), r.promptLen); i++ {
		if work.AllLogits && (r.scored[i] || !r.scores) {
			w.t.Fatalf("%s: logits of row %d again, or not asked for", r.id, i)
		}
		if r.scores && !work.AllLogits && !r.scored[i] {
			w.t.Fatalf("%s: no logits of row %d", r.id, i)
		}
		r.scored[i] = r.scored[i] || work.AllLogits
	}
}

// write fills the pages of r for tokens [written, end) and returns them.
func (w *world) write(r *request, end int) []pageKey {
	f := formats[w.format]
	lo, hi := f.CodedPages(end)
	var keys []pageKey
	put := func(kind kvcache.Kind, id kvcache.PageID, i int) {
		k := pageKey{kind, id}
		w.pages[k] = mark(r.tokens[:min(end, 4*i+4)])
		keys = append(keys, k)
	}
	for i := r.written / 4; i < (end+3)/4; i++ {
		if id := r.table.Exact[i]; id != kvcache.None {
			put(kvcache.Exact, id, i)
		} else if !r.reserved && r.mode != ModeRemote {
			w.t.Fatalf("%s writes page %d, which has no exact form", r.id, i)
		}
		if lo <= i && i < hi {
			put(kvcache.Coded, r.table.Coded[i], i)
		}
	}
	return keys
}

func mark(tokens []terse.Token) string { return fmt.Sprint(tokens) }

// drain lets everything that is there finish.
func (w *world) drain() {
	idle := 0
	for steps := 0; !w.s.Idle(); steps++ {
		external := false
		for _, r := range slices.Clone(w.reqs) {
			switch {
			case r.reserved && !r.cancelled:
				w.kvReady(r)
				external = true
			case r.held && !r.cancelled:
				w.release(r)
				external = true
			}
		}
		idle++
		if w.step() || external {
			idle = 0
		}
		if idle > 2 || steps > 20_000 {
			w.t.Fatalf("stuck after %d steps: %+v", steps, w.s.Stats())
		}
	}
}

func TestRandomRequestsAllFinish(t *testing.T) {
	for format := range formats {
		t.Run(format, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				w := newWorld(rt, format)
				live := func(*request) bool { return true }
				reserved := func(r *request) bool { return r.reserved }
				held := func(r *request) bool { return r.held }
				step := func(rt *rapid.T) {
					for range rapid.IntRange(1, 6).Draw(rt, "steps") {
						w.step()
					}
				}
				rt.Repeat(map[string]func(*rapid.T){
					"host":     w.host,
					"grow":     w.growReplica,
					"unhost":   func(rt *rapid.T) { w.unhost(w.pickHosted(rt)) },
					"resume":   w.resume,
					"lend":     w.lend,
					"return":   w.takeBack,
					"add":      w.add,
					"add2":     w.add,
					"step":     step,
					"step2":    step,
					"cancel":   func(rt *rapid.T) { w.cancel(w.pick(rt, live)) },
					"kvready":  func(rt *rapid.T) { w.kvReady(w.pick(rt, reserved)) },
					"kvfailed": func(rt *rapid.T) { w.kvFailed(w.pick(rt, reserved)) },
					"release":  func(rt *rapid.T) { w.release(w.pick(rt, held)) },
				})
				for len(w.lent) > 0 {
					w.takeBack(rt)
				}
				w.drain()
				for len(w.hosted) > 0 {
					w.unhost(w.hosted[0])
				}
				if err := w.cfg.Cache.Check(); err != nil {
					rt.Fatal(err)
				}
				if used := w.cfg.Cache.Stats().Used; used != 0 {
					rt.Fatalf("%d bytes are still used", used)
				}
			})
		})
	}
}
