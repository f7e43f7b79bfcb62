package tokenizer

import (
	"fmt"
	"strconv"
	"sync"
	"unicode/utf8"

	"github.com/terse-llm/terse"
)

// merged is the outcome of joining two tokens; lower ranks join first.
type merged struct{ id, rank int32 }

// bpe is a byte-pair encoding model. A piece begins as single bytes
// (byteLevel) or characters, and the pair of lowest rank is joined, the
// leftmost of equals first, until no pair joins.
type bpe struct {
	ids       map[string]int32 // what text can become, control tokens excluded
	byteLevel bool
	// pairs are the merges of two ids. Where it is nil any two neighbours join
	// whose text is a token, by ranks (tiktoken, SentencePiece).
	pairs map[uint64]merged
	ranks []int32
	// wholeFirst takes a piece that is itself a token as that token.
	wholeFirst bool
	bytes      [256]int32 // the token of each byte, -1: none
	unk        int32      // the token for the rest, -1: none
	fuseUnk    bool       // a run of unknown characters is one unk

	cache   pieceCache
	scratch sync.Pool // *merger
}

// findBytes fills bytes. Byte fallback tokens are not what text is spelled by,
// so the text "<0x41>" must never become one.
func (m *bpe) findBytes(fallback bool) {
	for b := range m.bytes {
		spelled := rawByte(byte(b))
		if !m.byteLevel {
			spelled = hexByte(byte(b))
		}
		id, ok := m.ids[spelled]
		if !ok || !m.byteLevel && !fallback {
			id = -1
		}
		m.bytes[b] = id
		if fallback {
			delete(m.ids, spelled)
		}
	}
	m.scratch.New = func() any { return &merger{} }
}

// hexByte spells a byte as SentencePiece's byte fallback does.
func hexByte(b byte) string { return fmt.Sprintf("<0x%02X>", b) }

// rawByte spells a byte of a byte-level vocabulary.
func rawByte(b byte) string { return string([]byte{b}) }

// pair looks up the merge of neighbours l and r of text.
func (m *bpe) pair(text string, l, r *symbol) (merged, bool) {
	if m.pairs == nil {
		id, ok := m.ids[text[l.start:r.end]]
		if !ok {
			return merged{}, false
		}
		return merged{id: id, rank: m.ranks[id]}, true
	}
	if l.id < 0 || r.id < 0 {
		return merged{}, false
	}
	out, ok := m.pairs[pairKey(l.id, r.id)]
	return out, ok
}

func pairKey(l, r int32) uint64 { return uint64(uint32(l))<<32 | uint64(uint32(r)) }

// encode appends the ids of a piece.
func (m *bpe) encode(dst []terse.Token, text string) ([]terse.Token, error) {
	if m.wholeFirst {
		if id, ok := m.ids[text]; ok {
			return append(dst, terse.Token(id)), nil
		}
	}
	if ids, ok := m.cache.get(text); ok {
		return append(dst, ids...), nil
	}
	g := m.scratch.Get().(*merger)
	defer m.scratch.Put(g)
	g.begin(m, text)
	if len(g.syms) <= shortPiece {
		g.mergeShort()
	} else {
		g.mergeLong()
	}
	from := len(dst)
	dst, err := m.spell(dst, text, g.syms)
	g.end()
	if err == nil {
		m.cache.put(text, dst[from:])
	}
	return dst, err
}

// spell appends the ids of merged symbols; characters that are no token fall
// back to their bytes, then to unk.
func (m *bpe) spell(dst []terse.Token, text string, syms []symbol) ([]terse.Token, error) {
	fused := false
	for i := range syms {
		s := &syms[i]
		switch {
		case s.end < 0: // joined to its left neighbour
			continue
		case s.id >= 0:
			dst = append(dst, terse.Token(s.id))
			fused = false
			continue
		case m.hasBytes(text[s.start:s.end]):
			for _, b := range []byte(text[s.start:s.end]) {
				dst = append(dst, terse.Token(m.bytes[b]))
			}
			fused = false
			continue
		case m.unk < 0:
			return dst, &terse.Error{Code: terse.CodeInvalid, Message: "the vocabulary has no token for " +
				strconv.QuoteToASCII(text[s.start:s.end]) + " and no unknown token"}
		}
		if !fused || !m.fuseUnk {
			dst = append(dst, terse.Token(m.unk))
		}
		fused = true
	}
	return dst, nil
}

func (m *bpe) hasBytes(text string) bool {
	for _, b := range []byte(text) {
		if m.bytes[b] < 0 {
			return false
		}
	}
	return true
}

// symbol is a part of the piece that has become one token; id -1: no token.
// A symbol that was joined to its left neighbour has end -1.
type symbol struct {
	start, end int32
	id         int32
	prev, next int32
}

// merger is the scratch memory of one piece.
type merger struct {
	m    *bpe
	text string
	syms []symbol
	best []merged // mergeShort: the merge of each symbol with its right neighbour
	heap []candidate
}

// keepScratch is how many symbols a merger may keep for the next piece.
const keepScratch = 1 << 14

func (g *merger) begin(m *bpe, text string) {
	g.m, g.text, g.syms = m, text, g.syms[:0]
	for i := 0; i < len(text); {
		n := 1
		if !m.byteLevel {
			_, n = utf8.DecodeRuneInString(text[i:])
		}
		id, ok := int32(-1), false
		if m.byteLevel {
			id = m.bytes[text[i]]
		} else if id, ok = m.ids[text[i:i+n]]; !ok {
			id = -1
		}
		at := int32(len(g.syms))
		g.syms = append(g.syms, symbol{start: int32(i), end: int32(i + n), id: id, prev: at - 1, next: at + 1})
		i += n
	}
	g.syms[len(g.syms)-1].next = -1
}

// end lets go of the text and of scratch memory that only a huge piece needs.
func (g *merger) end() {
	g.text = ""
	if cap(g.syms) > keepScratch {
		g.syms, g.heap = nil, nil
	}
}
