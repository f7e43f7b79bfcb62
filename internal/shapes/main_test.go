package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	out := filepath.Join(t.TempDir(), "model.gguf")
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{nil, 0, "llama-3.1-8b"},
		{[]string{"-shape", "tiny", "-type", "Q4_K", "-out", out}, 0, "wrote"},
		{[]string{"-shape", "tiny"}, 2, "-out FILE is missing"},
		{[]string{"-shape", "huge", "-out", out}, 2, `no shape "huge"`},
		{[]string{"-shape", "tiny", "-type", "q1", "-out", out}, 2, `no type "q1"`},
		{[]string{"-shape", "tiny", "-out", filepath.Join(out, "x")}, 1, "cannot write"},
		{[]string{"-help"}, 0, "-shape"},
		{[]string{"-wrong"}, 2, "-wrong"},
	} {
		var b bytes.Buffer
		if code := run(c.args, &b, &b); code != c.code || !strings.Contains(b.String(), c.says) {
			t.Errorf("shapes %v: code %d, want %d; says %q, want %q", c.args, code, c.code, b.String(), c.says)
		}
	}
	if b, err := os.ReadFile(out); err != nil || !bytes.HasPrefix(b, []byte("GGUF")) {
		t.Errorf("the file begins %q: %v", b[:min(4, len(b))], err)
	}
}
