package cudatest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// The emulated GPUs, by ordinal, differ in when they do what lies in their streams,
// as far as order and events leave it open (emu/streams.h): what is right on all of
// them waits for what it needs. So do even and odd ones within their kernels: copies
// into shared memory come late and products early, or the other way round
// (emu/fibers.h).
const (
	AtOnce       = 0
	AtOnceOdd    = 1
	Late         = 2 // when somebody waits for it
	CopiesFirst  = 3 // copies as soon as nothing in their stream is before them, kernels late
	KernelsFirst = 4
	Random       = 5
)

// Emulator gives the emulated GPUs, built where it is not there yet: driver is
// the library to load in place of NVIDIA's driver, and its folder has a cuBLASLt;
// a process whose loader looks there (LD_LIBRARY_PATH) finds both by itself.
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

// built compiles the emulated GPU, which takes half a minute, unless a test of any
// process has done so since its sources changed: it is kept in the user's cache.
var built = sync.OnceValues(func() (string, error) {
	_, self, _, ok := runtime.Caller(0)
	if !ok {
		return "", fmt.Errorf("cannot find the emulated GPU's sources")
	}
	root := filepath.Join(filepath.Dir(self), "..")
	// What the compiler finds at odd addresses the emulated GPU itself tells.
	args := []string{"-std=c++17", "-O2", "-fPIC", "-shared", "-fno-exceptions", "-DTERSE_EMU", "-fvisibility=hidden", "-Wno-unknown-pragmas",
		"-fsanitize=alignment", "-nodefaultlibs"}
	key, err := hashOf(args, filepath.Join(root, "emu"), filepath.Join(root, "src"))
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "terse", "emu-"+key)
	driver := filepath.Join(dir, "libcuda.so.1")
	if _, err := os.Stat(driver); err == nil {
		return driver, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	out, err := exec.Command("g++", append(args, "-I"+filepath.Join(root, "emu"), "-o", filepath.Join(fresh, filepath.Base(driver)), filepath.Join(root, "emu", "driver.cc"), "-lstdc++", "-lm", "-lc", "-lgcc_s")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("cannot build the emulated GPU: %w\n%s", err, out)
	}
	if err := os.Symlink(filepath.Base(driver), filepath.Join(fresh, "libcublasLt.so.13")); err != nil {
		return "", err
	}
	if err := os.Rename(fresh, dir); err != nil {
		if _, there := os.Stat(driver); there != nil { // else another process was first
			return "", fmt.Errorf("cannot keep the emulated GPU: %w", err)
		}
	}
	return driver, nil
})

// hashOf is a hash of arguments and of the files of some folders.
func hashOf(args []string, dirs ...string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, args)
	for _, dir := range dirs {
		files, err := os.ReadDir(dir)
		if err != nil {
			return "", fmt.Errorf("cannot find the emulated GPU's sources: %w", err)
		}
		for _, f := range files {
			b, err := os.ReadFile(filepath.Join(dir, f.Name()))
			if err != nil {
				return "", fmt.Errorf("cannot read the emulated GPU's sources: %w", err)
			}
			fmt.Fprintf(h, "%s %d\n%s", f.Name(), len(b), b)
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:32], nil
}
