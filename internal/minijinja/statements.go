package minijinja

import (
	"github.com/terse-llm/terse/internal/minijinja/parser"
)

// breakLoop and continueLoop unwind to the innermost loop.
type breakLoop struct{}
type continueLoop struct{}

func (breakLoop) Error() string    { return "'break' outside a loop" }
func (continueLoop) Error() string { return "'continue' outside a loop" }

// loopEscape makes a break that found no loop a plain error.
func loopEscape(err error) error {
	switch err.(type) {
	case breakLoop, continueLoop:
		return errorf("%s", err)
	}
	return err
}

// block runs statements. An error gets the line of the innermost one.
func (s *state) block(stmts []parser.Stmt) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	for _, stmt := range stmts {
		err := s.spend(1)
		if err == nil {
			err = s.stmt(stmt)
		}
		switch err.(type) {
		case nil:
		case breakLoop, continueLoop:
			return err
		default:
			return atLine(err, stmt.Span().StartLine)
		}
	}
	return nil
}

func (s *state) stmt(stmt parser.Stmt) error {
	switch st := stmt.(type) {
	case *parser.EmitRaw:
		return s.write(st.Raw)
	case *parser.EmitExpr:
		return s.emit(st.Expr)
	case *parser.IfCond:
		return s.ifStmt(st)
	case *parser.ForLoop:
		return s.forLoop(st)
	case *parser.Set:
		v, err := s.expr(st.Expr)
		if err != nil {
			return err
		}
		return s.assign(st.Target, v)
	case *parser.SetBlock:
		return s.setBlock(st)
	case *parser.WithBlock:
		return s.with(st)
	case *parser.Macro:
		return s.set(st.Name, s.macro(st))
	case *parser.CallBlock:
		return s.callBlock(st)
	case *parser.FilterBlock:
		return s.filterBlock(st)
	case *parser.Block:
		return s.inScope(s.scope, func() error { return s.block(st.Body) })
	case *parser.Generation:
		return s.inScope(s.scope, func() error { return s.block(st.Body) })
	case *parser.Do:
		_, err := s.expr(st.Call)
		return err
	case *parser.Break:
		return breakLoop{}
	case *parser.Continue:
		return continueLoop{}
	}
	return errorf("BUG: no such statement: %T", stmt)
}

func (s *state) write(v string) error {
	if s.out.b.Len()+len(v) > s.limits.Output {
		return limitf("the template writes too much: more than %d bytes", s.limits.Output)
	}
	s.out.add(v)
	return s.out.err
}

func (s *state) emit(e parser.Expr) error {
	v, err := s.expr(e)
	if err != nil {
		return err
	}
	str, err := s.str(v)
	if err != nil {
		return err
	}
	return s.write(str)
}

func (s *state) ifStmt(st *parser.IfCond) error {
	cond, err := s.expr(st.Expr)
	if err != nil {
		return err
	}
	if truth(cond) {
		return s.block(st.TrueBody)
	}
	return s.block(st.FalseBody)
}

// assign binds a name, the names of a tuple, or an attribute of a namespace.
func (s *state) assign(target parser.Expr, v Value) error {
	switch t := target.(type) {
	case *parser.Var:
		return s.set(t.ID, v)
	case *parser.List:
		items, err := s.iterate(v)
		if err != nil {
			return err
		}
		if len(items) != len(t.Items) {
			return errorf("cannot unpack %d values into %d names", len(items), len(t.Items))
		}
		for i, part := range t.Items {
			if err := s.assign(part, items[i]); err != nil {
				return err
			}
		}
		return nil
	case *parser.GetAttr:
		owner, err := s.expr(t.Expr)
		if err != nil {
			return err
		}
		ns, ok := owner.(*Namespace)
		if !ok {
			return errorf("cannot assign attribute '%s' on non-namespace object", t.Name)
		}
		ns.vars[t.Name] = v
		return s.alloc(dictEntry)
	}
	return errorf("BUG: cannot assign to %T", target)
}

func (s *state) setBlock(st *parser.SetBlock) error {
	out, err := s.capture(func() error {
		return s.inScope(s.scope, func() error { return s.block(st.Body) })
	})
	if err != nil {
		return err
	}
	v, err := s.filterChain(st.Filter, out)
	if err != nil {
		return err
	}
	return s.assign(st.Target, v)
}

func (s *state) filterBlock(st *parser.FilterBlock) error {
	out, err := s.capture(func() error {
		return s.inScope(s.scope, func() error { return s.block(st.Body) })
	})
	if err != nil {
		return err
	}
	v, err := s.filterChain(st.Filter, out)
	if err != nil {
		return err
	}
	str, err := s.str(v)
	if err != nil {
		return err
	}
	return s.write(str)
}

// filterChain applies the filters of a block; the innermost has no operand.
func (s *state) filterChain(e parser.Expr, v Value) (Value, error) {
	f, ok := e.(*parser.Filter)
	if !ok {
		return v, nil
	}
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	v, err := s.filterChain(f.Expr, v)
	if err != nil {
		return nil, err
	}
	return s.filterWith(f, v)
}

func (s *state) with(st *parser.WithBlock) error {
	return s.inScope(s.scope, func() error {
		for _, a := range st.Assignments {
			v, err := s.expr(a.Value)
			if err != nil {
				return err
			}
			if err := s.assign(a.Target, v); err != nil {
				return err
			}
		}
		return s.block(st.Body)
	})
}
