package cuda

import (
	"fmt"
	"slices"
	"testing"

	"github.com/terse-llm/terse/kernels/cuda/cudatest"
)

// Every mistake of emu/mistakes.h is found by one of two emulated GPUs, as an error
// or as a wrong sum, and what is right is right on both.
func TestMistakes(t *testing.T) {
	if *gpuFlag {
		t.Skip("the mistakes are the emulated GPU's own")
	}
	found := map[int][]int{}
	const mistakes = 12 // kMistakes
	for _, ordinal := range []int{cudatest.AtOnce, cudatest.AtOnceOdd} {
		onAt(t, ordinal, func(c *Context, m Module) {
			f, err := c.Function(m, "make_mistake", mistakeShared)
			ok(t, err)
			for mistake := range mistakes {
				if makesMistake(t, c, f, mistake) {
					found[mistake] = append(found[mistake], ordinal)
				}
			}
		})
	}
	for mistake := range mistakes {
		if wrong := len(found[mistake]) > 0; wrong != (mistake > 0) {
			t.Errorf("mistake %d: found by %v", mistake, found[mistake])
		}
	}
	t.Log(fmt.Sprint("found by: ", found))
}

const mistakeShared = 2*8192 + 16

// makesMistake reports whether the kernel fails or says something wrong.
func makesMistake(t *testing.T, c *Context, f Function, mistake int) bool {
	ones, err := c.Alloc(8192)
	ok(t, err)
	out, err := c.Alloc(128 * 4)
	ok(t, err)
	ok(t, c.Upload(ones, slices.Repeat([]byte{0, 0x3c}, 4096)))
	ok(t, c.Upload(out, poison(128*4)))
	params := struct {
		ones, out Ptr
		mistake   int64
	}{ones, out, int64(mistake)}
	err = c.Launch(f, Shape{Grid: [3]int{1, 1, 1}, Block: 128, Shared: mistakeShared}, 0, paramBytes(&params))
	sums := poison(128 * 4)
	ok(t, c.Download(sums, out))
	ok(t, c.Free(ones))
	ok(t, c.Free(out))
	return err != nil || slices.ContainsFunc(floats(sums), func(x float32) bool { return x != 16 })
}
