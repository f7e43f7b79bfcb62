// Package softmax turns the scores of a tile of up to 256 tokens into softmax
// weights, for up to four query vectors: what lies between the two products of
// attention. Running maxima are merged and weights quantised once per tile,
// because with 64 tokens a tile those steps cost more than the products of 2-bit
// codes.
//
// The steps, per vector:
//
//	Scores    S = step·dots + QSum·bias (scores from integer products), Max of them
//	Weigh     S = 2^(Factor·S - Top), Sum of them
//	WeighBy   the same, then S = S·step, Largest of them, Centre = Σ weight·centre
//	Quantise  P = ⌊S·255/Largest + ½⌋, PSum of them
//
// Scores are in units of bits, so that the exponential starts with no
// multiplication: Factor is the softmax scale (and the query's step) times log2 e,
// and Top a running maximum in the same units. Merging two tiles' states then
// takes Exp2(old Top - new Top), and weights are relative to Top to the last bit.
//
// The weights are within 10⁻⁶ of exact (a polynomial of degree 5, 4.3·10⁻⁷ off at
// most) and 0 below 2^-125. A vector's sums have one order at a level, whatever
// the other vectors: 16 partial sums, of the tokens t mod 16, folded in halves.
//
// The floor is 3 vector operations a token for Scores, 13 to 16 for WeighBy and
// 4 for Quantise, over the lanes of a register: at 8 lanes, 4 operations a cycle
// and four query heads about 3 cycles per token and KV head.
package softmax

//go:generate go run -C ../_asm ./softmax -out ../softmax/softmax_amd64.s -stubs ../softmax/softmax_amd64.go -pkg softmax
//go:generate go run -C ../_asm ./neon/softmax -out ../softmax/softmax_arm64.s -stubs ../softmax/softmax_arm64.go -pkg softmax
