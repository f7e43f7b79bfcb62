package engine

import (
	"context"
	"fmt"
	"reflect"
	"sync/atomic"
	"testing"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/quant"
)

// script is Planes whose pages come in order, so many more before each question.
type script struct {
	pages   []int // that wait
	come    []int // how many more have come at each question
	stopped atomic.Bool
}

func (s *script) Missing() []int {
	if len(s.come) > 0 {
		s.pages, s.come = s.pages[min(s.come[0], len(s.pages)):], s.come[1:]
	}
	return s.pages
}

func (s *script) Stop() { s.stopped.Store(true) }

// record is Planes that come as an earlier run wrote down.
type record struct {
	adopted []terse.Adoption
	pos     int // of the next question's queries
}

func (r *record) Missing() []int {
	for len(r.adopted) > 0 && r.adopted[0].At <= r.pos {
		r.adopted = r.adopted[1:]
	}
	r.pos += 64
	var pages []int
	for _, a := range r.adopted {
		pages = append(pages, a.Pages...)
	}
	return pages
}

func (r *record) Stop() {}

// later decodes a prompt handed over from p on d, second planes coming as planes
// says, and returns the tokens and what was adopted when.
func later(t *testing.T, p, d *rig, id string, prompt []terse.Token, planes Planes) ([]terse.Token, []terse.Adoption) {
	t.Helper()
	req := request(id, prompt, 300)
	var got []terse.Token
	var last terse.Output
	err := d.Receive(t.Context(), req, func(o terse.Output) error {
		got, last = append(got, o.Tokens...), o
		return nil
	}, func(ctx context.Context, view *quant.View, held int) (out Prefilled, err error) {
		remote := *req
		remote.ID += "/0"
		sink := newCopier(p.cfg.Runner.Geometry(), view, len(prompt))
		sink.hold(held)
		err = p.Prefill(ctx, &remote, sink, func(f Prefilled) error { out = f; return nil })
		out.Planes = planes
		return out, err
	})
	if err != nil {
		t.Fatal(err)
	}
	waitIdle(t, d)
	return got, last.Timing.Adopted
}

// What comes while decoding goes on is read from the next page on, that is written
// down, and who follows the record says the same.
func TestPlanesComeLater(t *testing.T) {
	for _, format := range []string{"hq3", "hq4"} {
		// Every run in engines of its own: what reuses a prefix computes otherwise.
		fresh := func() *rig { return newRig(t, format, nil).start(t) }
		text := prompt(5, 640)
		n := 0
		id := func() string { n++; return fmt.Sprint(format, n) }
		pages := []int{1, 2, 3, 4, 5, 6, 7}
		come := &script{pages: pages, come: []int{0, 3, 0, 4}}
		got, adopted := later(t, fresh(), fresh(), id(), text, come)
		want := []terse.Adoption{{At: 640, Pages: []int{1, 2, 3}}, {At: 768, Pages: []int{4, 5, 6, 7}}}
		if !reflect.DeepEqual(adopted, want) || !come.stopped.Load() {
			t.Fatalf("%s: adopted %v, want %v; stopped %v", format, adopted, want, come.stopped.Load())
		}
		again, same := later(t, fresh(), fresh(), id(), text, &record{adopted, len(text) - 64})
		sameTokens(t, format+": by the record", again, got)
		if !reflect.DeepEqual(same, adopted) {
			t.Errorf("%s: adopted %v, the record says %v", format, same, adopted)
		}
		whole, none := later(t, fresh(), fresh(), id(), text, nil)
		sameTokens(t, format+": with all planes", whole, fresh().greedy(t, text, 300))
		never, _ := later(t, fresh(), fresh(), id(), text, &script{pages: pages})
		if none != nil || reflect.DeepEqual(never, whole) {
			t.Errorf("%s: second planes that never come change nothing, or adopted %v without", format, none)
		}
	}
}

// Pages without second planes are offered to nobody; with them they are.
func TestPartialPagesAreNotReused(t *testing.T) {
	p, d := newRig(t, "hq4", nil).start(t), newRig(t, "hq4", nil).start(t)
	text := prompt(5, 640)
	cached := func(id string) int {
		_, last, err := d.collect(t.Context(), request(id, text, 2))
		if err != nil {
			t.Fatal(err)
		}
		return last.Usage.CachedTokens
	}
	later(t, p, d, "a", text, &script{pages: []int{1, 2}})
	later(t, p, d, "b", text, &script{pages: []int{1, 2}})
	if d.Load().PrefixHits != 0 {
		t.Error("pages without second planes were reused")
	}
	later(t, p, d, "c", text, &script{pages: []int{1, 2}, come: []int{0, 2}})
	if cached("d") == 0 {
		t.Error("pages that got their second planes are not reused")
	}
}
