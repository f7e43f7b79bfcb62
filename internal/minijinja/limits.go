package minijinja

import "strings"

// Limits bounds one rendering. All are hard: crossing one ends it with an
// [Error] of kind [KindLimit].
type Limits struct {
	Steps  int64 // nodes evaluated, plus work in proportion to the values touched: the bound on time
	Memory int64 // bytes allocated for values and text, summed without credit for what was freed
	Output int   // bytes of the result
	Depth  int   // nested evaluations (expressions, blocks, macro calls): the bound on stack
}

// maxNesting bounds lists in lists in lists: printing and comparing recurse.
const maxNesting = 64

// bytesPerStep turns bytes touched into steps: about what a step costs in time.
const bytesPerStep = 16

func (s *state) spend(n int64) error {
	s.steps += n
	if s.steps > s.limits.Steps {
		return limitf("the template runs too long: it needs more than %d steps", s.limits.Steps)
	}
	return nil
}

// alloc must be called before n bytes are allocated.
func (s *state) alloc(n int64) error {
	if n < 0 || n > s.limits.Memory-s.memory {
		return limitf("the template needs too much memory: more than %d bytes", s.limits.Memory)
	}
	s.memory += n
	return s.spend(1 + n/bytesPerStep)
}

func (s *state) enter() error {
	s.depth++
	if s.depth > s.limits.Depth {
		return limitf("the template nests too deep: more than %d levels", s.limits.Depth)
	}
	return nil
}

func (s *state) leave() { s.depth-- }

// text builds a string under the limits. The first error sticks. The buffer's
// growth can take twice what is charged for a moment.
type text struct {
	s   *state
	b   strings.Builder
	err error
}

func (t *text) add(part string) {
	if t.err == nil {
		t.err = t.s.alloc(int64(len(part)))
	}
	if t.err == nil {
		t.b.WriteString(part)
	}
}

func (t *text) String() (string, error) {
	if t.err != nil {
		return "", t.err
	}
	return t.b.String(), nil
}
