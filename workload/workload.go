package workload

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// Bounds of what a trace may say.
const (
	blockTokens = 512 // of Mooncake's hash_ids
	maxRows     = 4 << 20
	maxLine     = 4 << 20 // bytes
	maxTokens   = 1 << 24
	maxTime     = 10 * 366 * 24 * time.Hour
)

// Request is one request of a workload.
type Request struct {
	At            time.Duration // of its arrival, since the first one's; 0 where the trace has none
	Input, Output int           // tokens of the prompt and of the answer, both >= 1
	// Blocks name the prompt's blocks of Workload.BlockTokens tokens, the last
	// perhaps not whole. Requests whose first n ids are equal begin with the same n
	// blocks. Nil: the prompt shares nothing.
	Blocks []int64
}

// Workload is requests in the order of their arrival.
type Workload struct {
	Name     string
	Arrivals bool // whether At is recorded; otherwise see Poisson
	Requests []Request

	BlockTokens int // tokens of one of a request's Blocks
}

// sort orders by arrival, keeps the order of equals, and lets time begin at 0.
func (w *Workload) sort() {
	slices.SortStableFunc(w.Requests, func(a, b Request) int { return cmp.Compare(a.At, b.At) })
	if len(w.Requests) == 0 {
		return
	}
	for i, first := 0, w.Requests[0].At; i < len(w.Requests); i++ {
		w.Requests[i].At -= first
	}
}

// Poisson gives the requests arrivals at random, rate a second on average.
func (w *Workload) Poisson(rate float64, seed uint64) error {
	if !(rate > 0) || math.IsInf(rate, 1) {
		return fmt.Errorf("a rate of %v requests a second cannot be: give a positive number", rate)
	}
	rng := rand.New(rand.NewPCG(seed, 0x706f6973736f6e))
	at := 0.0
	for i := range w.Requests {
		if i > 0 {
			at += rng.ExpFloat64() / rate
		}
		w.Requests[i].At = seconds(at)
	}
	w.Arrivals = true
	return nil
}

// Stretch multiplies all times by factor: 2 halves the load.
func (w *Workload) Stretch(factor float64) error {
	if !(factor > 0) || math.IsInf(factor, 1) {
		return fmt.Errorf("time cannot be stretched %v-fold: give a positive number", factor)
	}
	for i, r := range w.Requests {
		w.Requests[i].At = seconds(r.At.Seconds() * factor)
	}
	return nil
}

// Limits bound what is replayed.
type Limits struct {
	Skip, Count int     // requests left out at the beginning, and then taken; Count 0 = all
	Scale       float64 // of lengths, before the bounds; 0 = 1
	// MaxInput and MaxOutput cut longer prompts and answers off; MaxTokens is for
	// both together, at most half of it for the answer. 0 = no bound.
	MaxInput, MaxOutput, MaxTokens int
}

// Limit leaves what fits and reports how many requests were cut shorter.
func (w *Workload) Limit(l Limits) (cut int, err error) {
	if l.Skip < 0 || l.Count < 0 || l.MaxInput < 0 || l.MaxOutput < 0 || l.Scale < 0 || math.IsNaN(l.Scale) || math.IsInf(l.Scale, 1) {
		return 0, fmt.Errorf("limits of a workload cannot be negative")
	}
	if l.Skip >= len(w.Requests) {
		return 0, fmt.Errorf("%s has %d requests: skipping %d leaves none", w.Name, len(w.Requests), l.Skip)
	}
	w.Requests = slices.Clone(w.Requests[l.Skip:])
	if l.Count > 0 && l.Count < len(w.Requests) {
		w.Requests = w.Requests[:l.Count]
	}
	w.sort()
	if l.Scale == 0 {
		l.Scale = 1
	}
	w.BlockTokens = scaled(w.BlockTokens, l.Scale)
	for i := range w.Requests {
		if w.Requests[i].limit(l, w.BlockTokens) {
			cut++
		}
	}
	return cut, nil
}

func (r *Request) limit(l Limits, blockTokens int) (cut bool) {
	r.Input, r.Output = scaled(r.Input, l.Scale), scaled(r.Output, l.Scale)
	bound := func(n *int, most int) {
		if most > 0 && *n > most {
			*n, cut = most, true
		}
	}
	bound(&r.Output, l.MaxOutput)
	bound(&r.Input, l.MaxInput)
	if l.MaxTokens > 0 {
		bound(&r.Output, max(1, l.MaxTokens/2))
		bound(&r.Input, max(1, l.MaxTokens-r.Output))
	}
	if most := (r.Input + blockTokens - 1) / blockTokens; len(r.Blocks) > most {
		r.Blocks = r.Blocks[:most]
	}
	return cut
}

func scaled(n int, by float64) int {
	return int(min(max(1, math.Round(float64(n)*by)), maxTokens))
}

func seconds(s float64) time.Duration {
	return time.Duration(min(s, maxTime.Seconds()) * float64(time.Second))
}
