package tokenizer

import (
	"hash/maphash"
	"strings"
	"sync/atomic"

	"github.com/terse-llm/terse"
)

// pieceCache remembers the ids of short pieces: text repeats its words. It is
// direct-mapped and lock-free; a newer piece takes an older one's slot, so its
// size is bounded at cacheSlots entries of at most cacheText bytes of text.
type pieceCache struct {
	seed  maphash.Seed
	slots []atomic.Pointer[cachedPiece]
}

type cachedPiece struct {
	text string
	ids  []terse.Token
}

const (
	cacheSlots = 1 << 13 // a power of two
	cacheText  = 32
)

func newPieceCache() pieceCache {
	return pieceCache{seed: maphash.MakeSeed(), slots: make([]atomic.Pointer[cachedPiece], cacheSlots)}
}

func (c *pieceCache) slot(text string) *atomic.Pointer[cachedPiece] {
	return &c.slots[maphash.String(c.seed, text)&(cacheSlots-1)]
}

func (c *pieceCache) get(text string) ([]terse.Token, bool) {
	if len(text) > cacheText {
		return nil, false
	}
	p := c.slot(text).Load()
	if p == nil || p.text != text {
		return nil, false
	}
	return p.ids, true
}

// put copies text and ids: text is a part of a request's body.
func (c *pieceCache) put(text string, ids []terse.Token) {
	if len(text) > cacheText {
		return
	}
	c.slot(text).Store(&cachedPiece{text: strings.Clone(text), ids: append([]terse.Token(nil), ids...)})
}
