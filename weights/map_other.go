//go:build !unix

package weights

import "os"

// mapFile reads the file: the portable way, at the price of the memory.
func mapFile(f *os.File, size int) (*file, error) { return readFile(f, size) }
