// Package terse serves large language models with prefill and decode on
// different machines joined by ordinary Ethernet. The KV cache leaves the
// prefill machine as 2–4-bit codes, stays codes in the decoder, and attention
// is computed on the codes.
//
// This root package holds only the nouns that every floor of the house shares:
// [Request], [Sampling], [Token], [Output], [Timing], [Role] and the typed
// [Error]. It imports nothing of the project.
//
// # A guided tour
//
// Read in this order; each package has a doc.go of its own.
//
//   - cmd/terse: flags and wiring. "terse serve" puts everything in one process.
//   - gateway: OpenAI HTTP in, tokens out. It knows text; nothing below does.
//   - route: which workers take a request (pure).
//   - cluster: members, requests and token streams over NATS.
//   - worker: a node in a role: an engine, the KV transfer and the cluster.
//   - engine: the loop plan -> run -> sample -> commit -> emit.
//   - sched: continuous batching as a pure Step(events, now) -> Plan.
//   - model: the Llama family: Config, Bind, Forward.
//   - attention: which pages a query reads exactly and which as codes.
//   - transfer: the KV wire: frames, layer streaming, checksums.
//   - kvcache: pages, block tables, reference counts, prefix index.
//   - weights: safetensors and GGUF files as named views.
//   - kernels and kernels/ref: the small op contract and its obvious Go.
//   - quant: number formats, page geometry, codecs, the product on codes.
//   - tokenizer: text to ids and back, chat templates.
//   - tensor: dtypes, shapes and byte views.
//
// docs/ARCHITECTURE.md draws the same house with the reasons for its walls.
package terse
