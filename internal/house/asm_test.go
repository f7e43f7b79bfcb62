package house

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// beyondAVX2 are the registers that need AVX-512. The generator knows nothing of
// levels: where a kernel wants more than 16 registers it hands out the next, and
// the assembler encodes even VADDPS with those as AVX-512.
var beyondAVX2 = regexp.MustCompile(`\b([XY](1[6-9]|2[0-9]|3[01])|Z[0-9]+|K[0-7])\b`)

// dotProducts are the instructions that plain NEON lacks, and reserved the
// registers of arm64 that belong to Go and to the system.
var (
	dotProducts = regexp.MustCompile(`\b[su]dot\b`)
	reserved    = regexp.MustCompile(`\bR(18|2[789]|3[01])\b`)
)

func TestKernelsOfARM64(t *testing.T) {
	files, dots := 0, 0
	err := filepath.WalkDir(filepath.Join("..", "..", "kernels"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(p, "_arm64.s") {
			return err
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		files++
		name := ""
		for i, line := range strings.Split(string(text), "\n") {
			if strings.HasPrefix(line, "TEXT ") {
				name, _, _ = strings.Cut(line, "(SB)")
				if !strings.HasSuffix(name, "NEON") && !strings.HasSuffix(name, "DotProd") {
					t.Errorf("%s:%d: %s names no level", p, i+1, name)
				}
			}
			if dotProducts.MatchString(line) {
				dots++
				if !strings.HasSuffix(name, "DotProd") {
					t.Errorf("%s:%d: a dot product in %s", p, i+1, name)
				}
			}
			if r := reserved.FindString(line); r != "" {
				t.Errorf("%s:%d: %s is not a kernel's to use", p, i+1, r)
			}
		}
		return nil
	})
	if err != nil || files == 0 || dots == 0 {
		t.Fatalf("%d files of assembly, %d dot products: %v", files, dots, err)
	}
}

// levelHas are the extensions that a level of internal/cpu is sure of, and what
// every machine has that has these.
var levelHas = map[string]string{
	"AVX2":   "SSE SSE2 SSE4.1 MMX+ CMOV AVX AVX2 FMA3 F16C",
	"AVX512": "SSE SSE2 SSE4.1 MMX+ CMOV AVX AVX2 FMA3 F16C AVX512F AVX512BW AVX512DQ AVX512VL AVX512VNNI",
}

func TestKernelsNeedNoMoreThanTheirLevel(t *testing.T) {
	files := 0
	err := filepath.WalkDir(filepath.Join("..", "..", "kernels"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(p, "_amd64.s") {
			return err
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		files++
		avx2, needs := false, ""
		for i, line := range strings.Split(string(text), "\n") {
			if list, ok := strings.CutPrefix(line, "// Requires: "); ok {
				needs = list
			}
			if strings.HasPrefix(line, "TEXT ") {
				name, _, _ := strings.Cut(line, "(SB)")
				avx2 = strings.HasSuffix(name, "AVX2")
				for level, has := range levelHas {
					for need := range strings.SplitSeq(needs, ", ") {
						if strings.HasSuffix(name, level) && needs != "" && !slices.Contains(strings.Fields(has), need) {
							t.Errorf("%s:%d: %s needs %s", p, i+1, name, need)
						}
					}
				}
				needs = ""
			}
			if r := beyondAVX2.FindString(line); avx2 && r != "" && !strings.HasPrefix(line, "//") {
				t.Errorf("%s:%d: %s in an AVX2 kernel", p, i+1, r)
			}
		}
		return nil
	})
	if err != nil || files == 0 {
		t.Fatalf("%d files of assembly: %v", files, err)
	}
}
