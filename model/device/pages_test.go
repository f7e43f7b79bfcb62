package device

import "testing"

// A runner that is told to pins what a prompt's hand-over takes at once, and the prompt
// then needs no more, however large its steps are: what is coded before the hand-over
// has no bytes on the host.
func TestPinned(t *testing.T) {
	x := newTiny(t, 1)
	for _, kv := range []string{"f16", "hq3", "hq2,k2=tokens:8", "hack:v2"} {
		g := x.geometry(kv)
		want := handoverBytes(g, 1024)
		b := newBench(t, x.onDevice(g, RunnerOptions{Rows: 700, Sequences: 2, Context: 1024, Pinned: 1 << 30}), 64<<20)
		b.staged = true
		b.batch.AfterLayer = func(int) {}
		p := b.pages.(*pages)
		if len(p.pinned) != 1 || int64(len(p.pinned[0])) != want {
			t.Fatalf("%s: %d pieces are pinned, wanted one of %d bytes", kv, len(p.pinned), want)
		}
		s := &text{ids: random(1, 1024), prompt: 1024}
		for _, chunk := range []int{700, 324} {
			b.add(s, chunk)
			b.step(s)
			moved := [2]map[int]bool{{}, {}}
			for _, part := range g.Format.Handover(1024) {
				moved[kindOf(part.Coded)][part.Page] = true
			}
			for kind, hosts := range [2][][]byte{s.view.Exact, s.view.Coded} {
				ids := [2][]int32{s.view.ExactIDs, s.view.CodedIDs}[kind]
				for i, host := range hosts {
					if (host != nil) != (moved[kind][i] && ids[i] >= 0) {
						t.Errorf("%s: page %d, kind %d, has %d bytes on the host", kv, i, kind, len(host))
					}
				}
			}
		}
		if len(p.pinned) != 1 {
			t.Errorf("%s: a prompt of as many tokens as there may be had to pin more", kv)
		}
	}
}
