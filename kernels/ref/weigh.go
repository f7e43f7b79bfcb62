package ref

import (
	"github.com/terse-llm/terse/kernels"
)

// Weigh adds to each job's Weights what its queries give to every token.
func (o *Ops) Weigh(jobs []kernels.AttnJob) {
	o.Parallel(len(jobs), kernels.TaskFunc(func(i int) {
		s, _ := o.attends.Get().(*attender)
		if s == nil {
			s = new(attender)
		}
		s.weigh(attendItem{&jobs[i], 0, len(jobs[i].Limit) * jobs[i].Group})
		o.attends.Put(s)
	}))
}

// weigh computes the scores twice: for the sums, and for the weights.
func (s *attender) weigh(it attendItem) {
	n, scale := it.hi, it.job.Scale
	s.reset(n, it.job.Geometry)
	if codedKeys(it.job) {
		s.keys(it.job.Geometry, true).prepare(&it)
	}
	s.eachScores(&it, func(b *block) {
		for l := range min(lanes, n-b.first) {
			if b.end[l] > b.lo {
				top, sum := softmax(b.w[l], b.lo, b.end[l], scale)
				s.states[b.first+l].Merge(State{Top: top, Sum: sum})
			}
		}
	})
	s.eachScores(&it, func(b *block) {
		for l := range min(lanes, n-b.first) {
			st := &s.states[b.first+l]
			for t := b.lo; t < b.end[l]; t++ {
				it.job.Weights[b.tile+t] += expNeg(min(b.w[l][t]*scale-st.Top, 0)) / st.Sum
			}
		}
	})
}

// eachScores computes the scores of each few vectors at each tile.
func (s *attender) eachScores(it *attendItem, f func(b *block)) {
	for i := range it.job.Tiles {
		t := &it.job.Tiles[i]
		if !s.seen(it, t) {
			continue
		}
		keys := s.keys(it.job.Geometry, t.KCoded)
		keys.loadKeys(it, t)
		for v := 0; v < it.hi; v += lanes {
			if s.b.aim(it, t, v, it.hi) {
				keys.scores(it, &s.b)
				f(&s.b)
			}
		}
	}
}
