// Forked from minijinja-go v2.24.0 (Apache-2.0) and changed; see ../README.md.

package lexer

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// Lexer tokenizes Jinja2 template source code.
type Lexer struct {
	source    string // original source (possibly with trailing newline stripped)
	pos       int    // current position in source
	start     int    // start position of current token
	line      uint32 // current line (1-indexed)
	col       uint32 // current column (0-indexed at line start)
	startLine uint32
	startCol  uint32

	// State tracking
	stack                 []lexerState
	trimLeadingWhitespace bool
	pendingStartMarker    *pendingMarker
	parenBalance          int
}

type lexerState int

const (
	stateTemplate lexerState = iota
	stateVariable
	stateBlock
)

type pendingMarker struct {
	marker startMarker
	length int
}

type startMarker int

const (
	markerVariable startMarker = iota
	markerBlock
	markerComment
)

type whitespaceMode int

const (
	wsDefault  whitespaceMode = iota
	wsPreserve                // +
	wsRemove                  // -
)

func whitespaceFromByte(b byte) whitespaceMode {
	switch b {
	case '-':
		return wsRemove
	case '+':
		return wsPreserve
	default:
		return wsDefault
	}
}

// New creates a new Lexer for the given input.
func New(input string) *Lexer {
	source := input
	// Strip trailing newline if not keeping it (like Rust does)
	source = strings.TrimSuffix(source, "\n")

	return &Lexer{
		source: source,
		line:   1,
		col:    0,
		stack:  []lexerState{stateTemplate},
	}
}

// Tokenize returns all tokens from the input.
func Tokenize(input string) ([]Token, error) {
	l := New(input)
	return l.All()
}

// All collects all tokens into a slice.
func (l *Lexer) All() ([]Token, error) {
	var tokens []Token
	for {
		tok, err := l.Next()
		if err != nil {
			return nil, err
		}
		if tok == nil {
			break
		}
		tokens = append(tokens, *tok)
	}
	return tokens, nil
}

// Next returns the next token, or nil at end of input.
func (l *Lexer) Next() (*Token, error) {
	for {
		if l.atEnd() {
			// Line statements close at end of file if still open
			return nil, nil
		}

		state := l.currentState()
		var tok *Token
		var err error
		var cont bool

		switch state {
		case stateTemplate:
			tok, cont, err = l.tokenizeRoot()
		case stateVariable:
			tok, cont, err = l.tokenizeBlockOrVar(sentinelVariable)
		case stateBlock:
			tok, cont, err = l.tokenizeBlockOrVar(sentinelBlock)
		}

		if err != nil {
			return nil, err
		}
		if cont {
			continue
		}
		if tok != nil {
			return tok, nil
		}
	}
}

func (l *Lexer) currentState() lexerState {
	if len(l.stack) == 0 {
		return stateTemplate
	}
	return l.stack[len(l.stack)-1]
}

func (l *Lexer) pushState(s lexerState) {
	l.stack = append(l.stack, s)
}

func (l *Lexer) popState() {
	if len(l.stack) > 0 {
		l.stack = l.stack[:len(l.stack)-1]
	}
}

type blockSentinel int

const (
	sentinelVariable blockSentinel = iota
	sentinelBlock
)

// tokenizeRoot handles template data state.
func (l *Lexer) tokenizeRoot() (*Token, bool, error) {
	// Handle pending start marker
	if l.pendingStartMarker != nil {
		pm := l.pendingStartMarker
		l.pendingStartMarker = nil
		return l.handleStartMarker(pm.marker, pm.length)
	}

	// Handle trim leading whitespace from previous block
	if l.trimLeadingWhitespace {
		l.trimLeadingWhitespace = false
		l.skipWhitespace()
	}

	l.markStart()

	// Find next start marker
	match := l.findStartMarker()
	if match == nil {
		// No marker found, rest is template data
		if l.pos < len(l.source) {
			text := l.advance(len(l.source) - l.pos)
			tok := l.makeToken(TokenTemplateData, text)
			return &tok, false, nil
		}
		return nil, false, nil
	}

	// We found a marker at match.offset
	marker, offset, length, ws := match.marker, match.offset, match.length, match.ws

	l.pendingStartMarker = &pendingMarker{marker: marker, length: length}

	// Determine how much template data to emit before the marker
	var lead string
	var span Span
	switch ws {
	case wsDefault:
		if l.shouldLstripBlock(marker, l.source[:l.pos+offset]) {
			// Strip trailing whitespace from the line
			peeked := l.rest()[:offset]
			trimmed := lstripBlock(peeked)
			lead = l.advance(len(trimmed))
			span = l.span()                       // Span ends here, before the stripped whitespace
			l.advance(len(peeked) - len(trimmed)) // Skip the whitespace
		} else {
			lead = l.advance(offset)
			span = l.span()
		}
	case wsPreserve:
		lead = l.advance(offset)
		span = l.span()
	case wsRemove:
		// Trim trailing whitespace before the marker
		peeked := l.rest()[:offset]
		trimmed := strings.TrimRight(peeked, " \t\n\r")
		lead = l.advance(len(trimmed))
		span = l.span() // Span ends here, before the stripped whitespace
		l.advance(len(peeked) - len(trimmed))
	}

	if lead == "" {
		return nil, true, nil // continue to handle start marker
	}

	tok := Token{
		Type:  TokenTemplateData,
		Value: lead,
		Span:  span,
	}
	return &tok, false, nil
}

type markerMatch struct {
	offset int
	marker startMarker
	length int
	ws     whitespaceMode
}

// findStartMarker finds the next `{{`, `{%` or `{#`. One pass over the source in
// total: searching for each marker on its own would make a template of many tags quadratic.
func (l *Lexer) findStartMarker() *markerMatch {
	rest := l.rest()
	for from := 0; ; {
		i := strings.IndexByte(rest[from:], '{')
		if i < 0 || from+i+1 >= len(rest) {
			return nil
		}
		idx := from + i
		m := &markerMatch{offset: idx, length: 2}
		switch rest[idx+1] {
		case '{':
			m.marker = markerVariable
		case '%':
			m.marker = markerBlock
		case '#':
			m.marker = markerComment
		default:
			from = idx + 1
			continue
		}
		if idx+2 < len(rest) {
			m.ws = whitespaceFromByte(rest[idx+2])
		}
		if m.ws != wsDefault {
			m.length++
		}
		return m
	}
}

func (l *Lexer) handleStartMarker(marker startMarker, skip int) (*Token, bool, error) {
	switch marker {
	case markerComment:
		// Find end of comment
		rest := l.rest()[skip:]
		endIdx := strings.Index(rest, "#}")
		if endIdx < 0 {
			l.advance(len(l.rest()))
			return nil, false, l.syntaxError("unexpected end of comment")
		}

		// Check for whitespace control before comment end
		ws := wsDefault
		if endIdx > 0 {
			ws = whitespaceFromByte(rest[endIdx-1])
		}

		l.advance(skip + endIdx + 2)
		l.handleTailWhitespace(ws)
		return nil, true, nil // continue

	case markerVariable:
		l.markStart()
		l.advance(skip)
		l.pushState(stateVariable)
		tok := l.makeToken(TokenVariableStart, "{{")
		return &tok, false, nil

	case markerBlock:
		// Check for raw block
		blockContent := l.rest()[skip:]
		if rawLen, wsStart := l.skipBasicTag(blockContent, "raw"); rawLen > 0 {
			l.advance(skip + rawLen)
			return l.handleRawTag(wsStart)
		}

		l.markStart()
		l.advance(skip)
		l.pushState(stateBlock)
		tok := l.makeToken(TokenBlockStart, "{%")
		return &tok, false, nil

	}

	return nil, false, nil
}

func (l *Lexer) handleRawTag(wsStart whitespaceMode) (*Token, bool, error) {
	l.markStart()

	// Find {% endraw %}
	rest := l.rest()
	ptr := 0

	for {
		blockIdx := strings.Index(rest[ptr:], "{%")
		if blockIdx < 0 {
			l.advance(len(rest))
			return nil, false, l.syntaxError("unexpected end of raw block")
		}
		blockIdx += ptr // Convert to absolute position in rest

		// Position right after {%
		afterBlockStart := blockIdx + 2

		// Check if this is endraw
		remaining := rest[afterBlockStart:]
		if endrawLen, wsNext := l.skipBasicTag(remaining, "endraw"); endrawLen > 0 {
			// Check for whitespace control right after {% (before endraw)
			ws := wsDefault
			if afterBlockStart < len(rest) {
				ws = whitespaceFromByte(rest[afterBlockStart])
			}

			end := blockIdx
			result := rest[:end]

			// Apply wsStart trimming (after raw tag)
			switch wsStart {
			case wsDefault:
				result = strings.TrimPrefix(result, "\r")
				result = strings.TrimPrefix(result, "\n")
			case wsRemove:
				result = strings.TrimLeft(result, " \t\n\r")
			}

			// Apply ws trimming (before endraw tag)
			switch ws {
			case wsDefault:
				result = lstripBlock(result)
			case wsRemove:
				result = strings.TrimRight(result, " \t\n\r")
			}

			l.advance(end)
			span := l.span()
			l.advance(2 + endrawLen)
			l.handleTailWhitespace(wsNext)

			tok := Token{
				Type:  TokenTemplateData,
				Value: result,
				Span:  span,
			}
			return &tok, false, nil
		}

		ptr = afterBlockStart
	}
}

// skipBasicTag checks if the string starts with a simple tag like "raw" or "endraw"
// Returns the length to skip and the whitespace mode at end.
func (l *Lexer) skipBasicTag(s string, name string) (int, whitespaceMode) {
	ptr := s

	// Skip optional whitespace control at start
	if len(ptr) > 0 && (ptr[0] == '-' || ptr[0] == '+') {
		ptr = ptr[1:]
	}

	// Skip whitespace
	ptr = strings.TrimLeft(ptr, " \t\n\r")

	// Check for name
	if !strings.HasPrefix(ptr, name) {
		return 0, wsDefault
	}
	ptr = ptr[len(name):]

	// After name must be whitespace or end delimiter
	if len(ptr) > 0 && isIdentPart(ptr[0]) {
		return 0, wsDefault
	}

	// Skip whitespace
	ptr = strings.TrimLeft(ptr, " \t\n\r")

	// Check for whitespace control before end
	ws := wsDefault
	if len(ptr) > 0 && (ptr[0] == '-' || ptr[0] == '+') {
		ws = whitespaceFromByte(ptr[0])
		ptr = ptr[1:]
	}

	// Check for block end
	if !strings.HasPrefix(ptr, "%}") {
		return 0, wsDefault
	}
	ptr = ptr[2:]

	return len(s) - len(ptr), ws
}

func (l *Lexer) handleTailWhitespace(ws whitespaceMode) {
	switch ws {
	case wsPreserve:
		// Do nothing
	case wsDefault:
		l.skipNewlineIfTrimBlocks()
	case wsRemove:
		l.trimLeadingWhitespace = true
	}
}

func (l *Lexer) skipNewlineIfTrimBlocks() {
	rest := l.rest()
	if strings.HasPrefix(rest, "\r") {
		l.advance(1)
		rest = l.rest()
	}
	if strings.HasPrefix(rest, "\n") {
		l.advance(1)
	}
}

func (l *Lexer) shouldLstripBlock(marker startMarker, prefix string) bool {
	// Line statements/comments always lstrip
	if marker != markerVariable {
		// Only strip if we're at the start of a line
		for i := len(prefix) - 1; i >= 0; i-- {
			c := prefix[i]
			if c == '\n' || c == '\r' {
				return true
			} else if c != ' ' && c != '\t' {
				return false
			}
		}
		// At start of file
		return true
	}
	return false
}

// tokenizeBlockOrVar handles tokens inside {% %} or {{ }}.
func (l *Lexer) tokenizeBlockOrVar(sentinel blockSentinel) (*Token, bool, error) {
	l.skipWhitespaceChars()

	if l.atEnd() {
		return nil, false, nil
	}

	l.markStart()
	rest := l.rest()

	// Check for block/variable end with optional whitespace control
	if l.parenBalance == 0 {
		switch sentinel {
		case sentinelBlock:
			// Check for -/+ %} or %}
			if len(rest) > 0 && (rest[0] == '-' || rest[0] == '+') && strings.HasPrefix(rest[1:], "%}") {
				wasMinus := rest[0] == '-'
				l.popState()
				l.advance(1 + 2)
				tok := l.makeToken(TokenBlockEnd, string(rest[0])+"%}")
				if wasMinus {
					l.trimLeadingWhitespace = true
				}
				return &tok, false, nil
			}
			if strings.HasPrefix(rest, "%}") {
				l.popState()
				l.advance(2)
				tok := l.makeToken(TokenBlockEnd, "%}")
				l.skipNewlineIfTrimBlocks()
				return &tok, false, nil
			}

		case sentinelVariable:
			// Check for -/+ }} or }}
			if len(rest) > 0 && (rest[0] == '-' || rest[0] == '+') && strings.HasPrefix(rest[1:], "}}") {
				wasMinus := rest[0] == '-'
				l.popState()
				l.advance(1 + 2)
				if wasMinus {
					l.trimLeadingWhitespace = true
				}
				tok := l.makeToken(TokenVariableEnd, "-"+"}}")
				return &tok, false, nil
			}
			if strings.HasPrefix(rest, "}}") {
				l.popState()
				l.advance(2)
				tok := l.makeToken(TokenVariableEnd, "}}")
				return &tok, false, nil
			}
		}
	}

	// Two-character operators
	if len(rest) >= 2 {
		op2 := rest[:2]
		var tok *Token
		switch op2 {
		case "//":
			l.advance(2)
			t := l.makeToken(TokenFloorDiv, "//")
			tok = &t
		case "**":
			l.advance(2)
			t := l.makeToken(TokenPow, "**")
			tok = &t
		case "==":
			l.advance(2)
			t := l.makeToken(TokenEq, "==")
			tok = &t
		case "!=":
			l.advance(2)
			t := l.makeToken(TokenNe, "!=")
			tok = &t
		case ">=":
			l.advance(2)
			t := l.makeToken(TokenGe, ">=")
			tok = &t
		case "<=":
			l.advance(2)
			t := l.makeToken(TokenLe, "<=")
			tok = &t
		}
		if tok != nil {
			return tok, false, nil
		}
	}

	// Single character operators
	ch := rest[0]
	switch ch {
	case '+':
		l.advance(1)
		tok := l.makeToken(TokenPlus, "+")
		return &tok, false, nil
	case '-':
		l.advance(1)
		tok := l.makeToken(TokenMinus, "-")
		return &tok, false, nil
	case '*':
		l.advance(1)
		tok := l.makeToken(TokenMul, "*")
		return &tok, false, nil
	case '/':
		l.advance(1)
		tok := l.makeToken(TokenDiv, "/")
		return &tok, false, nil
	case '%':
		l.advance(1)
		tok := l.makeToken(TokenMod, "%")
		return &tok, false, nil
	case '~':
		l.advance(1)
		tok := l.makeToken(TokenTilde, "~")
		return &tok, false, nil
	case '<':
		l.advance(1)
		tok := l.makeToken(TokenLt, "<")
		return &tok, false, nil
	case '>':
		l.advance(1)
		tok := l.makeToken(TokenGt, ">")
		return &tok, false, nil
	case '=':
		l.advance(1)
		tok := l.makeToken(TokenAssign, "=")
		return &tok, false, nil
	case '.':
		l.advance(1)
		tok := l.makeToken(TokenDot, ".")
		return &tok, false, nil
	case ',':
		l.advance(1)
		tok := l.makeToken(TokenComma, ",")
		return &tok, false, nil
	case ':':
		l.advance(1)
		tok := l.makeToken(TokenColon, ":")
		return &tok, false, nil
	case '|':
		l.advance(1)
		tok := l.makeToken(TokenPipe, "|")
		return &tok, false, nil
	case '(':
		l.parenBalance++
		l.advance(1)
		tok := l.makeToken(TokenParenOpen, "(")
		return &tok, false, nil
	case ')':
		l.parenBalance--
		l.advance(1)
		tok := l.makeToken(TokenParenClose, ")")
		return &tok, false, nil
	case '[':
		l.parenBalance++
		l.advance(1)
		tok := l.makeToken(TokenBracketOpen, "[")
		return &tok, false, nil
	case ']':
		l.parenBalance--
		l.advance(1)
		tok := l.makeToken(TokenBracketClose, "]")
		return &tok, false, nil
	case '{':
		l.parenBalance++
		l.advance(1)
		tok := l.makeToken(TokenBraceOpen, "{")
		return &tok, false, nil
	case '}':
		l.parenBalance--
		l.advance(1)
		tok := l.makeToken(TokenBraceClose, "}")
		return &tok, false, nil
	case '"', '\'':
		return l.lexString(ch)
	}

	// Numbers
	if isDigit(ch) {
		return l.lexNumber()
	}

	// Identifiers
	if isIdentStart(ch) {
		return l.lexIdent()
	}

	return nil, false, l.syntaxError(fmt.Sprintf("unexpected character %q", ch))
}

// lexString lexes a string literal.
func (l *Lexer) lexString(quote byte) (*Token, bool, error) {
	l.advance(1) // skip opening quote

	var sb strings.Builder

	for !l.atEnd() {
		ch := l.rest()[0]
		if ch == quote {
			l.advance(1)
			tok := l.makeToken(TokenString, sb.String())
			return &tok, false, nil
		}
		if ch == '\\' {
			l.advance(1)
			if l.atEnd() {
				return nil, false, l.syntaxError("unexpected end of string")
			}
			escaped := l.rest()[0]
			l.advance(1)
			switch escaped {
			case 'n':
				sb.WriteByte('\n')
			case 't':
				sb.WriteByte('\t')
			case 'r':
				sb.WriteByte('\r')
			case '\\':
				sb.WriteByte('\\')
			case '\'':
				sb.WriteByte('\'')
			case '"':
				sb.WriteByte('"')
			case '0', '1', '2', '3', '4', '5', '6', '7':
				// Octal escape \NNN (up to 3 octal digits total)
				octal := []byte{escaped}
				for i := 0; i < 2 && !l.atEnd(); i++ {
					next := l.rest()[0]
					if next < '0' || next > '7' {
						break
					}
					octal = append(octal, next)
					l.advance(1)
				}
				val, err := strconv.ParseUint(string(octal), 8, 8)
				if err != nil {
					return nil, false, l.syntaxError("bad string escape")
				}
				sb.WriteRune(rune(val))
			case 'x':
				// Hex escape \xNN
				if len(l.rest()) < 2 {
					return nil, false, l.syntaxError("invalid hex escape")
				}
				hex := l.rest()[:2]
				val, err := strconv.ParseUint(hex, 16, 8)
				if err != nil {
					return nil, false, l.syntaxError("invalid hex escape")
				}
				sb.WriteRune(rune(val))
				l.advance(2)
			case 'u':
				// Unicode escape \uNNNN (4 hex digits)
				if len(l.rest()) < 4 {
					return nil, false, l.syntaxError("invalid unicode escape")
				}
				hex := l.rest()[:4]
				val, err := strconv.ParseUint(hex, 16, 32)
				if err != nil {
					return nil, false, l.syntaxError("invalid unicode escape")
				}
				sb.WriteRune(rune(val))
				l.advance(4)
			case 'U':
				// Unicode escape \UNNNNNNNN (8 hex digits)
				if len(l.rest()) < 8 {
					return nil, false, l.syntaxError("invalid unicode escape")
				}
				hex := l.rest()[:8]
				val, err := strconv.ParseUint(hex, 16, 32)
				if err != nil {
					return nil, false, l.syntaxError("invalid unicode escape")
				}
				sb.WriteRune(rune(val))
				l.advance(8)
			default:
				// Unknown escape, keep both characters
				sb.WriteByte('\\')
				sb.WriteByte(escaped)
			}
		} else {
			sb.WriteByte(ch)
			l.advance(1)
		}
	}

	return nil, false, l.syntaxError("unexpected end of string")
}

// lexNumber lexes an integer or float literal, including hex, octal, binary, and underscores.
func (l *Lexer) lexNumber() (*Token, bool, error) {
	rest := l.rest()

	// Determine radix
	radix := 10
	prefixLen := 0

	if len(rest) >= 2 {
		switch rest[:2] {
		case "0b", "0B":
			radix = 2
			prefixLen = 2
		case "0o", "0O":
			radix = 8
			prefixLen = 2
		case "0x", "0X":
			radix = 16
			prefixLen = 2
		}
	}

	// State machine for parsing numbers
	type numState int
	const (
		stateRadixInt numState = iota // after 0x, 0b, 0o
		stateInt
		stateFraction // after .
		stateExponent // after e/E
		stateExpSign  // after e+/e-
	)

	var state numState
	if radix == 10 {
		state = stateInt
	} else {
		state = stateRadixInt
	}

	numLen := prefixLen
	hasUnderscore := false

	for i := prefixLen; i < len(rest); i++ {
		c := rest[i]
		switch state {
		case stateRadixInt:
			switch {
			case isDigitForRadix(c, radix):
				numLen++
			case c == '_':
				hasUnderscore = true
				numLen++
			default:
				goto done
			}

		case stateInt:
			switch {
			case isDigit(c):
				numLen++
			case c == '_':
				hasUnderscore = true
				numLen++
			case c == '.' && i+1 < len(rest) && isDigit(rest[i+1]):
				state = stateFraction
				numLen++
			case c == 'e' || c == 'E':
				state = stateExponent
				numLen++
			default:
				goto done
			}

		case stateFraction:
			switch {
			case isDigit(c):
				numLen++
			case c == '_':
				hasUnderscore = true
				numLen++
			case c == 'e' || c == 'E':
				state = stateExponent
				numLen++
			default:
				goto done
			}

		case stateExponent:
			switch {
			case c == '+' || c == '-':
				state = stateExpSign
				numLen++
			case isDigit(c):
				state = stateExpSign
				numLen++
			case c == '_':
				hasUnderscore = true
				state = stateExpSign
				numLen++
			default:
				goto done
			}

		case stateExpSign:
			switch {
			case isDigit(c):
				numLen++
			case c == '_':
				hasUnderscore = true
				numLen++
			default:
				goto done
			}
		}
	}

done:
	isFloat := state == stateFraction || state == stateExponent || state == stateExpSign

	numStr := rest[:numLen]
	l.advance(numLen)

	// Check for trailing underscore
	if hasUnderscore && strings.HasSuffix(numStr, "_") {
		return nil, false, l.syntaxError("'_' may not occur at end of number")
	}

	// Remove underscores for parsing
	cleanNum := numStr
	if hasUnderscore {
		cleanNum = strings.ReplaceAll(numStr, "_", "")
	}

	// Strip prefix for parsing non-decimal
	parseStr := cleanNum
	if prefixLen > 0 {
		parseStr = cleanNum[prefixLen:]
	}

	if isFloat {
		// Parse the float to get its actual value
		floatVal, err := strconv.ParseFloat(strings.ReplaceAll(cleanNum, "_", ""), 64)
		if err != nil {
			return nil, false, l.syntaxError("invalid float")
		}
		// Format float like Rust does (always with decimal point)
		floatStr := strconv.FormatFloat(floatVal, 'f', -1, 64)
		if !strings.Contains(floatStr, ".") {
			floatStr += ".0"
		}
		tok := l.makeToken(TokenFloat, floatStr)
		return &tok, false, nil
	}

	// Try parsing as integer
	value, parseErr := strconv.ParseUint(parseStr, radix, 64)

	if parseErr != nil {
		// Number too large for u64, emit as Int128 if within u128
		bigVal := new(big.Int)
		_, ok := bigVal.SetString(parseStr, radix)
		if !ok || bigVal.BitLen() > 128 {
			return nil, false, l.syntaxError("invalid integer (too large)")
		}
		if radix != 10 {
			parseStr = bigVal.String()
		}
		tok := l.makeToken(TokenInt128, parseStr)
		return &tok, false, nil
	}

	tok := l.makeToken(TokenInteger, fmt.Sprintf("%d", value))
	return &tok, false, nil
}

func isDigitForRadix(c byte, radix int) bool {
	switch radix {
	case 2:
		return c == '0' || c == '1'
	case 8:
		return c >= '0' && c <= '7'
	case 10:
		return isDigit(c)
	case 16:
		return isDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')
	}
	return false
}

// lexIdent lexes an identifier.
func (l *Lexer) lexIdent() (*Token, bool, error) {
	start := 0
	rest := l.rest()

	for i := 0; i < len(rest); i++ {
		if !isIdentPart(rest[i]) {
			break
		}
		start = i + 1
	}

	value := rest[:start]
	l.advance(start)
	tok := l.makeToken(TokenIdent, value)
	return &tok, false, nil
}

// Helper methods

func (l *Lexer) atEnd() bool {
	return l.pos >= len(l.source)
}

func (l *Lexer) rest() string {
	if l.pos >= len(l.source) {
		return ""
	}
	return l.source[l.pos:]
}

func (l *Lexer) advance(n int) string {
	if n <= 0 {
		return ""
	}
	start := l.pos
	end := l.pos + n
	if end > len(l.source) {
		end = len(l.source)
	}

	skipped := l.source[start:end]
	for _, c := range skipped {
		if c == '\n' {
			l.line++
			l.col = 0
		} else {
			if l.col < 65535 {
				l.col++
			}
		}
	}
	l.pos = end
	return skipped
}

func (l *Lexer) markStart() {
	l.start = l.pos
	l.startLine = l.line
	l.startCol = l.col
}

func (l *Lexer) span() Span {
	return Span{
		StartLine:   l.startLine,
		StartCol:    l.startCol,
		StartOffset: uint32(l.start),
		EndLine:     l.line,
		EndCol:      l.col,
		EndOffset:   uint32(l.pos),
	}
}

func (l *Lexer) makeToken(typ TokenType, value string) Token {
	return Token{
		Type:  typ,
		Value: value,
		Span:  l.span(),
	}
}

func (l *Lexer) skipWhitespace() {
	for !l.atEnd() {
		c := l.rest()[0]
		if c == ' ' || c == '\t' || c == '\n' || c == '\r' {
			l.advance(1)
		} else {
			break
		}
	}
}

func (l *Lexer) skipWhitespaceChars() {
	for !l.atEnd() {
		c := l.rest()[0]
		if c == ' ' || c == '\t' || c == '\n' || c == '\r' {
			l.advance(1)
		} else {
			break
		}
	}
}

func (l *Lexer) syntaxError(msg string) error {
	return &Error{Line: l.line, Detail: msg}
}

// Error says where the source is no template.
type Error struct {
	Line   uint32
	Detail string
}

func (e *Error) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Detail) }

func lstripBlock(s string) string {
	// Trim trailing whitespace (but not newlines) from the end
	trimmed := strings.TrimRightFunc(s, func(r rune) bool {
		return r == ' ' || r == '\t'
	})
	// Only strip if what remains ends with a newline or is empty
	if trimmed == "" || strings.HasSuffix(trimmed, "\n") {
		return trimmed
	}
	return s
}

func isDigit(ch byte) bool {
	return ch >= '0' && ch <= '9'
}

func isIdentStart(ch byte) bool {
	return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || ch == '_'
}

func isIdentPart(ch byte) bool {
	return isIdentStart(ch) || isDigit(ch)
}
