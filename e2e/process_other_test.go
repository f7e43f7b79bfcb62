//go:build !linux

package e2e

import "os/exec"

// dieWithParent does nothing: only Linux can promise it.
func dieWithParent(*exec.Cmd) {}
