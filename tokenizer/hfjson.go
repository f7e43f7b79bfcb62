package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/terse-llm/terse"
)

// hfFile is Hugging Face's tokenizer.json. Padding and truncation are for
// batches of a trainer and are ignored.
type hfFile struct {
	AddedTokens   []hfAdded       `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         json.RawMessage `json:"model"`
}

type hfAdded struct {
	ID         int    `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

// hfModel is the model section; absent fields mean off.
type hfModel struct {
	Type         string           `json:"type"`
	Vocab        map[string]int32 `json:"vocab"`
	Merges       mergeList        `json:"merges"`
	UnkToken     *string          `json:"unk_token"`
	FuseUnk      bool             `json:"fuse_unk"`
	ByteFallback bool             `json:"byte_fallback"`
	IgnoreMerges bool             `json:"ignore_merges"`
	Dropout      *float64         `json:"dropout"`
	Prefix       *string          `json:"continuing_subword_prefix"`
	Suffix       *string          `json:"end_of_word_suffix"`
}

// mergeList reads merges as ["a b", …] or [["a", "b"], …].
type mergeList [][2]string

// UnmarshalJSON implements json.Unmarshaler.
func (l *mergeList) UnmarshalJSON(data []byte) error {
	if list := bytes.TrimLeft(data, " \t\r\n"); len(list) > 0 && list[0] == '[' {
		if list = bytes.TrimLeft(list[1:], " \t\r\n"); len(list) > 0 && list[0] == '[' {
			return l.pairs(data)
		}
	}
	var lines []string
	if err := json.Unmarshal(data, &lines); err != nil {
		return err
	}
	if len(lines) > maxMerges {
		return fmt.Errorf("%d merges: the limit is %d", len(lines), maxMerges)
	}
	*l = make(mergeList, 0, len(lines))
	for i, line := range lines {
		pair, err := parseMerge(line)
		if err != nil {
			return fmt.Errorf("merge %d: %w", i, err)
		}
		*l = append(*l, pair)
	}
	return nil
}

// parseMerge reads "a b". Tokens have no spaces in them: byte-level and
// SentencePiece vocabularies spell a space otherwise.
func parseMerge(line string) ([2]string, error) {
	left, right, ok := strings.Cut(line, " ")
	if !ok || left == "" || right == "" || strings.Contains(right, " ") {
		return [2]string{}, fmt.Errorf("%.60q is not two tokens with a space between", line)
	}
	return [2]string{left, right}, nil
}

func (l *mergeList) pairs(data []byte) error {
	var pairs [][]string
	if err := json.Unmarshal(data, &pairs); err != nil {
		return err
	}
	if len(pairs) > maxMerges {
		return fmt.Errorf("%d merges: the limit is %d", len(pairs), maxMerges)
	}
	*l = make(mergeList, 0, len(pairs))
	for i, p := range pairs {
		if len(p) != 2 {
			return fmt.Errorf("merge %d has %d tokens, not two", i, len(p))
		}
		*l = append(*l, [2]string{p[0], p[1]})
	}
	return nil
}

// fromJSON builds the tokenizer of a tokenizer.json.
func fromJSON(data []byte, cfg *config) (*Tokenizer, error) {
	var f hfFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, err
	}
	var m hfModel
	if err := json.Unmarshal(f.Model, &m); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	if err := m.supported(); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	b := builder{vocab: m.Vocab, merges: m.Merges, wholeFirst: m.IgnoreMerges, fuseUnk: m.FuseUnk, names: cfg.names()}
	if m.UnkToken != nil {
		b.unk = *m.UnkToken
	}
	err := b.hfParts(&f)
	if err != nil {
		return nil, err
	}
	b.byteFallback = !b.byteLevel && m.ByteFallback
	for _, a := range f.AddedTokens {
		b.addHF(a)
	}
	t, err := b.build()
	if err != nil {
		return nil, err
	}
	if err := t.setPostProcessor(f.PostProcessor); err != nil {
		return nil, fmt.Errorf("post_processor: %w", err)
	}
	cfg.override(t)
	return t, nil
}

// hfParts reads normalizer, pre-tokenizer and decoder.
func (b *builder) hfParts(f *hfFile) (err error) {
	if b.norm, err = parseNormalizer(f.Normalizer, 0); err != nil {
		return fmt.Errorf("normalizer: %w", err)
	}
	var p preParser
	if err = p.parse(f.PreTokenizer, 0); err != nil {
		return fmt.Errorf("pre_tokenizer: %w", err)
	}
	b.pre, b.byteLevel = p.steps, p.byteLevel
	if err = b.parseDecoder(f.Decoder); err != nil {
		return fmt.Errorf("decoder: %w", err)
	}
	return nil
}

// supported refuses models that this package would get wrong.
func (m *hfModel) supported() error {
	empty := func(s *string) bool { return s == nil || *s == "" }
	switch {
	case m.Type != "BPE" && (m.Type != "" || m.Merges == nil):
		return fmt.Errorf("type %.40q is not supported, only BPE", m.Type)
	case m.Dropout != nil && *m.Dropout != 0:
		return fmt.Errorf("dropout %g makes encoding random; remove it from tokenizer.json", *m.Dropout)
	case !empty(m.Prefix):
		return fmt.Errorf("continuing_subword_prefix %.40q is not supported", *m.Prefix)
	case !empty(m.Suffix):
		return fmt.Errorf("end_of_word_suffix %.40q is not supported", *m.Suffix)
	case len(m.Vocab) == 0:
		return fmt.Errorf("the vocabulary is empty")
	}
	return nil
}

// hfPost is a post-processor of any type.
type hfPost struct {
	Type          string
	Processors    []json.RawMessage
	Single        []hfTemplate
	SpecialTokens map[string]struct{ IDs []int } `json:"special_tokens"`
}

// hfTemplate is one place of a template: a special token or the text.
type hfTemplate struct {
	SpecialToken *struct{ ID string }
	Sequence     *struct{ ID string }
}

// setPostProcessor finds out what AddSpecial puts around the text.
func (t *Tokenizer) setPostProcessor(raw json.RawMessage) error { return t.postProcessor(raw, 0) }

func (t *Tokenizer) postProcessor(raw json.RawMessage, depth int) error {
	if isNull(raw) {
		return nil
	}
	var p hfPost
	if err := json.Unmarshal(raw, &p); err != nil {
		return err
	}
	switch p.Type {
	case "ByteLevel": // moves offsets only
		return nil
	case "TemplateProcessing":
		return t.template(&p)
	case "Sequence":
		if depth >= maxNesting {
			return errNesting
		}
		for _, part := range p.Processors {
			if err := t.postProcessor(part, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("type %.40q is not supported; known are ByteLevel, Sequence, TemplateProcessing", p.Type)
}

// maxAround bounds the special tokens around a text.
const maxAround = 64

func (t *Tokenizer) template(p *hfPost) error {
	var before, after []terse.Token
	side := &before
	for _, part := range p.Single {
		switch {
		case part.Sequence != nil:
			side = &after
		case part.SpecialToken != nil:
			st, ok := p.SpecialTokens[part.SpecialToken.ID]
			if !ok {
				return fmt.Errorf("special token %.40q is used and not defined", part.SpecialToken.ID)
			}
			for _, id := range st.IDs {
				if id < 0 || id >= t.Size() {
					return fmt.Errorf("special token %.40q has id %d, outside the vocabulary", part.SpecialToken.ID, id)
				}
				*side = append(*side, terse.Token(id))
			}
		}
	}
	if side != &after {
		return fmt.Errorf("the template has no place for the text")
	}
	t.prefix = append(before, t.prefix...)
	t.suffix = append(t.suffix, after...)
	if len(t.prefix)+len(t.suffix) > maxAround {
		return fmt.Errorf("%d special tokens around a text: the limit is %d", len(t.prefix)+len(t.suffix), maxAround)
	}
	return nil
}

func isNull(raw json.RawMessage) bool {
	return len(raw) == 0 || string(bytes.TrimSpace(raw)) == "null"
}
