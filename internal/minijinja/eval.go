package minijinja

import (
	"github.com/terse-llm/terse/internal/minijinja/parser"
)

// state is one rendering.
type state struct {
	tmpl   *Template
	limits Limits
	steps  int64
	memory int64
	depth  int
	scope  *scope
	out    *text
}

// scope holds the names set in a block; lookups go outwards.
type scope struct {
	vars   map[string]Value
	parent *scope
}

func (s *state) set(name string, v Value) error {
	if s.scope.vars == nil {
		s.scope.vars = make(map[string]Value)
	}
	if _, ok := s.scope.vars[name]; !ok {
		if err := s.alloc(dictEntry); err != nil {
			return err
		}
	}
	s.scope.vars[name] = v
	return nil
}

func (s *state) lookup(name string) Value {
	for sc := s.scope; sc != nil; sc = sc.parent {
		if v, ok := sc.vars[name]; ok {
			return v
		}
	}
	if v, ok := s.tmpl.globals[name]; ok {
		return v
	}
	return undefinedName(name)
}

// inScope runs f in a new scope inside parent.
func (s *state) inScope(parent *scope, f func() error) error {
	old := s.scope
	s.scope = &scope{parent: parent}
	defer func() { s.scope = old }()
	return f()
}

// capture runs f and gives what it wrote.
func (s *state) capture(f func() error) (string, error) {
	old := s.out
	s.out = &text{s: s}
	defer func() { s.out = old }()
	if err := f(); err != nil {
		return "", err
	}
	return s.out.String()
}

// expr evaluates an expression.
func (s *state) expr(e parser.Expr) (Value, error) {
	if err := s.spend(1); err != nil {
		return nil, err
	}
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	switch e := e.(type) {
	case *parser.Const:
		return e.Value, nil
	case *parser.Var:
		return s.lookup(e.ID), nil
	case *parser.UnaryOp:
		return s.unary(e)
	case *parser.BinOp:
		if e.Op == parser.BinOpAdd || e.Op == parser.BinOpConcat {
			return s.evalChain(e)
		}
		return s.evalBinOp(e)
	case *parser.Compare:
		return s.evalCompare(e)
	case *parser.IfExpr:
		return s.evalIf(e)
	case *parser.Filter:
		return s.evalFilter(e)
	case *parser.Test:
		return s.evalTest(e)
	case *parser.GetAttr:
		v, err := s.expr(e.Expr)
		if err != nil {
			return nil, err
		}
		return s.attribute(v, e.Name)
	case *parser.GetItem:
		v, key, err := s.pair(e.Expr, e.SubscriptExpr)
		if err != nil {
			return nil, err
		}
		return s.item(v, key)
	case *parser.Slice:
		return s.evalSlice(e)
	case *parser.Call:
		return s.evalCall(e)
	case *parser.List:
		return s.evalList(e)
	case *parser.Map:
		return s.evalMap(e)
	}
	return nil, errorf("BUG: no such expression: %T", e)
}

func (s *state) pair(a, b parser.Expr) (Value, Value, error) {
	x, err := s.expr(a)
	if err != nil {
		return nil, nil, err
	}
	y, err := s.expr(b)
	return x, y, err
}

func (s *state) unary(e *parser.UnaryOp) (Value, error) {
	v, err := s.expr(e.Expr)
	if err != nil {
		return nil, err
	}
	if e.Op == parser.UnaryNot {
		return !truth(v), nil
	}
	n, ok := asNumber(v)
	switch {
	case !ok:
		return nil, unsupported("unary -", v, v)
	case n.isInt:
		return intOp(parser.BinOpSub, 0, n.i)
	}
	return -n.f, nil
}

func (s *state) evalBinOp(e *parser.BinOp) (Value, error) {
	left, err := s.expr(e.Left)
	if err != nil {
		return nil, err
	}
	switch {
	case e.Op == parser.BinOpScAnd && !truth(left), e.Op == parser.BinOpScOr && truth(left):
		return left, nil
	}
	right, err := s.expr(e.Right)
	if err != nil || e.Op == parser.BinOpScAnd || e.Op == parser.BinOpScOr {
		return right, err
	}
	return s.binary(e.Op, left, right)
}

func (s *state) evalCompare(e *parser.Compare) (Value, error) {
	left, err := s.expr(e.Expr)
	if err != nil {
		return nil, err
	}
	for _, op := range e.Ops {
		right, err := s.expr(op.Expr)
		if err != nil {
			return nil, err
		}
		ok, err := s.compare(op.Op, left, right)
		if err != nil || !ok {
			return false, err
		}
		left = right
	}
	return true, nil
}

func (s *state) evalIf(e *parser.IfExpr) (Value, error) {
	cond, err := s.expr(e.TestExpr)
	if err != nil {
		return nil, err
	}
	if truth(cond) {
		return s.expr(e.TrueExpr)
	}
	if e.FalseExpr == nil {
		return Undefined{why: "the inline if-expression evaluated to false and no else section was defined"}, nil
	}
	return s.expr(e.FalseExpr)
}

func (s *state) evalFilter(e *parser.Filter) (Value, error) {
	v, err := s.expr(e.Expr)
	if err != nil {
		return nil, err
	}
	return s.filterWith(e, v)
}

func (s *state) filterWith(e *parser.Filter, v Value) (Value, error) {
	a, err := s.callArgs(e.Name, e.Args)
	if err != nil {
		return nil, err
	}
	return s.applyFilter(e.Name, v, a)
}

func (s *state) applyFilter(name string, v Value, a args) (Value, error) {
	f, ok := s.tmpl.filters[name]
	if !ok {
		return nil, errorf("no filter named '%s'", name)
	}
	if err := s.enter(); err != nil { // map('map', 'map', ...) recurses
		return nil, err
	}
	defer s.leave()
	if err := s.spend(1); err != nil {
		return nil, err
	}
	return f(s, v, a)
}

func (s *state) evalTest(e *parser.Test) (Value, error) {
	v, err := s.expr(e.Expr)
	if err != nil {
		return nil, err
	}
	a, err := s.callArgs(e.Name, e.Args)
	if err != nil {
		return nil, err
	}
	return s.applyTest(e.Name, v, a)
}

func (s *state) applyTest(name string, v Value, a args) (bool, error) {
	f, ok := s.tmpl.tests[name]
	if !ok {
		return false, errorf("no test named '%s'", name)
	}
	return f(s, v, a)
}

func (s *state) evalSlice(e *parser.Slice) (Value, error) {
	v, err := s.expr(e.Expr)
	if err != nil {
		return nil, err
	}
	var bounds [3]Value
	for i, b := range []parser.Expr{e.Start, e.Stop, e.Step} {
		if b == nil {
			continue
		}
		if bounds[i], err = s.expr(b); err != nil {
			return nil, err
		}
	}
	return s.slice(v, bounds[0], bounds[1], bounds[2])
}

func (s *state) exprs(list []parser.Expr) ([]Value, error) {
	if err := s.alloc(wordSize * int64(len(list))); err != nil {
		return nil, err
	}
	out := make([]Value, len(list))
	for i, e := range list {
		var err error
		if out[i], err = s.expr(e); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *state) evalList(e *parser.List) (Value, error) {
	items, err := s.exprs(e.Items)
	if err != nil {
		return nil, err
	}
	return s.sequence(items, e.Tuple)
}

func (s *state) evalMap(e *parser.Map) (Value, error) {
	keys, err := s.exprs(e.Keys)
	if err != nil {
		return nil, err
	}
	vals, err := s.exprs(e.Values)
	if err != nil {
		return nil, err
	}
	return s.dict(keys, vals)
}

func (s *state) evalCall(e *parser.Call) (Value, error) {
	callee, err := s.expr(e.Expr)
	if err != nil {
		return nil, err
	}
	a, err := s.callArgs("", e.Args)
	if err != nil {
		return nil, err
	}
	return s.call(callee, a)
}

func (s *state) call(callee Value, a args) (Value, error) {
	switch f := callee.(type) {
	case *Func:
		a.name = f.name
		return f.call(s, a)
	case *loopVar:
		return f.recurse(s, a)
	case Undefined:
		return nil, errorf("%s", f.why)
	}
	return nil, errorf("'%s' object is not callable", typeName(callee))
}

func (s *state) callArgs(name string, list []parser.CallArg) (args, error) {
	a := args{name: name}
	for _, arg := range list {
		v, err := s.expr(arg.Value)
		if err != nil {
			return a, err
		}
		if err := s.alloc(2 * wordSize); err != nil {
			return a, err
		}
		switch arg.Kind {
		case parser.CallArgPos:
			a.pos = append(a.pos, v)
		case parser.CallArgKwarg:
			a.kw = append(a.kw, keyword{arg.Name, v})
		default:
			if a, err = s.splat(a, arg.Kind, v); err != nil {
				return a, err
			}
		}
	}
	return a, nil
}

// splat adds the elements of *list or **mapping.
func (s *state) splat(a args, kind parser.CallArgKind, v Value) (args, error) {
	if kind == parser.CallArgPosSplat {
		items, err := s.iterate(v)
		if err != nil {
			return a, err
		}
		a.pos = append(a.pos, items...)
		return a, s.alloc(2 * wordSize * int64(len(items)))
	}
	d, ok := v.(*Dict)
	if !ok {
		return a, errorf("argument after ** must be a mapping, not %s", typeName(v))
	}
	for i, k := range d.keys {
		name, ok := k.(string)
		if !ok {
			return a, errorf("keywords must be strings")
		}
		a.kw = append(a.kw, keyword{name, d.vals[i]})
	}
	return a, s.alloc(2 * wordSize * int64(len(d.keys)))
}
