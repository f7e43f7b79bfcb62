// Forked from minijinja-go v2.24.0 (Apache-2.0) and changed; see ../README.md.

package lexer

import "fmt"

// TokenType represents the type of a token.
type TokenType int

const (
	// Template data (raw text between tags)
	TokenTemplateData TokenType = iota

	// Delimiters
	TokenVariableStart // {{
	TokenVariableEnd   // }}
	TokenBlockStart    // {%
	TokenBlockEnd      // %}

	// Literals
	TokenIdent   // identifier
	TokenString  // "string" or 'string'
	TokenInteger // 123 (fits in u64)
	TokenInt128  // big integers (> u64)
	TokenFloat   // 123.45

	// Operators
	TokenPlus     // +
	TokenMinus    // -
	TokenMul      // *
	TokenDiv      // /
	TokenFloorDiv // //
	TokenMod      // %
	TokenPow      // **
	TokenTilde    // ~

	// Comparison
	TokenEq // ==
	TokenNe // !=
	TokenLt // <
	TokenLe // <=
	TokenGt // >
	TokenGe // >=

	// Assignment
	TokenAssign // =

	// Punctuation
	TokenDot          // .
	TokenComma        // ,
	TokenColon        // :
	TokenPipe         // |
	TokenParenOpen    // (
	TokenParenClose   // )
	TokenBracketOpen  // [
	TokenBracketClose // ]
	TokenBraceOpen    // {
	TokenBraceClose   // }

)

// Token represents a single token from the lexer.
type Token struct {
	Type  TokenType
	Value string // The token value (for idents, strings, numbers, template data)
	Span  Span   // Source location
}

// Span represents a location range in source code.
type Span struct {
	StartLine   uint32
	StartCol    uint32
	StartOffset uint32
	EndLine     uint32
	EndCol      uint32
	EndOffset   uint32
}

// tokenTypeNames maps token types to their string representations.
var tokenTypeNames = map[TokenType]string{
	TokenTemplateData:  "TemplateData",
	TokenVariableStart: "VariableStart",
	TokenVariableEnd:   "VariableEnd",
	TokenBlockStart:    "BlockStart",
	TokenBlockEnd:      "BlockEnd",
	TokenIdent:         "Ident",
	TokenString:        "String",
	TokenInteger:       "Int",
	TokenInt128:        "Int128",
	TokenFloat:         "Float",
	TokenPlus:          "Plus",
	TokenMinus:         "Minus",
	TokenMul:           "Mul",
	TokenDiv:           "Div",
	TokenFloorDiv:      "FloorDiv",
	TokenMod:           "Mod",
	TokenPow:           "Pow",
	TokenTilde:         "Tilde",
	TokenEq:            "Eq",
	TokenNe:            "Ne",
	TokenLt:            "Lt",
	TokenLe:            "Le",
	TokenGt:            "Gt",
	TokenGe:            "Ge",
	TokenAssign:        "Assign",
	TokenDot:           "Dot",
	TokenComma:         "Comma",
	TokenColon:         "Colon",
	TokenPipe:          "Pipe",
	TokenParenOpen:     "ParenOpen",
	TokenParenClose:    "ParenClose",
	TokenBracketOpen:   "BracketOpen",
	TokenBracketClose:  "BracketClose",
	TokenBraceOpen:     "BraceOpen",
	TokenBraceClose:    "BraceClose",
}

func (t TokenType) String() string {
	if name, ok := tokenTypeNames[t]; ok {
		return name
	}
	return fmt.Sprintf("TokenType(%d)", t)
}
