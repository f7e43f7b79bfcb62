package cuda

import (
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"io"
	"io/fs"
)

// image is the compiled kernels: PTX for compute_80, which any later GPU's driver
// compiles, and code for sm_90a, which Hopper runs as it is.
//
//go:embed image
var image embed.FS

// hopper is the compute capability of the cubin. Code of one architecture's own
// (the a of sm_90a) runs on exactly that one.
const hopperMajor, hopperMinor = 9, 0

// hopper reports whether the GPU runs the cubin.
func (c *Context) hopper() bool {
	return c.info.Major == hopperMajor && c.info.Minor == hopperMinor
}

// LoadKernels loads this package's kernels.
func (c *Context) LoadKernels() (Module, error) {
	files, err := fs.Sub(image, "image")
	if err != nil {
		return 0, err
	}
	return c.loadFrom(files)
}

func (c *Context) loadFrom(files fs.FS) (Module, error) {
	name := "kernels.ptx.gz"
	if c.hopper() {
		name = "kernels.cubin.gz"
	}
	code, err := kernelImage(files, name)
	if err != nil {
		return 0, err
	}
	return c.LoadModule(code)
}

func kernelImage(files fs.FS, name string) ([]byte, error) {
	packed, err := fs.ReadFile(files, name)
	if err != nil {
		return nil, fmt.Errorf("cannot find the GPU kernels in this program: %w", err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("cannot unpack the GPU kernels (%s): %w", name, err)
	}
	code, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("cannot unpack the GPU kernels (%s): %w", name, err)
	}
	return code, nil
}
