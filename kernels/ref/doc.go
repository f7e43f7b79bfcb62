// Package ref computes kernels.Ops in plain Go: the obvious loops, arranged so
// that the compiler makes good scalar code of them. It is what other backends
// are checked against and what runs where there is none.
//
// Every sum runs in one fixed order whatever the number of rows, so that a
// prompt computed in chunks gives the bits of the prompt computed at once.
package ref
