package engine

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/quant"
)

// script is Planes whose pages come in order, so many more before each question.
type script struct {
	pages   []int  // that wait
	come    []int  // how many more have come at each question
	asked   func() // at each; may be nil
	stopped atomic.Bool
}

func (s *script) Missing() []int {
	if s.asked != nil {
		s.asked()
	}
	if len(s.come) > 0 {
		s.pages, s.come = s.pages[min(s.come[0], len(s.pages)):], s.come[1:]
	}
	return s.pages
}

func (s *script) Bytes() int64 { return 0 }

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

func (r *record) Bytes() int64 { return 0 }

func (r *record) Stop() {}

// later decodes a prompt handed over from p on d, second planes coming as planes
// says, and returns the tokens and what was adopted when.
func later(t *testing.T, p, d *rig, id string, prompt []terse.Token, planes Planes) ([]terse.Token, []terse.Adoption) {
	t.Helper()
	got, timing := laterAs(t, p, d, request(id, prompt, 300), planes)
	return got, timing.Adopted
}

// laterAs is later of a request as it is.
func laterAs(t *testing.T, p, d *rig, req *terse.Request, planes Planes) ([]terse.Token, *terse.Timing) {
	t.Helper()
	var got []terse.Token
	var last terse.Output
	if err := handoverWith(t.Context(), p, d, req, planes, func(o terse.Output) error {
		got, last = append(got, o.Tokens...), o
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	waitIdle(t, d)
	return got, last.Timing
}

// handoverWith decodes on d what p prefilled, second planes coming as planes says.
func handoverWith(ctx context.Context, p, d *rig, req *terse.Request, planes Planes, emit func(terse.Output) error) error {
	return d.Receive(ctx, req, emit, func(ctx context.Context, view *quant.View, held int) (out Prefilled, err error) {
		remote := *req
		remote.ID += "/0"
		sink := newCopier(p.cfg.Runner.Geometry(), view, len(req.Prompt))
		sink.hold(held)
		err = p.Prefill(ctx, &remote, sink, func(f Prefilled) error { out = f; return nil })
		out.Planes = planes
		return out, err
	})
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

// by generates locally by a record.
func by(t *testing.T, format string, req terse.Request, r *terse.PlaneRecord) ([]terse.Token, *terse.Timing) {
	t.Helper()
	req.ID, req.Planes = req.ID+"/by", r
	got, last, err := newRig(t, format, nil).start(t).collect(t.Context(), &req)
	if err != nil {
		t.Fatal(err)
	}
	return got, last.Timing
}

// known is what of a record was known before the query at pos.
func known(r terse.PlaneRecord, pos int) *terse.PlaneRecord {
	out := &terse.PlaneRecord{Awaited: r.Awaited}
	for _, a := range r.Adopted {
		if a.At < pos {
			out.Adopted = append(out.Adopted, a)
		}
	}
	return out
}

// Another worker goes on, by the record, behind tokens that were computed on top
// planes: with what would have come, where all planes were there by then, and
// otherwise by a record that it completes, and that gives the same tokens again.
func TestResumeByRecord(t *testing.T) {
	text := prompt(5, 640)
	for _, format := range []string{"hq3", "hq4"} {
		for i, s := range []terse.Sampling{{}, {Temperature: 1, Seed: 7}} {
			s.Logprobs, s.PromptLogprobs = -1, -1
			req := request(fmt.Sprint(format, i), text, 300)
			req.Sampling = s
			come := &script{pages: []int{1, 2, 3, 4, 5, 6, 7}, come: []int{0, 0, 3, 0, 4}}
			want, timing := laterAs(t, newRig(t, format, nil).start(t), newRig(t, format, nil).start(t), req, come)
			if len(timing.Rest()) > 0 || timing.TopTokens != 192 {
				t.Fatalf("%s: %d tokens on top planes, record %+v", format, timing.TopTokens, timing.PlaneRecord)
			}
			same, _ := by(t, format, *req, &timing.PlaneRecord)
			sameTokens(t, format+": the whole record", same, want)
			for _, at := range []int{1, 64, 65, 66, 100, 129, 250} {
				rest := *req
				rest.ID = fmt.Sprint(req.ID, at)
				rest.Prompt, rest.Resumed = slices.Concat(text, want[:at]), at
				first := known(timing.PlaneRecord, len(rest.Prompt)-1)
				got, later := by(t, format, rest, first)
				what := fmt.Sprintf("%s, sampling %d, behind %d tokens", format, i, at)
				if len(first.Rest()) == 0 {
					sameTokens(t, what, got, want[at:])
					if !reflect.DeepEqual(later.PlaneRecord, timing.PlaneRecord) || later.TopTokens != timing.TopTokens {
						t.Errorf("%s: record %+v, want %+v", what, later.PlaneRecord, timing.PlaneRecord)
					}
				}
				if n := later.Rest(); len(n) > 0 {
					t.Errorf("%s: pages %v are never read whole", what, n)
				}
				all, _ := by(t, format, *req, &later.PlaneRecord)
				sameTokens(t, what+", by the record", slices.Concat(want[:at], got), all)
			}
			whole, _ := by(t, format, *req, nil)
			if slices.Equal(whole, want) {
				t.Errorf("%s: the planes change nothing", format)
			}
		}
	}
}

// The record comes with the tokens, so that whoever has those has what they were
// computed on.
func TestRecordComesWithTokens(t *testing.T) {
	p, d := newRig(t, "hq4", nil).start(t), newRig(t, "hq4", nil).start(t)
	req := request("x", prompt(5, 640), 300)
	var told []*terse.Timing
	tokens := 0
	err := handoverWith(t.Context(), p, d, req, &script{pages: []int{1, 2, 3}, come: []int{0, 0, 1, 0, 2}}, func(o terse.Output) error {
		if tokens += len(o.Tokens); o.Timing != nil {
			told = append(told, o.Timing)
			if n := len(o.Timing.Adopted); n > 0 && o.Finish == "" && o.Timing.Adopted[n-1].At != 640+tokens-2 {
				t.Errorf("with token %d: %+v", tokens, o.Timing.PlaneRecord)
			}
		}
		return nil
	})
	if err != nil || len(told) != 4 || len(told[0].Awaited) != 3 || len(told[1].Adopted) != 1 || len(told[2].Adopted) != 2 || len(told[2].Rest()) != 0 {
		t.Errorf("%d timings, %v", len(told), err)
	}
}

// A sequence that loses its pages is computed again on the planes that its tokens
// were computed on.
func TestPreemptionKeepsRecord(t *testing.T) {
	for _, format := range []string{"hq3", "hq4"} {
		small := func(c *Config) { // the old one, in the end, needs what the young one has
			g := c.Runner.Geometry()
			c.KVMemory = int64(g.Layers) * int64(9*g.ExactBytes()+24*g.CodedBytes())
		}
		var pause atomic.Int64
		p, d := newRig(t, format, nil).start(t), newRig(t, format, func(c *Config) { small(c); paced(&pause)(c) }).start(t)
		pause.Store(int64(keptUp)) // the old one has most of its way before it when the young one comes
		old := make(chan error)
		go func() {
			_, _, err := d.collect(context.Background(), request("old", prompt(1, 300), 1200))
			old <- err
		}()
		for d.Load().Running == 0 {
			time.Sleep(time.Millisecond)
		}
		req := request(format, prompt(5, 640), 900)
		got, timing := laterAs(t, p, d, req, &script{pages: []int{1, 2, 3, 4, 5, 6, 7}, asked: func() { pause.Store(0) }})
		if err := <-old; err != nil {
			t.Fatal(err)
		}
		if len(timing.Adopted) != 1 || len(timing.Rest()) > 0 {
			t.Fatalf("%s: was not preempted: %+v", format, timing)
		}
		same, _ := by(t, format, *req, &timing.PlaneRecord)
		sameTokens(t, format+": after a preemption", got, same)
	}
}
