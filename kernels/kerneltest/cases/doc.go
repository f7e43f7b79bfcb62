// Package cases is the one list of shapes, formats and data that backends are
// checked with (package kerneltest) and timed with (kerneltest.Bench, terse
// bench). It makes inputs and knows what each must move and compute at least; it
// knows no right answers.
package cases
