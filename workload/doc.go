// Package workload says what users ask for: when requests arrive, how long their
// prompts and answers are, and which prompts begin alike. It reads recorded traces
// and makes synthetic ones; it sends nothing.
//
// Recorded traces, told apart by what is in the file (gzip or not):
//
//   - Mooncake JSONL (FAST'25): timestamp in ms, input_length, output_length, and
//     hash_ids, which name the prompt's blocks of 512 tokens: equal ids are equal
//     beginnings.
//   - Azure's LLM inference trace CSV: TIMESTAMP, ContextTokens, GeneratedTokens.
//   - BurstGPT CSV: Timestamp in s, Request tokens, Response tokens (failed
//     requests, whose response has no tokens, are left out).
//   - Vidur's length CSV: num_prefill_tokens, num_decode_tokens, no arrivals.
//   - A ServeGen directory: chunk-N-trace.csv (a client's rate and inter-arrival
//     distribution in windows of time) and chunk-N-dataset.json (its lengths), from
//     which requests are drawn.
//
// Synthetic ones have lengths like those of the four data sets of the HACK paper
// (arXiv 2502.03589).
//
// Files come from outside: rows are bounded in length, number and values, and an
// error names the file and the row.
package workload
