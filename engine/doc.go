// Package engine runs requests on one machine: token in, token out, never text.
//
// One goroutine owns everything: the scheduler, the cache's books and bytes, the
// model's scratch. Its step is five lines: plan -> run -> sample -> commit ->
// emit ([Engine.Run]). Requests come as commands over a channel and leave as
// outputs over a queue per request, so that a slow consumer never holds a step.
//
// A request runs in one of three ways:
//
//   - [Engine.Generate] computes the prompt and generates here;
//   - [Engine.Prefill] computes the prompt, samples the first token and shows
//     every layer's pages to a sink as soon as they are written;
//   - [Engine.Receive] reserves pages that the caller fills from another worker
//     and goes on generating from that worker's first token.
package engine
