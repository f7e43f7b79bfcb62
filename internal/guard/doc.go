// Package guard gives tests memory that ends where nothing may be read or
// written, so that assembly that goes beyond its slices faults.
package guard
