package cpu

import (
	"unsafe"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/cpu/exact"
	"github.com/terse-llm/terse/kernels/cpu/hack"
	"github.com/terse-llm/terse/kernels/cpu/softmax"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// hacked reports whether a job is of a hack format, which has scores, rounding and
// values of its own.
func hacked(j *kernels.AttnJob) bool {
	f := j.Geometry.Format.Family
	return f == quant.FamilyHack || f == quant.FamilyHackV2
}

// hackSpan computes the item over its tiles [from, to), one span's.
func (s *attender) hackSpan(it *attendItem, from, to int) {
	if s.hack == nil {
		w := unsafe.Slice(&s.tile.S[0][0], softmax.Vectors*softmax.Tokens)
		s.hack = hack.NewAttender(s.ops.level, hack.Lent{W: w, QK: s.qk, PV: s.pv, Weigh: s.weighGroup, Exp2: softmax.Exp2})
	}
	s.hack.Span(it.job, it.lo, it.hi, from, to, hack.State{Top: s.top, Sum: s.sum, Acc: s.acc})
}

func (s *attender) qk(w []float32, ld int, q []float32, n, d int, rows []byte) {
	s.ops.exact.QK(w, ld, q, n, d, exact.Rows{Data: rows, Type: tensor.F16})
}

func (s *attender) pv(acc []float32, n, d int, w []float32, ld int, rows []byte) {
	s.ops.exact.PV(acc, n, d, w, ld, exact.Rows{Data: rows, Type: tensor.F16})
}

// weighGroup is hack.Lent's Weigh.
func (s *attender) weighGroup(n, tokens int, end *[hack.Lanes]int, scale float32, top, sum *[hack.Lanes]float32) {
	t := &s.tile
	for v := range n {
		t.End[v], t.Factor[v] = end[v], scale*softmax.Log2E
	}
	s.ops.softmax.FindMax(t, n)
	for v := range n {
		t.Top[v] = 0
		if end[v] > 0 {
			top[v] = max(top[v], t.Factor[v]*t.Max[v])
			t.Top[v] = top[v]
		}
	}
	s.ops.softmax.Weigh(t, n, tokens)
	copy(sum[:n], t.Sum[:n])
}
