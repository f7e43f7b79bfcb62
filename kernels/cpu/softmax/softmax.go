package softmax

import (
	"fmt"
	"math"

	"github.com/terse-llm/terse/internal/cpu"
)

const (
	// Tokens is the most tokens of a tile.
	Tokens = 256
	// Vectors is the most query vectors of a tile.
	Vectors = 4
	// Log2E turns natural units of scores into bits.
	Log2E = math.Log2E
	// lanes is the number of partial sums, and what rows are padded to.
	lanes = 16
)

// Tile is up to four query vectors at a tile: scores, weights and what is known
// of them. Assembly knows its layout.
type Tile struct {
	S [Vectors][Tokens]float32 // scores, then weights
	P [Vectors][Tokens]uint8   // quantised weights

	// Set by the caller.

	End    [Vectors]int     // the vector sees tokens [0, End) of the tile
	Factor [Vectors]float32 // bits per unit of S; positive
	QSum   [Vectors]float32 // Σ q'
	Top    [Vectors]float32 // bits; at least Factor·Max

	// Results.

	Max     [Vectors]float32 // of the scores seen, in units of S; -Inf of none
	Sum     [Vectors]float32 // of the weights, before they are multiplied by steps
	Largest [Vectors]float32 // weight times step
	Centre  [Vectors]float32 // Σ weight·centre
	PSum    [Vectors]int32   // Σ P
}

// Kernels is the arithmetic of one level. All of it is safe for concurrent use
// on different tiles and allocates nothing. nq is 1 to 4 vectors.
type Kernels struct {
	// Level is the level that the kernels are for.
	Level cpu.Level

	scores   func(t *Tile, dots *int32, step, bias *float32, nq int, add bool)
	max      func(t *Tile, nq int)
	weigh    func(t *Tile, nq, n int)
	weighBy  func(t *Tile, step, centre *float32, nq, n int)
	quantise func(t *Tile, nq, n int)
}

// For gives the kernels of a level, which the machine must have. Levels without
// kernels of their own get the portable ones.
func For(l cpu.Level) *Kernels {
	k := &Kernels{Level: cpu.Generic, scores: scores, max: largest, weigh: weigh, weighBy: weighBy, quantise: quantise}
	accelerate(k, l)
	return k
}

// Scores sets, for the tokens that vector v sees,
//
//	S[v][t] = step[t]·dots[v·Tokens + t] + QSum[v]·bias[t]
//
// or with add adds that to S, and sets Max. It reads whole blocks of 16 tokens of
// its operands; what lies beyond End does not matter.
func (k *Kernels) Scores(t *Tile, dots []int32, step, bias []float32, nq int, add bool) {
	n := t.check(nq, Tokens)
	if len(dots) < (nq-1)*Tokens+n || len(step) < n || len(bias) < n {
		panic(fmt.Sprintf("BUG: scores of %d tokens of %d vectors from %d, %d and %d", n, nq, len(dots), len(step), len(bias)))
	}
	if n == 0 {
		k.max(t, nq)
		return
	}
	k.scores(t, &dots[0], &step[0], &bias[0], nq, add)
}

// FindMax sets Max from scores in S, and S of the tokens not seen up to the next
// multiple of 16 to -Inf.
func (k *Kernels) FindMax(t *Tile, nq int) {
	t.check(nq, Tokens)
	k.max(t, nq)
}

// Weigh turns scores into weights and sets Sum; the weights of the tokens
// [End, n) become 0. n is a multiple of 16.
func (k *Kernels) Weigh(t *Tile, nq, n int) {
	t.check(nq, n)
	k.weigh(t, nq, n)
}

// WeighBy is Weigh, multiplies the weights by the tokens' steps, and sets
// Largest, and Centre if centre is not nil (0 otherwise).
func (k *Kernels) WeighBy(t *Tile, step, centre []float32, nq, n int) {
	t.check(nq, n)
	if len(step) < n || centre != nil && len(centre) < n {
		panic(fmt.Sprintf("BUG: weights of %d tokens by %d steps and %d centres", n, len(step), len(centre)))
	}
	if n == 0 {
		panic("BUG: weights of no tokens")
	}
	var c *float32
	if centre != nil {
		c = &centre[0]
	}
	k.weighBy(t, &step[0], c, nq, n)
}

// Quantise codes the weights of tokens [0, n) in u8 and sets PSum. The step is
// Step of Largest.
func (k *Kernels) Quantise(t *Tile, nq, n int) {
	t.check(nq, n)
	k.quantise(t, nq, n)
}

// Step is the step of weights quantised by their largest.
func Step(largest float32) float32 {
	if largest <= tiny {
		return 0
	}
	return largest / 255
}

// tiny is below what is worth a code: its reciprocal would overflow.
const tiny = 1e-30

// check returns the number of tokens that any vector sees, in whole blocks.
func (t *Tile) check(nq, n int) int {
	if nq < 1 || nq > Vectors || n < 0 || n > Tokens || n%lanes != 0 {
		panic(fmt.Sprintf("BUG: a tile of %d vectors and %d tokens", nq, n))
	}
	most := 0
	for _, end := range t.End[:nq] {
		if end < 0 || end > n {
			panic(fmt.Sprintf("BUG: a vector sees %d of %d tokens", end, n))
		}
		most = max(most, end)
	}
	return (most + lanes - 1) &^ (lanes - 1)
}

// Exp2 is 2^y for y <= 0 as the kernels compute it.
func Exp2(y float32) float32 { return exp2(y) }
