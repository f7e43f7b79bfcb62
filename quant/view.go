package quant

// View is one sequence's KV cache as attention, kernels and transfer see it.
// Exact and Coded are indexed by logical page; an entry holds that page's bytes
// of all layers, or nil where the page does not exist in that form.
type View struct {
	Geometry *Geometry
	Exact    [][]byte // len ExactPage() each
	Coded    [][]byte // len CodedPage() each
	// PromptLen is the number of leading positions whose queries are prompt
	// queries; formats with ExactPrefill treat them differently, and formats that
	// Select do so at the end of it.
	PromptLen int

	// TopOnly marks the logical pages of which only the top planes may be read,
	// the second ones not being there yet; it may be shorter than the pages.
	TopOnly []bool
	// Weights is, while the end of a prompt is computed in a format that Selects,
	// what its last queries give to its tokens: [layer][KV head × token].
	Weights [][]float32

	// Where the cache is not in this machine's memory, ExactIDs and CodedIDs name
	// the pages in it (-1: none), and Exact and Coded are empty but for sequences
	// that are moved between workers. Their leading Staged tokens, already written,
	// are in Exact and Coded; of a prompt that is to be received they are the prefix
	// that is in the cache already.
	ExactIDs, CodedIDs []int32
	Staged             int
	// Came, where set, is told by whoever writes the pages of a prompt that is
	// received what has come of it, so that it can be taken over before all has. It
	// returns at once; any goroutine may call it.
	Came func([]Piece)
}

// Piece is one layer of a logical page in one of its forms.
type Piece struct {
	Layer, Page int
	Coded       bool
}

// ExactLayer is one layer of page i's exact form, nil if there is none.
func (v *View) ExactLayer(i, layer int) []byte {
	n := v.Geometry.ExactBytes()
	return span(v.Exact, i, layer*n, (layer+1)*n)
}

// CodedLayer is one layer of page i's coded form, nil if there is none.
func (v *View) CodedLayer(i, layer int) []byte {
	return span(v.Coded, i, v.Geometry.CodedStart(layer), v.Geometry.CodedStart(layer+1))
}

// span is bytes [lo, hi) of a page, nil if there is no such page.
func span(pages [][]byte, i, lo, hi int) []byte {
	if i >= len(pages) || pages[i] == nil {
		return nil
	}
	return pages[i][lo:hi:hi]
}
