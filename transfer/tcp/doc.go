// Package tcp gives package transfer its connections between machines: plain
// TCP with errors that say what to do.
package tcp
