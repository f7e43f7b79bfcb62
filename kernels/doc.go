// Package kernels is the small contract between the model's arithmetic and the
// backends that compute it. Package ref is the obvious Go that every other
// backend is checked against; kerneltest holds the one case list.
package kernels
