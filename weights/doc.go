// Package weights opens a model's files as named tensors: a Hugging Face
// directory (config.json with model.safetensors, or with an index and shards)
// or a GGUF file. Tensors are views of memory maps, so opening costs
// milliseconds whatever the size, processes share the pages, and nothing is
// copied. Formats of numbers are left as they are in the file; package
// tensor/blocks widens rows.
//
// Model files come from strangers. Every length, count, offset and shape is
// checked against the bytes that are there before anything is allocated or
// indexed, and what does not fit is an error with the file's and the tensor's
// name. A tensor of a type that Terse cannot compute with is an error only when
// it is asked for, since checkpoints carry leftovers that no graph reads.
//
// What the checks cannot catch is a file that another process truncates while
// it is mapped: the operating system then kills the reader. Replace model files
// by renaming, never by writing into them.
//
// # Why its own readers
//
// Two libraries were measured first, each on the hostile files of this package's
// tests. gguf-parser-go v0.28.1 ends the process on some (a split.tensors.count
// of 2^34 in 60 bytes: out of memory; a million nested arrays in 12 MB: stack
// overflow), panics on others (an alignment of 0 or of another type, shapes
// beyond 2^64), trims white space off vocabulary entries, takes 31 bytes of
// memory per byte of an array, opens paths only, and links an SSH and an HTTP
// client. nlpodyssey/safetensors (2025-02) survives, but takes 38 bytes of
// memory per byte of a wide header, keeps one of two tensors of the same name
// in silence, refuses a whole file for one FP8 tensor, and names no tensor when
// sizes disagree. The readers here are 200 and 400 lines.
package weights
