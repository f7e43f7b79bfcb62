// Package lib holds what several generators of kernels share: vectors of either
// width under one name, and loops over arrays of any length.
package lib
