package weights_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/terse-llm/terse/internal/defaultmodel"
	"github.com/terse-llm/terse/tensor"
	"github.com/terse-llm/terse/weights"
	"github.com/terse-llm/terse/weights/weightstest"
)

func open(t testing.TB, path string) *weights.Source {
	t.Helper()
	s, err := weights.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		require.NoError(t, s.Close()) // a second time is harmless
		requireUnmapped(t, path)
	})
	return s
}

// tensors is every tensor of s, by name.
func tensors(t testing.TB, s *weights.Source) []tensor.Tensor {
	t.Helper()
	var list []tensor.Tensor
	for _, name := range s.Names() {
		x, err := s.Tensor(name)
		require.NoError(t, err)
		list = append(list, x)
	}
	return list
}

func requireSame(t testing.TB, want, got *weights.Source) {
	t.Helper()
	a, b := tensors(t, want), tensors(t, got)
	require.Equal(t, want.Names(), got.Names())
	for i := range a {
		if a[i].DType != b[i].DType || !slices.Equal(a[i].Shape, b[i].Shape) || !bytes.Equal(a[i].Data, b[i].Data) {
			t.Fatalf("tensor %s differs: %v %v and %v %v", a[i].Name, a[i].DType, a[i].Shape, b[i].DType, b[i].Shape)
		}
	}
	require.Equal(t, want.Fingerprint(), got.Fingerprint())
}

func writeFile(t testing.TB, path string, b []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, b, 0o644))
}

// The built-in model reads the same from the binary, from a directory by memory
// map, from a file system that only reads, and as one file instead of four.
func TestDefaultModel(t *testing.T) {
	built, _ := weightstest.BuiltIn(t)
	require.Len(t, built.Names(), 74)
	w, err := built.Expect("model.layers.3.mlp.up_proj.weight", 1024, 384)
	require.NoError(t, err)
	require.Equal(t, tensor.BF16, w.DType)
	require.Len(t, w.Data, 2*1024*384)

	config, ok := built.Config()
	require.True(t, ok)
	require.True(t, json.Valid(config))
	_, ok = built.GGUF()
	require.False(t, ok)
	_, err = fs.Stat(built.FS(), "tokenizer.json")
	require.NoError(t, err)

	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, defaultmodel.FS()))
	requireSame(t, built, open(t, dir))

	plain := fstest.MapFS{"config.json": {Data: config}}
	one, err := weightstest.Safetensors(tensors(t, built))
	require.NoError(t, err)
	plain["model.safetensors"] = &fstest.MapFile{Data: one}
	single, err := weights.OpenFS(plain)
	require.NoError(t, err)
	requireSame(t, built, single)
}

// The built-in model is used where it lies in the binary: two sources share
// their memory.
func TestBuiltInIsNotCopied(t *testing.T) {
	one, _ := weightstest.BuiltIn(t)
	other, _ := weightstest.BuiltIn(t)
	a, err := one.Tensor("model.norm.weight")
	require.NoError(t, err)
	b, err := other.Tensor("model.norm.weight")
	require.NoError(t, err)
	require.Same(t, &a.Data[0], &b.Data[0])
}

// Every element type goes through a GGUF file byte for byte.
func TestGGUFTypes(t *testing.T) {
	built, _ := weightstest.BuiltIn(t)
	down, err := built.Tensor("model.layers.0.mlp.down_proj.weight") // [384 1024]
	require.NoError(t, err)
	norm, err := built.Tensor("model.norm.weight")
	require.NoError(t, err)
	gate, err := built.Tensor("model.layers.0.mlp.gate_proj.weight") // [1024 384]
	require.NoError(t, err)
	require.Equal(t, tensor.Q8_0, weightstest.Convert(gate, tensor.Q4_K).DType)
	for _, dt := range []tensor.DType{tensor.F32, tensor.F16, tensor.BF16, tensor.Q8_0, tensor.Q4_0, tensor.Q4_K, tensor.Q5_K, tensor.Q6_K} {
		q := weightstest.Convert(down, dt)
		n := weightstest.Convert(norm, dt)
		path := filepath.Join(t.TempDir(), "m.gguf")
		require.NoError(t, weightstest.WriteGGUF(path, nil, []tensor.Tensor{q, n}))
		s := open(t, path)
		got, err := s.Expect(q.Name, 384, 1024)
		require.NoError(t, err)
		require.Equal(t, dt, got.DType)
		require.True(t, bytes.Equal(q.Data, got.Data))
		got, err = s.Expect(n.Name, 384)
		require.NoError(t, err)
		require.True(t, bytes.Equal(n.Data, got.Data))
		require.Nil(t, s.FS())
		_, ok := s.Config()
		require.False(t, ok)
	}
}

// The file's shape is innermost first; ours is outermost first, in three
// dimensions too.
func TestGGUFShapeOrder(t *testing.T) {
	x := weightstest.Tensor("x", tensor.F32, []float32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23}, 2, 3, 4)
	path := filepath.Join(t.TempDir(), "m.gguf")
	require.NoError(t, weightstest.WriteGGUF(path, nil, []tensor.Tensor{x}))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	at := bytes.Index(b, []byte("x\x03\x00\x00\x00"))
	require.Equal(t, []byte{4, 3, 2}, []byte{b[at+5], b[at+13], b[at+21]})
	got, err := open(t, path).Expect("x", 2, 3, 4)
	require.NoError(t, err)
	require.Equal(t, x.Data[4*4:5*4], got.Row(1)[:4]) // [0][1][0]
}

func TestGGUFMetadata(t *testing.T) {
	meta := map[string]any{
		"u8": uint8(200), "i8": int8(-3), "u16": uint16(60000), "i16": int16(-300), "u32": uint32(1 << 31), "i32": int32(-70000),
		"u64": uint64(1 << 63), "i64": int64(-1 << 40), "f32": float32(1.5), "f64": 2.25, "yes": true, "no": false,
		"text": "  not trimmed\n", "empty": "",
		"a.u8": []uint8{1, 2}, "a.i8": []int8{-1}, "a.u16": []uint16{3}, "a.i16": []int16{-4}, "a.u32": []uint32{5, 6}, "a.i32": []int32{-1, 7},
		"a.u64": []uint64{8}, "a.i64": []int64{-9}, "a.f32": []float32{0, -1.5}, "a.f64": []float64{3}, "a.bool": []bool{true, false, true},
		"a.text": []string{"", " a", "\n", "Ġb"}, "a.none": []string{}, "a.nested": []any{[]int32{1}, []int32{}},
	}
	path := filepath.Join(t.TempDir(), "m.gguf")
	require.NoError(t, weightstest.WriteGGUF(path, meta, nil))
	got, ok := open(t, path).GGUF()
	require.True(t, ok)
	require.Equal(t, meta, got)
}

// The file's version and alignment are honoured: a file of version 2 with
// tensors aligned to 64.
func TestGGUFVersion2AndAlignment(t *testing.T) {
	g := newGGUF(2, 2, 1)
	g.text("general.alignment").u32(4).u32(64)
	g.info("a", 0, 0, 3).info("b", 0, 64, 2).pad(64)
	g.u32(1).u32(2).u32(3).pad(64).u32(4).u32(5)
	s := open(t, g.write(t))
	a, err := s.Expect("a", 3)
	require.NoError(t, err)
	b, err := s.Expect("b", 2)
	require.NoError(t, err)
	require.Equal(t, []byte{1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0}, a.Data)
	require.Equal(t, []byte{4, 0, 0, 0, 5, 0, 0, 0}, b.Data)
}

// Vocabularies of published models, where they are at hand.
func TestGGUFVocabularies(t *testing.T) {
	dir := os.Getenv("TERSE_TEST_DATA")
	if dir == "" {
		t.Skip("TERSE_TEST_DATA is not set")
	}
	f := func(name, model string, tokens, merges int) {
		t.Helper()
		path := filepath.Join(dir, "tokenizers-llama.cpp", "ggml-vocab-"+name+".gguf")
		if _, err := os.Stat(path); err != nil {
			t.Skip(err)
		}
		s := open(t, path)
		meta, ok := s.GGUF()
		require.True(t, ok)
		require.Empty(t, s.Names())
		require.Equal(t, model, meta["tokenizer.ggml.model"])
		require.Len(t, meta["tokenizer.ggml.tokens"].([]string), tokens, name)
		require.Len(t, meta["tokenizer.ggml.token_type"].([]int32), tokens, name)
		if merges > 0 {
			require.Len(t, meta["tokenizer.ggml.merges"].([]string), merges, name)
		} else {
			require.Len(t, meta["tokenizer.ggml.scores"].([]float32), tokens, name)
		}
	}
	f("llama-spm", "llama", 32000, 0)
	f("phi-3", "llama", 32064, 0)
	f("gpt-2", "gpt2", 50257, 50000)
	f("falcon", "gpt2", 65024, 64784)
	f("deepseek-coder", "gpt2", 32256, 31757)
	f("deepseek-llm", "gpt2", 102400, 99757)
	f("starcoder", "gpt2", 49152, 48872)
	f("gpt-neox", "gpt2", 50432, 50009)
}

// What a user who asks for the wrong tensor is told.
func TestAskingForTensors(t *testing.T) {
	built, _ := weightstest.BuiltIn(t)
	f := func(err error, parts ...string) {
		t.Helper()
		require.Error(t, err)
		for _, p := range parts {
			require.Contains(t, err.Error(), p)
		}
	}
	_, err := built.Expect("model.layers.3.mlp.up_proj.weight", 1000, 384)
	require.EqualError(t, err, "tensor model.layers.3.mlp.up_proj.weight: expected shape [1000 384], found [1024 384] in model-00002-of-00004.safetensors")
	_, err = built.Expect("model.norm.weight", 384, 1)
	f(err, "expected shape [384 1], found [384]")
	_, err = built.Tensor("layers.3.mlp.up_proj.weight")
	f(err, `cannot find tensor "layers.3.mlp.up_proj.weight"`, "74 tensors", `"model.layers.3.mlp.up_proj.weight"`)

	g := newGGUF(3, 1, 0).info("old", 10, 0, 256).pad(32)
	g.Write(make([]byte, 84))
	path := g.write(t)
	_, err = open(t, path).Tensor("old")
	f(err, `"old"`, path, "Q2_K", "Q4_K")

	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "config.json"), []byte("{}"))
	writeFile(t, filepath.Join(dir, "model.safetensors"), safe(`{"w":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}`, 4))
	_, err = open(t, dir).Tensor("w")
	f(err, `"w"`, "F8_E4M3", "F32, F16, BF16")
}

// A model is another as soon as one tensor has another name, type, shape or
// sampled byte, and the same however it is stored.
func TestFingerprint(t *testing.T) {
	base := func() []tensor.Tensor {
		big := make([]float32, 64<<10)
		for i := range big {
			big[i] = float32(i)
		}
		return []tensor.Tensor{
			weightstest.Tensor("big", tensor.F32, big, 256, 256),
			weightstest.Tensor("small", tensor.F16, []float32{1, 2, 3, 4}, 2, 2),
		}
	}
	f := func(change func(x []tensor.Tensor)) [32]byte {
		t.Helper()
		x := base()
		change(x)
		path := filepath.Join(t.TempDir(), "m.gguf")
		require.NoError(t, weightstest.WriteGGUF(path, nil, x))
		return open(t, path).Fingerprint()
	}
	same := f(func([]tensor.Tensor) {})
	require.Equal(t, same, f(slices.Reverse[[]tensor.Tensor]))
	seen := map[[32]byte]bool{same: true}
	for name, change := range map[string]func(x []tensor.Tensor){
		"name":   func(x []tensor.Tensor) { x[0].Name = "bigger" },
		"shape":  func(x []tensor.Tensor) { x[1].Shape = []int{4, 1} },
		"type":   func(x []tensor.Tensor) { x[1].DType = tensor.BF16 },
		"first":  func(x []tensor.Tensor) { x[0].Data[0] ^= 1 },
		"middle": func(x []tensor.Tensor) { x[0].Data[len(x[0].Data)/2] ^= 1 },
		"last":   func(x []tensor.Tensor) { x[0].Data[len(x[0].Data)-1] ^= 1 },
		"small":  func(x []tensor.Tensor) { x[1].Data[3] ^= 1 },
	} {
		got := f(change)
		require.False(t, seen[got], "another %s has the fingerprint of another model", name)
		seen[got] = true
	}
}

// A directory that is no model says what is missing and what to do.
func TestDirectories(t *testing.T) {
	one := safe(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4)
	two := safe(`{"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4)
	index := func(m string) []byte { return []byte(`{"metadata":{},"weight_map":` + m + `}`) }
	f := func(files map[string][]byte, parts ...string) {
		t.Helper()
		dir := t.TempDir()
		for name, b := range files {
			writeFile(t, filepath.Join(dir, name), b)
		}
		s, err := weights.Open(dir)
		if err == nil {
			s.Close()
		}
		require.Error(t, err)
		for _, p := range append(parts, dir) {
			require.Contains(t, err.Error(), p)
		}
		requireUnmapped(t, dir)
	}
	with := func(m map[string][]byte) map[string][]byte {
		all := map[string][]byte{"config.json": []byte("{}")}
		maps.Copy(all, m)
		return all
	}
	const idx = "model.safetensors.index.json"
	f(nil, "config.json")
	f(map[string][]byte{"x.gguf": {1}}, "config.json", "path of x.gguf itself")
	f(with(nil), "neither model.safetensors nor "+idx)
	f(with(map[string][]byte{"pytorch_model.bin": {1}}), "pytorch_model.bin", "safetensors")
	f(with(map[string][]byte{"model.safetensors": {}}), "model.safetensors", "empty")
	f(with(map[string][]byte{idx: []byte(`{"weight_map":`)}), idx)
	f(with(map[string][]byte{idx: []byte(`{}`)}), idx, "weight_map")
	f(with(map[string][]byte{idx: []byte(`{"weight_map":[1]}`)}), idx)
	f(with(map[string][]byte{idx: index(`{"a":1}`)}), idx, `"a"`)
	f(with(map[string][]byte{idx: index(`{"a":"s1","a":"s1"}`), "s1": one}), idx, `"a"`, "twice")
	f(with(map[string][]byte{idx: index(`{"a":"s1","b":"s2"}`), "s1": one}), "s2", "no such file")
	f(with(map[string][]byte{idx: index(`{"a":"s1","c":"s1"}`), "s1": one}), `"c"`, "s1")
	f(with(map[string][]byte{idx: index(`{"a":"s2","b":"s1"}`), "s1": one, "s2": two}), "s1", "s2", idx)
	f(with(map[string][]byte{idx: index(`{"a":"s1","b":"s2"}`), "s1": one, "s2": one}), `"a"`, "s1", "s2", "twice")
	for _, shard := range []string{"../s1", "/etc/passwd", "sub/s1", ".", "..", "", `..\\s1`, `C:s1`, "s1\\u0000"} {
		f(with(map[string][]byte{idx: index(`{"a":"` + shard + `"}`), "s1": one}), idx, `"a"`, "plain file name")
	}
	f(with(map[string][]byte{idx: index(`{"a":"` + strings.Repeat("x", 300) + `"}`)}), "xxx")
}

func TestOpenWrongPaths(t *testing.T) {
	_, err := weights.Open(filepath.Join(t.TempDir(), "nothing"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = weights.Open(os.DevNull)
	require.ErrorContains(t, err, os.DevNull)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "config.json"), []byte("{}"))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "model.safetensors"), 0o755))
	_, err = weights.Open(dir)
	require.ErrorContains(t, err, "not a regular file")
}
