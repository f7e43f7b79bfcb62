// Package cluster is the control plane: who is there, and the requests and
// token streams between them, over NATS. KV never passes through here; workers
// move it over TCP between themselves (package transfer).
package cluster

// protocol is the version of every payload in this package. Processes of
// different versions refuse each other by name instead of guessing.
const protocol = 1
