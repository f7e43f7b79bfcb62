// Package mem makes faults a first-class transport: connections in memory, and
// a relay between real sockets, that drop, delay, damage, cut or stall the
// bytes that flow through them, by script. Only tests use it.
package mem
