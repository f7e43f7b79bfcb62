// Command terse serves large language models with prefill and decode split over
// machines and the KV cache coded. "terse serve" is all of it in one process;
// "terse gateway" and "terse worker" are its parts. This package is flags and
// wiring only.
package main
