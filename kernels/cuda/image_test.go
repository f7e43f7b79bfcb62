package cuda

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// The embedded kernels were built from the sources in the tree, by the build
// script in the tree.
func TestImageIsOfSources(t *testing.T) {
	sources, err := filepath.Glob("src/*")
	ok(t, err)
	slices.Sort(sources)
	h := sha256.New()
	for _, path := range append([]string{"build.sh"}, sources...) {
		b, err := os.ReadFile(path)
		ok(t, err)
		h.Write(b)
	}
	want := []byte(hex.EncodeToString(h.Sum(nil)))
	files := images(t)
	for _, name := range []string{"kernels.ptx.gz", "kernels.cubin.gz"} {
		code, err := kernelImage(files, name)
		ok(t, err)
		if !bytes.Contains(code, want) {
			t.Errorf("%s was not built from these sources (%s): run build.sh on a machine with nvcc", name, want)
		}
		if m := regexp.MustCompile(`(?m)^\.version (.*)$`).FindSubmatch(code); m != nil && string(m[1]) != "7.8" {
			t.Errorf("%s is PTX %s; drivers from 520 on read 7.8", name, m[1])
		}
	}
}

// Kernels that Go names are in the image.
func TestImageHasKernels(t *testing.T) {
	files := images(t)
	code, err := kernelImage(files, "kernels.ptx.gz")
	ok(t, err)
	names := []string{"encode_64", "encode_128", "rms_norm", "swiglu", "embed", "argmax", "read_all", "choose",
		"hack_attend_64", "hack_attend_128", "hack_encode_64", "hack_encode_128"}
	for _, dim := range []int{64, 128} {
		for _, name := range []string{"turn_", "leave_", "enter_", "weigh_", "refine_", "map_keys_", "map_queries_"} {
			names = append(names, fmt.Sprint(name, dim))
		}
	}
	for _, name := range []string{"few_rows", "few_norm", "few_leave_64", "few_leave_128"} {
		for _, stages := range fewStages {
			names = append(names, fmt.Sprintf("%s_%d", name, stages))
		}
	}
	for _, f := range decodeFormats {
		for _, queries := range []int{4, 8} {
			d := &Decoder{g: f.geometry(t, 1), group: queries, queries: queries}
			name, err := d.kernel()
			ok(t, err)
			names = append(names, name)
		}
	}
	for _, f := range prefillFormats {
		name, err := (&Prefiller{g: f.geometry(t, 1)}).kernel()
		ok(t, err)
		names = append(names, name)
	}
	cubin, err := kernelImage(files, "kernels.cubin.gz")
	ok(t, err)
	for _, f := range wideFormats {
		name, err := (&Prefiller{g: f.geometry(t, 1), wide: true}).kernel()
		ok(t, err)
		if !bytes.Contains(cubin, []byte(".text."+name+"\x00")) {
			t.Errorf("the image for sm_90a has no kernel %s", name)
		}
	}
	for _, name := range names {
		if !bytes.Contains(code, []byte(".entry "+name+"(")) {
			t.Errorf("the image has no kernel %s", name)
		}
	}
}

// images is the kernels that the other tests run.
func images(t *testing.T) fs.FS {
	if *fileFlag != "" {
		return os.DirFS(*fileFlag)
	}
	files, err := fs.Sub(image, "image")
	ok(t, err)
	return files
}
