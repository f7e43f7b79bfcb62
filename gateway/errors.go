package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/terse-llm/terse"
)

// The values of an error object's type.
const (
	typeInvalid    = "invalid_request_error"
	typeAuth       = "authentication_error"
	typeRateLimit  = "rate_limit_error"
	typeOverloaded = "service_unavailable_error"
	typeServer     = "server_error"
)

// statusClientGone is logged for a request whose client left before its
// answer; no client sees it. (nginx's number for the same thing.)
const statusClientGone = 499

// apiError is a failure as OpenAI's clients expect it.
type apiError struct {
	Status     int
	Message    string
	Type       string
	Param      string
	Code       string
	RetryAfter int // seconds; 0 = no header
}

func (e *apiError) Error() string { return e.Message }

// MarshalJSON writes OpenAI's object: absent param and code are null.
func (e *apiError) MarshalJSON() ([]byte, error) {
	orNull := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	return json.Marshal(struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	}{e.Message, e.Type, orNull(e.Param), orNull(e.Code)})
}

// errorBody is the body of an error answer and of an error event.
type errorBody struct {
	Error *apiError `json:"error"`
}

// badField refuses a field for its value.
func badField(param, format string, args ...any) *apiError {
	return &apiError{
		Status: http.StatusBadRequest, Type: typeInvalid, Param: param,
		Code: "invalid_value", Message: fmt.Sprintf(format, args...),
	}
}

// badBody refuses a request for its form.
func badBody(status int, code, format string, args ...any) *apiError {
	return &apiError{Status: status, Type: typeInvalid, Code: code, Message: fmt.Sprintf(format, args...)}
}

// toAPIError maps any failure to what a client is told.
func toAPIError(err error) *apiError {
	var api *apiError
	if errors.As(err, &api) {
		return api
	}
	var typed *terse.Error
	if !errors.As(err, &typed) {
		typed = untyped(err)
	}
	out := &apiError{Message: err.Error(), Code: string(typed.Code)}
	switch typed.Code {
	case terse.CodeInvalid, terse.CodeContextLength, terse.CodeKVMemory:
		out.Status, out.Type = http.StatusBadRequest, typeInvalid
	case terse.CodeOverloaded:
		out.Status, out.Type, out.RetryAfter = http.StatusTooManyRequests, typeRateLimit, 1
	case terse.CodeNoWorker, terse.CodeWorkerLost, terse.CodeTransfer:
		out.Status, out.Type, out.RetryAfter = http.StatusServiceUnavailable, typeOverloaded, 1
	case terse.CodeMismatch, terse.CodeUnauthorized:
		out.Status, out.Type = http.StatusServiceUnavailable, typeOverloaded
	case terse.CodeDeadline:
		out.Status, out.Type = http.StatusGatewayTimeout, typeServer
	case terse.CodeCancelled:
		out.Status, out.Type = statusClientGone, typeServer
	default:
		out.Status, out.Type = http.StatusInternalServerError, typeServer
	}
	return out
}

// clientGone is the failure of writing to a client.
func clientGone(err error) error {
	return &terse.Error{Code: terse.CodeCancelled, Message: fmt.Sprintf("the client left: %v", err)}
}

func untyped(err error) *terse.Error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &terse.Error{Code: terse.CodeDeadline}
	case errors.Is(err, context.Canceled):
		return &terse.Error{Code: terse.CodeCancelled}
	}
	return &terse.Error{Code: terse.CodeInternal}
}

// writeError answers with e in OpenAI's shape.
func writeError(w http.ResponseWriter, e *apiError) {
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(e.RetryAfter))
	}
	if e.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	writeJSON(w, e.Status, errorBody{e})
}

// writeJSON answers with v. Its errors are the client's leaving: nobody is
// there to be told.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body := append(encodeJSON(v), '\n')
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
