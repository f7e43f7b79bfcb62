package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/terse-llm/terse/internal/minijinja"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string
	Content string

	// Fields is a JSON object of what else the message carries (tool_calls,
	// name, reasoning_content, ...), in the order that templates will print
	// it. A "content" in it replaces Content: null, or a list of parts.
	Fields json.RawMessage
}

// Input is what one prompt is made of.
type Input struct {
	Messages            []Message
	AddGenerationPrompt bool // end with the opening of the assistant's turn

	// Tools is the request's list of tools, or nil. As json.RawMessage it
	// keeps the order of its keys, which the model sees.
	Tools any

	// Extra are further names for the template, such as enable_thinking.
	// Values are what encoding/json can write.
	Extra map[string]any
}

// The limits of one rendering. A long conversation through a large template
// takes some 100,000 steps; the text of the request is allowed for on top.
const (
	baseSteps     = 20_000_000 // a second or two
	stepsPerByte  = 16
	baseMemory    = 64 << 20
	memoryPerByte = 128 // a template may copy its input this many times over
	baseOutput    = 4 << 20
	outputPerByte = 8
	maxDepth      = 2000
)

func limits(inputBytes int) minijinja.Limits {
	return minijinja.Limits{
		Steps:  baseSteps + stepsPerByte*int64(inputBytes),
		Memory: baseMemory + memoryPerByte*int64(inputBytes),
		Output: baseOutput + outputPerByte*inputBytes,
		Depth:  maxDepth,
	}
}

// Render makes the prompt. Every error has the code [terse.CodeInvalid]: the
// template refused the messages (a [*Refusal] in the chain), failed on them,
// or wanted more than the limits.
func (t *Template) Render(in Input) (string, error) {
	vars, size, err := t.vars(in)
	if err != nil {
		return "", invalid("cannot render chat template: %w", err)
	}
	tmpl := t.plain
	if in.Tools != nil {
		tmpl = t.tools
	}
	out, err := tmpl.Render(vars, limits(size))
	if err == nil {
		return out, nil
	}
	var refusal *Refusal
	if errors.As(err, &refusal) { // the line in the template is of no use to who sent the messages
		return "", invalid("the model's chat template refuses these messages: %w", refusal)
	}
	return "", invalid("cannot render chat template: %w", err)
}

// vars are the names that the template sees, and how many bytes they hold.
func (t *Template) vars(in Input) (map[string]minijinja.Value, int, error) {
	vars := map[string]minijinja.Value{"documents": nil, "add_generation_prompt": in.AddGenerationPrompt}
	size := 0
	for name, text := range t.names {
		vars[name] = text
	}
	for name, v := range in.Extra {
		val, n, err := toValue(v)
		if err != nil {
			return nil, 0, fmt.Errorf("cannot pass %q: %w", name, err)
		}
		vars[name] = val
		size += n
	}
	tools, n, err := toValue(in.Tools)
	if err != nil {
		return nil, 0, fmt.Errorf("cannot pass tools: %w", err)
	}
	vars["tools"] = tools
	size += n
	list := make([]minijinja.Value, len(in.Messages))
	for i, m := range in.Messages {
		if list[i], err = m.value(); err != nil {
			return nil, 0, fmt.Errorf("cannot pass message %d: %w", i, err)
		}
		size += len(m.Role) + len(m.Content) + len(m.Fields)
	}
	vars["messages"], err = minijinja.NewList(list)
	return vars, size, err
}

// toValue passes JSON through in its order and encodes all else first.
func toValue(v any) (minijinja.Value, int, error) {
	data, ok := v.(json.RawMessage)
	if !ok {
		var err error
		if data, err = json.Marshal(v); err != nil {
			return nil, 0, err
		}
	}
	val, err := minijinja.FromJSON(data)
	return val, len(data), err
}

func (m Message) value() (minijinja.Value, error) {
	if !utf8.ValidString(m.Role) || !utf8.ValidString(m.Content) {
		return nil, errors.New("the text is not valid UTF-8")
	}
	entries := []minijinja.Var{{Name: "role", Value: m.Role}, {Name: "content", Value: m.Content}}
	if len(m.Fields) > 0 {
		fields, err := minijinja.FromJSON(m.Fields)
		if err != nil {
			return nil, err
		}
		more, ok := minijinja.Entries(fields)
		if !ok {
			return nil, errors.New("its fields are no JSON object")
		}
		entries = append(entries, more...)
	}
	return minijinja.Object(entries...)
}
