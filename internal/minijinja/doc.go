// Package minijinja renders chat templates: Jinja2 as Hugging Face
// transformers runs it (sandboxed, immutable values, trim_blocks and
// lstrip_blocks on), with hard limits on steps, memory, output and nesting.
//
// It is a fork of minijinja-go; README.md says what was kept and what was
// replaced. Templates and values are hostile input: nothing here reads a file,
// the environment or the network, every loop and every growing value is
// charged against [Limits], and an exhausted limit is an [Error] of kind
// [KindLimit].
package minijinja
