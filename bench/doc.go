// Package bench times kernels and whole models on the machine it runs on, and
// prints each time beside what the machine could do at most, measured in the same
// run: the rate of its multiply-add instructions and of reading its memory, on one
// thread and on all that are used.
//
// Everything that is compared is timed in turns, round after round, so that a
// noisy neighbour slows all of it alike; figures are medians, and the quartiles
// stand beside them. The floor of a kernel is the larger of its operations over
// the fastest rate seen and its bytes over the fastest reading seen. No kernel can
// be faster, and none that unpacks codes or takes exponentials can reach it.
//
// The KV transfer is timed between two processes, formats in turns, beside what
// iperf3 reaches over the same link: that is its floor.
package bench
