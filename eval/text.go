package eval

import (
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"io"
	"strings"

	"github.com/terse-llm/terse"
)

//go:embed texts/*.txt.gz
var texts embed.FS

// TextNames are the built-in validation texts.
func TextNames() []string { return []string{"books", "children", "go"} }

// Text is a built-in validation text, by documents.
func Text(name string) ([]string, error) {
	b, err := texts.ReadFile("texts/" + name + ".txt.gz")
	if err != nil {
		return nil, fmt.Errorf("there is no text %q: choose one of %s", name, strings.Join(TextNames(), ", "))
	}
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return documents(string(raw)), nil
}

// documents splits at lines <|endoftext|>.
func documents(text string) []string {
	var docs []string
	for doc := range strings.SplitSeq(text, "<|endoftext|>\n") {
		if doc = strings.TrimSpace(doc); doc != "" {
			docs = append(docs, doc)
		}
	}
	return docs
}

// pieceRunes is the length of the pieces that documents are encoded in.
const pieceRunes = 60000

// Windows encodes documents in pieces of 60,000 characters, each followed by
// the end token, concatenates them and cuts the first n windows of size tokens.
func Windows(docs []string, encode func(string) ([]terse.Token, error), end terse.Token, size, n int) ([][]terse.Token, error) {
	var ids []terse.Token
	var windows [][]terse.Token
	for _, doc := range docs {
		for runes := []rune(doc); len(runes) > 0; {
			k := min(pieceRunes, len(runes))
			piece, err := encode(string(runes[:k]))
			if err != nil {
				return nil, err
			}
			runes = runes[k:]
			ids = append(append(ids, piece...), end)
			for len(ids) >= size && len(windows) < n {
				windows = append(windows, ids[:size:size])
				ids = ids[size:]
			}
			if len(windows) == n {
				return windows, nil
			}
		}
	}
	if len(windows) == 0 {
		return nil, fmt.Errorf("the text has only %d tokens, one window is %d: give a longer text or a smaller --window", len(ids), size)
	}
	return windows, nil
}
