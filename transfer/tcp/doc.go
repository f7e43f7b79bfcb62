// Package tcp gives package transfer its connections between machines: TCP, or
// TLS 1.3 over it with certificates on both sides, with errors that say what to
// do.
package tcp
