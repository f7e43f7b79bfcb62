// Package device runs models on NVIDIA GPUs: package model's graph with package
// cuda's kernels, over KV pages that live in the GPU's memory.
//
// [Open] opens a GPU with what the program needs of it, [GPU.Load] puts a model's
// weights there, and [Model.NewRunner] makes the model.Runner of an engine. Each
// runner has a stream and a thread of its own, and pages of its own in one
// allocation, placed by a kvcache.Arena.
//
// A step is put into the stream without waiting for anything, and waited for once.
// Rows are reordered: single rows at the ends of sequences first, which one launch
// of the decode kernels serves together, then prompts one by one. Steps of single
// rows alone run as CUDA graphs, one for each of some batch sizes: all that changes
// from step to step lies in buffers that are filled before. The hack layouts, a
// baseline, run without graphs: their appends are told positions at launch. The graph
// of the step that most likely follows is begun before the host has read the tokens.
//
// Pages of sequences that move between workers have bytes on the host too, in
// pinned memory. What a step writes of them is copied there by a second stream
// while later layers compute. Where a format keeps more of a prompt's important tokens,
// the step that ends the prompt finds them, layer by layer.
//
// Products are in bfloat16 where the weights are, and in float16 otherwise. Their
// results depend, in the last bits, on how many rows are computed together; the
// codes in the pages do not depend on where they were made.
package device
