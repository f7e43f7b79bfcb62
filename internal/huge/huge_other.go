//go:build !linux

package huge

// advise has nobody to tell.
func advise(addr, n uintptr, gather bool) {}
