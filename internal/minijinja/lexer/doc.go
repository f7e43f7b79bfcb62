// Package lexer turns a Jinja2 template into tokens, with trim_blocks and
// lstrip_blocks on. Forked from minijinja-go; see the parent's README.md.
package lexer
