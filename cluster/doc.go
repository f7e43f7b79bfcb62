// Package cluster is the control plane: who is there, and the requests and
// token streams between them, over NATS. KV never passes through here; workers
// move it over TCP between themselves (package transfer).
//
// [StartServer] embeds a NATS server, [Connect] joins that one in process or
// any other by URL. A worker calls [Conn.Serve]; a gateway calls [Conn.Watch]
// to know the members and [Conn.Submit] to run a job on one of them.
//
// # Subjects
//
// Everything lies under the cluster's name, so that several clusters share a
// NATS server and one permission rule ("terse.>") is enough:
//
//	NAME.members          records: every worker, once a beat, and a goodbye
//	NAME.who              asks all workers for their records at once
//	NAME.worker.ID.job    a job; its reply subject is the job's stream
//	NAME.worker.ID.ctl    keepalive and cancel; the reply subject names the job
//	NAME.worker.ID.ping   is the name taken?
//	NAME.stream.*         numbered outputs and keepalives of one job
//
// # Why no JetStream
//
// Discovery by a KV bucket needs JetStream, which a plain nats-server does not
// run, and which needs a disk and, in a NATS cluster, a quorum. Membership is
// soft state that every worker repeats anyway: with records once a second and
// a lease of three, a gateway that starts or reconnects knows everybody within
// a round trip (NAME.who) and there is nothing to store, migrate or clean up.
// Job streams want at-most-once with detection, not replay: a token that
// arrives after its request failed is of no use.
//
// # Leases
//
// A worker that is silent for three beats is dropped, and its jobs fail with
// [terse.CodeWorkerLost]. A job is kept alive from both ends: the submitter
// sends a keepalive for every job and beat, so that a worker stops computing
// for a gateway that died or forgot, whichever job that was; the worker sends
// how many outputs it has published, so that one lost on the way is noticed
// even when it was the last. Leases count the ticks of one's own clock that
// passed with nothing heard, never the difference of two clocks or timestamps:
// a process that was suspended finds its queue full and its count at one.
//
// # What is never silently wrong
//
// NATS delivers at most once and in order for each sender. Outputs carry
// numbers; a gap, a repetition or an unreadable payload fails the job. Payloads
// on every subject are bounded and checked; garbage is refused, counted and
// logged, and never stops a worker or a gateway.
package cluster

import "time"

// protocol is the version of every payload in this package. Processes of
// different versions refuse each other by name instead of guessing.
const protocol = 1

// DefaultBeat is the time between two records of a worker, and between two
// keepalives of a job.
const DefaultBeat = time.Second

// A lease is counted in ticks, finer than beats so that it ends close to the
// three beats that it promises.
const (
	ticksPerBeat = 4
	leaseTicks   = 3 * ticksPerBeat
)
