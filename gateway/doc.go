// Package gateway is the OpenAI HTTP API: it turns text into tokens, hands them
// to a [Dispatcher], and turns the tokens that come back into text. It knows
// text and nothing of weights, kernels or engines.
//
// [New] makes a [Server]; [Server.Handler] serves these paths (listening and
// TLS are the caller's):
//
//	POST /v1/chat/completions   POST /tokenize    GET /healthz
//	POST /v1/completions        POST /detokenize  GET /readyz
//	GET  /v1/models[/{id}]                        GET /metrics
//
// [Server.Chat] is the same generation without HTTP.
//
// # Fields of a request
//
// Every field is in one of four classes, and none is silently dropped that
// would have changed the answer:
//
//   - used: OpenAI's sampling fields, and vLLM's top_k, min_p,
//     repetition_penalty, stop_token_ids, ignore_eos, add_special_tokens and
//     add_generation_prompt;
//   - ignored, because the answer does not depend on them: user, metadata,
//     store, service_tier, prompt_cache_key and their like;
//   - refused by name with code "unsupported_parameter" unless null or at their
//     neutral value ("tools": [], "response_format": {"type": "text"}): tools,
//     functions, images, audio, structured output, suffix, best_of;
//   - unknown: refused by name with code "unknown_parameter", since a misspelt
//     field that is ignored is a wrong answer that looks right.
//
// Prompt and max_tokens must fit the context together, or the request is
// refused with both numbers, as OpenAI and vLLM do. max_tokens defaults to the
// rest of the context for chat and to 16 for completions. With n > 1 and a
// seed, choice i uses seed + i. text_offset counts code points of the choice's
// own text, as vLLM does.
//
// # Special tokens in text
//
// In a chat, text that a client sends never becomes a control token. Before
// the template runs, every occurrence of a special token's text in a message
// is replaced by an unguessable word, and the border after a content that ends
// with the beginning of one is marked by another; templates trim, split and
// join contents, and leave words alone. The rendered prompt is then cut at
// those words: what the template wrote is encoded with special tokens
// recognised, what they stand for as plain text. A message without such text
// is encoded exactly as the template's author meant.
//
// In /v1/completions and /tokenize a text prompt is the model's raw input:
// special tokens are recognised, so that a client can write templates itself,
// and add_special_tokens (default true) adds the begin-of-text token where the
// model has one. Token arrays are taken as they are.
//
// # Answers
//
// Every answer of a generation reports where its time went, as one JSON object
// of milliseconds, bytes and names: in the header x-terse-timing of a plain
// answer; of a streamed one in the HTTP trailer of that name and, with
// stream_options.include_usage, as "terse" beside "usage". The same figures are
// logged as one line "request". Of several choices the slowest is reported,
// with the bytes of all.
//
// A stream begins with the first token, so that an error before it has its
// HTTP status. An error after it is an event {"error": …} and the stream ends
// without [DONE].
package gateway
