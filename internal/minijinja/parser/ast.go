// Forked from minijinja-go v2.24.0 (Apache-2.0) and changed; see ../README.md.

package parser

import "github.com/terse-llm/terse/internal/minijinja/lexer"

// Span represents a location range in source code.
type Span = lexer.Span

// Node is the interface implemented by all AST nodes.
type Node interface {
	node()
	Span() Span
}

// Stmt represents a statement node.
type Stmt interface {
	Node
	stmt()
}

// Expr represents an expression node.
type Expr interface {
	Node
	expr()
}

// --- Statement Types ---

// Template is the root node of a parsed template.
type Template struct {
	Children []Stmt
	span     Span
}

func (t *Template) node()      {}
func (t *Template) stmt()      {}
func (t *Template) Span() Span { return t.span }

// EmitRaw outputs raw template text.
type EmitRaw struct {
	Raw  string
	span Span
}

func (e *EmitRaw) node()      {}
func (e *EmitRaw) stmt()      {}
func (e *EmitRaw) Span() Span { return e.span }

// EmitExpr outputs an expression result.
type EmitExpr struct {
	Expr Expr
	span Span
}

func (e *EmitExpr) node()      {}
func (e *EmitExpr) stmt()      {}
func (e *EmitExpr) Span() Span { return e.span }

// ForLoop represents a for loop.
type ForLoop struct {
	Target     Expr
	Iter       Expr
	FilterExpr Expr // optional
	Recursive  bool
	Body       []Stmt
	ElseBody   []Stmt
	span       Span
}

func (f *ForLoop) node()      {}
func (f *ForLoop) stmt()      {}
func (f *ForLoop) Span() Span { return f.span }

// IfCond represents an if/elif/else condition.
type IfCond struct {
	Expr      Expr
	TrueBody  []Stmt
	FalseBody []Stmt
	span      Span
}

func (i *IfCond) node()      {}
func (i *IfCond) stmt()      {}
func (i *IfCond) Span() Span { return i.span }

// WithBlock represents a with block.
type WithBlock struct {
	Assignments []Assignment
	Body        []Stmt
	span        Span
}

type Assignment struct {
	Target Expr
	Value  Expr
}

func (w *WithBlock) node()      {}
func (w *WithBlock) stmt()      {}
func (w *WithBlock) Span() Span { return w.span }

// Set represents a variable assignment.
type Set struct {
	Target Expr
	Expr   Expr
	span   Span
}

func (s *Set) node()      {}
func (s *Set) stmt()      {}
func (s *Set) Span() Span { return s.span }

// SetBlock represents a set block (capture).
type SetBlock struct {
	Target Expr
	Filter Expr // optional
	Body   []Stmt
	span   Span
}

func (s *SetBlock) node()      {}
func (s *SetBlock) stmt()      {}
func (s *SetBlock) Span() Span { return s.span }

// FilterBlock represents a filter block.
type FilterBlock struct {
	Filter Expr
	Body   []Stmt
	span   Span
}

func (f *FilterBlock) node()      {}
func (f *FilterBlock) stmt()      {}
func (f *FilterBlock) Span() Span { return f.span }

// Block represents a template block for inheritance.
type Block struct {
	Name string
	Body []Stmt
	span Span
}

func (b *Block) node()      {}
func (b *Block) stmt()      {}
func (b *Block) Span() Span { return b.span }

// Generation represents a generation block: its body, rendered in place.
type Generation struct {
	Body []Stmt
	span Span
}

func (g *Generation) node()      {}
func (g *Generation) stmt()      {}
func (g *Generation) Span() Span { return g.span }

// Macro represents a macro definition.
type Macro struct {
	Name     string
	Args     []Expr
	Defaults []Expr
	Body     []Stmt
	span     Span
}

func (m *Macro) node()      {}
func (m *Macro) stmt()      {}
func (m *Macro) Span() Span { return m.span }

// CallBlock represents a call block.
type CallBlock struct {
	Call      *Call
	CallSpan  Span
	MacroDecl *Macro
	MacroSpan Span
	span      Span
}

func (c *CallBlock) node()      {}
func (c *CallBlock) stmt()      {}
func (c *CallBlock) Span() Span { return c.span }

// Do represents a do statement.
type Do struct {
	Call     *Call
	CallSpan Span
	span     Span
}

func (d *Do) node()      {}
func (d *Do) stmt()      {}
func (d *Do) Span() Span { return d.span }

// Continue represents a continue statement.
type Continue struct {
	span Span
}

func (c *Continue) node()      {}
func (c *Continue) stmt()      {}
func (c *Continue) Span() Span { return c.span }

// Break represents a break statement.
type Break struct {
	span Span
}

func (b *Break) node()      {}
func (b *Break) stmt()      {}
func (b *Break) Span() Span { return b.span }

// --- Expression Types ---

// Var represents a variable reference.
type Var struct {
	ID   string
	span Span
}

func (v *Var) node()      {}
func (v *Var) expr()      {}
func (v *Var) Span() Span { return v.span }

// Const represents a constant value.
type Const struct {
	Value interface{} // string, int64, float64, bool, or nil
	span  Span
}

func (c *Const) node()      {}
func (c *Const) expr()      {}
func (c *Const) Span() Span { return c.span }

// UnaryOpKind represents the type of unary operator.
type UnaryOpKind int

const (
	UnaryNot UnaryOpKind = iota
	UnaryNeg
)

// UnaryOp represents a unary operation.
type UnaryOp struct {
	Op   UnaryOpKind
	Expr Expr
	span Span
}

func (u *UnaryOp) node()      {}
func (u *UnaryOp) expr()      {}
func (u *UnaryOp) Span() Span { return u.span }

// CompareOpKind represents the type of comparison operator.
type CompareOpKind int

const (
	CompareOpEq CompareOpKind = iota
	CompareOpNe
	CompareOpLt
	CompareOpLte
	CompareOpGt
	CompareOpGte
	CompareOpIn
	CompareOpNotIn
)

// BinOpKind represents the type of binary operator.
type BinOpKind int

const (
	BinOpScAnd BinOpKind = iota
	BinOpScOr
	BinOpAdd
	BinOpSub
	BinOpMul
	BinOpDiv
	BinOpFloorDiv
	BinOpRem
	BinOpPow
	BinOpConcat
)

// String is the operator as it is written, for error messages.
func (k BinOpKind) String() string {
	switch k {
	case BinOpScAnd:
		return "and"
	case BinOpScOr:
		return "or"
	case BinOpAdd:
		return "+"
	case BinOpSub:
		return "-"
	case BinOpMul:
		return "*"
	case BinOpDiv:
		return "/"
	case BinOpFloorDiv:
		return "//"
	case BinOpRem:
		return "%"
	case BinOpPow:
		return "**"
	case BinOpConcat:
		return "~"
	}
	return "?"
}

// BinOp represents a binary operation.
type BinOp struct {
	Op    BinOpKind
	Left  Expr
	Right Expr
	span  Span
}

func (b *BinOp) node()      {}
func (b *BinOp) expr()      {}
func (b *BinOp) Span() Span { return b.span }

// CompareOp represents a comparison operand in a chained comparison.
type CompareOp struct {
	Op   CompareOpKind
	Expr Expr
}

// Compare represents a chained comparison expression.
type Compare struct {
	Expr Expr
	Ops  []CompareOp
	span Span
}

func (c *Compare) node()      {}
func (c *Compare) expr()      {}
func (c *Compare) Span() Span { return c.span }

// IfExpr represents a conditional expression (ternary).
type IfExpr struct {
	TestExpr  Expr
	TrueExpr  Expr
	FalseExpr Expr // optional
	span      Span
}

func (i *IfExpr) node()      {}
func (i *IfExpr) expr()      {}
func (i *IfExpr) Span() Span { return i.span }

// Filter represents a filter application.
type Filter struct {
	Name string
	Expr Expr // optional (nil for filter chains in set blocks)
	Args []CallArg
	span Span
}

func (f *Filter) node()      {}
func (f *Filter) expr()      {}
func (f *Filter) Span() Span { return f.span }

// Test represents a test expression.
type Test struct {
	Name string
	Expr Expr
	Args []CallArg
	span Span
}

func (t *Test) node()      {}
func (t *Test) expr()      {}
func (t *Test) Span() Span { return t.span }

// GetAttr represents attribute access (x.y).
type GetAttr struct {
	Expr Expr
	Name string
	span Span
}

func (g *GetAttr) node()      {}
func (g *GetAttr) expr()      {}
func (g *GetAttr) Span() Span { return g.span }

// GetItem represents subscript access (x[y]).
type GetItem struct {
	Expr          Expr
	SubscriptExpr Expr
	span          Span
}

func (g *GetItem) node()      {}
func (g *GetItem) expr()      {}
func (g *GetItem) Span() Span { return g.span }

// Slice represents a slice operation.
type Slice struct {
	Expr  Expr
	Start Expr // optional
	Stop  Expr // optional
	Step  Expr // optional
	span  Span
}

func (s *Slice) node()      {}
func (s *Slice) expr()      {}
func (s *Slice) Span() Span { return s.span }

// Call represents a function/method call.
type Call struct {
	Expr Expr
	Args []CallArg
	span Span
}

func (c *Call) node()      {}
func (c *Call) expr()      {}
func (c *Call) Span() Span { return c.span }

// CallArgKind represents the type of call argument.
type CallArgKind int

const (
	CallArgPos CallArgKind = iota
	CallArgKwarg
	CallArgPosSplat
	CallArgKwargSplat
)

// CallArg represents a function call argument.
type CallArg struct {
	Kind  CallArgKind
	Name  string // for kwargs
	Value Expr
}

// List represents a list literal.
type List struct {
	Items []Expr
	Tuple bool // written with parentheses
	span  Span
}

func (l *List) node()      {}
func (l *List) expr()      {}
func (l *List) Span() Span { return l.span }

// Map represents a map/dict literal.
type Map struct {
	Keys   []Expr
	Values []Expr
	span   Span
}

func (m *Map) node()      {}
func (m *Map) expr()      {}
func (m *Map) Span() Span { return m.span }
