package gateway

import (
	"encoding/json"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/terse-llm/terse"
)

// usageObject is OpenAI's object usage.
type usageObject struct {
	PromptTokens        int                 `json:"prompt_tokens"`
	CompletionTokens    int                 `json:"completion_tokens"`
	TotalTokens         int                 `json:"total_tokens"`
	PromptTokensDetails promptTokensDetails `json:"prompt_tokens_details"`
}

type promptTokensDetails struct {
	CachedTokens int `json:"cached_tokens"`
}

func newUsageObject(u terse.Usage) usageObject {
	return usageObject{
		PromptTokens: u.PromptTokens, CompletionTokens: u.CompletionTokens,
		TotalTokens:         u.PromptTokens + u.CompletionTokens,
		PromptTokensDetails: promptTokensDetails{u.CachedTokens},
	}
}

// envelope is what every answer and chunk begins with.
type envelope struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	Model   string `json:"model"`
}

func (x *exchange) envelope(object string) envelope {
	return envelope{x.id, object, x.since.Unix(), x.model}
}

// chunk is an event of a stream. Usage is absent without include_usage; with
// it, null in all chunks but the last.
type chunk struct {
	envelope
	Choices any             `json:"choices"`
	Usage   json.RawMessage `json:"usage,omitempty"`
	Terse   *timingReport   `json:"terse,omitempty"`
}

func (x *exchange) chunk(object string, choice any) chunk {
	c := chunk{envelope: x.envelope(object), Choices: []any{choice}}
	if x.params.includeUsage {
		c.Usage = json.RawMessage("null")
	}
	return c
}

func (x *exchange) totalChunk(object string, usage usageObject, report timingReport) chunk {
	return chunk{envelope: x.envelope(object), Choices: []any{}, Usage: encodeJSON(usage), Terse: &report}
}

// finishName is a finish reason as OpenAI writes it; null while there is none.
func finishName(f terse.FinishReason) *string {
	if f == "" {
		return nil
	}
	name := string(f)
	return &name
}

// tokenName is a token's bytes as a string. Broken UTF-8 is written in
// hexadecimal, as OpenAI does (with its prefix "bytes:" in completions), so
// that different tokens have different names.
func tokenName(piece []byte, prefix string) string {
	if utf8.Valid(piece) {
		return string(piece)
	}
	name := []byte(prefix)
	for _, b := range piece {
		name = fmt.Appendf(name, `\x%02x`, b)
	}
	return string(name)
}

// finite keeps log-probabilities within JSON. They stay float32, whose shortest
// form is half as long on the wire.
func finite(l float32) float32 {
	if l > leastLogprob && !math.IsInf(float64(l), 1) {
		return l
	}
	return leastLogprob // NaN too
}
