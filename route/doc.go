// Package route decides which workers take a request, and whether its prefill
// is split from its decode at all. It is a pure function of what is known: no
// I/O, clock, goroutine or lock, so that the gateway and the simulator decide
// alike and every decision can be replayed from a text script.
//
// The rules, in order:
//
//   - All members hold the same model, calibration and KV format, or nothing is
//     routed: which answer a user gets must not depend on the load.
//   - The request decodes on the decode-capable worker with the least to do
//     whose context holds the prompt; a prefix that it holds is work done.
//   - Splitting must have something to gain. What remains of a prompt after the
//     prefix that the decode worker holds, when shorter than a page and the
//     exact windows, has hardly a code to save: it stays. So does a request
//     that only scores its prompt, and one that wants the prompt's scores.
//   - Otherwise the prefill worker that has the prompt computed and moved first
//     is a candidate: by what it has to do, what it holds of the prompt, how fast
//     it computes and how fast its KV reached the decode worker lately. Workers in
//     the role both prefill for decode-only workers; among themselves they do
//     not pass prompts around, since each would lend what it needs itself.
//   - It gets the prompt unless staying costs less. The cost is the time to the
//     first token and, of staying, the time by which the requests that decode
//     there are held up. What was not measured is taken from the other worker
//     (rates) or for nothing (links); with nothing measured the prompt is split.
//   - Second planes of a split prompt come apart from the rest where the decode
//     worker is told so, or left to decide and the request would be late otherwise
//     for the time to the first token that is asked for.
//   - Where nobody else prefills, the decode worker does it.
package route
