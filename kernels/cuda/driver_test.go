package cuda

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// scripted is a driver in Go: it answers every entry with what a test says, and
// remembers the calls.
type scripted struct {
	version  uint64
	fail     map[entry]uintptr // return codes
	major    uint64
	calls    []entry
	name     []byte
	lastArgs []uintptr
}

// set writes to the cell that C would write to.
func set(p uintptr, v uint64) { *(*uint64)(*(*unsafe.Pointer)(unsafe.Pointer(&p))) = v }

func (s *scripted) call(e entry, args ...uintptr) uintptr {
	s.calls, s.lastArgs = append(s.calls, e), args
	if code := s.fail[e]; code != 0 {
		return code
	}
	switch e {
	case cuDriverGetVersion:
		set(args[0], s.version)
	case cuDeviceGetCount:
		set(args[0], 1)
	case cuDeviceGetAttribute:
		set(args[0], map[uintptr]uint64{attrMajor: s.major, attrSMs: 132, attrSharedOptin: 227 << 10}[args[1]])
	case cuDeviceTotalMem:
		set(args[0], 80<<30)
	case cuMemGetInfo:
		set(args[0], 3<<30)
		set(args[1], 80<<30)
	case cuGetErrorName, cuGetErrorString:
		s.name = []byte("CUDA_ERROR_OUT_OF_MEMORY\x00")
		if args[0] != 2 {
			s.name = []byte("CUDA_ERROR_SOMETHING\x00")
		}
		set(args[1], uint64(uintptr(unsafe.Pointer(&s.name[0]))))
	case cuDevicePrimaryCtxRetain, cuMemAlloc, cuStreamCreate, cuEventCreate, cuModuleLoadData, cuModuleGetFunction, cuGraphInstantiate,
		ltCreate, ltDescCreate, ltLayoutCreate, ltPreferenceCreate:
		set(args[0], 77)
	case cuStreamEndCapture:
		set(args[1], 77)
	case ltHeuristic:
		set(args[9], 1)
	case ltGetVersion:
		return 130100
	}
	return 0
}

func newScripted() *scripted {
	return &scripted{version: 13000, major: 9, fail: map[entry]uintptr{}}
}

// What a user reads when there is no GPU to use says what is wrong and what to do.
func TestLoadFailures(t *testing.T) {
	for _, c := range []struct {
		name string
		on   func(*scripted)
		want string
		is   error
	}{
		{"old driver", func(s *scripted) { s.version = 11040 }, "cannot use the NVIDIA driver: it serves CUDA 11.4: the driver is too old; terse needs driver 520", errOld},
		{"no GPU", func(s *scripted) { s.fail[cuInit] = 100 }, "cannot start NVIDIA's driver: no NVIDIA GPU driver: cuInit: CUDA_ERROR_SOMETHING (100)", ErrNoDriver},
		{"unreadable version", func(s *scripted) { s.fail[cuDriverGetVersion] = 999 }, "cannot read the NVIDIA driver's version: cuDriverGetVersion", nil},
	} {
		s := newScripted()
		c.on(s)
		_, err := start(s, "libcuda.so.1")
		if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	_, err := Load("/nonexistent/libcuda.so.1")
	if err == nil || !errors.Is(err, ErrNoDriver) || !strings.Contains(err.Error(), "--device cpu") {
		t.Errorf("no library: %v", err)
	}
}

func openScripted(t *testing.T, s *scripted) *Device {
	t.Helper()
	d, err := start(s, "scripted")
	if err != nil {
		t.Fatal(err)
	}
	dev, err := d.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dev.Close() })
	return dev
}

func TestOpenFailures(t *testing.T) {
	for _, c := range []struct {
		name string
		gpu  int
		on   func(*scripted)
		want string
	}{
		{"ordinal", 3, func(*scripted) {}, "cannot open GPU 3: there are 1"},
		{"old GPU", 0, func(s *scripted) { s.major = 7 }, "compute capability 7.0, terse's kernels need 8.0"},
		{"context", 0, func(s *scripted) { s.fail[cuDevicePrimaryCtxRetain] = 2 }, "cannot open GPU 0: cuDevicePrimaryCtxRetain: CUDA_ERROR_OUT_OF_MEMORY (2)"},
	} {
		s := newScripted()
		c.on(s)
		d, err := start(s, "scripted")
		if err != nil {
			t.Fatal(err)
		}
		if _, err = d.Open(c.gpu); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// Every call's code comes back as an error that names the call.
func TestErrorsOfCalls(t *testing.T) {
	s := newScripted()
	err := openScripted(t, s).Do(func(c *Context) error {
		s.fail[cuMemAlloc] = 2
		_, err := c.Alloc(5 << 30)
		if !errors.Is(err, ErrNoMemory) || !strings.Contains(err.Error(), "cannot allocate 5120 MiB of GPU memory, 3072 of 81920 MiB are free") {
			t.Errorf("Alloc: %v", err)
		}
		delete(s.fail, cuMemAlloc)
		for e, f := range map[entry]func() error{
			cuMemcpyHtoDAsync:   func() error { return c.Upload(1, []byte{1}) },
			cuMemcpyDtoHAsync:   func() error { return c.Download([]byte{1}, 1) },
			cuStreamSynchronize: func() error { return c.Synchronize(0) },
			cuLaunchKernel:      func() error { return c.Launch(1, Shape{}, 0, nil) },
			cuLaunchKernelEx:    func() error { return c.Launch(1, Shape{Early: true}, 0, nil) },
			cuModuleLoadData:    func() error { _, err := c.LoadModule(nil); return err },
			cuFuncSetAttribute:  func() error { _, err := c.Function(1, "f", 100<<10); return err },
			cuStreamEndCapture:  func() error { _, err := c.Capture(1, func() error { return nil }); return err },
			cuEventElapsedTime:  func() error { _, err := c.Elapsed(1, 2); return err },
			cuMemFree:           func() error { return c.Free(1) },
		} {
			s.fail[e] = 700
			err := f()
			var of *Error
			if !errors.As(err, &of) || of.Call != symbols[e] || of.Code != 700 || of.Name != "CUDA_ERROR_SOMETHING" {
				t.Errorf("%s: %v", symbols[e], err)
			}
			delete(s.fail, e)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// A failed capture still ends, and the stream is usable again.
func TestCaptureEnds(t *testing.T) {
	s := newScripted()
	_ = openScripted(t, s).Do(func(c *Context) error {
		broken := errors.New("broken")
		if _, err := c.Capture(1, func() error { return broken }); err != broken {
			t.Errorf("Capture: %v", err)
		}
		if s.calls[len(s.calls)-1] != cuStreamEndCapture {
			t.Error("the capture was not ended")
		}
		return nil
	})
}

func TestBLAS(t *testing.T) {
	s := newScripted()
	_ = openScripted(t, s).Do(func(c *Context) error {
		if err := c.Linear(1, 2, 3, 4, 5, 6, F16, F32, 0, 0); !errors.Is(err, ErrNoBLAS) {
			t.Errorf("Linear without cuBLASLt: %v", err)
		}
		if *gpuFlag { // it may have a cuBLASLt, too
			return nil
		}
		if _, err := c.OpenBLAS("/nonexistent"); !errors.Is(err, ErrNoBLAS) {
			t.Errorf("OpenBLAS: %v", err)
		}
		if v, err := c.startBLAS(s); err != nil || v != 130100 {
			t.Errorf("startBLAS: %d, %v", v, err)
		}
		for range 2 {
			if err := c.Linear(1, 2, 3, 4, 5, 6, F16, F32, 0, 0); err != nil {
				t.Errorf("Linear: %v", err)
			}
		}
		if n := len(s.lastArgs); n != 16 || s.lastArgs[3] != 3 || s.lastArgs[5] != 2 || s.lastArgs[8] != 1 {
			t.Errorf("cublasLtMatmul got %v", s.lastArgs)
		}
		if n := len(slices.DeleteFunc(slices.Clone(s.calls), func(e entry) bool { return e != ltHeuristic })); n != 1 {
			t.Errorf("planned %d times, want once", n)
		}
		s.fail[ltMatmul] = 13
		var of *Error
		if err := c.Linear(1, 2, 3, 4, 5, 6, F16, F32, 0, 0); !errors.As(err, &of) || of.Name != "CUBLAS_STATUS_EXECUTION_FAILED" {
			t.Errorf("Linear: %v", err)
		}
		return nil
	})
}

// A piece of work that ends its goroutine ends the device, and says so.
func TestOwnerEnds(t *testing.T) {
	d, err := start(newScripted(), "scripted")
	if err != nil {
		t.Fatal(err)
	}
	dev, err := d.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	_ = dev.Do(func(*Context) error { runtime.Goexit(); return nil })
	if err := dev.Do(func(*Context) error { return nil }); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("Do: %v", err)
	}
}
