package chat

import (
	"encoding/json"
	"fmt"
)

// config is the part of tokenizer_config.json that concerns chat.
type config struct {
	ChatTemplate chatTemplate `json:"chat_template"`
	BOS          tokenText    `json:"bos_token"`
	EOS          tokenText    `json:"eos_token"`
	UNK          tokenText    `json:"unk_token"`
	PAD          tokenText    `json:"pad_token"`
	SEP          tokenText    `json:"sep_token"`
	CLS          tokenText    `json:"cls_token"`
	MASK         tokenText    `json:"mask_token"`
}

// tokenText is a special token, written as a string, as an object with its
// text in "content", or as null.
type tokenText string

func (t *tokenText) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '{' {
		var object struct{ Content string }
		err := json.Unmarshal(data, &object)
		*t = tokenText(object.Content)
		return err
	}
	return json.Unmarshal(data, (*string)(t))
}

// chatTemplate holds templates by name: a model gives one string, or a list
// of named ones.
type chatTemplate map[string]string

func (c *chatTemplate) UnmarshalJSON(data []byte) error {
	if len(data) == 0 || data[0] != '[' {
		var source *string
		if err := json.Unmarshal(data, &source); err != nil {
			return err
		}
		if source != nil {
			*c = chatTemplate{variantDefault: *source}
		}
		return nil
	}
	var list []struct{ Name, Template string }
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	*c = chatTemplate{}
	for _, named := range list {
		if _, twice := (*c)[named.Name]; twice {
			return fmt.Errorf("two chat templates are named %q", named.Name)
		}
		(*c)[named.Name] = named.Template
	}
	return nil
}

// FromConfig reads the template of a Hugging Face model directory. jinja, the
// content of chat_template.jinja or of a file the user names, wins over the
// one in tokenizer_config.json; either may be empty. Without any, the error
// is [ErrNoTemplate].
func FromConfig(tokenizerConfig, jinja []byte) (*Template, error) {
	var c config
	if len(tokenizerConfig) > 0 {
		if err := json.Unmarshal(tokenizerConfig, &c); err != nil {
			return nil, invalid("cannot read tokenizer_config.json: %w", err)
		}
	}
	o := Options{BOS: string(c.BOS), EOS: string(c.EOS), Tokens: map[string]string{
		"unk_token": string(c.UNK), "pad_token": string(c.PAD), "sep_token": string(c.SEP),
		"cls_token": string(c.CLS), "mask_token": string(c.MASK),
	}}
	if len(jinja) > 0 {
		return Parse(string(jinja), o)
	}
	if len(c.ChatTemplate) == 0 {
		return nil, ErrNoTemplate
	}
	return ParseNamed(c.ChatTemplate, o)
}
