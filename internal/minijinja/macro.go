package minijinja

import (
	"slices"

	"github.com/terse-llm/terse/internal/minijinja/parser"
)

// macro is the function that a {% macro %} defines. It sees the names of the
// place where it stands, at the time it is called.
func (s *state) macro(m *parser.Macro) *Func {
	home := s.scope
	return &Func{name: m.Name, call: func(s *state, a args) (Value, error) {
		caller := a.keyword("caller")
		out, err := s.capture(func() error {
			return s.inScope(home, func() error {
				if isSet(caller) {
					if err := s.set("caller", caller); err != nil {
						return err
					}
				}
				if err := s.bindMacro(m, a); err != nil {
					return err
				}
				return s.block(m.Body)
			})
		})
		if err != nil {
			return nil, loopEscape(err)
		}
		return out, nil
	}}
}

// bindMacro sets the parameters. Arguments beyond them are varargs and kwargs.
func (s *state) bindMacro(m *parser.Macro, a args) error {
	firstDefault := len(m.Args) - len(m.Defaults)
	for i, param := range m.Args {
		name := param.(*parser.Var).ID // the parser admits names only
		v, err := s.argument(name, i, &a)
		if err != nil {
			return err
		}
		if !isSet(v) {
			v = undefinedName(name)
			if i >= firstDefault {
				if v, err = s.expr(m.Defaults[i-firstDefault]); err != nil {
					return err
				}
			}
		}
		if err := s.set(name, v); err != nil {
			return err
		}
	}
	return s.bindRest(m, a)
}

func (s *state) argument(name string, i int, a *args) (Value, error) {
	v := a.keyword(name)
	if i >= len(a.pos) {
		return v, nil
	}
	if isSet(v) {
		return nil, errorf("%s got two values for '%s'", a.name, name)
	}
	return a.pos[i], nil
}

func (s *state) bindRest(m *parser.Macro, a args) error {
	rest, err := s.sequence(slices.Clone(a.pos[min(len(m.Args), len(a.pos)):]), true)
	if err != nil {
		return err
	}
	if err := s.set("varargs", rest); err != nil {
		return err
	}
	keys, vals := make([]Value, len(a.kw)), make([]Value, len(a.kw))
	for i, kw := range a.kw {
		keys[i], vals[i] = kw.name, kw.value
	}
	named, err := s.dict(keys, vals)
	if err != nil {
		return err
	}
	return s.set("kwargs", named)
}

// callBlock is {% call(args) f() %}body{% endcall %}: the body is f's caller().
func (s *state) callBlock(st *parser.CallBlock) error {
	callee, err := s.expr(st.Call.Expr)
	if err != nil {
		return err
	}
	a, err := s.callArgs("", st.Call.Args)
	if err != nil {
		return err
	}
	a.kw = append(a.kw, keyword{"caller", s.macro(st.MacroDecl)})
	v, err := s.call(callee, a)
	if err != nil {
		return err
	}
	str, err := s.str(v)
	if err != nil {
		return err
	}
	return s.write(str)
}
