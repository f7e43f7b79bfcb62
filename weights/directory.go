package weights

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// The files of a Hugging Face directory.
const (
	configFile = "config.json"
	singleFile = "model.safetensors"
	indexFile  = "model.safetensors.index.json"
)

// Sizes of JSON files beyond which something else is meant.
const (
	maxConfig = 4 << 20
	maxIndex  = 64 << 20
)

// openDir opens the model at the root of fsys; where is its name for messages.
func openDir(fsys fs.FS, where string) (*Source, error) {
	config, err := readSmall(fsys, where, configFile, maxConfig)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w%s", title(where), err, instead(fsys))
	}
	// As transformers does: the single file goes before the index.
	shards := []string{singleFile}
	var index map[string]string
	if _, err := fs.Stat(fsys, singleFile); errors.Is(err, fs.ErrNotExist) {
		if index, shards, err = readIndex(fsys, where); err != nil {
			return nil, fmt.Errorf("cannot open %s: %w%s", title(where), err, instead(fsys))
		}
	}
	s, err := openShards(fsys, where, shards, index)
	if err != nil {
		return nil, err
	}
	s.config, s.fsys = config, fsys
	return s, nil
}

func openShards(fsys fs.FS, where string, shards []string, index map[string]string) (*Source, error) {
	var files []*file
	var entries []entry
	fail := func(err error) (*Source, error) { return nil, errors.Join(err, closeAll(files)) }
	for _, shard := range shards {
		f, err := openFile(fsys, within(where, shard), shard)
		if err != nil {
			return fail(err)
		}
		files = append(files, f)
		found, err := readSafetensors(f.data, within(where, shard))
		if err != nil {
			return fail(err)
		}
		entries = append(entries, found...)
	}
	s, err := newSource(where, entries, files)
	if err != nil {
		return fail(err)
	}
	for name, shard := range index {
		if e, ok := s.entries[name]; !ok {
			return fail(fmt.Errorf("cannot open model: tensor %q is not in %s, where %s says it is", name, within(where, shard), indexFile))
		} else if e.file != within(where, shard) {
			return fail(fmt.Errorf("cannot open model: tensor %q is in %s and not in %s, where %s says it is", name, e.file, within(where, shard), indexFile))
		}
	}
	return s, nil
}

func openFile(fsys fs.FS, name, shard string) (*file, error) {
	f, err := fsys.Open(shard)
	if err != nil {
		return nil, fmt.Errorf("cannot open model: shard %s: %w", name, err)
	}
	defer f.Close() // a map outlives its descriptor
	return load(f, name)
}

// readIndex gives tensor name to shard, and the shards sorted.
func readIndex(fsys fs.FS, where string) (map[string]string, []string, error) {
	b, err := readSmall(fsys, where, indexFile, maxIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("neither %s nor %s is there", singleFile, indexFile)
	}
	if err != nil {
		return nil, nil, err
	}
	var top struct {
		WeightMap json.RawMessage `json:"weight_map"`
	}
	if err := json.Unmarshal(b, &top); err != nil {
		return nil, nil, fmt.Errorf("cannot read %s: %w", within(where, indexFile), err)
	}
	index := map[string]string{}
	seen := map[string]bool{}
	err = eachMember(top.WeightMap, func(name string, dec *json.Decoder) error {
		var shard string
		if err := dec.Decode(&shard); err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
		if !plain(shard) {
			return fmt.Errorf("tensor %q: shard %q is not a plain file name", name, shard)
		}
		index[name], seen[shard] = shard, true
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read weight_map of %s: %w", within(where, indexFile), err)
	}
	var shards []string
	for s := range seen {
		shards = append(shards, s)
	}
	slices.Sort(shards)
	return index, shards, nil
}

// plain reports whether name can only be a file of its own directory, on any
// operating system.
func plain(name string) bool {
	return fs.ValidPath(name) && path.Base(name) == name && name != "." && !strings.ContainsAny(name, `\:`+"\x00")
}

// readSmall reads a file of at most limit bytes.
func readSmall(fsys fs.FS, where, name string, limit int) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", within(where, name), err)
	}
	if len(b) > limit {
		return nil, fmt.Errorf("cannot read %s: longer than %d bytes", within(where, name), limit)
	}
	return b, nil
}

// instead says what a directory that is no model seems to hold.
func instead(fsys fs.FS) string {
	const torch = "; %s looks like a PyTorch file: save the model as safetensors"
	for _, other := range []struct{ pattern, hint string }{
		{"*.gguf", "; give the path of %s itself"}, {"*.bin", torch}, {"*.pth", torch},
	} {
		if found, _ := fs.Glob(fsys, other.pattern); len(found) > 0 {
			return fmt.Sprintf(other.hint, found[0])
		}
	}
	return ""
}

// title names a model in messages; a file system has no name.
func title(where string) string { return strings.TrimSpace("model " + where) }
