package cuda

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/terse-llm/terse/kernels/cuda/cudatest"
)

var (
	gpuFlag  = flag.Bool("gpu", false, "run on the machine's GPU instead of the emulated one")
	fullFlag = flag.Bool("full", false, "more and larger cases")
	fileFlag = flag.String("image", "", "a folder with kernels to use instead of the embedded ones (build.sh's image)")
)

// device is the GPU, or the emulated one; the test is skipped without either.
func device(t testing.TB) *Device { return deviceAt(t, 0) }

func deviceAt(t testing.TB, ordinal int) *Device {
	t.Helper()
	if !Built {
		t.Skip("this build has no CUDA")
	}
	var paths []string
	if !*gpuFlag {
		paths = []string{cudatest.Emulator(t)}
	}
	d, err := Load(paths...)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := d.Open(ordinal)
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

// blasDirs is where the emulated cuBLASLt is, or nothing on a GPU.
func blasDirs(t testing.TB) []string {
	if *gpuFlag {
		return nil
	}
	return []string{filepath.Dir(cudatest.Emulator(t))}
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
	onAt(t, 0, f)
}

// onBoth runs f on the GPU, or on two emulated ones: on one copies within a kernel
// come late and products early, on the other the other way round.
func onBoth(t *testing.T, f func(t *testing.T, c *Context, m Module)) {
	ordinals := []int{cudatest.AtOnce, cudatest.AtOnceOdd}
	if *gpuFlag {
		ordinals = ordinals[:1]
	}
	for _, n := range ordinals {
		t.Run(fmt.Sprint(n), func(t *testing.T) { onAt(t, n, func(c *Context, m Module) { f(t, c, m) }) })
	}
}

func onAt(t testing.TB, ordinal int, f func(c *Context, m Module)) {
	t.Helper()
	err := deviceAt(t, ordinal).Do(func(c *Context) error {
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

// ok stops the test, or a table's row, on an error.
func ok(t testing.TB, err error) {
	t.Helper()
	if _, of := t.(row); of && err != nil {
		panic(failed{err})
	}
	if err != nil {
		t.Error(err)
		runtime.Goexit()
	}
}
