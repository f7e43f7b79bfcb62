// Package serving measures what users of a server see: it sends a workload to one
// or more OpenAI endpoints and says how long requests took, where that time went,
// what crossed the network and how much cache was held.
//
// Endpoints are compared in rounds. A workload is cut into as many parts as there
// are rounds; in every round each endpoint answers the same part, in an order that
// turns, so that a noisy machine slows all of them alike, and no endpoint sees a
// prompt twice. Within a part requests arrive as recorded, or a fixed number of them
// is kept running.
//
// Times are the client's. JCT is from a request's arrival to its last token, TTFT to
// its first, ITL between two of its events, TPOT (JCT - TTFT) / (tokens - 1).
// Endpoints of this project add their own account of a request, from which the
// decomposition comes.
//
// A link of a chosen rate is a token bucket that all of a worker's data connections
// read through (Link): what arrives faster waits in the sockets.
package serving
