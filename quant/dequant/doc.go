// Package dequant turns coded pages back into numbers, element by element and
// straight from the description in docs/formats.md. It exists for tests and
// evaluation only: nothing on the serving path may import it (internal/house
// checks), because attention is computed on the codes.
package dequant
