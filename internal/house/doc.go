// Package house holds only tests: the rules of docs/ARCHITECTURE.md that can be
// checked by reading the tree (floors, package comments, sizes, no cgo, no
// init, nothing on the serving path that dequantises).
package house
