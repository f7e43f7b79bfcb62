package sample

import (
	"cmp"
	"math"
	"slices"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kernels/cpu/vec"
)

type candidate struct {
	token  terse.Token
	logit  float32
	weight float64
}

// byRank orders the best candidate first.
func byRank(a, b candidate) int {
	if a.logit != b.logit {
		return cmp.Compare(b.logit, a.logit)
	}
	return cmp.Compare(a.token, b.token)
}

func sortBest(c []candidate) { slices.SortFunc(c, byRank) }

// largest fills buf with the k best possible tokens of a row, best first. The
// k-th largest of the maxima of small groups is a floor below which none of the k
// best lies, and only few tokens reach it.
func (s *Sampler) largest(logits []float32, k int) {
	n := vec.Groups(len(logits))
	if k > n/8 { // then most groups would have one
		s.buf = largest(logits, k, s.buf)
		return
	}
	s.groups = slices.Grow(s.groups[:0], n)[:n]
	s.vec.GroupMax(s.groups, logits)
	s.buf = largest(s.groups, k, s.buf)
	if len(s.buf) < k {
		s.buf = largest(logits, k, s.buf)
		return
	}
	s.reach = vec.AtLeast(s.reach[:0], logits, s.groups, s.buf[k-1].logit)
	s.buf = s.buf[:0]
	for _, i := range s.reach {
		s.buf = append(s.buf, candidate{token: terse.Token(i), logit: logits[i]})
	}
	sortBest(s.buf)
	s.buf = s.buf[:k]
}

// largest gives the k best possible tokens of a row, best first, in buf. It
// keeps the k best so far as a heap with the worst on top: most tokens of a row
// cost one comparison.
func largest(logits []float32, k int, buf []candidate) []candidate {
	heap := buf[:0]
	worst := float32(math.Inf(-1)) // also keeps impossible tokens out
	for i, l := range logits {
		if !(l > worst) {
			continue // equal to the worst: it has the higher id
		}
		c := candidate{token: terse.Token(i), logit: l}
		if len(heap) < k {
			heap = append(heap, c)
			up(heap)
		} else {
			heap[0] = c
			down(heap)
		}
		if len(heap) == k {
			worst = heap[0].logit
		}
	}
	sortBest(heap)
	return heap
}

// up restores the heap after its last element was added.
func up(heap []candidate) {
	for i := len(heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if byRank(heap[i], heap[parent]) < 0 {
			return
		}
		heap[i], heap[parent] = heap[parent], heap[i]
		i = parent
	}
}

// down restores the heap after its top was replaced.
func down(heap []candidate) {
	for i := 0; ; {
		child := 2*i + 1
		if child >= len(heap) {
			return
		}
		if child+1 < len(heap) && byRank(heap[child+1], heap[child]) > 0 {
			child++
		}
		if byRank(heap[child], heap[i]) < 0 {
			return
		}
		heap[i], heap[child] = heap[child], heap[i]
		i = child
	}
}
