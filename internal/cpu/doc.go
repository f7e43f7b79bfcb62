// Package cpu says which instructions this machine and this build can use, as a
// short ladder of levels that kernels are written for. Kernels take a level as an
// argument, so that tests can run every one that the machine has; build tags cap
// the ladder for a whole program: purego (portable Go only), noavx512, nodotprod.
package cpu
