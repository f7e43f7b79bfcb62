package huge

import "golang.org/x/sys/unix"

// advise says that the range, whole huge pages, should be in huge pages. It is
// advice about memory that the runtime has mapped around a slice: it changes
// nothing of what lies there, and an error (parts not mapped, or a kernel
// without huge pages) leaves ordinary pages.
func advise(addr, n uintptr, gather bool) {
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, addr, n, unix.MADV_HUGEPAGE)
	if gather {
		// Memory that was used before has its small pages already. The call waits for
		// every core and for room: tens of milliseconds on a busy machine.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, addr, n, unix.MADV_COLLAPSE)
	}
}
