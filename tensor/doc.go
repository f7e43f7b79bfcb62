// Package tensor describes arrays of numbers as they lie in memory or in a
// file: element type, shape, bytes. It does no arithmetic beyond reading and
// writing single half-precision values.
package tensor
