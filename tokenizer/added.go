package tokenizer

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/terse-llm/terse"
)

// addedToken is a token that is found in the text before any splitting.
type addedToken struct {
	id                         terse.Token
	content                    string
	special, control           bool
	singleWord, lstrip, rstrip bool
	normalized                 bool // matched after the normalizer, not before
	hidden                     bool // never matched: a place kept for later use
}

// addedSet holds the added tokens of a model.
type addedSet struct {
	ids             map[string]terse.Token
	raw, normalized trie
}

// looksControl recognises control tokens that their file does not mark special.
func looksControl(content string) bool {
	switch content {
	case "<s>", "</s>", "<unk>", "<pad>", "<mask>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>":
		return true
	}
	return strings.HasPrefix(content, "<|") && strings.HasSuffix(content, "|>") ||
		strings.HasPrefix(content, "<｜") && strings.HasSuffix(content, "｜>")
}

// newAddedSet indexes tokens; control must already be decided. Control tokens
// are always matched in the raw text, because only there are the byte ranges of
// [EncodeOptions.Plain] known.
func newAddedSet(tokens []addedToken, norm normalizer) (*addedSet, error) {
	total := 0
	for i := range tokens {
		total += len(tokens[i].content)
	}
	if total > maxAdded {
		return nil, fmt.Errorf("the added tokens are %d bytes long together: the limit is %d", total, maxAdded)
	}
	s := &addedSet{ids: make(map[string]terse.Token, len(tokens))}
	for i := range tokens {
		a := &tokens[i]
		if a.content == "" {
			continue
		}
		s.ids[a.content] = a.id
		if a.hidden {
			continue
		}
		if a.normalized && !a.control && len(norm) > 0 {
			text, err := norm.apply(a.content)
			if err != nil {
				return nil, err
			}
			s.normalized.add(text, a)
		} else {
			s.raw.add(a.content, a)
		}
	}
	return s, nil
}

// maxAdded bounds the bytes of all added tokens, and so the size of a trie.
const maxAdded = 4 << 20

// trie finds the longest added token at a position.
type trie struct {
	nodes []trieNode
	first [256]int32 // the node of each first byte; 0: no token begins with it
}

// trieNode is one byte of a token; child and sibling are 0 for none.
type trieNode struct {
	b              byte
	child, sibling int32
	token          *addedToken
}

func (t *trie) add(key string, a *addedToken) {
	if key == "" {
		return
	}
	at := t.first[key[0]]
	if at == 0 {
		at = t.node(key[0])
		t.first[key[0]] = at
	}
	for i := 1; i < len(key); i++ {
		next := t.child(at, key[i])
		if next == 0 {
			next = t.node(key[i])
			t.nodes[next].sibling = t.nodes[at].child
			t.nodes[at].child = next
		}
		at = next
	}
	t.nodes[at].token = a
}

// node makes a node; number 0 stays unused.
func (t *trie) node(b byte) int32 {
	if len(t.nodes) == 0 {
		t.nodes = append(t.nodes, trieNode{})
	}
	t.nodes = append(t.nodes, trieNode{b: b})
	return int32(len(t.nodes) - 1)
}

// child is the node that follows n by byte b, or 0.
func (t *trie) child(n int32, b byte) int32 {
	for n = t.nodes[n].child; n != 0 && t.nodes[n].b != b; {
		n = t.nodes[n].sibling
	}
	return n
}

// allowFunc decides whether the token found at text[start:end] counts.
type allowFunc func(a *addedToken, start, end int) bool

// split calls between for the text around the tokens it finds (never for an
// empty part), with its offset, and found for each token, in order.
func (t *trie) split(text string, allow allowFunc, between func(string, int), found func(*addedToken)) {
	from := 0
	if len(t.nodes) > 0 {
		for i := 0; i < len(text); {
			a, end := t.longest(text, i, allow)
			if a == nil {
				i++
				continue
			}
			start := i
			if a.lstrip {
				start = from + len(strings.TrimRightFunc(text[from:i], unicode.IsSpace))
			}
			if a.rstrip {
				end = len(text) - len(strings.TrimLeftFunc(text[end:], unicode.IsSpace))
			}
			if start > from {
				between(text[from:start], from)
			}
			found(a)
			from, i = end, end
		}
	}
	if from < len(text) {
		between(text[from:], from)
	}
}

// longest is the longest allowed token that begins at text[i].
func (t *trie) longest(text string, i int, allow allowFunc) (best *addedToken, end int) {
	at := t.first[text[i]]
	for j := i; at != 0; {
		a := t.nodes[at].token
		if a != nil && (!a.singleWord || isolated(text, i, j+1)) && allow(a, i, j+1) {
			best, end = a, j+1
		}
		if j++; j == len(text) {
			break
		}
		at = t.child(at, text[j])
	}
	return best, end
}

// isolated reports whether text[start:end] touches no word character.
func isolated(text string, start, end int) bool {
	before, _ := utf8.DecodeLastRuneInString(text[:start])
	after, _ := utf8.DecodeRuneInString(text[end:])
	return (start == 0 || !isWord(before)) && (end == len(text) || !isWord(after))
}

// isWord is \w of Unicode regular expressions.
func isWord(r rune) bool {
	return r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsMark(r) || unicode.Is(unicode.Pc, r)
}
