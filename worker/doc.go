// Package worker is a node in a role: an engine, the KV transfer and its place
// in the cluster.
//
// A decode worker takes jobs from the cluster. Where a job names a prefill
// worker, it reserves pages, fetches the prompt's KV over that worker's data
// port (package transfer) and decodes; otherwise it does all of it itself. A
// prefill worker takes prompts over its data port only, and streams each
// layer's pages while later layers compute.
package worker
