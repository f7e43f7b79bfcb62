package cudatest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// Emulator builds the emulated GPU, once for all tests of a process: driver is
// the library to load in place of NVIDIA's driver, and its folder has a cuBLASLt.
// The test is skipped on machines that cannot have one.
func Emulator(t testing.TB) (driver string) {
	t.Helper()
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("the emulated GPU switches between its threads in amd64 assembly, on Linux")
	}
	if _, err := exec.LookPath("g++"); err != nil {
		t.Skip("there is no g++ to build the emulated GPU with")
	}
	driver, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return driver
}

var built = sync.OnceValues(func() (string, error) {
	_, self, _, ok := runtime.Caller(0)
	if !ok {
		return "", fmt.Errorf("cannot find the emulated GPU's sources")
	}
	dir, err := os.MkdirTemp("", "emu")
	if err != nil {
		return "", err
	}
	sources, driver := filepath.Join(filepath.Dir(self), "..", "emu"), filepath.Join(dir, "libcuda.so")
	out, err := exec.Command("g++", "-std=c++17", "-O1", "-fPIC", "-shared", "-fno-exceptions", "-DTERSE_EMU", "-fvisibility=hidden",
		"-Wno-unknown-pragmas", "-I"+sources, "-o", driver, filepath.Join(sources, "driver.cc")).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("cannot build the emulated GPU: %w\n%s", err, out)
	}
	return driver, os.Symlink(driver, filepath.Join(dir, "libcublasLt.so.13"))
})
