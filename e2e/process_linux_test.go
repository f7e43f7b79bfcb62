package e2e

import (
	"os/exec"
	"syscall"
)

// dieWithParent ends the process even when the tests are killed.
func dieWithParent(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
