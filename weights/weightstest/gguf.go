package weightstest

import (
	"bytes"
	"os"

	"github.com/terse-llm/terse/internal/gguf"
	"github.com/terse-llm/terse/tensor"
)

// GGUF is the bytes of a GGUF file; meta as gguf.Write wants it.
func GGUF(meta map[string]any, tensors []tensor.Tensor) ([]byte, error) {
	var b bytes.Buffer
	if err := gguf.Write(&b, meta, tensors, nil); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// WriteGGUF writes a GGUF file.
func WriteGGUF(path string, meta map[string]any, tensors []tensor.Tensor) error {
	b, err := GGUF(meta, tensors)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}
