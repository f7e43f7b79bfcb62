package quant

import (
	"math/bits"
	"slices"
)

// reach is how far a token's weight spreads to its neighbours on both sides: a
// query's weight lies on one or two tokens of what it reads.
const reach = 3

// ImportantTokens is the sets of tokens, page by page, that matter most by their
// weights (of whole pages): the format's share of all of them, at most MostImportant of
// any page. A weight counts for its neighbours too.
func (f Format) ImportantTokens(weights []float32) []uint64 {
	return important(weights, f.PageTokens, f.Important, f.MostImportant())
}

func important(weights []float32, pageTokens, percent, most int) []uint64 {
	n := len(weights)
	spread := make([]float32, n)
	for i := range spread {
		spread[i] = slices.Max(weights[max(0, i-reach):min(n, i+reach+1)])
	}
	sorted := slices.Clone(spread)
	slices.Sort(sorted)
	count := (n*percent + 99) / 100
	least := sorted[n-count]
	// What weighs exactly as much as the least that gets in is taken in order.
	higher, _ := slices.BinarySearchFunc(sorted, least, func(x, least float32) int {
		if x > least {
			return 1
		}
		return -1
	})
	ties := count - (n - higher)
	sets := make([]uint64, n/pageTokens)
	for i, w := range spread {
		tie := w == least && ties > 0
		if tie {
			ties--
		}
		if w > least || tie {
			sets[i/pageTokens] |= 1 << (i % pageTokens)
		}
	}
	for p := range sets {
		sets[p] = heaviest(sets[p], spread[p*pageTokens:], most)
	}
	return sets
}

// heaviest leaves the most of a set that weigh most, of equals the first.
func heaviest(set uint64, weights []float32, most int) uint64 {
	if bits.OnesCount64(set) <= most {
		return set
	}
	var tokens []int
	for rest := set; rest != 0; rest &= rest - 1 {
		tokens = append(tokens, bits.TrailingZeros64(rest))
	}
	slices.SortStableFunc(tokens, func(a, b int) int {
		switch {
		case weights[a] > weights[b]:
			return -1
		case weights[a] < weights[b]:
			return 1
		}
		return 0
	})
	set = 0
	for _, t := range tokens[:most] {
		set |= 1 << t
	}
	return set
}
