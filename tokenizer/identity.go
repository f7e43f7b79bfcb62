package tokenizer

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

// textFiles are the files of a model directory that decide how text becomes
// tokens, tokens become text, and where an answer ends.
func textFiles() []string {
	return []string{
		"tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model", "tokenizer_config.json",
		"added_tokens.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json",
	}
}

// Identity names what a model directory makes of text: SHA-256 over its
// tokenizer's files and its chat template, as hex. It is "" for a directory
// without a tokenizer. Two directories with the same identity give the same
// tokens for the same text; the contrary need not hold, as files that say the
// same may be written differently.
func Identity(fsys fs.FS) (string, error) {
	h, vocabulary := sha256.New(), false
	for _, name := range textFiles() {
		data, err := readFile(fsys, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		vocabulary = vocabulary || name == "tokenizer.json" || name == "vocab.json" || name == "tokenizer.model"
		fmt.Fprintf(h, "%s %d\n", name, len(data)) // no two lists of files read the same
		h.Write(data)
	}
	if !vocabulary {
		return "", nil
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// IdentityGGUF is [Identity] of a GGUF file's metadata.
func IdentityGGUF(meta map[string]any) string {
	h, found := sha256.New(), false
	for _, key := range slices.Sorted(maps.Keys(meta)) {
		if strings.HasPrefix(key, "tokenizer.") {
			fmt.Fprintf(h, "%q = %#v\n", key, meta[key])
			found = true
		}
	}
	if !found {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}
