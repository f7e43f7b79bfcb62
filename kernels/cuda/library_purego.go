//go:build linux && (amd64 || arm64) && !nocuda

package cuda

import (
	"errors"
	"fmt"

	"github.com/ebitengine/purego"
)

// Built reports whether this build can use a GPU at all.
const Built = true

// library is a shared library whose entries are called by address.
type library struct{ addr [numEntries]uintptr }

func (l *library) call(e entry, args ...uintptr) uintptr {
	code, _, _ := purego.SyscallN(l.addr[e], args...)
	return code & 0xffffffff // the upper half of a C int's register is anything
}

// openLibrary opens the first of paths that there is and looks up entries
// [lo, hi).
func openLibrary(paths []string, lo, hi entry) (caller, string, error) {
	var errs []error
	for _, path := range paths {
		handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		l := new(library)
		for e := lo; e < hi; e++ {
			if l.addr[e], err = purego.Dlsym(handle, symbols[e]); err != nil {
				return nil, path, fmt.Errorf("%s has no %s: %w", path, symbols[e], errOld)
			}
		}
		return l, path, nil
	}
	return nil, "", errors.Join(errs...)
}
