package weights_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/terse-llm/terse/tensor"
	"github.com/terse-llm/terse/weights"
	"github.com/terse-llm/terse/weights/weightstest"
)

// safe is a safetensors file with this header and so many bytes of data; the
// header is filled up with spaces so that the data is aligned.
func safe(header string, data int) []byte {
	for len(header)%8 != 0 {
		header += " "
	}
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

// ggufBuilder writes GGUF files that no honest writer would.
type ggufBuilder struct{ bytes.Buffer }

func newGGUF(version uint32, tensors, keys uint64) *ggufBuilder {
	g := &ggufBuilder{}
	g.WriteString("GGUF")
	return g.u32(version).u64(tensors).u64(keys)
}

func (g *ggufBuilder) u32(v uint32) *ggufBuilder {
	g.Write(binary.LittleEndian.AppendUint32(nil, v))
	return g
}

func (g *ggufBuilder) u64(v uint64) *ggufBuilder {
	g.Write(binary.LittleEndian.AppendUint64(nil, v))
	return g
}

func (g *ggufBuilder) text(s string) *ggufBuilder {
	g.u64(uint64(len(s))).WriteString(s)
	return g
}

// info writes a tensor's record, dims innermost first.
func (g *ggufBuilder) info(name string, kind uint32, offset uint64, dims ...uint64) *ggufBuilder {
	g.text(name).u32(uint32(len(dims)))
	for _, d := range dims {
		g.u64(d)
	}
	return g.u32(kind).u64(offset)
}

func (g *ggufBuilder) pad(n int) *ggufBuilder {
	for g.Len()%n != 0 {
		g.WriteByte(0)
	}
	return g
}

func (g *ggufBuilder) write(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.gguf")
	writeFile(t, path, g.Bytes())
	return path
}

// allocated is how much f allocates in all.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// refuse opens a hostile model: an error with these parts, and no more memory
// than a few times the file.
func refuse(t *testing.T, size int, open func() (*weights.Source, error), parts ...string) {
	t.Helper()
	var err error
	used := allocated(func() { _, err = open() })
	if err == nil {
		t.Fatalf("opened; want an error with %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q does not say %q", err, p)
		}
	}
	if limit := uint64(1<<20 + 16*size); used > limit {
		t.Errorf("%d bytes allocated for a file of %d", used, size)
	}
}

// requireUnmapped checks that nothing keeps a map of a file under path, where
// the system tells.
func requireUnmapped(t testing.TB, path string) {
	t.Helper()
	if maps, err := os.ReadFile("/proc/self/maps"); err == nil && bytes.Contains(maps, []byte(path)) {
		t.Errorf("%s is still mapped", path)
	}
}

func openSafe(b []byte) (*weights.Source, error) {
	return weights.OpenFS(fstest.MapFS{"config.json": {Data: []byte("{}")}, "model.safetensors": {Data: b}})
}

func TestHostileSafetensors(t *testing.T) {
	f := func(b []byte, parts ...string) {
		t.Helper()
		refuse(t, len(b), func() (*weights.Source, error) { return openSafe(b) }, append(parts, "model.safetensors")...)
	}
	a := `"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}`
	f([]byte{1, 2, 3}, "3 bytes")
	f(binary.LittleEndian.AppendUint64(nil, 1<<63), "header of")
	f(binary.LittleEndian.AppendUint64(nil, 1<<24), "truncated")
	f(safe(`{"a":`, 0), `"a"`)
	f(safe(`{`+a, 8), "JSON")
	f(safe(`[]`, 0), "JSON")
	f(safe(`{}{}`, 0), "follow")
	f(safe("", 0), "JSON")
	f(safe(`{`+a+`}`, 4), `"a"`, "truncated")
	f(safe(`{`+a+`}`, 12), "belong to no tensor", `"a"`)
	f(safe(`{`+a+`,`+a+`}`, 8), `"a"`, "twice")
	f(safe(`{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}`, 8), `"a"`, "[3]", "8 bytes")
	f(safe(`{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,8]}}`, 8), `"a"`, "F16")
	f(safe(`{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}`, 8), `"a"`, "F33")
	f(safe(`{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}`, 8), `"a"`, "negative")
	f(safe(`{"a":{"dtype":"F32","shape":[2.5],"data_offsets":[0,8]}}`, 8), `"a"`)
	f(safe(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}`, 8), `"a"`, "[8 0]")
	f(safe(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}`, 8), `"a"`, "negative")
	f(safe(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}}`, 8), `"a"`, "data_offsets")
	f(safe(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}}`, 8), `"a"`, "data_offsets")
	f(safe(`{"a":{"dtype":"F32","data_offsets":[0,8]}}`, 8), `"a"`, "shape")
	f(safe(`{"a":{"dtype":"F32","shape":null,"data_offsets":[0,8]}}`, 8), `"a"`)
	f(safe(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[9223372036854775807,9223372036854775807]}}`, 8), `"a"`)
	f(safe(`{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0), `"a"`, "4294967296")
	f(safe(`{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}`, 0), `"a"`)
	f(safe(`{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}`, 4), `"a"`, "more than 8")
	f(safe(`{`+a+`,"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8), `"b"`, "overlaps", `"a"`)
	f(safe(`{`+a+`,"b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}}`, 16), `"b"`, "after the end", `"a"`)
	f(safe(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}`, 5), `"b"`, "not aligned")
	f(safe(`{"a":{"x":`+strings.Repeat("[", 20000)+strings.Repeat("]", 20000)+`}}`, 0))
	f(safe(`{"a":{"dtype":"F32","shape":[`+strings.Repeat("1,", 1<<20)+`1],"data_offsets":[0,4]}}`, 4), `"a"`, "more than 8")
	f(safe(`{"a":{"x":[`+strings.Repeat("[],", 1<<20)+`0]}}`, 0), `"a"`)
}

func TestHostileGGUF(t *testing.T) {
	f := func(g *ggufBuilder, parts ...string) {
		t.Helper()
		path := g.write(t)
		refuse(t, g.Len(), func() (*weights.Source, error) { return weights.Open(path) }, append(parts, path)...)
		requireUnmapped(t, path)
	}
	junk := func(s string) *ggufBuilder {
		g := &ggufBuilder{}
		g.WriteString(s)
		return g
	}
	f(junk("PK"), "begins with")
	f(junk("PK\x03\x04 no model"), "begins with")
	f(junk("GGUF"), "truncated")
	f(newGGUF(1, 0, 0), "version 1")
	f(newGGUF(4, 0, 0), "version 4")
	f(newGGUF(3<<24, 0, 0), "big-endian")
	f(newGGUF(3, 1<<60, 0), "tensor count")
	f(newGGUF(3, 0, 1<<60), "metadata count")
	f(newGGUF(3, 1<<60, 0).pad(4096), "tensor count")
	f(newGGUF(3, 0, 2).text("k").u32(4).u32(1).pad(32), "metadata 2 of 2", "a name of 0 bytes")

	key := func(kind uint32) *ggufBuilder { return newGGUF(3, 0, 1).text("key").u32(kind) }
	f(newGGUF(3, 0, 1).u64(1<<63).pad(64), "string length", "metadata 1 of 1")
	f(newGGUF(3, 0, 1).text(strings.Repeat("k", 70<<10)).u32(4).u32(1), "a name of")
	f(key(13).pad(64), `"key"`, "unknown type 13")
	f(key(8).u64(1<<63).pad(64), `"key"`, "string length")
	f(key(9).u32(8).u64(1<<60).pad(64), `"key"`, "array length")
	f(key(9).u32(0).u64(65).pad(64), `"key"`, "array length")
	f(key(9).u32(8).u64(2).u64(1<<62).pad(128), `"key"`, "string length")
	f(key(9).u32(99).u64(1).pad(64), `"key"`, "unknown type 99")
	f(key(10).u32(7), `"key"`, "truncated")
	nested := key(9)
	for range 1 << 18 {
		nested.u32(9).u64(1)
	}
	f(nested, `"key"`, "nested")
	wide := key(9).u32(9).u64(1 << 16)
	for range 1 << 16 {
		wide.u32(9).u64(1 << 14)
	}
	f(wide, `"key"`)
	f(newGGUF(3, 0, 2).text("k").u32(4).u32(1).text("k").u32(4).u32(1), `"k"`, "twice")
	f(newGGUF(3, 0, 1).text("general.alignment").u32(4).u32(0), "general.alignment")
	f(newGGUF(3, 0, 1).text("general.alignment").u32(4).u32(48), "general.alignment")
	f(newGGUF(3, 0, 1).text("general.alignment").u32(4).u32(1<<31), "general.alignment")
	f(newGGUF(3, 0, 1).text("general.alignment").u32(8).text("32"), "general.alignment")
	f(newGGUF(3, 0, 1).text("split.count").u32(2).u32(3), "split")

	tens := func(n uint64) *ggufBuilder { return newGGUF(3, n, 0) }
	f(tens(1).info("t", 0, 0).pad(64), `"t"`, "0 dimensions")
	f(tens(1).info("t", 0, 0, 1, 1, 1, 1, 1).pad(64), `"t"`, "5 dimensions")
	f(tens(1).text("t").u32(1<<31).pad(64), `"t"`, "dimensions")
	f(tens(1).info("t", 0, 0, 1<<63).pad(64), `"t"`, "dimension of")
	f(tens(1).info("t", 0, 0, 1<<60, 1<<60).pad(64), `"t"`, "1152921504606846976")
	f(tens(1).info("t", 0, 0, 1<<62, 4).pad(64), `"t"`, "4611686018427387904")
	f(tens(1).info("t", 4, 0, 32).pad(64), `"t"`, "type number 4")
	f(tens(1).info("t", 12, 0, 32).pad(256), `"t"`, "Q4_K", "256")
	f(tens(1).info("t", 0, 4, 1).pad(64), `"t"`, "alignment")
	f(tens(1).info("t", 0, 1<<63, 1).pad(64), `"t"`, "does not lie")
	f(tens(1).info("t", 0, 1<<40, 1).pad(64), `"t"`, "does not lie")
	f(tens(1).info("t", 0, 0, 100).pad(128), `"t"`, "[100]", "truncated")
	f(tens(1).info("t", 0, 0, 1), `"t"`, "truncated")
	f(tens(2).info("t", 0, 0, 16).info("u", 0, 32, 8).pad(256), `"u"`, "overlaps", `"t"`)
	f(tens(2).info("t", 0, 0, 8).info("u", 0, 0, 8).pad(256), `"u"`, "overlaps", `"t"`)
	f(tens(2).info("t", 0, 0, 8).info("t", 0, 32, 8).pad(256), `"t"`, "twice")
	f(tens(2).info("t", 0, 0, 8).pad(64))
}

// Every prefix of a good file that lacks a byte of it is refused.
func TestTruncated(t *testing.T) {
	x := []tensor.Tensor{
		weightstest.Tensor("a", tensor.F32, []float32{1, 2, 3, 4}, 2, 2),
		weightstest.Tensor("b", tensor.Q8_0, make([]float32, 64), 2, 32),
	}
	good, err := weightstest.GGUF(map[string]any{"k": "v", "list": []string{"a", "b"}, "n": []int32{1}}, x)
	require.NoError(t, err)
	end := len(good) - (96 - 68) // b's 68 bytes are padded to 96
	for n := range end {
		path := filepath.Join(t.TempDir(), fmt.Sprint(n))
		writeFile(t, path, good[:n])
		if s, err := weights.Open(path); err == nil {
			s.Close()
			t.Fatalf("GGUF file cut at %d of %d opened", n, len(good))
		}
	}
	st, err := weightstest.Safetensors(x[:1])
	require.NoError(t, err)
	for n := range st {
		if _, err := openSafe(st[:n]); err == nil {
			t.Fatalf("safetensors file cut at %d of %d opened", n, len(st))
		}
	}
}

// use touches all that a model can ask of a source.
func use(t *testing.T, s *weights.Source) {
	s.Fingerprint()
	for _, name := range s.Names() {
		x, err := s.Tensor(name)
		if err != nil {
			continue
		}
		if n, size := x.DType.Block(); x.Elems()/n*size != len(x.Data) {
			t.Fatalf("tensor %q: %v of shape %v with %d bytes", name, x.DType, x.Shape, len(x.Data))
		}
		weightstest.Values(x)
	}
	require.NoError(t, s.Close())
}

func FuzzSafetensors(f *testing.F) {
	f.Add(safe(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[1,2],"data_offsets":[8,12]}}`, 12))
	f.Add(safe(`{"__metadata__":{"format":"pt"},"a":{"dtype":"F8_E4M3","shape":[],"data_offsets":[0,1]}}`, 1))
	f.Add(safe(`{}`, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := openSafe(b); err == nil {
			use(t, s)
		}
	})
}

func FuzzGGUF(f *testing.F) {
	good, err := weightstest.GGUF(map[string]any{"k": "v", "list": []string{"a", "b"}, "deep": []any{[]int32{1}}}, []tensor.Tensor{
		weightstest.Tensor("a", tensor.F32, []float32{1, 2, 3, 4}, 2, 2),
		weightstest.Tensor("b", tensor.Q4_K, make([]float32, 256), 256),
	})
	require.NoError(f, err)
	f.Add(good)
	f.Add(newGGUF(2, 1, 1).text("general.alignment").u32(4).u32(64).info("a", 0, 0, 3).pad(64).u32(1).u32(2).u32(3).Bytes())
	f.Add(newGGUF(3, 1, 0).info("t", 10, 0, 256).pad(256).Bytes())
	path := filepath.Join(f.TempDir(), "m.gguf")
	f.Fuzz(func(t *testing.T, b []byte) {
		writeFile(t, path, b)
		if s, err := weights.Open(path); err == nil {
			use(t, s)
		}
	})
}
