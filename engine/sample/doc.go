// Package sample picks the next token from a row of logits.
//
// The order is vLLM's: logit bias, repetition, frequency and presence
// penalties; greedy ends here; temperature, min-p, top-k, top-p and one draw.
// Top-k keeps exactly k tokens. Equal logits rank by id, the lowest first.
//
// Everything is deterministic: the n-th token of a request draws from counter n
// of its seed, so a request that is computed again, elsewhere or in another
// batch, draws the same.
//
// Log-probabilities are those of the model: natural, and taken before bias,
// penalties and temperature. None is below [Floor], so that they can be written
// as JSON.
//
// # Logits that are not numbers
//
// NaN counts as minus infinity: such a token is never picked. Tokens at plus
// infinity share all of the probability. Where no token is possible, the pick is
// token 0 with log-probability Floor.
package sample
