// Package defaultmodel is the model in the binary, terse-16m, which makes the
// first command work with no download. README.md beside it says how it was made
// and what it can do; testdata/golden.json is what transformers computes with it.
package defaultmodel
