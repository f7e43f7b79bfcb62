package session_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kernels/kerneltest/cases"
	"github.com/terse-llm/terse/kernels/ref"
	"github.com/terse-llm/terse/model/modeltest"
	"github.com/terse-llm/terse/model/session"
	"github.com/terse-llm/terse/quant"
)

// A repeated text goes on with finite logits, and one that is repeated to its own
// length goes on as if nothing had happened.
func TestRepeat(t *testing.T) {
	m, _ := modeltest.Tiny(t, 1, ref.New(2))
	for _, name := range []string{"f16", "hq2", "hq3", "hack", "hack:v2", "int4", "kivi", "cachegen", "kvquant", "hq2,important=10"} {
		format, err := quant.ParseFormat(name, false)
		if err != nil {
			t.Fatal(err)
		}
		g, err := m.Config.Geometry(format)
		if err != nil {
			t.Fatal(err)
		}
		next := func(repeat int) []float32 {
			s, err := session.New(m, g, cases.Calibration(g.Layers, g.KVHeads, g.HeadDim), 1200)
			if err != nil {
				t.Fatal(err)
			}
			r := rand.New(rand.NewPCG(1, 1))
			ids := make([]terse.Token, 256)
			for i := range ids {
				ids[i] = terse.Token(r.IntN(modeltest.Vocab))
			}
			if _, err := s.Forward(ids, session.NoLogits); err != nil {
				t.Fatal(err)
			}
			if repeat > 0 {
				if err := s.Repeat(repeat); err != nil {
					t.Fatal(err)
				}
				if s.Len() != repeat {
					t.Errorf("%s: %d tokens after repeating to %d", name, s.Len(), repeat)
				}
			}
			logits, err := s.Forward(ids[:3], session.LastLogits)
			if err != nil {
				t.Fatal(err)
			}
			for _, bad := range []int{100, 1000, 1280} {
				if s.Repeat(bad) == nil {
					t.Errorf("%s: repeated %d tokens to %d", name, s.Len(), bad)
				}
			}
			return logits
		}
		plain, same, long := next(0), next(256), next(1024)
		for i := range plain {
			if plain[i] != same[i] {
				t.Fatalf("%s: repeating nothing changes logit %d", name, i)
			}
			if x := float64(long[i]); math.IsNaN(x) || math.IsInf(x, 0) {
				t.Fatalf("%s: logit %d is %g", name, i, x)
			}
		}
	}
}

// Texts that are decoded in one step, and forks, go on as each would alone.
func TestDecodeAndFork(t *testing.T) {
	m, _ := modeltest.Tiny(t, 1, ref.New(2))
	for _, name := range []string{"f16", "hq3", "hack", "kivi"} {
		format, err := quant.ParseFormat(name, false)
		if err != nil {
			t.Fatal(err)
		}
		g, err := m.Config.Geometry(format)
		if err != nil {
			t.Fatal(err)
		}
		forward := func(s *session.Session, ids []terse.Token) []float32 {
			t.Helper()
			logits, err := s.Forward(ids, session.LastLogits)
			if err != nil {
				t.Fatal(err)
			}
			return slices.Clone(logits)
		}
		r := rand.New(rand.NewPCG(2, 2))
		text := func(n int) []terse.Token {
			ids := make([]terse.Token, n)
			for i := range ids {
				ids[i] = terse.Token(r.IntN(modeltest.Vocab))
			}
			return ids
		}
		first, err := session.New(m, g, nil, 400)
		if err != nil {
			t.Fatal(err)
		}
		second := first.Another(300)
		forward(first, text(330))
		forward(second, text(200))
		forks := []*session.Session{first.Fork(331), second.Fork(300)}
		next := []terse.Token{5, 7}
		together, err := session.Decode([]*session.Session{first, second}, next, session.LastLogits)
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range forks {
			if alone := forward(f, next[i:i+1]); !slices.Equal(alone, together[i*modeltest.Vocab:(i+1)*modeltest.Vocab]) {
				t.Errorf("%s: text %d goes on otherwise in a fork than with others", name, i)
			}
		}
		if first.Len() != 331 || second.Len() != 201 {
			t.Errorf("%s: %d and %d tokens", name, first.Len(), second.Len())
		}
		if _, err := session.Decode([]*session.Session{second, forks[0]}, next, session.NoLogits); err == nil {
			t.Errorf("%s: a full session decodes on", name)
		}
		other, err := session.New(m, g, nil, 10)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := session.Decode([]*session.Session{second, other}, next, session.NoLogits); err == nil {
			t.Errorf("%s: sessions of different making decode together", name)
		}
	}
}
