// Package calibrate learns from sample text what a KV format needs to know of a
// model: the means of K (after RoPE) and of V per layer, KV head and channel, and
// the balanced basis of K (docs/formats.md). The result is a small file that lies beside the model and
// whose hash workers compare before any KV moves.
package calibrate
