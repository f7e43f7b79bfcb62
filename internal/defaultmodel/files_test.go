package defaultmodel

import (
	"io"
	"io/fs"
	"testing"
)

// Every file can be read in full, and where a file gives its contents without
// a copy they are those of the file of that name.
func TestFS(t *testing.T) {
	entries, err := fs.ReadDir(FS(), ".")
	if err != nil {
		t.Fatal(err)
	}
	shards := 0
	for _, e := range entries {
		f, err := FS().Open(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(f)
		if err != nil || len(b) == 0 {
			t.Fatalf("%s: %d bytes, %v", e.Name(), len(b), err)
		}
		if c, ok := f.(interface{ Contents() string }); ok {
			shards++
			if c.Contents() != string(b) {
				t.Errorf("%s: contents differ from what the file reads", e.Name())
			}
		}
	}
	if len(entries) != 10 || shards != 4 {
		t.Errorf("%d files, %d shards without a copy; want 10 and 4", len(entries), shards)
	}
	for _, page := range []string{"README.md", "testdata", "testdata/golden.json", "files.go"} {
		if _, err := fs.Stat(FS(), page); err == nil {
			t.Errorf("%s is embedded and need not be", page)
		}
	}
}
