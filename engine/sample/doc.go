// Package sample picks the next token from a row of logits.
//
// The order is vLLM's: logit bias and penalties, temperature, min-p, top-k,
// top-p, then one draw. Everything is deterministic: the n-th token of a
// request draws from counter n of its seed, so a request that is computed
// again, elsewhere or in another batch, draws the same.
//
// Log-probabilities are those of the model: natural, and taken before bias,
// penalties and temperature.
package sample
