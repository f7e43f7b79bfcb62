package cuda

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

var (
	gpuFlag  = flag.Bool("gpu", false, "run on the machine's GPU instead of the emulated one")
	fullFlag = flag.Bool("full", false, "more and larger cases")
	fileFlag = flag.String("image", "", "a folder with kernels to use instead of the embedded ones (build.sh's image)")
)

// emulator builds the emulated driver once for all tests.
var emulator = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "emu")
	if err != nil {
		return "", err
	}
	lib := filepath.Join(dir, "libcuda.so")
	out, err := exec.Command("g++", "-std=c++17", "-O1", "-fPIC", "-shared", "-fno-exceptions", "-DTERSE_EMU", "-fvisibility=hidden",
		"-Wno-unknown-pragmas", "-Iemu", "-o", lib, "emu/driver.cc").CombinedOutput()
	if err != nil {
		return string(out), err
	}
	return lib, nil
})

// device is the GPU, or the emulated one; the test is skipped without either.
func device(t testing.TB) *Device {
	t.Helper()
	if !Built {
		t.Skip("this build has no CUDA")
	}
	var paths []string
	if !*gpuFlag {
		if runtime.GOARCH != "amd64" {
			t.Skip("the emulated GPU switches between its threads in amd64 assembly")
		}
		if _, err := exec.LookPath("g++"); err != nil {
			t.Skip("no GPU asked for (-gpu) and no g++ to build the emulated one with")
		}
		lib, err := emulator()
		if err != nil {
			t.Fatalf("cannot build the emulated GPU: %v\n%s", err, lib)
		}
		paths = []string{lib}
	}
	d, err := Load(paths...)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := d.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	return dev
}

func loadKernels(c *Context) (Module, error) {
	if *fileFlag == "" {
		return c.LoadKernels()
	}
	return c.loadFrom(os.DirFS(*fileFlag))
}

// on runs f on the device's thread with its kernels loaded.
func on(t testing.TB, f func(c *Context, m Module)) {
	t.Helper()
	err := device(t).Do(func(c *Context) error {
		m, err := loadKernels(c)
		if err != nil {
			return err
		}
		f(c, m)
		return c.CloseModule(m)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ok stops the test on an error.
func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
		runtime.Goexit()
	}
}
