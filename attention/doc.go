// Package attention plans attention over a sequence's pages: it writes new keys
// and values into them ([Runner.Append]) and decides, for every query row,
// which tokens are read exactly and which as codes ([Runner.Attend]). The
// arithmetic is the backend's (package kernels); the rule is the format's
// (quant.Format). It never allocates a page.
package attention
