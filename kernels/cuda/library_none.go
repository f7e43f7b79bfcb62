//go:build !linux || !(amd64 || arm64) || nocuda

package cuda

import "errors"

// Built reports whether this build can use a GPU at all.
const Built = false

func openLibrary([]string, entry, entry) (caller, string, error) {
	return nil, "", errors.New("this build of terse has no CUDA (it was built with the tag nocuda, or for a system that CUDA does not serve)")
}
