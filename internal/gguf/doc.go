// Package gguf writes GGUF files of version 3, streaming: the header first, then
// each tensor's bytes as its source delivers them, so that a file may be larger
// than memory. It knows the format on its own and not from package weights, which
// reads it, so that the two check each other.
package gguf
