package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// readBody reads a JSON body within the limit. A body whose announced length
// is over the limit is refused without reading any of it.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	// A browser sends other types, and none, across origins without asking
	// first; insisting on this one keeps web pages off a server on loopback.
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return nil, badBody(http.StatusUnsupportedMediaType, "unsupported_media_type",
			"the body's content type is %q: send JSON with the header 'Content-Type: application/json'", r.Header.Get("Content-Type"))
	}
	if enc := r.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return nil, badBody(http.StatusUnsupportedMediaType, "unsupported_media_type",
			"the body's content encoding is %q: send it uncompressed", enc)
	}
	tooLarge := badBody(http.StatusRequestEntityTooLarge, "request_too_large",
		"the request body is larger than the limit of %d bytes", s.opts.MaxBodyBytes)
	if r.ContentLength > s.opts.MaxBodyBytes {
		return nil, tooLarge
	}
	body, err := s.readLimited(w, r)
	if err == nil {
		return body, nil
	}
	w.Header().Set("Connection", "close") // the rest of the body is still on its way
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, tooLarge
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, badBody(http.StatusRequestTimeout, "request_timeout", "the request body did not come within %v", s.opts.ClientTimeout)
	}
	return nil, badBody(http.StatusBadRequest, "incomplete_body", "cannot read the request body: %v", err)
}

// readLimited reads the body within its limits of size and time: a client that
// never ends its body would hold its place for ever.
func (s *Server) readLimited(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(s.opts.ClientTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.opts.MaxBodyBytes))
	if err == nil {
		// The server reads on, to see the client leave.
		_ = control.SetReadDeadline(time.Time{})
	}
	return body, err
}

// decodeObject reads one JSON object into v, a pointer to a struct, and
// refuses by name the fields that rules does not let pass. where names the
// object in messages ("" for the body itself).
func decodeObject(data []byte, where string, rules fieldRules, v any) error {
	if at := invalidUTF8(data); at >= 0 {
		return badBody(http.StatusBadRequest, "invalid_utf8", "the request body is not valid UTF-8: byte 0x%02x at offset %d", data[at], at)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return jsonError(err, where)
	}
	if fields == nil {
		return badField(where, "%s must be a JSON object, not null", orBody(where))
	}
	// Sorted, so that of several bad fields always the same is named.
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if err := rules.check(name, where, fields[name]); err != nil {
			return err
		}
	}
	if err := json.Unmarshal(data, v); err != nil {
		return jsonError(err, where)
	}
	return nil
}

// invalidUTF8 is the offset of the first byte that is not UTF-8, or -1.
func invalidUTF8(data []byte) int {
	if utf8.Valid(data) {
		return -1
	}
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

// jsonError says what is wrong with the JSON and where.
func jsonError(err error, where string) error {
	if api, ok := errors.AsType[*apiError](err); ok {
		return api // from one of our own UnmarshalJSON methods
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		// The path names the embedded struct, which no client knows of.
		wrong.Field = strings.TrimPrefix(wrong.Field, "commonRequest.")
		param := joinPath(where, wrong.Field)
		return badField(param, "%s must be %s, not %s", orBody(param), jsonKind(wrong.Type.Kind().String()), wrong.Value)
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return badBody(http.StatusBadRequest, "invalid_json", "the request body is not valid JSON: %v (at byte %d)", err, syntax.Offset)
	}
	return badBody(http.StatusBadRequest, "invalid_json", "the request body is not valid JSON: %v", err)
}

// jsonKind names a Go kind in JSON's words.
func jsonKind(kind string) string {
	switch {
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"):
		return "an integer in range"
	case strings.HasPrefix(kind, "float"):
		return "a number in range"
	case kind == "bool":
		return "true or false"
	case kind == "slice":
		return "an array"
	case kind == "map", kind == "struct":
		return "an object"
	}
	return "a " + kind
}

func orBody(param string) string {
	if param == "" {
		return "the request body"
	}
	return "'" + param + "'"
}

func joinPath(where, field string) string {
	if where == "" || field == "" {
		return where + field
	}
	return where + "." + field
}

// isNull reports whether a field is absent or null.
func isNull(raw json.RawMessage) bool {
	return len(raw) == 0 || bytes.Equal(bytes.TrimSpace(raw), []byte("null"))
}

// eachElement decodes the elements of a JSON array one by one, so that a
// caller can stop at a limit before the whole array is in memory.
func eachElement(raw json.RawMessage, param string, f func(i int, dec *json.Decoder) error) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	open, err := dec.Token()
	if err != nil {
		return jsonError(err, param)
	}
	if open != json.Delim('[') {
		return badField(param, "'%s' must be an array", param)
	}
	for i := 0; dec.More(); i++ {
		if err := f(i, dec); err != nil {
			return jsonError(err, fmt.Sprintf("%s[%d]", param, i))
		}
	}
	return nil
}
