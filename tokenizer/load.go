package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/terse-llm/terse"
)

// Load reads the tokenizer of a model directory: tokenizer.json, or vocab.json
// with merges.txt, or tokenizer.model (SentencePiece or tiktoken), in this
// order, with tokenizer_config.json, added_tokens.json and
// generation_config.json where they are there.
func Load(fsys fs.FS) (*Tokenizer, error) {
	cfg, err := loadConfig(fsys)
	if err != nil {
		return nil, err
	}
	for _, kind := range []struct {
		name string
		read func(data []byte) (*Tokenizer, error)
	}{
		{"tokenizer.json", func(data []byte) (*Tokenizer, error) { return fromJSON(data, cfg) }},
		{"vocab.json", func(data []byte) (*Tokenizer, error) { return fromVocab(data, fsys, cfg) }},
		{"tokenizer.model", func(data []byte) (*Tokenizer, error) { return fromModelFile(data, cfg) }},
	} {
		data, err := readFile(fsys, kind.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		t, err := kind.read(data)
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", kind.name, err)
		}
		cfg.finish(t)
		return t, nil
	}
	return nil, errors.New("cannot find a tokenizer: the model directory needs tokenizer.json, " +
		"vocab.json with merges.txt, or tokenizer.model")
}

// readFile reads a file of at most maxFile bytes.
func readFile(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", name, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("cannot read %s: it is larger than %d bytes", name, maxFile)
	}
	return data, nil
}

// readJSON decodes an optional file; a missing one leaves v alone.
func readJSON(fsys fs.FS, name string, v any) error {
	data, err := readFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("cannot read %s: %w", name, err)
	}
	return nil
}

// config is what the files beside the vocabulary say.
type config struct {
	Class    string             `json:"tokenizer_class"`
	BOS      tokenName          `json:"bos_token"`
	EOS      tokenName          `json:"eos_token"`
	Pad      tokenName          `json:"pad_token"`
	Unk      tokenName          `json:"unk_token"`
	AddBOS   *bool              `json:"add_bos_token"`
	AddEOS   *bool              `json:"add_eos_token"`
	Added    map[string]hfAdded `json:"added_tokens_decoder"` // by id
	Template chatTemplate       `json:"chat_template"`

	generation struct {
		EOS idList `json:"eos_token_id"`
	}
	addedTokens map[string]int32 // added_tokens.json
}

func loadConfig(fsys fs.FS) (*config, error) {
	c := &config{}
	for _, f := range []struct {
		name string
		v    any
	}{
		{"tokenizer_config.json", c},
		{"generation_config.json", &c.generation},
		{"added_tokens.json", &c.addedTokens},
	} {
		if err := readJSON(fsys, f.name, f.v); err != nil {
			return nil, err
		}
	}
	jinja, err := readFile(fsys, "chat_template.jinja")
	switch {
	case err == nil:
		c.Template = chatTemplate(jinja)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return c, nil
}

func (c *config) names() names {
	return names{bos: string(c.BOS), eos: string(c.EOS), pad: string(c.Pad), unk: string(c.Unk)}
}

// override applies add_bos_token and add_eos_token as Hugging Face's Llama
// classes do; other classes only know the post-processor.
func (c *config) override(t *Tokenizer) {
	if !strings.HasPrefix(c.Class, "Llama") && !strings.HasPrefix(c.Class, "CodeLlama") {
		return
	}
	t.around(c.AddBOS, c.AddEOS)
}

// around sets whether AddSpecial adds BOS and EOS; nil leaves it as it is.
func (t *Tokenizer) around(bos, eos *bool) {
	set := func(ids *[]terse.Token, add *bool, id terse.Token) {
		if add == nil {
			return
		}
		*ids = nil
		if *add && id != none {
			*ids = []terse.Token{id}
		}
	}
	set(&t.prefix, bos, t.bos)
	set(&t.suffix, eos, t.eos)
}

// finish sets what is the same for all vocabularies.
func (c *config) finish(t *Tokenizer) {
	for _, id := range c.generation.EOS {
		t.addStop(terse.Token(id))
	}
	t.chatTemplate = string(c.Template)
}

// tokenName is a token in tokenizer_config.json: a string or an object.
type tokenName string

// UnmarshalJSON implements json.Unmarshaler.
func (n *tokenName) UnmarshalJSON(data []byte) error {
	if isNull(data) {
		return nil
	}
	if data[0] == '{' {
		var o struct{ Content string }
		err := json.Unmarshal(data, &o)
		*n = tokenName(o.Content)
		return err
	}
	return json.Unmarshal(data, (*string)(n))
}

// chatTemplate is one template or a list of named ones, of which the default.
type chatTemplate string

// UnmarshalJSON implements json.Unmarshaler.
func (c *chatTemplate) UnmarshalJSON(data []byte) error {
	if isNull(data) {
		return nil
	}
	if data[0] != '[' {
		return json.Unmarshal(data, (*string)(c))
	}
	var list []struct{ Name, Template string }
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	for _, t := range list {
		if t.Name == "default" {
			*c = chatTemplate(t.Template)
		}
	}
	return nil
}

// idList is one id or several.
type idList []int32

// UnmarshalJSON implements json.Unmarshaler.
func (l *idList) UnmarshalJSON(data []byte) error {
	if isNull(data) {
		return nil
	}
	if data[0] == '[' {
		return json.Unmarshal(data, (*[]int32)(l))
	}
	*l = make(idList, 1)
	return json.Unmarshal(data, &(*l)[0])
}
