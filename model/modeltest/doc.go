// Package modeltest makes small random models for tests of what stands above
// package model: real graphs through the real loading code, milliseconds a step.
// And the built-in one.
package modeltest
