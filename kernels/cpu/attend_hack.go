package cpu

import (
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/cpu/exact"
	"github.com/terse-llm/terse/kernels/cpu/hack"
	"github.com/terse-llm/terse/kernels/cpu/softmax"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// hacked reports whether a job is of a hack format, which has tiles, softmax and
// rounding of its own.
func hacked(j *kernels.AttnJob) bool {
	f := j.Geometry.Format.Family
	return f == quant.FamilyHack || f == quant.FamilyHackV2
}

func (s *attender) runHack(it *attendItem) {
	if s.hack == nil {
		s.hack = hack.NewAttender(s.ops.level, hack.Lent{QK: s.qk, PV: s.pv, Softmax: s.soften})
	}
	s.hack.Run(it.job, it.lo, it.hi)
}

func (s *attender) qk(w []float32, ld int, q []float32, n, d int, rows []byte) {
	s.ops.exact.QK(w, ld, q, n, d, exact.Rows{Data: rows, Type: tensor.F16})
}

func (s *attender) pv(acc []float32, n, d int, w []float32, ld int, rows []byte) {
	s.ops.exact.PV(acc, n, d, w, ld, exact.Rows{Data: rows, Type: tensor.F16})
}

// soften turns scores into exp(scale·s - top) and returns top and their sum.
func (s *attender) soften(x []float32, scale float32) (top, sum float32) {
	t := &s.tile
	t.End[0], t.Factor[0] = copy(t.S[0][:], x), scale*softmax.Log2E
	s.ops.softmax.FindMax(t, 1)
	t.Top[0] = t.Factor[0] * t.Max[0]
	s.ops.softmax.Weigh(t, 1, (len(x)+15)&^15)
	copy(x, t.S[0][:])
	return scale * t.Max[0], t.Sum[0]
}
