// Package entropy is a range coder with static distributions: what CacheGen (arXiv
// 2310.07240) sends codes with. It is the range variant of asymmetric numeral systems
// (Duda, arXiv 1311.2540; "rANS"): the sizes of an arithmetic coder, within a
// thousandth, and a decoder that neither divides nor searches far. docs/formats.md has
// its bytes.
//
// Four states take turns, so that a core works on four symbols at once. What limits
// the decoder is the chain through a state, about 12 cycles, over the four: 1 ns a
// symbol; and the branch on how many words a symbol took, which is a guess.
package entropy
