// Package mem makes faults a first-class transport: connections in memory
// ([Network]), and a relay between real sockets ([Relay]), that drop, delay,
// reorder, truncate, corrupt, half-close, stall or kill what flows through
// them, by one text script. Only tests use it.
//
// # Scripts
//
// A script has a rule a line (or split by semicolons); # begins a comment:
//
//	DIRECTION [conn N] ACTION frame N [+OFFSET] [DURATION]
//	DIRECTION [conn N] ACTION byte N [DURATION]
//
// DIRECTION is up (from the dialer) or down (to it). Connections, frames and
// bytes count from 0: connections in the order they were dialed since the
// script was set, frames and bytes within one direction of one connection.
// Without conn a rule holds for every connection.
//
//	drop        leave out the frame, or the byte
//	delay       wait for DURATION before it
//	reorder     pass the frame after the one that follows it
//	duplicate   pass the frame twice
//	truncate    leave out the frame's bytes from OFFSET on (default: its second half)
//	corrupt     flip one bit of the byte (default: the middle one of the frame)
//	half-close  end this direction before it, leave the other open
//	stall       pass nothing more in this direction, but stay open
//	kill        close both directions before it
//
// What is no frame (a foreign protocol, TLS) passes in pieces as it is read;
// only rules for bytes reach it.
package mem
