package quant

// CodedBytes is the size of one layer of a coded page.
func (g *Geometry) CodedBytes() int { return 0 }

// EncodeArgs says what to code of one layer of one page.
type EncodeArgs struct {
	Exact []byte // this layer of the exact page, tokens [0, Hi) written
	Coded []byte // this layer of the coded page
	Layer int
	First int // position of the page's token 0
	Lo    int // tokens [Lo, Hi) are new since the last call for this page
	Hi    int
	// Important gives, per KV head and half (0 = K, 1 = V), the set of tokens
	// that get the second plane (SecondTokens formats); nil means none.
	Important func(head, half int) uint64
}

// Encode codes whatever tokens [Lo, Hi) of a page complete.
func (g *Geometry) Encode(a EncodeArgs) {}

// PutExact stores one token's K and V ([KVHeads][HeadDim] each, in the cache's
// basis) in one layer of an exact page.
func (g *Geometry) PutExact(page []byte, tok int, k, v []float32) {}
