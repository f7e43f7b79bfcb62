package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/terse-llm/terse"
)

// commonRequest holds the fields that both generation endpoints share. Pointers
// tell "absent" from zero.
type commonRequest struct {
	Model         string          `json:"model"`
	MaxTokens     *int            `json:"max_tokens"`
	N             *int            `json:"n"`
	Stream        bool            `json:"stream"`
	StreamOptions json.RawMessage `json:"stream_options"`
	Stop          stopList        `json:"stop"`
	Seed          *int64          `json:"seed"`

	Temperature       *float32           `json:"temperature"`
	TopP              *float32           `json:"top_p"`
	TopK              *int               `json:"top_k"`
	MinP              *float32           `json:"min_p"`
	RepetitionPenalty *float32           `json:"repetition_penalty"`
	PresencePenalty   *float32           `json:"presence_penalty"`
	FrequencyPenalty  *float32           `json:"frequency_penalty"`
	LogitBias         map[string]float32 `json:"logit_bias"`
	StopTokenIDs      []terse.Token      `json:"stop_token_ids"`
	IgnoreEOS         bool               `json:"ignore_eos"`
}

// chatRequest is the body of /v1/chat/completions.
type chatRequest struct {
	commonRequest
	Messages            json.RawMessage `json:"messages"`
	MaxCompletionTokens *int            `json:"max_completion_tokens"`
	Logprobs            bool            `json:"logprobs"`
	TopLogprobs         *int            `json:"top_logprobs"`
	AddGenerationPrompt *bool           `json:"add_generation_prompt"`
}

// completionRequest is the body of /v1/completions.
type completionRequest struct {
	commonRequest
	Prompt           json.RawMessage `json:"prompt"`
	Echo             bool            `json:"echo"`
	BestOf           *int            `json:"best_of"`
	Logprobs         *int            `json:"logprobs"`
	AddSpecialTokens *bool           `json:"add_special_tokens"`
}

// streamOptions is the object stream_options.
type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

// stopList is a stop string or an array of them.
type stopList []string

// Limits on stop strings: OpenAI's four, and a length that keeps looking for
// the beginning of one cheap.
const (
	maxStops     = 4
	maxStopBytes = 256
)

// UnmarshalJSON reads a string, an array of strings or null.
func (l *stopList) UnmarshalJSON(data []byte) error {
	if isNull(data) {
		return nil
	}
	if data[0] == '"' {
		var one string
		if err := json.Unmarshal(data, &one); err != nil {
			return err
		}
		*l = stopList{one}
	} else if data[0] != '[' {
		return badField("stop", "'stop' must be a string or an array of strings")
	} else if err := l.readArray(data); err != nil {
		return err
	}
	for _, s := range *l {
		if s == "" || len(s) > maxStopBytes {
			return badField("stop", "a stop string must have 1 to %d bytes, this one has %d", maxStopBytes, len(s))
		}
	}
	return nil
}

func (l *stopList) readArray(data []byte) error {
	return eachElement(data, "stop", func(i int, dec *json.Decoder) error {
		if i == maxStops {
			return badField("stop", "'stop' must have at most %d strings", maxStops)
		}
		var s string
		if err := dec.Decode(&s); err != nil {
			return err
		}
		*l = append(*l, s)
		return nil
	})
}

// promptInput is one prompt of /v1/completions: text, or tokens.
type promptInput struct {
	text    string
	tokens  []terse.Token
	isToken bool
}

// readPrompts reads the four forms of a prompt: text, array of texts, array of
// tokens, array of arrays of tokens. It reads at most maxPrompts prompts.
func readPrompts(raw json.RawMessage, maxPrompts int) ([]promptInput, error) {
	raw = bytes.TrimSpace(raw)
	if isNull(raw) {
		return nil, missing("prompt")
	}
	if raw[0] == '"' {
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, jsonError(err, "prompt")
		}
		return []promptInput{{text: text}}, nil
	}
	if raw[0] != '[' {
		return nil, badField("prompt", "'prompt' must be a string, an array of strings, an array of tokens or an array of arrays of tokens")
	}
	if first := bytes.TrimSpace(raw[1:]); first[0] == '-' || first[0] >= '0' && first[0] <= '9' {
		tokens, err := readTokens(raw, "prompt")
		return []promptInput{{tokens: tokens, isToken: true}}, err
	}
	return readPromptArray(raw, maxPrompts)
}

func readPromptArray(raw json.RawMessage, maxPrompts int) ([]promptInput, error) {
	var prompts []promptInput
	err := eachElement(raw, "prompt", func(i int, dec *json.Decoder) error {
		if i == maxPrompts {
			return badField("prompt", "'prompt' has more prompts than the %d this request may have", maxPrompts)
		}
		var element json.RawMessage
		if err := dec.Decode(&element); err != nil {
			return err
		}
		p := promptInput{isToken: element[0] == '['}
		var err error
		if p.isToken {
			p.tokens, err = readTokens(element, fmt.Sprintf("prompt[%d]", i))
		} else {
			err = json.Unmarshal(element, &p.text)
		}
		prompts = append(prompts, p)
		return err
	})
	if err == nil && len(prompts) == 0 {
		err = badField("prompt", "'prompt' is an empty array: give at least one prompt")
	}
	return prompts, err
}

func readTokens(raw json.RawMessage, param string) ([]terse.Token, error) {
	var tokens []terse.Token
	if err := json.Unmarshal(raw, &tokens); err != nil {
		return nil, jsonError(err, param)
	}
	return tokens, nil
}

func missing(param string) error {
	e := badField(param, "you must provide '%s'", param)
	e.Code = "missing_required_parameter"
	return e
}
