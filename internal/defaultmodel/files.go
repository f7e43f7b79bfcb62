package defaultmodel

import (
	"embed"
	"io/fs"
)

// Name is what the model is called on the command line and in the API.
const Name = "terse-16m"

//go:embed config.json generation_config.json tokenizer.json tokenizer_config.json kv.calibration
//go:embed model.safetensors.index.json model-*.safetensors
var files embed.FS

// The shards once more as strings: an embed.FS only gives copies, these lie in
// the mapped binary. The linker keeps equal contents once.
var (
	//go:embed model-00001-of-00004.safetensors
	shard1 string
	//go:embed model-00002-of-00004.safetensors
	shard2 string
	//go:embed model-00003-of-00004.safetensors
	shard3 string
	//go:embed model-00004-of-00004.safetensors
	shard4 string
)

// FS is the model as a Hugging Face directory. Files of weights have a method
// Contents() string that gives them without a copy.
func FS() fs.FS { return modelFS{files} }

type modelFS struct{ embed.FS }

func (m modelFS) Open(name string) (fs.File, error) {
	f, err := m.FS.Open(name)
	if err != nil {
		return nil, err
	}
	switch name {
	case "model-00001-of-00004.safetensors":
		return shardFile{f, shard1}, nil
	case "model-00002-of-00004.safetensors":
		return shardFile{f, shard2}, nil
	case "model-00003-of-00004.safetensors":
		return shardFile{f, shard3}, nil
	case "model-00004-of-00004.safetensors":
		return shardFile{f, shard4}, nil
	}
	return f, nil
}

type shardFile struct {
	fs.File
	contents string
}

// Contents is the whole file.
func (f shardFile) Contents() string { return f.contents }
