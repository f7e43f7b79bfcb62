package tokenizer

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
	"github.com/terse-llm/terse"
)

// data reads a test file: testdata's compressed copy, or the original in the
// folder that TERSE_TEST_DATA names. Without either the test is skipped.
func data(t testing.TB, name string) []byte {
	t.Helper()
	if f, err := os.ReadFile(filepath.Join("testdata", filepath.FromSlash(name)+".gz")); err == nil {
		z, err := gzip.NewReader(bytes.NewReader(f))
		require.NoError(t, err)
		out, err := io.ReadAll(z)
		require.NoError(t, err)
		return out
	}
	dir := os.Getenv("TERSE_TEST_DATA")
	if dir == "" {
		t.Skipf("%s is not shipped, for its licence; set TERSE_TEST_DATA to a folder that has it", name)
	}
	out, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("%s is neither shipped nor in TERSE_TEST_DATA", name)
	}
	require.NoError(t, err)
	return out
}

// jsonData decodes a test file.
func jsonData(t testing.TB, name string, v any) {
	t.Helper()
	require.NoError(t, json.Unmarshal(data(t, name), v))
}

// loadDir loads a tokenizer from files of one folder. A name may be "as=file".
func loadDir(t testing.TB, dir string, files ...string) *Tokenizer {
	t.Helper()
	return once(dir+strings.Join(files, " "), func() *Tokenizer { return loadFiles(t, dir, files) })
}

// loaded keeps tokenizers between tests: they are immutable.
var loaded sync.Map

func once(key string, load func() *Tokenizer) *Tokenizer {
	if tok, ok := loaded.Load(key); ok {
		return tok.(*Tokenizer)
	}
	tok := load()
	loaded.Store(key, tok)
	return tok
}

func loadFiles(t testing.TB, dir string, files []string) *Tokenizer {
	t.Helper()
	fsys := fstest.MapFS{}
	for _, f := range files {
		as, file, ok := strings.Cut(f, "=")
		if !ok {
			file = as
		}
		fsys[as] = &fstest.MapFile{Data: data(t, dir+"/"+file)}
	}
	tok, err := Load(fsys)
	require.NoError(t, err)
	return tok
}

func loadGPT2(t testing.TB) *Tokenizer { return loadDir(t, "tokenizer-gpt2", "tokenizer.json") }
func loadPhi3(t testing.TB) *Tokenizer {
	return loadDir(t, "tokenizer-phi3", "tokenizer.json", "tokenizer_config.json")
}
func loadQwen(t testing.TB) *Tokenizer {
	return loadDir(t, "tokenizer-qwen2.5", "vocab.json", "merges.txt", "added_tokens.json", "tokenizer_config.json")
}
func loadLlama3(t testing.TB) *Tokenizer { return loadDir(t, "tokenizer-llama3", "tokenizer.model") }
func loadDefault(t testing.TB) *Tokenizer {
	return loadDir(t, "default-model", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
}
func loadMistral(t testing.TB, file string) *Tokenizer {
	return loadDir(t, "tokenizer-mistral", "tokenizer.model="+file)
}
func loadGGUF(t testing.TB, name string) *Tokenizer {
	t.Helper()
	file := "tokenizers-llama.cpp/ggml-vocab-" + name + ".gguf"
	return once(file, func() *Tokenizer {
		tok, err := FromGGUF(readGGUF(t, data(t, file)))
		require.NoError(t, err)
		return tok
	})
}

// readGGUF decodes the metadata of a GGUF file that is known to be sound.
func readGGUF(t testing.TB, b []byte) map[string]any {
	t.Helper()
	r := &ggufReader{b: b}
	require.Equal(t, "GGUF", string(r.take(4)))
	r.take(4 + 8) // version, tensors
	meta := map[string]any{}
	for range r.u64() {
		key := r.str()
		meta[key] = r.value(r.u32())
	}
	return meta
}

type ggufReader struct{ b []byte }

func (r *ggufReader) take(n int) []byte {
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}
func (r *ggufReader) u32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *ggufReader) u64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }
func (r *ggufReader) str() string { return string(r.take(int(r.u64()))) }

func (r *ggufReader) value(kind uint32) any {
	switch kind {
	case 4:
		return r.u32()
	case 5:
		return int32(r.u32())
	case 6:
		return math.Float32frombits(r.u32())
	case 7:
		return r.take(1)[0] != 0
	case 8:
		return r.str()
	case 9:
		elem, n := r.u32(), r.u64()
		list := make([]any, n)
		for i := range list {
			list[i] = r.value(elem)
		}
		return list
	}
	panic("GGUF value of kind " + strconv.Itoa(int(kind)))
}

// encode is Encode of a text that must work.
func encode(t testing.TB, tok *Tokenizer, text string, opts EncodeOptions) []terse.Token {
	t.Helper()
	ids, err := tok.Encode(text, opts)
	require.NoError(t, err)
	return ids
}
