package weights

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/terse-llm/terse/tensor"
)

// Source is an open model: its tensors by name and what else its files say. It
// is safe for concurrent use. Tensors are views of its memory and must not be
// touched after Close.
type Source struct {
	where       string // the path for messages; empty for a file system
	entries     map[string]entry
	names       []string
	config      []byte
	gguf        map[string]any
	fsys        fs.FS
	files       []*file
	fingerprint func() [32]byte
}

// entry is a tensor as its file declares it. dtype is 0 for types that Terse
// does not compute with; kind is the file's own name of the type.
type entry struct {
	name  string
	dtype tensor.DType
	kind  string
	shape []int
	data  []byte
	file  string
}

// Open opens a Hugging Face directory or a GGUF file, by memory map where the
// operating system has one.
func Open(path string) (*Source, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("cannot open model: %w", err)
	}
	if st.IsDir() {
		return openDir(os.DirFS(path), path)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("cannot open model %s: neither a directory nor a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot open model: %w", err)
	}
	defer f.Close() // a map outlives its descriptor
	data, err := load(f, path)
	if err != nil {
		return nil, err
	}
	s, err := openGGUF(data, path)
	if err != nil {
		return nil, errors.Join(err, data.close())
	}
	return s, nil
}

// OpenFS opens the Hugging Face directory at the root of fsys. Files that are
// *os.File are mapped; files with a method Contents() string (as the built-in
// model's) are used where they lie; others are read once.
func OpenFS(fsys fs.FS) (*Source, error) { return openDir(fsys, "") }

// newSource sorts and indexes what a reader found. Closing the files is the
// caller's when it fails.
func newSource(where string, entries []entry, files []*file) (*Source, error) {
	s := &Source{where: where, entries: make(map[string]entry, len(entries)), files: files}
	for _, e := range entries {
		if old, ok := s.entries[e.name]; ok {
			return nil, fmt.Errorf("cannot open model: tensor %q is there twice: in %s and in %s", e.name, old.file, e.file)
		}
		s.entries[e.name] = e
		s.names = append(s.names, e.name)
	}
	slices.Sort(s.names)
	s.fingerprint = sync.OnceValue(s.sample)
	return s, nil
}

// Names lists every tensor, sorted.
func (s *Source) Names() []string { return slices.Clone(s.names) }

// Tensor is the named tensor as a view of the file.
func (s *Source) Tensor(name string) (tensor.Tensor, error) {
	e, ok := s.entries[name]
	if !ok {
		return tensor.Tensor{}, fmt.Errorf("cannot find tensor %q in %s: it holds %d tensors%s", name, title(s.where), len(s.names), s.nearest(name))
	}
	if e.dtype == 0 {
		return tensor.Tensor{}, fmt.Errorf("cannot use tensor %q of %s: type %s is not supported; convert the model to one of %s", name, e.file, e.kind, supported(s.gguf != nil))
	}
	return tensor.Tensor{Name: name, DType: e.dtype, Shape: slices.Clone(e.shape), Data: e.data}, nil
}

// Expect is Tensor with the shape checked, outermost dimension first.
func (s *Source) Expect(name string, dims ...int) (tensor.Tensor, error) {
	t, err := s.Tensor(name)
	if err != nil {
		return t, err
	}
	if !slices.Equal(t.Shape, dims) {
		return tensor.Tensor{}, fmt.Errorf("tensor %s: expected shape %v, found %v in %s", name, dims, t.Shape, s.entries[name].file)
	}
	return t, nil
}

// Config is the bytes of a directory's config.json; a GGUF file has none.
func (s *Source) Config() ([]byte, bool) { return s.config, s.config != nil }

// GGUF is the metadata of a GGUF file: key to bool, string, float32, float64,
// an integer of the file's width, or for arrays a slice of one of these ([]any
// for arrays of arrays). The caller must not change it.
func (s *Source) GGUF() (map[string]any, bool) { return s.gguf, s.gguf != nil }

// FS is the model's directory with its tokenizer files; nil for a GGUF file,
// which keeps its vocabulary in the metadata.
func (s *Source) FS() fs.FS { return s.fsys }

// Close unmaps the files. Tensors of the source must not be read afterwards,
// nor its Fingerprint be asked for the first time.
func (s *Source) Close() error {
	err := closeAll(s.files)
	s.files = nil
	return err
}

func closeAll(files []*file) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.close())
	}
	return errors.Join(errs...)
}

func supported(gguf bool) string {
	if gguf {
		return "F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K, Q6_K"
	}
	return "F32, F16, BF16"
}

// nearest lists the tensors whose names share the longest ends with name, so
// that a missing prefix or another layer's number shows.
func (s *Source) nearest(name string) string {
	if len(s.names) == 0 {
		return ""
	}
	best := slices.Clone(s.names)
	slices.SortStableFunc(best, func(a, b string) int { return cmp.Compare(shared(b, name), shared(a, name)) })
	best = best[:min(3, len(best))]
	for i, n := range best {
		best[i] = fmt.Sprintf("%q", n)
	}
	return ", nearest " + strings.Join(best, ", ")
}

func shared(a, b string) int {
	n := min(len(a), len(b))
	head, tail := 0, 0
	for head < n && a[head] == b[head] {
		head++
	}
	for tail < n && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	return head + tail
}

// within is the name of a file of a model for messages.
func within(where, name string) string {
	if where == "" {
		return name
	}
	return filepath.Join(where, name)
}
