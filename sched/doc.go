// Package sched decides what an engine computes next. It is continuous batching
// with chunked prefill as a pure state machine: [Scheduler.Step] takes what
// happened and returns a [Plan]. No I/O, clock, goroutine, lock or randomness:
// the same events give the same plans, in an engine and in a simulator.
//
// # Order
//
// Requests are admitted first come, first served. One is admitted when the
// pages for all of its tokens fit beside what is held, what admitted prompts
// still have coming, and room for every other sequence to grow by a page. Each
// step computes one row for every decoding sequence and fills the rest of its
// token budget with chunks of prompts, so that long prompts do not stop decodes.
//
// # When pages run out
//
// A sequence may take pages from younger ones only: the youngest loses its pages
// and goes to the front of the queue, to be recomputed with what it generated.
// So the oldest always proceeds, and every request that is not refused when it is
// added finishes. A sequence with nobody younger to take from waits. Sequences
// whose pages another goroutine may be reading or writing, ModePrefill ones and
// remote ones before KVReady, never lose them.
//
// A recomputed sequence of a coded format reuses at most the prefix it had
// reused before, so that it goes on as if it had not been interrupted.
package sched
