package weightstest

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/terse-llm/terse/tensor"
)

// Safetensors is the bytes of a safetensors file with the tensors in the given
// order; F32, F16 and BF16 only.
func Safetensors(tensors []tensor.Tensor) ([]byte, error) {
	type info struct {
		DType   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	header := map[string]info{}
	at := 0
	for _, t := range tensors {
		if t.DType != tensor.F32 && t.DType != tensor.F16 && t.DType != tensor.BF16 {
			return nil, fmt.Errorf("cannot write tensor %q: safetensors has no %v", t.Name, t.DType)
		}
		header[t.Name] = info{t.DType.String(), t.Shape, [2]int{at, at + len(t.Data)}}
		at += len(t.Data)
	}
	head, err := json.Marshal(header)
	if err != nil {
		return nil, fmt.Errorf("cannot write safetensors header: %w", err)
	}
	for len(head)%8 != 0 {
		head = append(head, ' ')
	}
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, 8+len(head)+at), uint64(len(head)))
	b = append(b, head...)
	for _, t := range tensors {
		b = append(b, t.Data...)
	}
	return b, nil
}

// WriteSafetensors writes the tensors to a file.
func WriteSafetensors(path string, tensors []tensor.Tensor) error {
	b, err := Safetensors(tensors)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

// WriteShards writes the tensors to a directory as n shards with their index,
// in turn.
func WriteShards(dir string, n int, tensors []tensor.Tensor) error {
	shards := make([][]tensor.Tensor, n)
	weightMap := map[string]string{}
	name := func(i int) string { return fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, n) }
	for i, t := range tensors {
		shards[i%n] = append(shards[i%n], t)
		weightMap[t.Name] = name(i % n)
	}
	for i, s := range shards {
		if err := WriteSafetensors(filepath.Join(dir, name(i)), s); err != nil {
			return err
		}
	}
	index, err := json.Marshal(map[string]any{"metadata": map[string]any{}, "weight_map": weightMap})
	if err != nil {
		return fmt.Errorf("cannot write index: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, "model.safetensors.index.json"), index, 0o644)
}
