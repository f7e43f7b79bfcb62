package calibrate

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"io"
	"strings"
)

//go:embed texts/mixed.txt.gz
var mixed []byte

// separator stands on a line of its own after every document.
const separator = "<|endoftext|>"

// DefaultText is the built-in sample: prose, children's stories, code and
// documentation, by documents.
func DefaultText() ([]string, error) {
	r, err := gzip.NewReader(bytes.NewReader(mixed))
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return Documents(string(b)), nil
}

// Documents splits text at separator lines.
func Documents(text string) []string {
	var docs []string
	for doc := range strings.SplitSeq(text, "\n"+separator+"\n") {
		if doc = strings.TrimSpace(strings.TrimSuffix(doc, separator)); doc != "" {
			docs = append(docs, doc)
		}
	}
	return docs
}
