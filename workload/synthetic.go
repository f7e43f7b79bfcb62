package workload

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
)

// span is the lengths of a data set: the mean, between bounds.
type span struct{ mean, least, most float64 }

// kind is a synthetic workload.
type kind struct {
	name, what    string
	input, output span
}

// kinds have lengths like those of the HACK paper's data sets (arXiv 2502.03589):
// means and bounds as cited from it, not counted again.
func kinds() []kind {
	return []kind{
		{"classify", "short classification, as IMDb's genres", span{315, 106, 821}, span{37, 16, 87}},
		{"summarise", "long summarisation, as arXiv's articles", span{6300, 1600, 14100}, span{243, 29, 464}},
		{"retrieve", "very long retrieval, as Cocktail", span{16200, 9400, 28800}, span{159, 44, 246}},
		{"complete", "code completion, as HumanEval", span{204, 75, 697}, span{139, 11, 552}},
	}
}

// Kinds names the synthetic workloads, and says what they are like.
func Kinds() (names, what []string) {
	for _, k := range kinds() {
		names, what = append(names, k.name), append(what, fmt.Sprintf("%s (%s; %.0f in, %.0f out)", k.name, k.what, k.input.mean, k.output.mean))
	}
	return names, what
}

// Synthetic makes n requests of a kind, without arrivals.
func Synthetic(name string, n int, seed uint64) (*Workload, error) {
	names, _ := Kinds()
	for i, k := range kinds() {
		if k.name != name {
			continue
		}
		if n < 1 || n > maxRows {
			return nil, fmt.Errorf("cannot make %d requests: give 1 to %d", n, maxRows)
		}
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		w := &Workload{Name: name, BlockTokens: blockTokens, Requests: make([]Request, n)}
		for j := range w.Requests {
			w.Requests[j] = Request{Input: k.input.draw(rng), Output: k.output.draw(rng)}
		}
		return w, nil
	}
	return nil, fmt.Errorf("there is no workload %q: choose of %s, or give --trace", name, strings.Join(names, ", "))
}

// Fixed makes n requests of one length, without arrivals.
func Fixed(n, input, output int) (*Workload, error) {
	if n < 1 || n > maxRows || input < 1 || input > maxTokens || output < 1 || output > maxTokens {
		return nil, fmt.Errorf("cannot make %d requests of %d tokens in and %d out: give at least one of each", n, input, output)
	}
	w := &Workload{Name: fmt.Sprintf("%d in, %d out", input, output), BlockTokens: blockTokens, Requests: make([]Request, n)}
	for i := range w.Requests {
		w.Requests[i] = Request{Input: input, Output: output}
	}
	return w, nil
}

// draw is a length: log-normal about the mean, the nearer bound two standard
// deviations away, drawn again where it leaves the bounds.
func (s span) draw(rng *rand.Rand) int {
	up, down := math.Log(s.most/s.mean), math.Log(s.mean/s.least)
	sigma := min(up, down) / 2
	for {
		x := s.mean * math.Exp(sigma*rng.NormFloat64()-sigma*sigma/2)
		if x >= s.least && x <= s.most {
			return int(math.Round(x))
		}
	}
}
