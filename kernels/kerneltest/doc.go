// Package kerneltest holds every backend to one standard: Conformance checks a
// kernels.Ops against plain arithmetic over the list of package cases, and Bench
// times the same list. A backend's test is
//
//	func TestConformance(t *testing.T) { kerneltest.Conformance(t, New(…)) }
//
// What is checked, beside the values: every element asked for is written
// (outputs begin as NaN) and none beside them (outputs stand between guards);
// inputs are left alone; a row's result has the same bits alone, with others and
// on any number of cores; and a NaN or an infinity in one row stays in that row.
// Tolerances stand with their reason at each check. Whole numbers (codes, pages,
// widening) and what caches are made of (rotation, means) must agree bit for bit.
package kerneltest
