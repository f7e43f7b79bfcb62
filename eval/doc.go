// Package eval measures what a KV format costs in quality: perplexity, KL
// divergence to the exact model and top-1 agreement over windows of text, and
// exact answers to retrieval, recall and quoting tasks. Every query attends as
// it would in decoding, so that a long window shows what a long generation
// would see.
package eval
