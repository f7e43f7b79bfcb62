//go:build !linux

package guard

import "testing"

// Bytes is n zero bytes; on this system nothing guards their end.
func Bytes(_ testing.TB, n int) []byte { return make([]byte, n) }
