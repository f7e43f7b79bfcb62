package cuda

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"
)

// What Load can run into; errors.Is tells them apart.
var (
	// ErrNoDriver: there is no NVIDIA driver, or no GPU that it serves.
	ErrNoDriver = errors.New("no NVIDIA GPU driver")
	// ErrNoMemory: the GPU has too little memory left.
	ErrNoMemory = errors.New("too little GPU memory")
	// ErrNoBLAS: there is no cuBLASLt.
	ErrNoBLAS = errors.New("no cuBLASLt")

	errOld = errors.New("the driver is too old")
)

// Error is a CUDA or cuBLASLt call that failed.
type Error struct {
	Call string // the C function
	Code int
	Name string // CUDA_ERROR_…, CUBLAS_STATUS_…
	Text string // what the driver says of it
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s (%d): %s", e.Call, e.Name, e.Code, e.Text)
}

// Is makes an out-of-memory error ErrNoMemory.
func (e *Error) Is(target error) bool {
	return target == ErrNoMemory && e.Name == "CUDA_ERROR_OUT_OF_MEMORY"
}

// minVersion is the oldest driver that has every entry and reads our PTX.
const minVersion = 11080

// Driver is NVIDIA's driver, loaded.
type Driver struct {
	lib     caller
	path    string
	version int
	out     *cells
	names   *cells // of the last failure: out may still matter to the caller
}

// cells are results that C writes. They hang on a heap object for good, so that
// Go never moves them while C holds their address; a local variable's would live
// on a stack, which moves when it grows.
type cells struct {
	n    [16]uint64
	text [256]byte
}

func (c *cells) at(i int) uintptr { return uintptr(unsafe.Pointer(&c.n[i])) }

// Load opens the driver: the first of paths that there is, by default
// libcuda.so.1 as the system's loader finds it.
func Load(paths ...string) (*Driver, error) {
	if len(paths) == 0 {
		paths = []string{"libcuda.so.1", "/usr/local/nvidia/lib64/libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"}
	}
	lib, path, err := openLibrary(paths, 0, numDriver)
	switch {
	case errors.Is(err, errOld):
		return nil, fmt.Errorf("cannot use the NVIDIA driver: %w; terse needs driver 520 (CUDA 11.8) or newer: update it, or use --device cpu", err)
	case err != nil:
		return nil, fmt.Errorf("cannot load NVIDIA's driver: %w: %w; install the driver, make libcuda.so.1 visible in the container (--gpus all), or use --device cpu", ErrNoDriver, err)
	}
	return start(lib, path)
}

// start initialises a driver and checks what it is.
func start(lib caller, path string) (*Driver, error) {
	d := &Driver{lib: lib, path: path, out: new(cells), names: new(cells)}
	if err := d.check(cuDriverGetVersion, d.out.at(0)); err != nil {
		return nil, fmt.Errorf("cannot read the NVIDIA driver's version: %w", err)
	}
	d.version = int(int32(d.out.n[0]))
	if d.version < minVersion {
		return nil, fmt.Errorf("cannot use the NVIDIA driver: it serves CUDA %s: %w; terse needs driver 520 (CUDA 11.8) or newer: update it, or use --device cpu", versionName(d.version), errOld)
	}
	if err := d.check(cuInit, 0); err != nil {
		return nil, fmt.Errorf("cannot start NVIDIA's driver: %w: %w; see whether nvidia-smi lists a GPU, or use --device cpu", ErrNoDriver, err)
	}
	return d, nil
}

func versionName(v int) string { return fmt.Sprintf("%d.%d", v/1000, v%1000/10) }

// Version is the CUDA version that the driver serves, as 13.0.
func (d *Driver) Version() string { return versionName(d.version) }

// Path is the file that was loaded.
func (d *Driver) Path() string { return d.path }

// Count is the number of GPUs.
func (d *Driver) Count() (int, error) {
	if err := d.check(cuDeviceGetCount, d.out.at(0)); err != nil {
		return 0, fmt.Errorf("cannot count GPUs: %w", err)
	}
	return int(int32(d.out.n[0])), nil
}

// check calls e and names its error.
func (d *Driver) check(e entry, args ...uintptr) error {
	code := d.lib.call(e, args...)
	runtime.KeepAlive(d)
	if code == 0 {
		return nil
	}
	return d.failure(e, code)
}

func (d *Driver) failure(e entry, code uintptr) error {
	c := d.names
	err := &Error{Call: symbols[e], Code: int(code), Name: "unknown error", Text: "the driver has no name for this code"}
	if d.lib.call(cuGetErrorName, code, c.at(0)) == 0 {
		err.Name = cString(uintptr(c.n[0]))
	}
	if d.lib.call(cuGetErrorString, code, c.at(1)) == 0 {
		err.Text = cString(uintptr(c.n[1]))
	}
	return err
}

// cString copies a short C string.
func cString(p uintptr) string {
	if p == 0 {
		return ""
	}
	base := *(*unsafe.Pointer)(unsafe.Pointer(&p)) // C memory, which Go does not manage
	for n := range 512 {
		if *(*byte)(unsafe.Add(base, n)) == 0 {
			return string(unsafe.Slice((*byte)(base), n))
		}
	}
	return string(unsafe.Slice((*byte)(base), 512))
}
