package minijinja

import (
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/terse-llm/terse/internal/minijinja/parser"
)

// MaxSource is the longest template in bytes: several times the longest that
// models come with.
const MaxSource = 256 << 10

// Options of [Parse].
type Options struct {
	Globals map[string]Value // names that every rendering sees
}

// Template is a parsed template. It is immutable: concurrent renderings are fine.
type Template struct {
	body    []parser.Stmt
	globals map[string]Value
	filters map[string]filterFunc
	tests   map[string]testFunc
}

// Parse reads a template of at most [MaxSource] bytes. Its errors are *Error.
func Parse(source string, o Options) (*Template, error) {
	if len(source) > MaxSource {
		return nil, &Error{Kind: KindLimit, Message: fmt.Sprintf("the template is %d bytes long: more than %d", len(source), MaxSource)}
	}
	source = strings.ReplaceAll(strings.ReplaceAll(source, "\r\n", "\n"), "\r", "\n") // as Jinja2
	tree, err := parser.Parse(source, "chat template")
	if err != nil {
		e := &Error{Kind: KindSyntax, Message: err.Error()}
		var syntax *parser.Error
		if errors.As(err, &syntax) {
			e.Line, e.Message = int(syntax.Line), syntax.Detail
		}
		return nil, e
	}
	t := &Template{body: tree.Children, globals: builtinFunctions(), filters: builtinFilters(), tests: builtinTests()}
	maps.Copy(t.globals, o.Globals)
	return t, nil
}

// Render runs the template over the names in vars, which shadow the globals.
// Its errors are *Error; what a global function returned is kept as the cause.
func (t *Template) Render(vars map[string]Value, l Limits) (string, error) {
	s := &state{tmpl: t, limits: l, scope: &scope{vars: maps.Clone(vars)}}
	s.out = &text{s: s}
	if err := s.block(t.body); err != nil {
		return "", loopEscape(err)
	}
	return s.out.String()
}

// Var is a name for [Object].
type Var struct {
	Name  string
	Value Value
}

// Object is a mapping with the given entries, in order; later ones win.
func Object(entries ...Var) (*Dict, error) {
	d := newDict(len(entries))
	for _, e := range entries {
		if err := d.set(e.Name, e.Value); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// Entries are the string-keyed entries of a mapping, in order; false where v is none.
func Entries(v Value) ([]Var, bool) {
	d, ok := v.(*Dict)
	if !ok {
		return nil, false
	}
	out := make([]Var, 0, len(d.keys))
	for i, k := range d.keys {
		if name, ok := k.(string); ok {
			out = append(out, Var{name, d.vals[i]})
		}
	}
	return out, true
}

// NewList is a list of the given items.
func NewList(items []Value) (*List, error) { return newList(items, false) }
