package minijinja

import "fmt"

// Kind says what went wrong with a template.
type Kind int

// The kinds of [Error].
const (
	KindSyntax  Kind = iota // the source is no template
	KindRuntime             // an operation failed while rendering
	KindLimit               // the template wanted more than Limits allow
)

// Error is a failure of a template. Line is 1-based; 0 means unknown.
type Error struct {
	Kind    Kind
	Line    int
	Message string
	Cause   error // what a function given by the caller returned, or nil
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Message
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Message)
}

// Unwrap gives the error of a function that the caller supplied.
func (e *Error) Unwrap() error { return e.Cause }

func errorf(format string, a ...any) *Error {
	return &Error{Kind: KindRuntime, Message: fmt.Sprintf(format, a...)}
}

func limitf(format string, a ...any) *Error {
	return &Error{Kind: KindLimit, Message: fmt.Sprintf(format, a...)}
}

// atLine adds the line to an error that has none yet, so that the innermost
// statement wins.
func atLine(err error, line uint32) error {
	e, ok := err.(*Error)
	if !ok {
		return &Error{Kind: KindRuntime, Line: int(line), Message: err.Error(), Cause: err}
	}
	if e.Line == 0 {
		e.Line = int(line)
	}
	return e
}
