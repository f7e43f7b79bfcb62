// Package parser turns tokens into the syntax tree of a Jinja2 template.
// Forked from minijinja-go; see the parent's README.md.
package parser
