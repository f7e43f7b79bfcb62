package minijinja

import (
	"slices"

	"github.com/terse-llm/terse/internal/minijinja/parser"
)

// evalChain evaluates a + b + c + ... or a ~ b ~ c ~ ... from left to right,
// as Python does, but copies text once and not once per operator: templates
// build whole prompts this way.
func (s *state) evalChain(e *parser.BinOp) (Value, error) {
	operands := []parser.Expr{e.Right}
	for {
		left, ok := e.Left.(*parser.BinOp)
		if !ok || left.Op != e.Op {
			break
		}
		operands = append(operands, left.Right)
		e = left
	}
	operands = append(operands, e.Left)
	slices.Reverse(operands)
	if err := s.alloc(wordSize * int64(len(operands))); err != nil {
		return nil, err
	}
	sum := chain{s: s, op: e.Op}
	for i, operand := range operands {
		v, err := s.expr(operand)
		if err != nil {
			return nil, err
		}
		if i == 0 && e.Op == parser.BinOpAdd {
			sum.start(v)
			continue
		}
		if err := sum.add(v); err != nil {
			return nil, err
		}
	}
	return sum.value()
}

// chain is a sum so far: text, or for + any value that can be added to.
type chain struct {
	s    *state
	op   parser.BinOpKind
	text *text
	sum  Value
}

func (c *chain) start(v Value) {
	if str, ok := v.(string); ok {
		c.text = &text{s: c.s}
		c.text.add(str)
		return
	}
	c.sum = v
}

func (c *chain) add(v Value) error {
	if c.op == parser.BinOpConcat {
		if c.text == nil {
			c.text = &text{s: c.s}
		}
		str, err := c.s.str(v)
		if err != nil {
			return err
		}
		c.text.add(str)
		return c.text.err
	}
	if c.text == nil {
		var err error
		c.sum, err = c.s.binary(c.op, c.sum, v)
		return err
	}
	str, ok := v.(string)
	if !ok {
		return unsupported("+", "", v)
	}
	c.text.add(str)
	return c.text.err
}

func (c *chain) value() (Value, error) {
	if c.text != nil {
		return c.text.value()
	}
	return c.sum, nil
}
