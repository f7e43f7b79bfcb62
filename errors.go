package terse

import "errors"

// Code names a class of failure. It travels between machines and reaches the
// API's error object as its code.
type Code string

// The codes that callers branch on.
const (
	CodeInvalid       Code = "invalid_request"         // the request can never work
	CodeContextLength Code = "context_length_exceeded" // prompt (and answer) longer than the context
	CodeKVMemory      Code = "kv_memory_exceeded"      // more KV than the worker's whole cache
	CodeOverloaded    Code = "overloaded"              // queues full: try again later
	CodeNoWorker      Code = "no_worker"               // no worker for the role or model
	CodeWorkerLost    Code = "worker_lost"             // a worker disappeared mid-request
	CodeTransfer      Code = "kv_transfer_failed"      // KV did not arrive whole
	CodeMismatch      Code = "mismatch"                // workers with different models, formats or calibrations
	CodeUnauthorized  Code = "unauthorized"            // a peer without the cluster key, or with another
	CodeCancelled     Code = "cancelled"
	CodeDeadline      Code = "deadline_exceeded"
	CodeInternal      Code = "internal_error"
)

// Error is a typed failure that can cross machines as JSON.
type Error struct {
	Code    Code
	Message string
}

func (e *Error) Error() string { return e.Message }

// Is makes errors.Is(err, &Error{Code: c}) compare codes only.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// CodeOf is the code of err's first *Error, or CodeInternal.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// AsError turns any error into an *Error, keeping the code it has.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return &Error{Code: e.Code, Message: err.Error()}
	}
	return &Error{Code: CodeInternal, Message: err.Error()}
}
