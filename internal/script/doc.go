// Package script runs text scripts: commands with the output they are to have.
// A test that drives a state machine reads as a story, and -rewrite records what
// the code does now, to be reviewed as a diff.
//
//	# A comment.
//	add a prompt=100 max=5
//	step
//	----
//	rows: a[0:100]
//
// Commands of a block run one after the other, and what they print, together,
// is compared to the lines between "----" and the next empty line. A command is
// words separated by spaces; a word with "=" is a named argument.
package script
