// Package cpu says which instructions this machine and this build can use, as a
// short ladder of levels that kernels are written for. Kernels take a level as an
// argument, so that tests can run every one that the machine has; build tags cap
// the ladder for a whole program: purego (portable Go only) and noavx512. Levels
// are those that there are kernels for: arm64 has none yet.
package cpu
