package sched

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kvcache"
)

// hosted is a replica of a request that some other worker decodes.
type hosted struct {
	id     ID
	text   []terse.Token // of the request, as far as it is known
	filled int
}

func (w *world) forget(id ID) {
	n := len(w.hosted)
	w.hosted = slices.DeleteFunc(w.hosted, func(h *hosted) bool { return h.id == id })
	if len(w.hosted) != n-1 {
		w.t.Fatalf("replica %s went, and was not there", id)
	}
}

func (w *world) pickHosted(rt *rapid.T) *hosted {
	if len(w.hosted) == 0 {
		rt.Skip("none")
	}
	return rapid.SampledFrom(w.hosted).Draw(rt, "replica")
}

func (w *world) host(rt *rapid.T) {
	n := 4 * rapid.IntRange(1, 6).Draw(rt, "pages")
	w.named++
	h := &hosted{id: ID(fmt.Sprintf("h%d", w.named))}
	for _, id := range rapid.SliceOfN(rapid.Int32Range(0, 1), n+1, n+9).Draw(rt, "text") {
		h.text = append(h.text, terse.Token(id))
	}
	w.hosted = append(w.hosted, h)
	if !w.fill(h, n) {
		w.hosted = w.hosted[:len(w.hosted)-1]
	}
}

func (w *world) growReplica(rt *rapid.T) {
	h := w.pickHosted(rt)
	if h.filled+4 >= len(h.text) {
		rt.Skip("no more text")
	}
	w.fill(h, h.filled+4)
}

// fill makes a replica hold the first n tokens, where there is room.
func (w *world) fill(h *hosted, n int) bool {
	t, held, ok := w.s.Host(h.id, n)
	_, _, twin := w.twin.Host(h.id, n)
	if ok != twin || ok && held != h.filled {
		w.t.Fatalf("replica %s: ok %v and %v, %d tokens held of %d", h.id, ok, twin, held, h.filled)
	}
	if !ok {
		return false
	}
	f := formats[w.format]
	lo, hi := f.CodedPages(n)
	for i := h.filled / 4; i < n/4; i++ {
		if id := t.Exact[i]; id != kvcache.None {
			w.pages[pageKey{kvcache.Exact, id}] = mark(h.text[:4*i+4])
		}
	}
	for i := max(lo, 0); i < hi; i++ {
		if 4*i >= h.filled {
			w.pages[pageKey{kvcache.Coded, t.Coded[i]}] = mark(h.text[:4*i+4])
		}
	}
	w.s.Hosted(h.id, h.text[h.filled:n])
	w.twin.Hosted(h.id, h.text[h.filled:n])
	h.filled = n
	return true
}

func (w *world) unhost(h *hosted) {
	w.s.Unhost(h.id)
	w.twin.Unhost(h.id)
	w.forget(h.id)
}

// resume is the request of a replica, whose worker is lost.
func (w *world) resume(rt *rapid.T) {
	h := w.pickHosted(rt)
	if slices.ContainsFunc(w.reqs, func(r *request) bool { return r.id == h.id }) {
		rt.Skip("it goes on already")
	}
	promptLen := rapid.IntRange(1, len(h.text)-1).Draw(rt, "prompt")
	r := &request{id: h.id, tokens: slices.Clone(h.text), promptLen: promptLen, scored: make([]bool, promptLen)}
	r.max = len(h.text) - promptLen + rapid.IntRange(1, 8).Draw(rt, "more")
	w.reqs = append(w.reqs, r)
	w.events = append(w.events, Add{ID: r.id, Prompt: slices.Clone(r.tokens), MaxTokens: r.max, Resumed: len(h.text) - promptLen})
}

// lend lends the pages of a request that runs, and checks what is in them.
func (w *world) lend(rt *rapid.T) {
	r := w.pick(rt, func(r *request) bool { return r.mode != ModePrefill && r.written >= 8 && !r.reserved })
	if len(w.events) > 0 {
		rt.Skip("the last step is not booked")
	}
	n := w.s.LendFrom(r.id)
	if m := w.twin.LendFrom(r.id); m != n {
		w.t.Fatalf("%s can be lent from %d and from %d", r.id, n, m)
	}
	if n == 0 {
		rt.Skip("it is gone")
	}
	t, tokens, ok, err := w.s.Lend(r.id, n)
	twin, _, same, _ := w.twin.Lend(r.id, n)
	if ok != same || err != nil && terse.CodeOf(err) != terse.CodeOverloaded {
		w.t.Fatalf("%s, %d tokens: %v, %v, %v", r.id, n, ok, same, err)
	}
	if !ok {
		rt.Skip("not yet")
	}
	if !slices.Equal(tokens, r.tokens[:n]) {
		w.t.Fatalf("%s lends %v, its text is %v", r.id, tokens, r.tokens)
	}
	w.lent, w.twinLent = append(w.lent, t), append(w.twinLent, twin)
	w.lentMarks(t, tokens)
}

// lentMarks verifies that a table's pages hold a text.
func (w *world) lentMarks(t *kvcache.Table, text []terse.Token) {
	for i := range t.Pages() {
		for kind, id := range map[kvcache.Kind]kvcache.PageID{kvcache.Exact: t.Exact[i], kvcache.Coded: t.Coded[i]} {
			if id == kvcache.None {
				continue
			}
			if got := w.pages[pageKey{kind, id}]; got != mark(text[:4*i+4]) {
				w.t.Fatalf("%s page %d (id %d) is lent with %q, want %q", kind, i, id, got, mark(text[:4*i+4]))
			}
		}
	}
}

func (w *world) takeBack(rt *rapid.T) {
	if len(w.lent) == 0 {
		rt.Skip("none")
	}
	w.s.Return(w.lent[0])
	w.twin.Return(w.twinLent[0])
	w.lent, w.twinLent = w.lent[1:], w.twinLent[1:]
}

// A request goes on behind the tokens of its replica, which is used up; one of
// another text is not taken, and goes when somebody needs its memory.
func TestReplica(t *testing.T) {
	f := func(format string, other bool) {
		t.Helper()
		s := New(Config{Cache: testCache(t, format, 10, 10), MaxContext: 48, StepTokens: 20})
		text := make([]terse.Token, 20)
		table, held, ok := s.Host("a", 12)
		if !ok || held != 0 || table.Pages() != 3 {
			t.Fatalf("%s: %v, %d tokens held in %d pages", format, ok, held, table.Pages())
		}
		s.Hosted("a", text[:12])
		if other {
			text = slices.Clone(text)
			text[3] = 1
		}
		p := s.Step([]Event{Add{ID: "a", Prompt: text, MaxTokens: 20, Resumed: 5}}, time.Time{})
		if len(p.Rows) != 1 || len(p.Admitted) != 1 {
			t.Fatalf("%s: %s", format, show(p))
		}
		want, unhosted := 12, 1
		if other {
			want, unhosted = 0, 0
		}
		if a := p.Admitted[0]; p.Rows[0].From != want || a.CachedTokens != want || a.Replicated != want || len(p.Unhosted) != unhosted || len(s.Replicas()) != 1-unhosted {
			t.Errorf("%s: goes on from %d, %+v, unhosted %v", format, p.Rows[0].From, a, p.Unhosted)
		}
		if err := s.Check(); err != nil {
			t.Error(err)
		}
	}
	for format := range formats {
		f(format, false)
		f(format, true)
	}
	// What others need is taken from replicas, the oldest first.
	s := New(Config{Cache: testCache(t, "f16", 6, 6), MaxContext: 48, StepTokens: 40})
	for _, id := range []ID{"old", "new"} {
		if _, _, ok := s.Host(id, 8); !ok {
			t.Fatal("no room")
		}
	}
	if _, _, ok := s.Host("more", 36); ok {
		t.Error("a replica took what there is not")
	}
	before := len(s.Replicas())
	p := s.Step([]Event{Add{ID: "b", Prompt: make([]terse.Token, 28), MaxTokens: 1}}, time.Time{})
	if before != 2 || len(p.Rows) != 1 || len(p.Unhosted) == 0 || p.Unhosted[0] != "old" {
		t.Errorf("%d replicas before; %s, unhosted %v", before, show(p), p.Unhosted)
	}
	if err := s.Check(); err != nil {
		t.Error(err)
	}
}
