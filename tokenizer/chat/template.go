package chat

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	terse "github.com/terse-llm/terse"
	"github.com/terse-llm/terse/internal/minijinja"
)

// ErrNoTemplate says that the model brings no chat template.
var ErrNoTemplate error = &terse.Error{
	Code:    terse.CodeInvalid,
	Message: "this model has no chat template: use /v1/completions, or give one with --chat-template FILE",
}

// Options are what a template reads besides the request.
type Options struct {
	BOS, EOS string            // text of the special tokens; "" leaves the name undefined, as transformers does
	Tokens   map[string]string // further special tokens by name, such as unk_token
	Now      func() time.Time  // for strftime_now; nil is time.Now
}

// Names of the variants that transformers knows: tools select the second.
const (
	variantDefault = "default"
	variantTools   = "tool_use"
)

// Template is a model's chat template. It is immutable and safe for
// concurrent use.
type Template struct {
	plain *minijinja.Template
	tools *minijinja.Template // equal to plain where the model has one template
	names map[string]string   // special tokens
}

// Parse reads one template. Errors have the code [terse.CodeInvalid].
func Parse(source string, o Options) (*Template, error) {
	return ParseNamed(map[string]string{variantDefault: source}, o)
}

// ParseNamed reads a model's named templates: "default" must be among them,
// "tool_use" is used for requests with tools, others are ignored.
func ParseNamed(sources map[string]string, o Options) (*Template, error) {
	source, ok := sources[variantDefault]
	if !ok {
		names := slices.Sorted(maps.Keys(sources))
		return nil, invalid("cannot choose a chat template: the model names %s and no %q",
			strings.Join(names, ", "), variantDefault)
	}
	t := &Template{names: specialTokens(o)}
	var err error
	if t.plain, err = parse(source, o); err != nil {
		return nil, err
	}
	t.tools = t.plain
	if source, ok := sources[variantTools]; ok {
		if t.tools, err = parse(source, o); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func parse(source string, o Options) (*minijinja.Template, error) {
	now := o.Now
	if now == nil {
		now = time.Now
	}
	t, err := minijinja.Parse(source, minijinja.Options{Globals: map[string]minijinja.Value{
		"raise_exception": minijinja.NewFunc("raise_exception", raise),
		"strftime_now":    minijinja.NewFunc("strftime_now", func(pos []minijinja.Value) (minijinja.Value, error) { return strftimeNow(now, pos) }),
	}})
	if err != nil {
		return nil, invalid("cannot parse chat template: %w", err)
	}
	return t, nil
}

func specialTokens(o Options) map[string]string {
	names := maps.Clone(o.Tokens)
	if names == nil {
		names = map[string]string{}
	}
	names["bos_token"], names["eos_token"] = o.BOS, o.EOS
	maps.DeleteFunc(names, func(_, text string) bool { return text == "" })
	return names
}

// Refusal is what a template gives raise_exception: the author's words on why
// these messages do not fit the model, such as roles that must alternate.
type Refusal struct{ Message string }

func (r *Refusal) Error() string { return r.Message }

func raise(pos []minijinja.Value) (minijinja.Value, error) {
	if len(pos) != 1 {
		return nil, errors.New("raise_exception takes one message")
	}
	message, ok := pos[0].(string)
	if !ok {
		return nil, errors.New("raise_exception takes a string")
	}
	return nil, &Refusal{Message: message}
}

// codedError is an error with the code [terse.CodeInvalid] that keeps its chain.
type codedError struct{ error }

func (e codedError) Unwrap() []error {
	return []error{&terse.Error{Code: terse.CodeInvalid, Message: e.Error()}, e.error}
}

func invalid(format string, a ...any) error { return codedError{fmt.Errorf(format, a...)} }
