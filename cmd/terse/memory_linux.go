package main

import "golang.org/x/sys/unix"

// machineMemory is the RAM of this machine in bytes.
func machineMemory() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 8 << 30 // a guess that most machines meet
	}
	return int64(info.Totalram) * int64(info.Unit)
}
