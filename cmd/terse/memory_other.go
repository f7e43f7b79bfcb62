//go:build !linux

package main

// machineMemory is a guess that most machines meet: only Linux is asked.
func machineMemory() int64 { return 8 << 30 }
