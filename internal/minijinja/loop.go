package minijinja

import (
	"github.com/terse-llm/terse/internal/minijinja/parser"
)

// loopVar is the name `loop` inside a for.
type loopVar struct {
	st      *parser.ForLoop
	outer   *scope // where the loop stands
	items   []Value
	at      int
	depth   int
	changed Value // what loop.changed was last called with
}

func (s *state) forLoop(st *parser.ForLoop) error {
	v, err := s.expr(st.Iter)
	if err != nil {
		return err
	}
	return s.runLoop(st, v, s.scope, 0)
}

func (s *state) runLoop(st *parser.ForLoop, over Value, outer *scope, depth int) error {
	items, err := s.iterate(over)
	if err != nil {
		return err
	}
	if st.FilterExpr != nil {
		if items, err = s.filterLoop(st, items, outer); err != nil {
			return err
		}
	}
	if len(items) == 0 {
		return s.inScope(outer, func() error { return s.block(st.ElseBody) })
	}
	loop := &loopVar{st: st, outer: outer, items: items, depth: depth, changed: unset{}}
	for i := range items {
		loop.at = i
		err := s.inScope(outer, func() error {
			if err := s.assign(st.Target, items[i]); err != nil {
				return err
			}
			if err := s.set("loop", loop); err != nil {
				return err
			}
			return s.block(st.Body)
		})
		switch err.(type) {
		case nil, continueLoop:
		case breakLoop:
			return nil
		default:
			return err
		}
	}
	return nil
}

// filterLoop keeps the items that pass `for x in y if cond`.
func (s *state) filterLoop(st *parser.ForLoop, items []Value, outer *scope) ([]Value, error) {
	var kept []Value
	for _, item := range items {
		err := s.inScope(outer, func() error {
			if err := s.assign(st.Target, item); err != nil {
				return err
			}
			cond, err := s.expr(st.FilterExpr)
			if err == nil && truth(cond) {
				kept = append(kept, item)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return kept, s.alloc(2 * wordSize * int64(len(kept)))
}

// recurse is loop(items) in a loop marked recursive.
func (l *loopVar) recurse(s *state, a args) (Value, error) {
	if !l.st.Recursive {
		return nil, errorf("the loop is not recursive: write {%% for ... recursive %%}")
	}
	a.name = "loop"
	got, err := a.bind(1, "iterable")
	if err != nil {
		return nil, err
	}
	out, err := s.capture(func() error { return s.runLoop(l.st, got[0], l.outer, l.depth+1) })
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (l *loopVar) attribute(name string) (Value, bool) {
	n := len(l.items)
	switch name {
	case "index":
		return int64(l.at + 1), true
	case "index0":
		return int64(l.at), true
	case "revindex":
		return int64(n - l.at), true
	case "revindex0":
		return int64(n - l.at - 1), true
	case "first":
		return l.at == 0, true
	case "last":
		return l.at == n-1, true
	case "length":
		return int64(n), true
	case "depth":
		return int64(l.depth + 1), true
	case "depth0":
		return int64(l.depth), true
	case "previtem":
		if l.at == 0 {
			return Undefined{why: "there is no previous item"}, true
		}
		return l.items[l.at-1], true
	case "nextitem":
		if l.at == n-1 {
			return Undefined{why: "there is no next item"}, true
		}
		return l.items[l.at+1], true
	case "cycle":
		return method("loop", name, l.cycle), true
	case "changed":
		return method("loop", name, l.hasChanged), true
	}
	return nil, false
}

func (l *loopVar) cycle(_ *state, a args) (Value, error) {
	if len(a.pos) == 0 || len(a.kw) > 0 {
		return nil, errorf("loop.cycle needs at least one item")
	}
	return a.pos[l.at%len(a.pos)], nil
}

func (l *loopVar) hasChanged(s *state, a args) (Value, error) {
	now, err := s.sequence(a.pos, true)
	if err != nil {
		return nil, err
	}
	same := false
	if isSet(l.changed) {
		if same, err = s.equal(now, l.changed); err != nil {
			return nil, err
		}
	}
	l.changed = now
	return !same, nil
}
