package kvcache

// PageID names a page of one kind. Ids of different kinds are unrelated.
type PageID int32

// None is the id of no page.
const None PageID = -1

// Kind is the form of a page.
type Kind uint8

// The kinds of pages.
const (
	Exact Kind = iota // K and V in float16
	Coded             // codes, scales and zeros
	kinds
)

func (k Kind) String() string {
	if k == Exact {
		return "exact"
	}
	return "coded"
}

// Table is the block table of one sequence. Both slices are indexed by logical
// page and equally long; None stands where the page does not have that form.
// The zero value is an empty table. A Table must not be copied while it holds
// pages: it stands for the references.
type Table struct {
	Exact, Coded []PageID

	held    [kinds]int // pages held of each kind
	coded   int        // logical pages [0, coded) have their coded form, if they get one
	trimmed int        // logical pages [0, trimmed) have lost their exact form, if they lose it
	chain   []key      // prefix keys of the leading full pages, as far as computed
}

// Pages is the number of logical pages the table covers.
func (t *Table) Pages() int { return len(t.Exact) }
